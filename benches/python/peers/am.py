"""amqtt's client."""

import asyncio
import json
import time
from typing import Any

from amqtt.client import MQTTClient
from meter import IDLE_SECONDS_MAX, Meter
from payloads import block, is_last, json_sum
from table import BLOCK, JSON_TOPIC, TOPIC, WINDOW


async def connected(url: str) -> MQTTClient:
    """A client that is connected."""
    client = MQTTClient(config={"auto_reconnect": False})
    await client.connect(f"{url}/")
    return client


async def receive(url: str, count: int, qos: int, meter: Meter) -> None:
    """`deliver_message`, topic and payload read."""
    received, last = 0, b""
    client = await connected(url)
    await client.subscribe([(TOPIC, qos)])
    meter.start()
    try:
        while received < count:
            message = await client.deliver_message(IDLE_SECONDS_MAX)
            _, last = message.topic, bytes(message.data)
            received += 1
    except TimeoutError:
        pass
    meter.stop(received, is_complete=is_last(last, count))
    await client.disconnect()


async def publish(url: str, count: int, qos: int, meter: Meter) -> None:
    """One await a message."""
    payloads, client = block(), await connected(url)
    meter.start()
    for _ in range(count // BLOCK):
        for payload in payloads:
            await client.publish(TOPIC, payload, qos=qos)
    await client.publish("bench/end", b"", qos=1)
    meter.stop(count)
    await client.disconnect()


async def publish_windowed(url: str, count: int, qos: int, meter: Meter) -> None:
    """A hundred under way."""
    payloads, client = block()[:WINDOW], await connected(url)
    meter.start()
    for _ in range(count // WINDOW):
        await asyncio.gather(*(client.publish(TOPIC, payload, qos=qos) for payload in payloads))
    meter.stop(count)
    await client.disconnect()


async def sequential(url: str, count: int, qos: int, meter: Meter) -> None:
    """Each after the acknowledgement of the one before."""
    payload, samples, client = block()[0], [], await connected(url)
    meter.start()
    for _ in range(count):
        began = time.perf_counter()
        await client.publish(TOPIC, payload, qos=qos)
        samples.append(time.perf_counter() - began)
    meter.stop(count, samples=samples)
    await client.disconnect()


async def frame(url: str, count: int, qos: int, meter: Meter) -> None:
    """A list of dictionaries, and a frame of them."""
    import pandas as pd  # noqa: PLC0415 - loaded before the clock runs

    rows: list[dict[str, Any]] = []
    client = await connected(url)
    await client.subscribe([(f"{JSON_TOPIC}/#", qos)])
    meter.start()
    try:
        while len(rows) < count:
            message = await client.deliver_message(IDLE_SECONDS_MAX)
            row = json.loads(bytes(message.data))
            row["topic"] = message.topic
            rows.append(row)
    except TimeoutError:
        pass
    found = pd.DataFrame(rows)
    meter.stop(len(found), is_complete=bool(abs(found["value"].sum() - json_sum(count)) < 1))
    await client.disconnect()
