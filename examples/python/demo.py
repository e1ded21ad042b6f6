"""This machine as a fleet of devices: live telemetry through a broker inside this process.

    make demo                     or: python examples/python/demo.py --seconds 20 --devices 50

Sensors read the machine many times a second (CPU cores, memory, disks, network, processes). Each device is an MQTT
client of its own that publishes what it reads. One consumer subscribes with wildcards and shows rates, last values and
latencies. An independent client, Eclipse Paho, listens to the same port: it must see every message, too.
"""

import argparse
import asyncio
import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field

import ferromq
import paho.mqtt.client as paho
import psutil
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.live import Live
from rich.table import Table

MEBI = 2**20


@dataclass(frozen=True)
class Reading:
    """One value of one sensor."""

    sensor: str
    metric: str
    value: float
    unit: str


@dataclass
class Metric:
    """What the consumer knows of one kind of reading."""

    devices: set[str] = field(default_factory=set)
    messages: int = 0
    last: float = 0.0
    unit: str = ""
    recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=5_000))

    def add(self, device: str, value: float, unit: str, latency: float) -> None:
        """Take in one reading."""
        self.devices.add(device)
        self.messages += 1
        self.last, self.unit = value, unit
        self.recent.append((time.monotonic(), latency))

    def rate(self) -> float:
        """Messages a second, of late."""
        if len(self.recent) < 2:  # noqa: PLR2004 - a rate needs an interval
            return 0.0
        span = max(time.monotonic() - self.recent[0][0], 1e-3)
        return len(self.recent) / span


@dataclass
class Count:
    """What was published and what arrived."""

    published: int = 0
    consumed: int = 0
    paho_received: int = 0
    paho_answered: int = 0
    metrics: dict[str, Metric] = field(default_factory=dict)


def read_machine() -> list[Reading]:
    """Everything that this machine says of itself now."""
    cores = [Reading(f"cpu{n}", "load", load, "%") for n, load in enumerate(psutil.cpu_percent(percpu=True))]
    memory, swap, own = psutil.virtual_memory(), psutil.swap_memory(), psutil.Process()
    readings = [
        Reading("memory", "used", memory.used / MEBI, "MiB"),
        Reading("memory", "available", memory.available / MEBI, "MiB"),
        Reading("memory", "swap", swap.used / MEBI, "MiB"),
        Reading("processes", "count", len(psutil.pids()), ""),
        Reading("processes", "threads", own.num_threads(), ""),
        Reading("processes", "resident", own.memory_info().rss / MEBI, "MiB"),
    ]
    if disks := psutil.disk_io_counters():
        readings.append(Reading("disk", "read", disks.read_bytes / MEBI, "MiB"))
        readings.append(Reading("disk", "written", disks.write_bytes / MEBI, "MiB"))
    if network := psutil.net_io_counters():
        readings.append(Reading("network", "received", network.bytes_recv / MEBI, "MiB"))
        readings.append(Reading("network", "sent", network.bytes_sent / MEBI, "MiB"))
    return cores + readings


class Machine:
    """The machine, read many times a second on a thread of its own, so that no device waits for it."""

    def __init__(self, hertz: float) -> None:
        """Read it once."""
        self.interval = 1 / hertz
        self.sensors: dict[str, list[Reading]] = {}
        self.update(read_machine())

    def update(self, readings: list[Reading]) -> None:
        """Sort readings by sensor."""
        self.sensors = {}
        for reading in readings:
            self.sensors.setdefault(reading.sensor, []).append(reading)

    async def watch(self) -> None:
        """Read it again and again."""
        while True:
            started = time.monotonic()
            self.update(await asyncio.to_thread(read_machine))
            await asyncio.sleep(max(0.0, started + self.interval - time.monotonic()))


async def device(broker: ferromq.Broker, number: int, machine: Machine, count: Count, stop: asyncio.Event) -> None:
    """One device of the fleet: announces itself, publishes what its sensor reads, and says goodbye."""
    sensor = list(machine.sensors)[number % len(machine.sensors)]
    name = f"{sensor}-{number:03}"
    will = ferromq.Will(f"fleet/{name}/state", "vanished", qos=1, retain=True)
    async with ferromq.Client(broker.url, client_id=name, will=will) as client:
        await client.publish(f"fleet/{name}/state", "online", qos=1, retain=True)
        due = time.monotonic()
        while not stop.is_set():
            for reading in machine.sensors[sensor]:
                body = {"at": time.time(), "value": reading.value, "unit": reading.unit}
                await client.publish(f"fleet/{name}/{reading.metric}", body, encode="json", qos=1)
                count.published += 1
            due = max(due + machine.interval, time.monotonic())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), due - time.monotonic())
        await client.publish(f"fleet/{name}/state", "offline", qos=1, retain=True)


async def consume(messages: ferromq.Subscription[ferromq.Message], count: Count) -> None:
    """Take in the readings of the whole fleet."""
    async for message in messages:
        device, name = message.params["device"], message.params["metric"]
        if name == "state":
            continue
        if device == "paho":
            count.paho_answered += 1
            continue
        reading = message.json()
        metric = count.metrics.setdefault(f"{device.split('-')[0]} {name}", Metric())
        metric.add(device, reading["value"], reading["unit"], time.time() - reading["at"])
        count.consumed += 1


@contextlib.contextmanager
def independent_client(port: int, count: Count) -> Generator[None, None, None]:
    """Eclipse Paho on the broker's port, in a thread of its own: listens to all, and publishes a few messages."""
    subscribed = threading.Event()

    def on_message(client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("/state") or message.topic.startswith("fleet/paho/"):
            return
        count.paho_received += 1
        if count.paho_received % 100 == 1:
            client.publish("fleet/paho/seen", str(count.paho_received), qos=1)

    def on_connect(client: paho.Client, *_: object) -> None:
        client.subscribe("fleet/#", qos=1)

    def on_subscribe(*_: object) -> None:
        subscribed.set()

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.loop_start()
    subscribed.wait(10)
    try:
        yield
    finally:
        client.disconnect()
        client.loop_stop()


async def arrivals(broker: ferromq.Broker, messages: ferromq.Subscription[ferromq.Message], count: Count) -> None:
    """Wait until everything has arrived everywhere; 10 seconds at most."""
    await broker.settled(timeout=10)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (count.paho_received < count.published or messages.pending):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def percentile(latencies: list[float], share: float) -> float:
    """The latency, in ms, that this share of the messages kept to."""
    return sorted(latencies)[min(int(len(latencies) * share), len(latencies) - 1)] * 1e3 if latencies else 0.0


def table(count: Count, started: float) -> Table:
    """The state of things."""
    seconds = time.monotonic() - started
    title = f"{count.consumed:,} messages in {seconds:.0f} s; paho-mqtt saw {count.paho_received:,}"
    shown = Table(title=title, title_justify="left")
    for heading in ("metric", "devices", "messages", "msg/s", "last", "p50 ms", "p99 ms"):
        shown.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, metric in sorted(count.metrics.items()):
        latencies = [latency for _, latency in metric.recent]
        shown.add_row(
            name,
            str(len(metric.devices)),
            f"{metric.messages:,}",
            f"{metric.rate():,.0f}",
            f"{metric.last:,.1f} {metric.unit}",
            f"{percentile(latencies, 0.5):.2f}",
            f"{percentile(latencies, 0.99):.2f}",
        )
    return shown


async def show(console: Console, count: Count, seconds: float) -> None:
    """Keep the table up to date on a terminal; elsewhere, a line a second."""
    started = time.monotonic()
    with Live(console=console, auto_refresh=False) if console.is_terminal else contextlib.nullcontext() as live:
        while (elapsed := time.monotonic() - started) < seconds:
            await asyncio.sleep(min(0.25 if live else 1.0, seconds - elapsed))
            if live:
                live.update(table(count, started), refresh=True)
            else:
                print(
                    f"{count.published:,} published, {count.consumed:,} consumed, {count.paho_received:,} seen by paho"
                )
    if not console.is_terminal:
        console.print(table(count, started))


def summary(console: Console, count: Count, stats: dict[str, object], seconds: float) -> bool:
    """Say what came out; whether all is well."""
    latencies = [latency for metric in count.metrics.values() for _, latency in metric.recent]
    quantiles = ", ".join(f"p{share * 100:g} {percentile(latencies, share):.2f} ms" for share in (0.5, 0.9, 0.99, 1.0))
    checks = {
        f"published {count.published:,}, all consumed": count.published == count.consumed > 0,
        f"paho-mqtt saw {count.paho_received:,}, all of them": count.paho_received == count.published,
        f"paho-mqtt was heard {count.paho_answered:,} times": count.paho_answered > 0,
    }
    console.print(f"\n{count.published / seconds:,.0f} messages a second, each to two clients; latency {quantiles}")
    console.print(f"broker: {stats['bytes_received']:,} bytes in, {stats['bytes_sent']:,} bytes out")
    for check, is_well in checks.items():
        console.print(f"{'ok  ' if is_well else 'FAIL'} {check}", highlight=False)
    return all(checks.values())


def positive(text: str) -> float:
    """Parse a number above 0."""
    if not (number := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="This machine's telemetry through an MQTT broker in this process.")
    parser.add_argument("--seconds", type=positive, default=10, help="how long to run (default 10)")
    parser.add_argument("--devices", type=int, default=20, help="how many devices publish (default 20)")
    parser.add_argument("--hertz", type=positive, default=20, help="readings a second of each device (default 20)")
    arguments = parser.parse_args()
    if arguments.devices < 1:
        parser.error("argument --devices: at least 1 is needed")
    return arguments


async def main() -> int:
    """Run the fleet for a while."""
    arguments = parse_arguments()
    console, count, stop = Console(), Count(), asyncio.Event()
    machine = Machine(arguments.hertz)
    async with ferromq.Broker() as broker, ferromq.Client(broker, client_id="dashboard") as dashboard:
        console.print(f"broker at {broker.url}: try  ferromq sub -p {broker.port} -t 'fleet/#' -v", highlight=False)
        async with dashboard.subscribe("fleet/{device}/{metric}", qos=1) as messages:
            with independent_client(broker.port, count):
                consumer = asyncio.create_task(consume(messages, count))
                fleet = [device(broker, n, machine, count, stop) for n in range(arguments.devices)]
                watching = asyncio.create_task(machine.watch())
                running = asyncio.gather(*fleet)
                started = time.monotonic()
                # Ctrl-C ends the show early: what was published until then is still awaited and summed up.
                with contextlib.suppress(asyncio.CancelledError):
                    await show(console, count, arguments.seconds)
                seconds = time.monotonic() - started
                stop.set()
                await running
                watching.cancel()
                await arrivals(broker, messages, count)
            consumer.cancel()
            is_well = summary(console, count, broker.stats(), seconds)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
