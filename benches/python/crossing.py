# ruff: noqa: B023, C901 - callbacks are called within the turn of the loop that makes them
"""What a message costs in the Python process, in microseconds of CPU: FerroMQ beside paho-mqtt and gmqtt.

    python benches/python/crossing.py [--messages N] [--only ferromq,paho,gmqtt] [--broker mqtt://host:port]

The broker runs in a process of its own, so that only the client is counted. Rates are wall-clock and depend on the
machine's other work; CPU does much less so. Libraries that are not installed are left out.
"""

import argparse
import asyncio
import importlib.util
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Self
from urllib.parse import urlsplit

import ferromq

PAYLOADS = {"16 B": bytes(16), "1 KiB": bytes(1024)}
TOPIC = "bench/crossing"
WINDOW = 100

BROKER = """
import sys, ferromq
with ferromq.Broker(queue={"messages_max": 10_000_000, "bytes_max": "4 GiB"},
                    slow_consumer={"outbox_soft": "1 GiB"}) as broker:
    print(broker.url, flush=True)
    sys.stdin.read()
"""


def report(library: str, what: str, size: str, count: int, clock: "Clock") -> None:
    """Print one line of the table."""
    cpu_us, rate = clock.cpu / count * 1e6, count / clock.wall
    print(f"{library:10} {what:28} {size:6} {cpu_us:8.2f} us CPU   {rate:12,.0f} msg/s", flush=True)


class Clock:
    """CPU of this process and wall-clock time from one moment to another."""

    def __enter__(self) -> Self:
        self.cpu, self.wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.wall = time.process_time() - self.cpu, time.perf_counter() - self.wall


async def measure(library: str, what: str, size: str, count: int, work: Callable[[], Awaitable[None]]) -> None:
    """Run it once and report."""
    with Clock() as clock:
        await work()
    report(library, what, size, count, clock)


async def ferromq_publish(url: str, count: int) -> None:
    """Publishing, one by one, windowed and many at a time."""
    async with ferromq.Client(url, max_queued_bytes=1 << 30) as client:
        for size, payload in PAYLOADS.items():

            async def one_by_one(payload: bytes = payload) -> None:
                for _ in range(count):
                    await client.publish(TOPIC, payload)
                await client.publish(TOPIC, payload, qos=1)

            async def many(payload: bytes = payload) -> None:
                for _ in range(count // 1000):
                    await client.publish_many([payload] * 1000, topic=TOPIC)
                await client.publish(TOPIC, payload, qos=1)

            async def windowed(payload: bytes = payload) -> None:
                for _ in range(count // WINDOW):
                    for publication in [client.publish(TOPIC, payload, qos=1) for _ in range(WINDOW)]:
                        await publication

            async def many_acknowledged(payload: bytes = payload) -> None:
                for _ in range(count // 1000):
                    await client.publish_many([payload] * 1000, topic=TOPIC, qos=1)

            await measure("ferromq", "await publish, QoS 0", size, count, one_by_one)
            await measure("ferromq", "publish_many, QoS 0", size, count, many)
            await measure("ferromq", "publish in windows, QoS 1", size, count, windowed)
            await measure("ferromq", "publish_many, QoS 1", size, count, many_acknowledged)


async def ferromq_receive(url: str, count: int) -> None:
    """Receiving with `async for`, topic and payload read."""
    for size, payload in PAYLOADS.items():
        for qos in (0, 1):
            async with ferromq.Client(url) as client, client.subscribe(TOPIC, qos=qos, maxsize=1 << 20) as messages:
                flood = start_flood(url, payload, count, qos)

                async def receive(messages: ferromq.Subscription[ferromq.Message] = messages) -> None:
                    received = 0
                    async for message in messages:
                        _ = message.topic, message.payload
                        received += 1
                        if received == count:
                            return

                await measure("ferromq", f"async for, QoS {qos}", size, count, receive)
                flood.wait()


def paho_all(url: str, count: int) -> None:
    """The same with paho-mqtt, whose network loop is a thread."""
    import paho.mqtt.client as paho  # noqa: PLC0415 - optional

    host, port = urlsplit(url).hostname, urlsplit(url).port
    for size, payload in PAYLOADS.items():
        for qos in (0, 1):
            left, done, ready = count, threading.Event(), threading.Event()

            def arrived(*_: object) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    done.set()

            client = paho.Client(paho.CallbackAPIVersion.VERSION2)
            client.on_connect = lambda *_: ready.set()
            client.on_subscribe = lambda *_: ready.set()
            client.max_inflight_messages_set(WINDOW)
            client.connect(host or "127.0.0.1", port or 1883)
            client.loop_start()
            ready.wait()
            with Clock() as clock:
                for _ in range(count):
                    last = client.publish(TOPIC, payload, qos)
                last.wait_for_publish()
            report("paho", f"publish, QoS {qos}", size, count, clock)
            ready.clear()
            client.on_message = arrived
            client.subscribe(TOPIC, qos)
            ready.wait()
            flood = start_flood(url, payload, count, qos)
            with Clock() as clock:
                done.wait()
            report("paho", f"on_message, QoS {qos}", size, count, clock)
            flood.wait()
            client.disconnect()
            client.loop_stop()


async def gmqtt_all(url: str, count: int) -> None:
    """The same with gmqtt."""
    import gmqtt  # noqa: PLC0415 - optional

    for size, payload in PAYLOADS.items():
        for qos in (0, 1):
            left, done, ready = count, asyncio.Event(), asyncio.Event()

            def arrived(*_: object) -> int:
                nonlocal left
                left -= 1
                if left == 0:
                    done.set()
                return 0

            client = gmqtt.Client(f"bench-{size}-{qos}", receive_maximum=WINDOW)
            client.on_message = arrived
            client.on_subscribe = lambda *_: ready.set()
            await client.connect(urlsplit(url).hostname, urlsplit(url).port)
            client.subscribe(TOPIC, qos)
            await ready.wait()
            flood = start_flood(url, payload, count, qos)
            await measure("gmqtt", f"on_message, QoS {qos}", size, count, done.wait)  # type: ignore[arg-type]
            flood.wait()
            await client.disconnect()


def start_flood(url: str, payload: bytes, count: int, qos: int) -> "subprocess.Popen[bytes]":
    """Another process that publishes so many messages."""
    program = (
        "import sys, ferromq\n"
        "url, size, count, qos = sys.argv[1], *map(int, sys.argv[2:])\n"
        "with ferromq.SyncClient(url) as client:\n"
        "    for _ in range(count // 1000):\n"
        f"        client.publish_many([bytes(size)] * 1000, topic={TOPIC!r}, qos=qos)\n"
    )
    command = [sys.executable, "-c", program, url, str(len(payload)), str(count), str(qos)]
    return subprocess.Popen(command)  # noqa: S603 - our own program


def main() -> None:
    """Measure what is installed."""
    parser = argparse.ArgumentParser(description="CPU microseconds per message in the Python process.")
    parser.add_argument("--messages", type=int, default=100_000, help="per line, in thousands (default 100,000)")
    parser.add_argument("--only", default="ferromq,paho,gmqtt", help="libraries, separated by commas")
    parser.add_argument("--broker", help="URL of a broker that runs already; default: one in another process")
    arguments = parser.parse_args()
    count = max(arguments.messages // 1000, 1) * 1000
    libraries = arguments.only.split(",")
    command = [sys.executable, "-c", BROKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as broker:  # noqa: S603
        url = arguments.broker or (broker.stdout.readline().strip() if broker.stdout else "")
        if "ferromq" in libraries:
            asyncio.run(ferromq_publish(url, count))
            asyncio.run(ferromq_receive(url, count))
        if "paho" in libraries and importlib.util.find_spec("paho"):
            paho_all(url, count)
        if "gmqtt" in libraries and importlib.util.find_spec("gmqtt"):
            asyncio.run(gmqtt_all(url, count))
        broker.communicate()


if __name__ == "__main__":
    main()
