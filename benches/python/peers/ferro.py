"""FerroMQ."""

import asyncio
import time
from typing import Literal, TypeAlias

import ferromq
from meter import Meter, all_or_idle
from payloads import block, is_last, json_sum
from table import BLOCK, JSON_TOPIC, TOPIC, WINDOW

QoS: TypeAlias = Literal[0, 1, 2]


async def receive(url: str, count: int, qos: QoS, meter: Meter) -> None:
    """`async for`, topic and payload read."""
    received, last, done = 0, b"", asyncio.Event()
    async with ferromq.Client(url) as client, client.subscribe(TOPIC, qos=qos) as messages:

        async def consume() -> None:
            nonlocal received, last
            async for message in messages:
                _, last = message.topic, message.payload
                received += 1
                if received == count:
                    break
            done.set()

        meter.start()
        consumer = asyncio.create_task(consume())
        await all_or_idle(done, lambda: received)
        meter.stop(received, is_complete=is_last(last, count))
        consumer.cancel()


async def publish(url: str, count: int, qos: QoS, meter: Meter) -> None:
    """One await a message."""
    payloads = block()
    async with ferromq.Client(url) as client:
        meter.start()
        for _ in range(count // BLOCK):
            for payload in payloads:
                await client.publish(TOPIC, payload, qos=qos)
        await client.publish("bench/end", b"", qos=1)
        meter.stop(count)


async def publish_many(url: str, count: int, qos: QoS, meter: Meter) -> None:
    """One await for a thousand."""
    payloads = block()
    async with ferromq.Client(url) as client:
        meter.start()
        for _ in range(count // BLOCK):
            await client.publish_many(payloads, topic=TOPIC, qos=qos)
        await client.publish("bench/end", b"", qos=1)
        meter.stop(count)


async def publish_windowed(url: str, count: int, qos: QoS, meter: Meter) -> None:
    """A hundred under way, then each is awaited."""
    payloads = block()[:WINDOW]
    async with ferromq.Client(url) as client:
        meter.start()
        for _ in range(count // WINDOW):
            for publication in [client.publish(TOPIC, payload, qos=qos) for payload in payloads]:
                await publication
        meter.stop(count)


async def sequential(url: str, count: int, qos: QoS, meter: Meter) -> None:
    """Each after the acknowledgement of the one before."""
    payload, samples = block()[0], []
    async with ferromq.Client(url) as client:
        meter.start()
        for _ in range(count):
            began = time.perf_counter()
            await client.publish(TOPIC, payload, qos=qos)
            samples.append(time.perf_counter() - began)
        meter.stop(count, samples=samples)


def frame(url: str, count: int, qos: QoS, meter: Meter) -> None:
    """`collect`, and a frame of pandas."""
    import pandas as pd  # noqa: F401, PLC0415 - loaded before the clock runs

    with ferromq.SyncClient(url) as client:
        meter.start()
        table = ferromq.collect(
            client, f"{JSON_TOPIC}/#", rows=count, decode="json", qos=qos, progress=False, seconds=120
        )
        found = table.to_pandas()
        is_complete = abs(found["value"].sum() - json_sum(count)) < 1 and found["topic"].nunique() == min(count, 500)
        meter.stop(len(found), is_complete=bool(is_complete))
