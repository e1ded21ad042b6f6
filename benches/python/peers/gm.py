"""gmqtt."""

import asyncio
import json
import time
from typing import Any
from urllib.parse import urlsplit

import gmqtt
from meter import Meter, all_or_idle
from payloads import block, is_last, json_sum
from table import BLOCK, JSON_TOPIC, TOPIC, WINDOW


async def connected(url: str) -> gmqtt.Client:
    """A client that is connected."""
    client = gmqtt.Client("bench")
    await client.connect(urlsplit(url).hostname, urlsplit(url).port)
    return client


async def subscribe(client: gmqtt.Client, topic: str, qos: int) -> None:
    """Return with SUBACK."""
    ready = asyncio.Event()
    client.on_subscribe = lambda *_: ready.set()
    client.subscribe(topic, qos)
    await ready.wait()


async def acknowledged(client: gmqtt.Client) -> None:
    """Wait until all that was published is acknowledged; it has no public way to ask."""
    await client._persistent_storage.wait_empty()  # noqa: SLF001


async def receive(url: str, count: int, qos: int, meter: Meter) -> None:
    """`on_message`, which is given topic and payload."""
    received, last, done = 0, b"", asyncio.Event()

    def arrived(_client: gmqtt.Client, _topic: str, payload: bytes, _qos: int, _properties: object) -> int:
        nonlocal received, last
        last = payload
        received += 1
        if received == count:
            done.set()
        return 0

    client = await connected(url)
    client.on_message = arrived
    await subscribe(client, TOPIC, qos)
    meter.start()
    await all_or_idle(done, lambda: received)
    meter.stop(received, is_complete=is_last(last, count))
    await client.disconnect()


async def publish(url: str, count: int, qos: int, meter: Meter) -> None:
    """`publish` writes; the loop has a turn after each hundred, as nothing else holds it back."""
    payloads, client = block(), await connected(url)
    meter.start()
    for _ in range(count // BLOCK):
        for number, payload in enumerate(payloads):
            client.publish(TOPIC, payload, qos=qos)
            if number % WINDOW == 0:
                await asyncio.sleep(0)
    client.publish("bench/end", b"", qos=1)
    await acknowledged(client)
    meter.stop(count)
    await client.disconnect()


async def publish_windowed(url: str, count: int, qos: int, meter: Meter) -> None:
    """A hundred under way."""
    payloads, client = block()[:WINDOW], await connected(url)
    meter.start()
    for _ in range(count // WINDOW):
        for payload in payloads:
            client.publish(TOPIC, payload, qos=qos)
        await acknowledged(client)
    meter.stop(count)
    await client.disconnect()


async def sequential(url: str, count: int, qos: int, meter: Meter) -> None:
    """Each after the acknowledgement of the one before."""
    payload, samples, client = block()[0], [], await connected(url)
    meter.start()
    for _ in range(count):
        began = time.perf_counter()
        client.publish(TOPIC, payload, qos=qos)
        await acknowledged(client)
        samples.append(time.perf_counter() - began)
    meter.stop(count, samples=samples)
    await client.disconnect()


async def frame(url: str, count: int, qos: int, meter: Meter) -> None:
    """A list of dictionaries, and a frame of them."""
    import pandas as pd  # noqa: PLC0415 - loaded before the clock runs

    rows: list[dict[str, Any]] = []
    done = asyncio.Event()

    def arrived(_client: gmqtt.Client, topic: str, payload: bytes, _qos: int, _properties: object) -> int:
        row = json.loads(payload)
        row["topic"] = topic
        rows.append(row)
        if len(rows) == count:
            done.set()
        return 0

    client = await connected(url)
    client.on_message = arrived
    await subscribe(client, f"{JSON_TOPIC}/#", qos)
    meter.start()
    await all_or_idle(done, lambda: len(rows))
    found = pd.DataFrame(rows)
    meter.stop(len(found), is_complete=bool(abs(found["value"].sum() - json_sum(count)) < 1))
    await client.disconnect()
