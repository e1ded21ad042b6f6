"""One cell of the table, once: a broker of its own, the load on it, and what the machine did meanwhile."""

import json
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import brokers
from cores import ALL, Cores, on
from workloads import ECHO, Workload

SECONDS_MAX = 300.0
"""What takes longer hangs."""

WARMUP_SECONDS = 0.5
SECONDS_MIN = 0.3


@dataclass(frozen=True)
class Loads:
    """The programs that make the load."""

    mqtt: Path
    """Its `bench` is used."""
    grpc: Path | None = None
    cores: Cores = ALL
    """That they may use."""


def plays(command: brokers.Command, workload: Workload) -> bool:
    """Whether a program can take part: gRPC has its own rows only, and a relay is no broker."""
    return {"grpc": workload.base == "grpc", "relay": workload.has_floor}.get(command.name, True)


def measure(workload: Workload, command: brokers.Command, loads: Loads, scale: float) -> dict[str, Any]:
    """The figures of one run; `error` says why there are none."""
    try:
        with brokers.started(command) as broker:
            before = (time.perf_counter(), machine_seconds(), children_seconds())
            is_echo = command.name == "grpc"
            load = [loads.grpc, *ECHO] if is_echo else [loads.mqtt, "bench", *workload.arguments]
            with on(loads.cores):
                found = run([*map(str, load), *options(workload, broker, scale, is_echo=is_echo)])
            after = (time.perf_counter(), machine_seconds(), children_seconds())
            wall, machine, children = (late - early for early, late in zip(before, after, strict=True))
            return found | {
                "wall_s": wall,
                "machine_cpu_s": machine,
                "load_total_cpu_s": children,
                "broker_total_cpu_s": process_seconds(broker.pid),
                "broker_threads_cpu_s": threads_seconds(broker.pid),
                "broker_resident_peak_bytes": resident(broker.pid, "VmHWM"),
            }
    except (RuntimeError, OSError, subprocess.SubprocessError, ValueError) as error:
        return {"error": str(error)}


def options(workload: Workload, broker: brokers.Running, scale: float, *, is_echo: bool = False) -> list[str]:
    """What follows what is to be done: where, for how long, and how it is told."""
    found = where(broker)
    found += [] if is_echo else ["--protocol-version", "3.1.1", "--json"]
    for name, count in workload.counts.items():
        wanted = max(round(count * scale), 1)
        found += [name, str(min(wanted, descriptors() - SPARE) if name == "--connections" else wanted)]
    if workload.seconds:
        seconds = max(workload.seconds * scale, SECONDS_MIN)
        found += ["--seconds", f"{seconds:g}", "--warmup", f"{min(WARMUP_SECONDS, seconds):g}"]
        found += [] if is_echo else ["--quiet"]
    return found


def where(broker: brokers.Running) -> list[str]:
    """The options that say which broker is meant."""
    return ["--port", str(broker.port), "--broker-pid", str(broker.pid)]


def run(command: list[str]) -> dict[str, Any]:
    """What a program prints, as JSON. A load that lost connections has a report too, and tells of them in it."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
    return parsed(done.stdout, command, done.stderr)


def parsed(said: str, command: list[str], complaint: str) -> dict[str, Any]:
    """Its output as JSON, if there is any."""
    if not said.strip():
        raise RuntimeError(complaint.strip()[-500:] or f"{' '.join(command)} printed nothing")
    found: dict[str, Any] = json.loads(said)
    return found


def machine_seconds() -> float:
    """Processor time that all programs of the machine have taken."""
    words = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()
    user, nice, system, _idle, _iowait, irq, softirq = map(int, words[1:8])
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND


def children_seconds() -> float:
    """The same of the programs that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def process_seconds(pid: int) -> float:
    """The same of one that runs."""
    # Behind the name, which may have spaces.
    words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_PER_SECOND


def threads_seconds(pid: int) -> list[float]:
    """The same of each of its threads."""
    texts = (path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return [int(text.split()[0]) / 1e9 for text in texts]


def resident(pid: int, what: str) -> int | None:
    """Memory that a process holds (`VmRSS`), or has held at most (`VmHWM`); bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return int(value.split()[0]) * 1024
    return None


def descriptors() -> int:
    """How many a process may have, once the soft limit is raised; what is started from here inherits that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


SPARE = 500
"""Descriptors that a broker needs for itself, generously."""

TICKS_PER_SECOND = 100
"""Of /proc/stat, on every Linux."""
