"""What a delivery costs FerroMQ's broker, beside mosquitto and any other broker, in one interleaved run.

    python benches/e2e [--runs 5] [--scale 1.0] [--rows pairs50_q0,...] [--ferromq PATH] [--load PATH]
        [--broker "flashmq=flashmq --port {port}"] [--floor] [--cores 0:1] [--output FOLDER]

Each run has a broker of its own in a process of its own, and the load (`ferromq bench`) in another. CPU is that of the
broker's process as the system accounts for it, and memory is its resident set; every message is numbered and counted.
The runs of all brokers take turns, and the ratio to mosquitto is taken run by run, as other work on a machine comes and
goes.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import brokers
import cells
import cores
import report
from progress import show
from workloads import WORKLOADS, Workload

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "target" / "bench-peers"


def main() -> None:
    """Measure, print, write."""
    arguments = parse()
    if not arguments.ferromq.is_file():
        sys.exit(f"{arguments.ferromq} is missing: build it with `make bench-peers`, or name one with --ferromq PATH")
    if arguments.floor and not arguments.floor.is_file():
        sys.exit(f"{arguments.floor} is missing: `make bench-peers PEERS_ARGS=--floor` builds it")
    cells.descriptors()
    for_brokers, for_loads = arguments.cores
    grpc = arguments.grpc if arguments.grpc.is_file() else None
    loads = cells.Loads(arguments.load or arguments.ferromq, grpc, for_loads)
    echo = brokers.grpc(loads.grpc) if loads.grpc else None
    relay = brokers.relay(arguments.floor) if arguments.floor else None
    known = (brokers.mosquitto(), echo, relay, brokers.ferromq(arguments.ferromq), *arguments.broker)
    wanted = (one for one in known if one and (not arguments.only or one.name in arguments.only))
    commands = [replace(one, cores=for_brokers) for one in wanted]
    rows = [workload for workload in WORKLOADS if workload.key in arguments.rows]
    runs = run_all(rows, commands, loads, arguments)
    versions = {one.name: "" for one in commands} | known_versions(commands)
    facts = report.machine(arguments.runs, arguments.scale, versions, brokers.SETTINGS)
    if for_brokers:
        facts["processors"] = f"{sorted(for_brokers)} for the broker, {sorted(for_loads)} for the load"
    names = [one.name for one in commands]
    text, *files = report.write(arguments.output, runs, names, facts)
    print(text.read_text(encoding="utf-8"))
    print("\n".join(map(str, [text, *files])))
    failed = [run["error"] for of_row in runs.values() for run in of_row.get("ferromq", []) if "error" in run]
    if failed:
        sys.exit(f"FerroMQ failed: {failed[0]}")


def run_all(
    rows: list[Workload], commands: list[brokers.Command], loads: cells.Loads, arguments: argparse.Namespace
) -> report.Runs:
    """Every cell, again and again, in turns, of those that can play it."""
    of_row = {row.key: [one for one in commands if cells.plays(one, row)] for row in rows}
    found: report.Runs = {key: {one.name: [] for one in ones} for key, ones in of_row.items()}
    all_cells = [(row, one) for _ in range(arguments.runs) for row in rows for one in of_row[row.key]]
    for number, (row, command) in enumerate(all_cells):
        show(f"{number}/{len(all_cells)} {row.title}: {command.name}", number / len(all_cells))
        found[row.key][command.name].append(cells.measure(row, command, loads, arguments.scale))
    show("", 1.0)
    return found


def known_versions(commands: list[brokers.Command]) -> dict[str, str]:
    """Of those whose way of telling is known."""
    ways = {"ferromq": ["--version"], "mosquitto": ["-h"]}
    return {
        one.name: report.version([one.line.split()[0], *ways[one.name]]).removeprefix("version ")
        for one in commands
        if one.name in ways
    }


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="benches/e2e", description=__doc__.partition("\n")[0])
    keys = [row.key for row in WORKLOADS]

    def rows(text: str) -> list[str]:
        found = [key for key in keys if any(key == word or key.startswith(f"{word}_") for word in text.split(","))]
        for word in text.split(","):
            if not any(key == word or key.startswith(f"{word}_") for key in keys):
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(keys)}")
        return found

    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--runs", type=int, default=5, help="of each cell (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the time that is measured (default 1)")
    parser.add_argument("--rows", type=rows, default=keys, help="keys or what they begin with, separated by commas")
    parser.add_argument("--ferromq", type=Path, default=target / "release" / "ferromq", help="the broker's binary")
    parser.add_argument("--load", type=Path, help="the binary whose `bench` is the load (default: that of --ferromq)")
    parser.add_argument("--grpc", type=Path, default=target / "grpc" / "release" / "grpc-echo", help="the gRPC echo")
    parser.add_argument(
        "--broker",
        type=told(brokers.named),
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another one, with {port}",
    )
    relay = target / "release" / "examples" / "relay"
    parser.add_argument(
        "--floor", type=Path, nargs="?", const=relay, metavar="PATH", help="measure a relay, which does the least, too"
    )
    parser.add_argument(
        "--cores",
        type=told(cores.parsed),
        default=(cores.ALL, cores.ALL),
        metavar="BROKER:LOAD",
        help="processors of the broker and of the load, as 0:1 (default: all of them for both)",
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="brokers to run, by name")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder (default target/bench-peers)")
    return parser.parse_args()


Value = TypeVar("Value")


def told(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """As `read`; what it does not understand is told of as argparse does."""

    def type_(text: str) -> Value:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return type_


if __name__ == "__main__":
    main()
