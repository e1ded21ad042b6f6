"""aiomqtt."""

import asyncio
import json
import time
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
from meter import Meter, all_or_idle
from payloads import block, is_last, json_sum
from table import BLOCK, JSON_TOPIC, TOPIC, WINDOW


def client_for(url: str) -> aiomqtt.Client:
    """A client, to be entered."""
    return aiomqtt.Client(
        urlsplit(url).hostname or "127.0.0.1", urlsplit(url).port or 1883, max_inflight_messages=WINDOW, timeout=120
    )


async def receive(url: str, count: int, qos: int, meter: Meter) -> None:
    """`async for`, topic and payload read."""
    received, last, done = 0, b"", asyncio.Event()
    async with client_for(url) as client:
        await client.subscribe(TOPIC, qos)

        async def consume() -> None:
            nonlocal received, last
            async for message in client.messages:
                _, last = message.topic.value, message.payload
                received += 1
                if received == count:
                    break
            done.set()

        meter.start()
        consumer = asyncio.create_task(consume())
        await all_or_idle(done, lambda: received)
        meter.stop(received, is_complete=is_last(last, count))
        consumer.cancel()


async def publish(url: str, count: int, qos: int, meter: Meter) -> None:
    """One await a message."""
    payloads = block()
    async with client_for(url) as client:
        meter.start()
        for _ in range(count // BLOCK):
            for payload in payloads:
                await client.publish(TOPIC, payload, qos)
        await client.publish("bench/end", b"", 1)
        meter.stop(count)


async def publish_windowed(url: str, count: int, qos: int, meter: Meter) -> None:
    """A hundred under way."""
    payloads = block()[:WINDOW]
    async with client_for(url) as client:
        meter.start()
        for _ in range(count // WINDOW):
            await asyncio.gather(*(client.publish(TOPIC, payload, qos) for payload in payloads))
        meter.stop(count)


async def sequential(url: str, count: int, qos: int, meter: Meter) -> None:
    """Each after the acknowledgement of the one before."""
    payload, samples = block()[0], []
    async with client_for(url) as client:
        meter.start()
        for _ in range(count):
            began = time.perf_counter()
            await client.publish(TOPIC, payload, qos)
            samples.append(time.perf_counter() - began)
        meter.stop(count, samples=samples)


async def frame(url: str, count: int, qos: int, meter: Meter) -> None:
    """A list of dictionaries, and a frame of them."""
    import pandas as pd  # noqa: PLC0415 - loaded before the clock runs

    rows: list[dict[str, Any]] = []
    done = asyncio.Event()
    async with client_for(url) as client:
        await client.subscribe(f"{JSON_TOPIC}/#", qos)

        async def consume() -> None:
            async for message in client.messages:
                row = json.loads(message.payload)
                row["topic"] = message.topic.value
                rows.append(row)
                if len(rows) == count:
                    break
            done.set()

        meter.start()
        consumer = asyncio.create_task(consume())
        await all_or_idle(done, lambda: len(rows))
        found = pd.DataFrame(rows)
        meter.stop(len(found), is_complete=bool(abs(found["value"].sum() - json_sum(count)) < 1))
        consumer.cancel()
