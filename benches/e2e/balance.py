"""How shards share the work: one hot publisher, one hot subscriber, clients that are all at home on one shard."""

import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import brokers
import cells
import figures
from report import number
from workloads import PAIRS50, Figures, Shape, Workload

SHARDS = (1, 2, 4)
SECONDS = 1.5


@dataclass(frozen=True)
class Load:
    """A load, and where its clients are at home."""

    title: str
    shape: Shape
    is_uneven: bool = False
    """All on one shard, which an unlucky hash may do to those that are busy."""
    more: tuple[str, ...] = ()
    """Options of `ferromq bench` that a shape does not have."""


WILDCARDS = Shape("matching", 50, 100, 16)
FILTERS = ("--filters", "1000")
"""Each message is looked up: of all loads this one leaves the broker, and not the load, the most to do."""

LOADS = (
    Load("50 pairs, spread by the hash", PAIRS50),
    Load("50 pairs, all at home on one shard", PAIRS50, is_uneven=True),
    Load("100,000 filters of 100 clients, spread by the hash", WILDCARDS, more=FILTERS),
    Load("100,000 filters of 100 clients, all at home on one shard", WILDCARDS, is_uneven=True, more=FILTERS),
    Load("hot publisher: 1 to 100, 64 B", Shape("fan-out", 1, 100, 64)),
    Load("hot subscriber: 100 to 1, 16 B", Shape("fan-in", 100, 1, 16)),
)

Balance = dict[str, dict[int, list[Figures]]]
"""By load and number of shards: what each run found."""

COLUMNS = (
    *("load", "shards", "CPU of a message, us", "to one shard", "messages/s", "p99, us", "broker, cores"),
    "busiest thread's share",
)


def measure(program: Path, loads: cells.Loads, scale: float, runs: int) -> Balance:
    """Every load with every number of shards, again and again, in turns."""
    found: Balance = {load.title: {shards: [] for shards in SHARDS} for load in LOADS}
    for _ in range(runs):
        for load in LOADS:
            for shards in SHARDS:
                found[load.title][shards].append(measured(program, load, shards, loads, scale))
    return found


def measured(program: Path, load: Load, shards: int, loads: cells.Loads, scale: float) -> Figures:
    """One run. All clients of an uneven load are at home on the last shard, which is not the one that is host."""
    line = f"{program.resolve()} --port {{port}} --shards {shards} --config {{config}}"
    command = brokers.Command("ferromq", line, brokers.FERROMQ)
    count = load.shape.publishers + load.shape.subscribers
    listing = [str(program), "--shards", str(shards), "--clients", str(count)]
    listing += ["--home", str(shards - 1)] if load.is_uneven else []
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(subprocess.run(listing, capture_output=True, text=True, check=True).stdout)
        file.flush()
        arguments = (*load.shape.options(0), *load.more, "--clients", file.name)
        return cells.measure(Workload(load.title, load.title, arguments, (), SECONDS), command, loads, scale)


def markdown(found: Balance) -> list[str]:
    """A line for each load and number of shards."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|---|{'---:|' * (len(COLUMNS) - 1)}"]
    for title, of_shards in found.items():
        for shards, runs in of_shards.items():
            if failed := next((run["error"] for run in runs if "error" in run), None):
                lines.append(f"| {title} | {shards} | fails: {failed.splitlines()[-1][:80]} | | | | | |")
                continue
            pairs = zip(runs, of_shards[SHARDS[0]], strict=True)
            ratios = [one / other for one, other in map(costs, pairs) if one and other]
            cells_of = [
                number(figures.median_of(runs, figures.per_million)),
                f"{statistics.median(ratios):.2f}" if ratios else "",
                number(figures.median_of(runs, lambda run: run["messages_per_s"])),
                number(figures.median_of(runs, figures.latency("p99"))),
                f"{figures.median_of(runs, figures.broker_share) or 0:.2f}",
                f"{figures.median_of(runs, busiest) or 0:.2f}",
            ]
            lines.append(f"| {title} | {shards} | {' | '.join(cells_of)} |")
    return lines


def costs(runs: tuple[Figures, Figures]) -> tuple[float | None, float | None]:
    """Of a run, and of the one with one shard that took turns with it."""
    one, other = runs
    return figures.per_million(one), None if "error" in other else figures.per_million(other)


def busiest(run: Figures) -> float | None:
    """Share of the broker's time that the thread with the most of it took."""
    threads: list[float] = run["broker_threads_cpu_s"]
    return max(threads) / sum(threads) if sum(threads) else None
