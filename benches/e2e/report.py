"""What the runs come to: the table in Markdown, a plot, and everything as JSON."""

import json
import os
import platform
import subprocess
from pathlib import Path

import figures
import plot
from figures import Result
from workloads import WORKLOADS, Figures, Line, Workload

Runs = dict[str, dict[str, list[Figures]]]
"""By workload and broker: what each run found."""


DETAILS = (
    "workload",
    "broker",
    "deliveries/s",
    *("p50, us", "p90", "p99", "p99.9", "max"),
    "broker, cores",
    "load's threads, busy",
    "others, cores",
    "memory, MiB",
    "notes",
)


FLOOR = (
    *("workload", "unit", "base", "relay", "ratio", "ferromq", "ratio", "ferromq to relay", "reach"),
    "in a relay's reach",
)


def markdown(runs: Runs, names: list[str], facts: dict[str, str]) -> str:
    """The whole report."""
    parts = [[f"- {name}: {value}" for name, value in facts.items()]]
    bases = dict.fromkeys(workload.base for workload, _ in lines(runs))
    parts += [table(runs, [base, *compared(names)], base) for base in bases]
    parts += [floor(runs)] if "relay" in names else []
    parts.append(details(runs, names))
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def compared(names: list[str]) -> list[str]:
    """Those that are no base of any table."""
    bases = {workload.base for workload in WORKLOADS}
    return [name for name in names if name not in bases]


def table(runs: Runs, names: list[str], base: str) -> list[str]:
    """The figures that matter, and how they stand to those of the base."""
    others = names[1:]
    head = [f"{name} | ratio" for name in others]
    found = [
        f"| workload | unit | {base} | {' | '.join(head)} | reach | met | then |",
        f"|---|---|---:|{'---:|---:|' * len(others)}---:|---|---|",
    ]
    for workload, line in lines(runs):
        if workload.base != base:
            continue
        results = of_brokers(runs, workload, line, names)
        cells = [cell(results[name], is_ours=name == "ferromq") for name in others]
        reach = "" if line.reach is None else f"{line.reach:.3g}"
        title = f"{workload.title}: {line.what}" if line.what else workload.title
        met = verdict(line, results.get("ferromq"))
        figure = number(results[base].value)
        found.append(f"| {title} | {line.unit} | {figure} | {' | '.join(cells)} | {reach} | {met} | {line.then} |")
    return found


def floor(runs: Runs) -> list[str]:
    """What a relay costs, which does the least that can be done; and what of a reach that leaves to a broker."""
    found = [
        f"| {' | '.join(FLOOR)} |",
        f"|---|---|{'---:|' * (len(FLOOR) - 3)}---|",
    ]
    for workload, line in lines(runs):
        results = of_brokers(runs, workload, line, [workload.base, "relay", "ferromq"])
        base, least, ours = results.values()
        if least.value is None or ours.value is None or least.ratio is None or ours.ratio is None:
            continue
        title = f"{workload.title}: {line.what}" if line.what else workload.title
        possible = "" if line.reach is None else "yes" if least.ratio <= line.reach else "no"
        cells = [
            number(base.value),
            *(number(least.value), f"{least.ratio:.3f}"),
            *(number(ours.value), f"{ours.ratio:.3f}"),
            f"{ours.value / least.value:.2f}",
            "" if line.reach is None else f"{line.reach:.3g}",
        ]
        found.append(f"| {title} | {line.unit} | {' | '.join(cells)} | {possible} |")
    return found


def of_brokers(runs: Runs, workload: Workload, line: Line, names: list[str]) -> dict[str, Result]:
    """What a line came to, by broker."""
    of_row = runs[workload.key]
    return {name: figures.result(line, of_row.get(name, []), of_row.get(workload.base, [])) for name in names}


def lines(runs: Runs) -> list[tuple[Workload, Line]]:
    """Those of the table that were measured."""
    return [(workload, line) for workload in WORKLOADS if workload.key in runs for line in workload.lines]


def cell(result: Result, *, is_ours: bool) -> str:
    """Two columns: the figure and its ratio."""
    ratio = "" if result.ratio is None else f"{result.ratio:.3f}"
    if is_ours and ratio:
        ratio = f"**{ratio}**"
    return f"{number(result.value)} | {ratio}"


def verdict(line: Line, result: Result | None) -> str:
    """Whether it is where it should be."""
    if line.reach is None or result is None or result.ratio is None:
        return ""
    if result.ratio <= line.reach:
        return "yes"
    return f"no, {result.ratio / line.reach:.2f} times"


def details(runs: Runs, names: list[str]) -> list[str]:
    """What else was seen, so that a good figure is no accident of lost messages or of a lazy load."""
    found = [
        f"| {' | '.join(DETAILS)} |",
        f"|---|---|{'---:|' * (len(DETAILS) - 3)}---|",
    ]
    measured = [workload for workload in WORKLOADS if workload.key in runs]
    found += [
        detail(workload.title, name, runs[workload.key][name])
        for workload in measured
        for name in names
        if runs[workload.key].get(name)
    ]
    return found


def detail(title: str, name: str, runs: list[Figures]) -> str:
    """One line of it: medians, and the faults of every run."""
    percentiles = [
        number(figures.median_of(runs, lambda run, at=at: run.get("latency_us", {}).get(at)))  # type: ignore[misc]
        for at in ("p50", "p90", "p99", "p99.9", "max")
    ]
    cells = [
        number(figures.median_of(runs, lambda run: run.get("messages_per_s"))),
        *percentiles,
        share(figures.median_of(runs, figures.broker_share)),
        share(figures.median_of(runs, figures.load_share)),
        share(figures.median_of(runs, others)),
        number(figures.median_of(runs, peak)),
        "; ".join(notes(runs)),
    ]
    return f"| {title} | {name} | {' | '.join(cells)} |"


def notes(runs: list[Figures]) -> list[str]:
    """What a reader should know before believing the line."""
    found = sorted({fault for run in runs for fault in figures.faults(run)})
    limited = sum(figures.is_load_limited(run) for run in runs)
    return [*found, f"the load was the limit in {limited} of {len(runs)}"] if limited else found


def peak(run: Figures) -> float | None:
    """Memory, MiB."""
    found: int | None = run.get("broker_resident_peak_bytes")
    return found / (1 << 20) if found else None


def others(run: Figures) -> float | None:
    """Cores that neither broker nor load took, connecting and ending included: what the run had to share with."""
    if "machine_cpu_s" not in run:
        return None
    theirs: float = run["machine_cpu_s"] - run["load_total_cpu_s"] - run["broker_total_cpu_s"]
    return max(theirs, 0.0) / float(run["wall_s"])


def number(value: float | None) -> str:
    """Two or three digits that matter."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"  # noqa: PLR2004


def share(value: float | None) -> str:
    """Of one core."""
    return "" if value is None else f"{value:.2f}"


def machine(runs: int, scale: float, versions: dict[str, str], settings: str) -> dict[str, str]:
    """Where, with what and how it was measured."""
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    return {
        "brokers": ", ".join(f"{name} {version}".strip() for name, version in versions.items()),
        "settings": settings,
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores",
        "load average at the end": load,
        "runs": f"{runs} of each, in turn, a broker started for each; medians; scale {scale:g}",
        "CPU": "of the broker's threads as the scheduler accounts for them, while messages are counted",
    }


def version(command: list[str]) -> str:
    """What a program calls itself in its first line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0].rpartition(" ")[2]


def bar(runs: Runs, workload: Workload, line: Line, names: list[str]) -> plot.Bar:
    """A line of the table as a picture."""
    results = of_brokers(runs, workload, line, names)
    title = f"{workload.title} {line.what}".strip()
    return plot.Bar(title, {name: result.ratio for name, result in results.items()}, line.reach)


def write(folder: Path, runs: Runs, names: list[str], facts: dict[str, str]) -> list[Path]:
    """All files; where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    text, picture, data = folder / "peers.md", folder / "peers.svg", folder / "peers.json"
    text.write_text(markdown(runs, names, facts), encoding="utf-8")
    others = [name for name in names if name not in {workload.base for workload, _ in lines(runs)}]
    bars = [bar(runs, workload, line, others) for workload, line in lines(runs)]
    picture.write_text(
        plot.bars("ratio to the first column in the same run; a mark is the reach", others, bars), "utf-8"
    )
    data.write_text(json.dumps({"facts": facts, "runs": runs}, indent=1) + "\n", encoding="utf-8")
    return [text, picture, data]
