"""What the curves and the storms come to: Markdown and a picture."""

import itertools
from typing import Any

import balance
import figures
import plot
import storms
from growth import CURVES
from report import number, share
from workloads import Figures

Growth = dict[str, dict[str, dict[int, list[Figures]]]]
"""By curve, broker and x: what each run found."""

OVERLOADED = ("less by", "p99 without, us", "with", "memory added", "laggards ended", "lost by healthy ones", "verdict")

SUBSCRIBING = (
    *("broker", "subscriptions made", "p50 alone, us", "during", "p99 alone", "during", "max alone", "during"),
    *("lost", "broker's cores alone", "during"),
)

SLOWDOWN_MAX = 0.1
"""What laggards may take from the others."""


def markdown(found: dict[str, Any], facts: dict[str, str]) -> str:
    """The whole report."""
    parts = [[f"- {name}: {value}" for name, value in facts.items()]]
    ways = {
        "growth": growth,
        "balance": balance.markdown,
        "overload": overload,
        "waves": waves,
        "subscribing": subscribing,
    }
    for name, way in ways.items():
        if name in found:
            parts.append(way(found[name]))
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def points(of_x: dict[int, list[Figures]]) -> list[tuple[int, float]]:
    """Medians of one broker's curve."""
    medians = ((x, figures.median_of(runs, figures.per_million)) for x, runs in of_x.items())
    return [(x, median) for x, median in medians if median is not None]


def steepest(curve: list[tuple[int, float]]) -> float | None:
    """The greatest factor between neighbours: a cliff would be one."""
    return max((after / before for (_, before), (_, after) in itertools.pairwise(curve)), default=None)


def growth(found: Growth) -> list[str]:
    """A line for each curve and broker."""
    lines = [
        "Microseconds of CPU for each message:",
        "",
        "| curve | broker | at: us | steepest step |",
        "|---|---|---|---:|",
    ]
    for curve in CURVES:
        for name, of_x in found.get(curve.key, {}).items():
            medians = points(of_x)
            shown = ", ".join(f"{x:,}: {number(y)}" for x, y in medians)
            lines.append(f"| {curve.axis}: {curve.title} | {name} | {shown} | {number(steepest(medians))} |")
    return lines


def picture(found: Growth) -> str:
    """All curves, a panel for each."""
    panels = [
        plot.Panel(curve.title, curve.axis, {name: points(of_x) for name, of_x in found[curve.key].items()})
        for curve in CURVES
        if curve.key in found
    ]
    return plot.curves("CPU of the broker for each message, us", panels)


def overload(found: dict[str, dict[str, list[storms.Pair]]]) -> list[str]:
    """Whether the healthy ones notice, and what it takes to hold the others' messages."""
    lines = [
        f"A publisher and 20 subscribers of 1 KiB, without and with {storms.LAGGARDS} that never read and as many that",
        f"read 40 KiB/s; the run in the middle. FerroMQ's limits allow {storms.BOUND_BYTES >> 20} MiB for them, and",
        "what was added is a share of that.",
        "",
        f"| load | broker | healthy deliveries/s, without | with | {' | '.join(OVERLOADED)} |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, of_title in found.items():
        for title, pairs in of_title.items():
            pair = storms.median(pairs)
            lines.append(f"| {title} | {name} | {' | '.join(overloaded(pair, is_ours=name == 'ferromq'))} |")
    return lines


def overloaded(pair: storms.Pair, *, is_ours: bool) -> list[str]:
    """The cells of one line."""
    slowdown, added = storms.slowdown(pair), storms.growth_within_bound(pair)
    if slowdown is None or added is None:
        return ["", "", "", "", "", "", "", "", "fails"]
    is_fine = slowdown <= SLOWDOWN_MAX and (not is_ours or added <= 1.0)
    return [
        *(number(one["messages_per_s"]) for one in (pair.calm, pair.disturbed)),
        f"{slowdown:.1%}",
        *(number(one["latency_us"]["p99"]) for one in (pair.calm, pair.disturbed)),
        f"{added:.2f}" if is_ours else f"{added * storms.BOUND_BYTES / (1 << 20):.0f} MiB",
        str(pair.disturbed["laggards_lost"]),
        str(pair.disturbed["lost"]),
        "holds" if is_fine else "does not hold",
    ]


def waves(found: dict[str, list[Figures]]) -> list[str]:
    """Connecting, subscribing, one message each, breaking off."""
    lines = [
        f"{storms.WAVES} waves of clients: seconds and microseconds of the broker's CPU for each client.",
        "",
        "| broker | wave | clients | connect | subscribe | deliver | break off, wills | memory after, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, of_broker in found.items():
        for at, wave in enumerate(of_broker, 1):
            if "error" in wave:
                lines.append(f"| {name} | {at} | fails: {wave['error'].splitlines()[-1][:80]} | | | | | |")
                continue
            steps = [step(wave, key) for key in ("connect", "subscribe", "deliver", "wills")]
            after = number(wave["resident_bytes_after"] / (1 << 20))
            lines.append(f"| {name} | {at} | {wave['connections']:,} | {' | '.join(steps)} | {after} |")
    return lines


def step(wave: Figures, key: str) -> str:
    """How long, and what it cost each."""
    cost = wave[f"{key}_broker_cpu_s"] / wave["connections"] * 1e6
    return f"{wave[f'{key}_s']:.2f} s, {number(cost)} us"


def subscribing(found: dict[str, storms.Pair]) -> list[str]:
    """Whether those who publish notice those who subscribe."""
    lines = [
        "50 pairs at 5,000 msg/s, alone and while 100 clients subscribe to 1,000 filters each and leave, all the time.",
        "",
        f"| {' | '.join(SUBSCRIBING)} |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, pair in found.items():
        runs = (pair.calm, pair.disturbed)
        if failed := next((run["error"] for run in runs if "error" in run), None):
            lines.append(f"| {name} | fails: {failed.splitlines()[-1][:80]} | | | | | | | | | |")
            continue
        cells = [number(run["latency_us"][at]) for at in ("p50", "p99", "max") for run in runs]
        cores = [share(figures.broker_share(run)) for run in runs]
        lost, made = pair.disturbed["lost"], pair.disturbed["subscriptions"]
        lines.append(f"| {name} | {made:,} | {' | '.join(cells)} | {lost} | {' | '.join(cores)} |")
    return lines
