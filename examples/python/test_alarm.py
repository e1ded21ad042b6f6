# ruff: noqa: S101 - tests assert
"""Testing your own application: a broker of its own for each test, and no sleep to prove that nothing came.

pytest examples/python/test_alarm.py

It needs pytest-asyncio in its automatic mode: `asyncio_mode = "auto"` among the options of pytest, as in this project's
pyproject.toml, or `pytest -o asyncio_mode=auto`.
"""

import asyncio
from collections.abc import AsyncIterator

import ferromq
import pytest
from ferromq.testing import Capture


async def alarm_app(url: str, is_ready: asyncio.Event) -> None:
    """The application under test: an alarm for each temperature of 80 °C and more."""
    async with ferromq.Client(url) as client, client.subscribe("plant/{line}/temp", qos=1, ack="processed") as messages:
        is_ready.set()
        async for message in messages:
            if float(message.text()) >= 80:  # noqa: PLR2004 - the rule under test
                await client.publish(f"alarm/{message.params['line']}", "high", qos=1)


@pytest.fixture
async def app(mqtt_broker: ferromq.Broker) -> AsyncIterator[None]:
    """Start the application and wait until it has subscribed."""
    is_ready = asyncio.Event()
    task = asyncio.create_task(alarm_app(mqtt_broker.url, is_ready))
    await is_ready.wait()
    yield
    task.cancel()


@pytest.mark.usefixtures("app")
async def test_only_heat_raises_an_alarm(
    mqtt_broker: ferromq.Broker, mqtt_client: ferromq.Client, mqtt_capture: Capture
) -> None:
    """Cool readings pass, hot ones alarm."""
    await mqtt_client.publish_many([("plant/1/temp", "79"), ("plant/2/temp", "80")], qos=1)
    assert (await mqtt_capture.wait_for("alarm/+")).topic == "alarm/2"
    await mqtt_broker.settled()
    assert mqtt_capture.count("alarm/#") == 1
