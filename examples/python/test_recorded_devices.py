# ruff: noqa: S101, PLR2004 - tests assert numbers
"""Devices from a cassette: an hour of readings, recorded once, in every test and in no time.

`Cassette.record("line7.jsonl", "mqtt://factory", "plant/7/#")` makes one of live devices; here it is written by hand.
"""

import ferromq
from ferromq.testing import Cassette, CassetteMessage

readings = [CassetteMessage(minute * 60.0, "plant/7/temp", str(20 + minute).encode()) for minute in range(60)]


async def test_the_mean_of_an_hour(mqtt_broker: ferromq.Broker, mqtt_client: ferromq.Client) -> None:
    """Sixty readings, a minute apart on the broker's clock."""
    router = ferromq.Router()
    temperatures: list[float] = []

    @router.on("plant/{line}/temp")
    def take(line: int, payload: float) -> None:
        assert line == 7
        temperatures.append(payload)

    async with ferromq.Client(mqtt_broker) as client, router.running(client):
        before = mqtt_broker.clock.now
        await Cassette(readings).play(mqtt_client, clock=mqtt_broker.clock)
        await mqtt_broker.settled()
    assert sum(temperatures) / len(temperatures) == 49.5
    assert mqtt_broker.clock.now - before >= 59 * 60
