# ruff: noqa: S101, PLR2004 - tests assert numbers
"""What goes wrong between a client and its broker, and hours that pass in no time.

pytest examples/python/test_bad_network.py
"""

import ferromq
from ferromq.testing import Capture, Clients, SyncCapture


async def test_a_lost_acknowledgement_is_made_good(
    mqtt_faults: ferromq.Faults, mqtt_client: ferromq.Client, mqtt_capture: Capture
) -> None:
    """PUBACK is lost, then the connection: the message is sent again, and the publisher hears of it once."""
    with mqtt_faults.drop("PUBACK", nth=1) as rule:
        publishing = mqtt_client.publish("plant/1/count", b"7", qos=1)
        await mqtt_capture.wait_for("plant/1/count")
        mqtt_faults.drop_connections()
        assert (await publishing).reason_code == 0
    assert rule.hits == 1
    await mqtt_capture.wait_for_all("plant/1/count", count=2)  # at least once


def test_a_device_that_falls_silent_is_reported_after_its_delay(
    mqtt_faults: ferromq.Faults, mqtt_client_factory: Clients, mqtt_capture: SyncCapture
) -> None:
    """Half an hour without a sign of life, in milliseconds."""
    will = ferromq.Will("state/dev1", b"gone", delay=1800)
    session = ferromq.Session(expiry=3600)
    mqtt_client_factory.sync(client_id="dev1", keep_alive=60, will=will, session=session)
    mqtt_faults.partition("dev1")
    mqtt_faults.clock.advance("29m")
    assert mqtt_capture.count("state/#") == 0
    mqtt_faults.clock.advance("5m")
    assert mqtt_capture.wait_for("state/dev1").payload == b"gone"
