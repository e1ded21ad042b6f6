"""From what the runs found to the figures of the table: medians, and ratios to the base in the same run."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from workloads import Figures, Line

BUSY = 0.9
"""A thread that computes for this share of the time has none to spare."""


def per_million(run: Figures) -> float | None:
    """Broker's CPU seconds per million deliveries; that many microseconds for each."""
    return run["broker_cpu_s"] / run["received"] * 1e6 if run.get("received") else None


def latency(name: str) -> Callable[[Figures], float | None]:
    """One of the percentiles."""
    return lambda run: run["latency_us"][name]


METRICS: dict[str, Callable[[Figures], float | None]] = {
    "cpu_per_million": per_million,
    "p50": latency("p50"),
    "p99": latency("p99"),
    "cpu_ms": lambda run: run["broker_cpu_s"] * 1e3,
    "elapsed_ms": lambda run: run["elapsed_s"] * 1e3,
    "cpu_per_connect": lambda run: run["connect_broker_cpu_s"] / run["connections"] * 1e6,
    "time_per_connect": lambda run: run["connect_s"] / run["connections"] * 1e6,
    "bytes_per_connection": lambda run: run["bytes_per_connection"],
}


KEPT = 0.95
"""Of a rate: who delivers less than that falls behind."""


@dataclass(frozen=True)
class Result:
    """One line of the table, of one broker."""

    value: float | None
    """Median of its runs; `None` if none came to something."""
    ratio: float | None
    """To the workload's base: median of the ratios run by run, since a machine's other work comes and goes."""
    spread: tuple[float, float] | None
    """Least and greatest of those ratios."""


def value(line: Line, run: Figures) -> float | None:
    """What one run came to."""
    return None if "error" in run else METRICS[line.metric](run)


def result(line: Line, runs: list[Figures], base: list[Figures]) -> Result:
    """Of all runs of one broker, beside those of the base, which took turns with them."""
    values = [value(line, run) for run in runs]
    ratios = [
        own / other
        for own, other in zip(values, (value(line, run) for run in base), strict=False)
        if own is not None and other
    ]
    found = [own for own in values if own is not None]
    return Result(
        statistics.median(found) if found else None,
        statistics.median(ratios) if ratios else None,
        (min(ratios), max(ratios)) if ratios else None,
    )


def load_share(run: Figures) -> float | None:
    """Share of the time for which the load's threads computed; of a crowd, while it connects."""
    used, threads, elapsed = of_crowd(run, "load_cpu_s"), run.get("load_threads"), of_crowd(run, "elapsed_s")
    return used / elapsed / threads if used is not None and threads and elapsed else None


def broker_share(run: Figures) -> float | None:
    """Cores that the broker took; with a crowd, while it connects."""
    used, elapsed = of_crowd(run, "broker_cpu_s"), of_crowd(run, "elapsed_s")
    return used / elapsed if used is not None and elapsed else None


def of_crowd(run: Figures, name: str) -> float | None:
    """A figure, or that of connecting, where steps have figures of their own."""
    step = {"elapsed_s": "connect_s"}.get(name, f"connect_{name}")
    found: float | None = run.get(name, run.get(step))
    return found


def is_load_limited(run: Figures) -> bool:
    """Whether the load, and not the broker, decided how much there was to do."""
    plan = run.get("plan", {})
    return not plan.get("rate") and (load_share(run) or 0) > BUSY > (broker_share(run) or 0)


def faults(run: Figures) -> list[str]:
    """What should not be in a run: losses, repetitions, disorder, connections that broke."""
    if "error" in run:
        return [f"fails: {run['error'].strip().splitlines()[-1][:80]}"]
    names = {"lost": "lost", "duplicates": "twice", "out_of_order": "out of order", "connections_lost": "broken"}
    found = [f"{run[name]:,} {shown}" for name, shown in names.items() if run.get(name)]
    if run.get("stalls"):
        found.append(f"{run['stalls']} stalls")
    rate = run.get("plan", {}).get("rate")
    if rate and run["messages_per_s"] < KEPT * rate:
        found.append(f"could not keep the rate of {rate:,.0f}/s")
    return found


def median_of(runs: list[Figures], figure: Callable[[Figures], float | None]) -> float | None:
    """Of those runs that have it."""
    found = [one for run in runs if "error" not in run and (one := figure(run)) is not None]
    return statistics.median(found) if found else None
