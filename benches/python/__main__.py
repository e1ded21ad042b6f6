"""What FerroMQ costs in a Python process, beside paho-mqtt, aiomqtt, gmqtt and amqtt in the same run.

    python benches/python [--runs 5] [--scale 1.0] [--rows receive_q0,...] [--peers ferromq,...] [--output FOLDER]

The library that is measured is alone in its process: CPU is that of all threads of this process, from the moment it is
connected until the last message is there, or is acknowledged. The broker and the sender have processes of their own.
Every message is counted: by the receiver, which also looks whether the last one is the last that was sent, or by our
broker. The runs of all libraries take turns, and medians are shown, as other work on a machine comes and goes.
"""

import argparse
import contextlib
import importlib.util
import sys
from pathlib import Path

import report
from cells import measure
from costs import MODULES
from servers import Server, ferromq_server, has_mosquitto, mosquitto_path, mosquitto_server
from table import BLOCK, PEERS, ROWS, Row

OUTPUT = Path(__file__).parents[2] / "target" / "bench-python"


def main() -> None:
    """Measure, print, write."""
    arguments = parse()
    peers = [peer for peer in arguments.peers if importlib.util.find_spec(MODULES[peer][0].partition(".")[0])]
    rows = [row for row in ROWS if row.key in arguments.rows and row.key != "frame_memory"]
    counts = {row.key: {peer: scaled(row, peer, arguments.scale) for peer in row.counts} for row in rows}
    with contextlib.ExitStack() as stack:
        servers = {"ferromq": stack.enter_context(ferromq_server())}
        if has_mosquitto() and any(row.server == "mosquitto" for row in rows):
            servers["mosquitto"] = stack.enter_context(mosquitto_server())
        runs = run_all(rows, peers, counts, servers, arguments.runs)
    if "frame_cpu" in runs:
        runs["frame_memory"] = runs["frame_cpu"]
    about = report.facts(arguments.runs, mosquitto_path())
    text, data = report.write(arguments.output, runs, counts, about)
    print(text.read_text(encoding="utf-8"))
    print(f"{text}\n{data}")
    failures = [run["error"] for of_row in runs.values() for run in of_row.get("ferromq", []) if "error" in run]
    if failures:
        sys.exit(f"FerroMQ failed: {failures[0]}")


def run_all(
    rows: list[Row], peers: list[str], counts: dict[str, dict[str, int]], servers: dict[str, Server], runs: int
) -> report.Runs:
    """Every cell, again and again, in turns."""
    found: report.Runs = {row.key: {peer: [] for peer in peers if peer in row.counts} for row in rows}
    cells = [(row, peer) for _ in range(runs) for row in rows for peer in found[row.key]]
    for number, (row, peer) in enumerate(cells):
        show(f"{number}/{len(cells)} {row.title}: {peer}", number / len(cells))
        if not row.server or row.server in servers:
            found[row.key][peer].append(measure(row, peer, counts[row.key][peer], servers.get(row.server)))
    show("", 1.0)
    return found


def scaled(row: Row, peer: str, scale: float) -> int:
    """So many messages; whole thousands, if it is messages that are counted."""
    count = row.counts[peer] * scale
    if row.workload in {"sequential", "broker_start", "pytest", "import"}:
        return max(round(count), 1)
    return max(round(count / BLOCK), 1) * BLOCK


def show(what: str, share: float) -> None:
    """A bar on standard error, where somebody looks."""
    if not sys.stderr.isatty():
        return
    width = 30
    filled = round(share * width)
    end = "\n" if share == 1.0 else ""
    print(f"\r[{'#' * filled}{'.' * (width - filled)}] {what:70.70}", end=end, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="benches/python", description=__doc__.partition("\n")[0])
    keys = [row.key for row in ROWS]

    def names(known: list[str]) -> object:
        def split(text: str) -> list[str]:
            found = text.split(",")
            if unknown := set(found) - set(known):
                raise argparse.ArgumentTypeError(f"{unknown.pop()!r} is none of {', '.join(known)}")
            return found

        return split

    parser.add_argument("--runs", type=int, default=5, help="of each cell (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of messages (default 1)")
    parser.add_argument("--rows", type=names(keys), default=keys, help="keys, separated by commas")  # type: ignore[arg-type]
    parser.add_argument("--peers", type=names(list(PEERS)), default=list(PEERS), help="separated by commas")  # type: ignore[arg-type]
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder (default target/bench-python)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
