# ruff: noqa: S101, ASYNC110 - tests assert, and the application cannot tell when it is ready
"""Testing your own application: a fresh broker for each test, and no sleep to prove that nothing came.

pytest examples/python/test_alarm.py

It needs pytest-asyncio in its automatic mode: `asyncio_mode = "auto"` among the options of pytest, as in this project's
pyproject.toml, or `pytest -o asyncio_mode=auto`.
"""

import asyncio
from collections.abc import AsyncIterator

import ferromq
import pytest


async def alarm_app(url: str) -> None:
    """The application under test: an alarm for each temperature of 80 °C and more."""
    async with ferromq.Client(url) as client, client.subscribe("plant/{line}/temp") as messages:
        async for message in messages:
            if float(message.text()) >= 80:  # noqa: PLR2004 - the rule under test
                await client.publish(f"alarm/{message.params['line']}", "high", qos=1)


@pytest.fixture
async def broker() -> AsyncIterator[ferromq.Broker]:
    """Broker with the application on it."""
    async with ferromq.Broker() as broker:
        app = asyncio.create_task(alarm_app(broker.url))
        while not any(client.subscriptions for client in broker.clients):
            await asyncio.sleep(0)
        yield broker
        app.cancel()


async def test_only_heat_raises_an_alarm(broker: ferromq.Broker) -> None:
    """Cool readings pass, hot ones alarm."""
    async with ferromq.Client(broker) as client, client.subscribe("alarm/#", qos=1) as alarms:
        await client.publish_many([("plant/1/temp", "79"), ("plant/2/temp", "80")])
        assert (await anext(alarms)).topic == "alarm/2"
        await broker.settled()
        assert alarms.pending == 0
