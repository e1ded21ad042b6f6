"""What a broker is to survive: subscribers that do not read, everybody at once, and everybody gone at once."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import brokers
import cells
from workloads import Figures, Shape, Workload

LAGGARDS = 10
"""Subscribers that never read, and as many that read 40 KiB/s."""

OUTBOX_BYTES = 256 << 10
QUEUE_BYTES = 1 << 20

TIGHT = f"""
[slow_consumer]
outbox_soft = "{OUTBOX_BYTES >> 10} KiB"
[queue]
messages_max = 100000
bytes_max = "{QUEUE_BYTES >> 20} MiB"
[log]
level = "off"
"""
"""Limits of FerroMQ for an overload that reaches them within a second."""

BOUND_BYTES = 2 * LAGGARDS * (2 * OUTBOX_BYTES + QUEUE_BYTES)
"""What those limits allow to be held for all laggards: an outbox may hold twice its soft limit."""

WAVES = 3
WAVE_CONNECTIONS = 17_000
"""Three waves are 51,000 clients; a process has descriptors for one wave at a time."""

OVERLOAD_SECONDS = 4.0
OVERLOAD = {
    "at 1,000 msg/s, QoS 0": (*Shape("fan-out", 1, 20, 1024).options(0), "--rate", "1000"),
    "at 1,000 msg/s, QoS 1": (*Shape("fan-out", 1, 20, 1024).options(1), "--rate", "1000"),
    "as fast as it goes, QoS 0": Shape("fan-out", 1, 20, 1024).options(0),
    "as fast as it goes, QoS 1": Shape("fan-out", 1, 20, 1024).options(1),
}


@dataclass(frozen=True)
class Pair:
    """The same load without and with a disturbance."""

    calm: Figures
    disturbed: Figures


def overload(command: brokers.Command, loads: cells.Loads, scale: float, runs: int) -> dict[str, list[Pair]]:
    """A fast publisher, 20 subscribers that keep up; then the same with laggards; again and again."""
    if command.name == "ferromq":
        command = brokers.Command(command.name, command.line, TIGHT)
    found: dict[str, list[Pair]] = {title: [] for title in OVERLOAD}
    for _ in range(runs):
        for title, arguments in OVERLOAD.items():
            calm = Workload(title, title, arguments, (), OVERLOAD_SECONDS)
            laggards = ("--stalled", str(LAGGARDS), "--slow", str(LAGGARDS))
            lagged = Workload(title, title, (*arguments, *laggards), (), OVERLOAD_SECONDS)
            found[title].append(Pair(*(cells.measure(one, command, loads, scale) for one in (calm, lagged))))
    return found


def median(pairs: list[Pair]) -> Pair:
    """The one whose healthy subscribers lost as much as in the middle; one that failed, if all did."""
    found = sorted((slow, at) for at, pair in enumerate(pairs) if (slow := slowdown(pair)) is not None)
    return pairs[found[len(found) // 2][1]] if found else pairs[0]


def growth_within_bound(pair: Pair) -> float | None:
    """Memory that the laggards added, as a share of what their limits allow."""
    if "error" in pair.calm or "error" in pair.disturbed:
        return None
    added = pair.disturbed["broker_resident_peak_bytes"] - pair.calm["broker_resident_peak_bytes"]
    return float(added) / BOUND_BYTES


def slowdown(pair: Pair) -> float | None:
    """How much less the healthy ones got, as a share."""
    if "error" in pair.calm or "error" in pair.disturbed:
        return None
    return 1.0 - float(pair.disturbed["messages_per_s"]) / float(pair.calm["messages_per_s"])


def waves(command: brokers.Command, loads: cells.Loads, scale: float, _runs: int) -> list[Figures]:
    """Clients by the thousand connect at once, subscribe, get a message, and break off with a will; again and again."""
    count = min(round(WAVE_CONNECTIONS * scale), cells.descriptors() - cells.SPARE)
    arguments = ["crowd", "--connections", str(count), "--threads", "2", "--opening", "512", "--idle", "0.2"]
    found: list[Figures] = []
    try:
        with brokers.started(command) as broker:
            for _ in range(WAVES):
                load = [str(loads.mqtt), "bench", *arguments, "--subscribe", "--wills"]
                wave = cells.run([*load, *cells.where(broker), "--protocol-version", "3.1.1", "--json"])
                found.append(wave | {"resident_bytes_after": cells.resident(broker.pid, "VmRSS")})
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        found.append({"error": str(error)})
    return found


def subscribing(command: brokers.Command, loads: cells.Loads, scale: float, _runs: int) -> Pair:
    """Pairs at 5,000 msg/s, alone and while 100 clients subscribe to 1,000 filters each, again and again."""
    steady = Workload("steady", "steady", (*Shape("pairs", 50, 50, 16).options(0), "--rate", "5000"), (), 4.0)
    calm = cells.measure(steady, command, loads, scale)
    try:
        with brokers.started(command) as broker:
            return Pair(calm, during_subscriptions(steady, broker, loads.mqtt, scale))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Pair(calm, {"error": str(error)})


def during_subscriptions(steady: Workload, broker: brokers.Running, load: Path, scale: float) -> dict[str, Any]:
    """The steady load, and how many subscriptions were made and gone meanwhile."""
    storm = [str(load), "bench", *Shape("matching", 1, 100, 16, 1).options(0), "--filters", "1000"]
    storm += [*cells.where(broker), "--seconds", "0.01", "--warmup", "0", "--quiet", "--json"]
    command = [str(load), "bench", *steady.arguments, *cells.options(steady, broker, scale)]
    storms = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            cells.run(storm)
            storms += 1
        said, _ = process.communicate(timeout=cells.SECONDS_MAX)
    return cells.parsed(said, command, "") | {"subscriptions": storms * 100_000}
