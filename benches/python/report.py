"""What the runs of all cells come to: a table in Markdown, and everything as JSON."""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from table import PEERS, ROWS, Row

Runs = dict[str, dict[str, list[dict[str, Any]]]]
"""By row and library: what each run found."""


def figure(row: Row, run: dict[str, Any]) -> float | None:
    """What one run came to, in the unit of its row."""
    if "error" in run:
        return None
    count = max(int(run["count"]), 1)
    if row.workload in {"sequential", "broker_start"}:
        scale = 1e6 if row.workload == "sequential" else 1e3
        return float(statistics.median(run["samples"])) * scale
    match row.key:
        case "frame_memory":
            return float(run["memory_bytes"]) / count
        case "pytest":
            return float(run["wall_s"]) * 1e3
        case "import":
            return float(run["cpu_s"]) * 1e3
        case _:
            # Microseconds a message are seconds a million of them.
            return float(run["cpu_s"]) / count * 1e6


def median(row: Row, runs: list[dict[str, Any]]) -> float | None:
    """Of those runs that came to something."""
    found = [value for run in runs if (value := figure(row, run)) is not None]
    return statistics.median(found) if found else None


def lost(runs: list[dict[str, Any]], count: int) -> int:
    """Messages that did not arrive in the worst run."""
    arrived = [min(run.get("received_by_broker", count), run["count"]) for run in runs if "error" not in run]
    return count - min(arrived, default=count)


def cell(row: Row, peer: str, runs: list[dict[str, Any]], count: int) -> str:
    """What stands in the table."""
    if not runs:
        return ""
    value = median(row, runs)
    if value is None:
        return "fails"
    shown = number(value)
    missing = lost(runs, count)
    if missing > 0 and row.workload not in {"pytest", "import", "broker_start"}:
        return f"{shown} (loses {missing / count:.1%})"
    if any(run.get("is_complete") is False for run in runs):
        return f"{shown} (not in order)"
    return f"**{shown}**" if peer == "ferromq" else shown


def number(value: float) -> str:
    """Two or three digits that matter."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004


def markdown(runs: Runs, counts: dict[str, dict[str, int]], facts: dict[str, str]) -> str:
    """The whole report."""
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", *table(runs, counts), "", "Messages per second of wall-clock time, in thousands:", ""]
    lines += [*rates(runs), ""]
    return "\n".join(lines)


def table(runs: Runs, counts: dict[str, dict[str, int]]) -> list[str]:
    """The figures that matter."""
    lines = [
        f"| what | unit | {' | '.join(PEERS)} | best then | to reach |",
        f"|---|---|{'---:|' * len(PEERS)}---:|---:|",
    ]
    for row in ROWS:
        of_row = runs.get("frame_cpu" if row.key == "frame_memory" else row.key)
        if of_row is None:
            continue
        if not any(of_row.values()):
            lines.append(f"| {row.title} | {row.unit} |{' |' * len(PEERS)} {row.best_today} | {row.reach:g} |")
            continue
        sizes = counts["frame_cpu" if row.key == "frame_memory" else row.key]
        cells = [cell(row, peer, of_row.get(peer, []), sizes.get(peer, 1)) for peer in PEERS]
        lines.append(f"| {row.title} | {row.unit} | {' | '.join(cells)} | {row.best_today} | {row.reach:g} |")
    return lines


def rates(runs: Runs) -> list[str]:
    """What a clock on the wall would say, of a machine that does the sending and the broker's work as well."""
    lines = [f"| what | {' | '.join(PEERS)} |", f"|---|{'---:|' * len(PEERS)}"]
    for row in ROWS:
        of_row = runs.get(row.key, {})
        if not row.server or not any(of_row.values()):
            continue
        cells = []
        for peer in PEERS:
            found = [run["count"] / run["wall_s"] / 1e3 for run in of_row.get(peer, []) if "error" not in run]
            cells.append(number(statistics.median(found)) if found else "")
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines


def facts(runs: int, mosquitto: str | None) -> dict[str, str]:
    """Where and with what it was measured."""
    versions = []
    for peer in PEERS:
        try:
            versions.append(f"{peer} {importlib.metadata.version(peer)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{peer} is not installed")
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    server = version_of(mosquitto) if mosquitto else "absent: its rows are empty (make interop-mosquitto)"
    return {
        "libraries": ", ".join(versions),
        "mosquitto": server,
        "machine": f"{system}, {os.cpu_count()} cores; a million additions in Python take {speed():.0f} ms of CPU",
        "runs": f"{runs} of each, in turn; medians",
    }


def speed() -> float:
    """CPU milliseconds of a loop, the least of some: machines are loaded, and differ."""
    found = []
    for _ in range(5):
        began, total = time.process_time(), 0
        for number in range(1_000_000):
            total += number
        found.append((time.process_time() - began) * 1e3)
    return min(found)


def version_of(mosquitto: str) -> str:
    """What it calls itself."""
    said = subprocess.run([mosquitto, "-h"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0].removeprefix("mosquitto version ") or "of unknown version"


def write(folder: Path, runs: Runs, counts: dict[str, dict[str, int]], about: dict[str, str]) -> tuple[Path, Path]:
    """Both files; where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    text, data = folder / "python.md", folder / "python.json"
    text.write_text(markdown(runs, counts, about), encoding="utf-8")
    medians = {
        row.key: {peer: median(row, of_peer) for peer, of_peer in runs[row.key].items()}
        for row in ROWS
        if row.key in runs
    }
    everything = {"facts": about, "messages": counts, "medians": medians, "runs": runs}
    data.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    return text, data
