"""This machine's telemetry as a fleet of devices, through a broker inside this process, into a live table.

`make demo` runs it; `--seconds` and `--devices` say how long and how many. An independent paho-mqtt client on the same
broker's TCP port shows that it is MQTT and no shortcut. It ends by itself, with a summary.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ferromq
import paho.mqtt.client as paho
import psutil
from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES_PER_SECOND = 20
LATENCIES_KEPT = 10_000


@dataclass
class Series:
    """What the consumer knows of one metric."""

    count: int = 0
    last: float = 0.0
    unit: str = ""
    devices: set[str] = field(default_factory=set)


@dataclass
class Monitor:
    """What the consumer has seen."""

    started: float = field(default_factory=time.monotonic)
    series: dict[str, Series] = field(default_factory=dict)
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))
    from_paho: int = 0

    def take(self, message: ferromq.Message) -> None:
        """Take one reading in."""
        reading = message.json()
        series = self.series.setdefault(message.params["metric"], Series())
        series.count += 1
        series.last, series.unit = reading["value"], reading["unit"]
        series.devices.add(message.params["device"])
        self.latencies_ms.append((time.time_ns() - reading["sent_ns"]) / 1e6)

    @property
    def count(self) -> int:
        """Readings so far."""
        return sum(series.count for series in self.series.values())

    def percentile(self, percent: int) -> float:
        """End-to-end latency, milliseconds."""
        if len(self.latencies_ms) < 2:  # noqa: PLR2004 - quantiles needs two
            return 0.0
        return statistics.quantiles(self.latencies_ms, n=100, method="inclusive")[percent - 1]

    def table(self) -> Table:
        """Show everything at a glance."""
        seconds = max(time.monotonic() - self.started, 1e-3)
        latency = f"latency p50 {self.percentile(50):.2f} ms, p99 {self.percentile(99):.2f} ms"
        table = Table(title=f"{self.count} readings, {self.count / seconds:,.0f} a second, {latency}")
        for column, align in [("metric", "left"), ("devices", "right"), ("readings", "right"), ("a second", "right")]:
            table.add_column(column, justify=align)
        table.add_column("last value", justify="right")
        for metric, series in sorted(self.series.items()):
            rate = f"{series.count / seconds:,.0f}"
            value = f"{series.last:,.1f} {series.unit}"
            table.add_row(metric, str(len(series.devices)), str(series.count), rate, value)
        return table


class Witness:
    """A paho-mqtt client on the broker's port: counts what it sees and publishes a greeting of its own."""

    def __init__(self, port: int) -> None:
        """Connect and wait until subscribed."""
        self.seen = 0
        self.subscribed = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_connect = lambda client, *_: client.subscribe("fleet/#")
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = self._count
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        if not self.subscribed.wait(timeout=10):
            raise TimeoutError("paho-mqtt did not get its SUBACK within 10 s")

    def _count(self, *_: object) -> None:
        self.seen += 1

    def greet(self) -> None:
        """Publish as any MQTT client would."""
        self.client.publish("witness/paho", b"hello from paho-mqtt", qos=1)

    def close(self) -> None:
        """Disconnect."""
        self.client.disconnect()
        self.client.loop_stop()


def readings() -> Iterator[tuple[str, float, str]]:
    """Yield what the machine says of itself now: metric, value, unit."""
    for core, percent in enumerate(psutil.cpu_percent(percpu=True)):
        yield f"cpu{core}", percent, "%"
    memory = psutil.virtual_memory()
    yield "memory-used", memory.used / 2**20, "MiB"
    yield "memory-free", memory.available / 2**20, "MiB"
    if disk := psutil.disk_io_counters():
        yield "disk-read", disk.read_bytes / 2**20, "MiB"
        yield "disk-written", disk.write_bytes / 2**20, "MiB"
    network = psutil.net_io_counters()
    yield "net-received", network.bytes_recv / 2**20, "MiB"
    yield "net-sent", network.bytes_sent / 2**20, "MiB"
    yield "processes", len(psutil.pids()), ""
    yield "load", psutil.getloadavg()[0], ""


async def run_device(number: int, url: str, ends: float) -> int:
    """One device: a client of its own that publishes its share of the readings. Returns how many."""
    device, published = f"device-{number:03}", 0
    will = ferromq.Will(f"status/{device}", b"lost", retain=True)
    async with ferromq.Client(url, client_id=device, will=will) as client:
        next_sample = time.monotonic() + number / SAMPLES_PER_SECOND / 100
        while time.monotonic() < ends:
            for metric, value, unit in readings():
                reading = {"value": value, "unit": unit, "sent_ns": time.time_ns()}
                await client.publish(f"fleet/{device}/{metric}", reading, encode="json")
                published += 1
            next_sample += 1 / SAMPLES_PER_SECOND
            await asyncio.sleep(max(0.0, next_sample - time.monotonic()))
        await client.publish(f"status/{device}", b"done", qos=1, retain=True)
    return published


async def consume(broker: ferromq.Broker, monitor: Monitor, ready: asyncio.Event) -> None:
    """Take every reading in; over the in-process pipe, without a socket."""
    async with (
        ferromq.Client(broker) as client,
        client.subscribe("fleet/{device}/{metric}", maxsize=1_000_000) as stream,
    ):
        ready.set()
        async for message in stream:
            monitor.take(message)


async def listen_to_paho(broker: ferromq.Broker, monitor: Monitor, ready: asyncio.Event) -> None:
    """Count what the foreign client publishes."""
    async with ferromq.Client(broker) as client, client.subscribe("witness/#", qos=1) as stream:
        ready.set()
        async for _ in stream:
            monitor.from_paho += 1


async def show(monitor: Monitor, console: Console, ends: float) -> None:
    """Redraw the table a few times a second; on no terminal, a line a second."""
    if not console.is_terminal:
        while time.monotonic() < ends:
            await asyncio.sleep(1)
            print(f"{monitor.count} readings, p50 {monitor.percentile(50):.2f} ms, p99 {monitor.percentile(99):.2f} ms")
        return
    with Live(monitor.table(), console=console, auto_refresh=False) as live:
        while time.monotonic() < ends:
            await asyncio.sleep(0.2)
            live.update(monitor.table(), refresh=True)


async def main(seconds: float, devices: int) -> bool:
    """Run the whole demo; whether everything arrived everywhere."""
    console, monitor = Console(), Monitor()
    async with ferromq.Broker() as broker:
        console.print(f"broker on {broker.url}, inside this process; {devices} devices for {seconds:g} s")
        ready = [asyncio.Event(), asyncio.Event()]
        consumers = [
            asyncio.create_task(consume(broker, monitor, ready[0])),
            asyncio.create_task(listen_to_paho(broker, monitor, ready[1])),
        ]
        for event in ready:
            await event.wait()
        witness = await asyncio.to_thread(Witness, int(broker.url.rsplit(":", 1)[1]))
        witness.greet()
        monitor.started = time.monotonic()
        ends = monitor.started + seconds
        table = asyncio.create_task(show(monitor, console, ends))
        published = sum(await asyncio.gather(*(run_device(n, broker.url, ends) for n in range(devices))))
        await table
        await arrivals(monitor, witness, published)
        for task in consumers:
            task.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        await asyncio.to_thread(witness.close)
    return summary(console, monitor, witness, published)


async def arrivals(monitor: Monitor, witness: Witness, published: int) -> None:
    """Wait until all has arrived, 10 seconds at most: paho-mqtt takes its time."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and min(monitor.count, witness.seen) < published:  # noqa: ASYNC110 - paho has no loop
        await asyncio.sleep(0.05)


def summary(console: Console, monitor: Monitor, witness: Witness, published: int) -> bool:
    """Say what came of it."""
    if console.is_terminal:
        console.print()
    else:
        console.print(monitor.table())
    console.print(f"published by the fleet        {published:>9}")
    console.print(f"received by the consumer      {monitor.count:>9}")
    console.print(f"received by paho-mqtt on TCP  {witness.seen:>9}")
    console.print(f"received from paho-mqtt       {monitor.from_paho:>9}")
    console.print(f"latency p50 / p99             {monitor.percentile(50):.2f} / {monitor.percentile(99):.2f} ms")
    complete = monitor.count == witness.seen == published and monitor.from_paho == 1
    console.print("complete: nothing was lost" if complete else "INCOMPLETE: the numbers above do not agree")
    return complete


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="how long the fleet publishes (default 10)")
    parser.add_argument("--devices", type=int, default=10, help="how many devices there are (default 10)")
    arguments = parser.parse_args()
    succeeded = asyncio.run(main(arguments.seconds, arguments.devices))
    sys.exit(not succeeded)
