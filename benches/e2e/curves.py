"""How FerroMQ's broker behaves as what it holds grows, in overload and in storms, beside mosquitto.

    python benches/e2e/curves.py [--runs 3] [--scale 1.0] [--parts growth,balance,overload,waves,subscribing]
        [--curves connections,...] [--ferromq PATH] [--load PATH] [--seeded PATH] [--output FOLDER]

Writes curves.md, curves.svg, curves.csv and curves.json.
"""

import argparse
import csv
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import balance
import brokers
import cells
import curves_report
import figures
import report
import storms
from growth import CURVES, Curve, Point
from progress import show

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "target" / "bench-curves"
PARTS = ("growth", "balance", "overload", "waves", "subscribing")


def main() -> None:
    """Measure, print, write."""
    arguments = parse()
    cells.descriptors()
    loads = cells.Loads(arguments.load or arguments.ferromq)
    known = (brokers.mosquitto(), brokers.ferromq(arguments.ferromq))
    commands = [one for one in known if one and (not arguments.only or one.name in arguments.only)]
    found: dict[str, Any] = {}
    if "growth" in arguments.parts:
        curves = [curve for curve in CURVES if not arguments.curves or curve.key in arguments.curves]
        found["growth"] = grow(curves, commands, loads, arguments)
    if "balance" in arguments.parts:
        if not arguments.seeded.is_file():
            sys.exit(
                f"{arguments.seeded} is missing: build it with `make bench-curves`, or name one with --seeded PATH"
            )
        show("balance", 0.5)
        found["balance"] = balance.measure(arguments.seeded, loads, arguments.scale, arguments.runs)
    disturbed = {"overload": storms.overload, "waves": storms.waves, "subscribing": storms.subscribing}
    for part, measure in disturbed.items():
        if part in arguments.parts:
            show(part, 0.5)
            found[part] = {one.name: measure(one, loads, arguments.scale, arguments.runs) for one in commands}
    show("", 1.0)
    versions = {one.name: "" for one in commands}
    facts = report.machine(arguments.runs, arguments.scale, versions, brokers.SETTINGS)
    write(arguments.output, found, facts)


def grow(
    curves: list[Curve], commands: list[brokers.Command], loads: cells.Loads, arguments: argparse.Namespace
) -> curves_report.Growth:
    """Every point of every curve, again and again, in turns."""
    found: curves_report.Growth = {curve.key: {} for curve in curves}
    points = [(curve, point) for _ in range(arguments.runs) for curve in curves for point in curve.points]
    for number, (curve, point) in enumerate(points):
        show(f"{number}/{len(points)} {curve.title}: {point.x}", number / len(points))
        for command in commands:
            if point.shards is None or command.name == "ferromq":
                run = cells.measure(point.workload, sharded(command, point), loads, arguments.scale)
                found[curve.key].setdefault(command.name, {}).setdefault(point.x, []).append(run)
    return found


def sharded(command: brokers.Command, point: Point) -> brokers.Command:
    """With the point's number of shards."""
    if point.shards is None:
        return command
    return brokers.Command(command.name, f"{command.line} --shards {point.shards}", command.config)


def write(folder: Path, found: dict[str, Any], facts: dict[str, str]) -> None:
    """All files."""
    folder.mkdir(parents=True, exist_ok=True)
    text = curves_report.markdown(found, facts)
    (folder / "curves.md").write_text(text, encoding="utf-8")
    (folder / "curves.svg").write_text(curves_report.picture(found.get("growth", {})), encoding="utf-8")
    (folder / "curves.json").write_text(json.dumps({"facts": facts, **found}, default=asdict, indent=1), "utf-8")
    with (folder / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["curve", "broker", "x", "cpu_us_per_message", "messages_per_s"])
        for key, of_curve in found.get("growth", {}).items():
            for name, of_x in of_curve.items():
                for x, runs in of_x.items():
                    rate = figures.median_of(runs, lambda run: run.get("messages_per_s"))
                    table.writerow([key, name, x, figures.median_of(runs, figures.per_million), rate])
    print(text)
    print("\n".join(str(folder / f"curves.{kind}") for kind in ("md", "svg", "csv", "json")))


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="benches/e2e/curves.py", description=__doc__.partition("\n")[0])

    def split(text: str) -> list[str]:
        return text.split(",")

    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--runs", type=int, default=3, help="of each point and each overload (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the time that is measured (default 1)")
    parser.add_argument("--parts", type=split, default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--curves", type=split, default=[], help=f"of {', '.join(curve.key for curve in CURVES)}")
    parser.add_argument("--ferromq", type=Path, default=target / "release" / "ferromq", help="the broker's binary")
    parser.add_argument("--load", type=Path, help="the binary whose `bench` is the load (default: that of --ferromq)")
    seeded = target / "release" / "examples" / "seeded"
    parser.add_argument("--seeded", type=Path, default=seeded, help="the broker whose hashes are known, for balance")
    parser.add_argument("--only", type=split, default=[], help="brokers to run, by name")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder (default target/bench-curves)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
