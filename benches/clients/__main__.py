"""What a message costs in a client for Rust or C: FerroMQ beside rumqttc and Eclipse Paho's client in C.

    make bench-clients

The library that is measured is alone in its process; on the other side are FerroMQ's broker and FerroMQ's client.
Whoever receives counts every message; of QoS 0 the broker drops some for who is too slow, which is told. The libraries
take turns, and medians are shown: of CPU time a message, and how many times FerroMQ's that is.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SECONDS_MAX = 120
LIBRARIES = ("ferromq", "rumqttc", "paho C")
ROWS = (
    ("receive QoS 0", "receive", 0, 400_000),
    ("receive QoS 1", "receive", 1, 200_000),
    ("publish QoS 0", "publish", 0, 400_000),
    ("publish QoS 1, 100 under way", "publish", 1, 200_000),
)


def main() -> None:
    """Measure all, and print a table."""
    parser = argparse.ArgumentParser(prog="benches/clients", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="of each cell (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of messages (default 1)")
    parser.add_argument("--broker", type=Path, default=ROOT / "target/release/ferromq", help="FerroMQ's command")
    parser.add_argument("--clients", type=Path, default=HERE / "target/release/clients", help="what Cargo built here")
    parser.add_argument("--output", type=Path, default=ROOT / "target/bench-clients", help="folder for the results")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    commands = library_commands(arguments.clients, arguments.output)
    found: dict[str, dict[str, list[dict[str, int]]]] = {row[0]: {name: [] for name in commands} for row in ROWS}
    with broker(arguments.broker, arguments.output) as (host, port):
        for _ in range(arguments.runs):
            for title, verb, qos, count in ROWS:
                for name, command in commands.items():
                    task = [host, port, str(max(int(count * arguments.scale), 1)), str(qos)]
                    found[title][name].append(measure(command, commands["ferromq"], verb, task))
    text = table(found)
    (arguments.output / "clients.md").write_text(text, encoding="utf-8")
    (arguments.output / "clients.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(text)


def library_commands(clients: Path, output: Path) -> dict[str, list[str]]:
    """How to start each library that is here."""
    commands = {name: [str(clients), name] for name in ("ferromq", "rumqttc")}
    compiler = shutil.which("cc")
    built = output / "paho"
    if (
        compiler
        and not subprocess.run(
            [compiler, "-O2", "-o", str(built), str(HERE / "paho.c"), "-lpaho-mqtt3a", "-lpthread"],
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
    ):
        commands["paho C"] = [str(built)]
    else:
        print("Paho's client in C is left out: install a C compiler and libpaho-mqtt-dev", file=sys.stderr)
    return commands


def measure(command: list[str], other: list[str], verb: str, task: list[str]) -> dict[str, int]:
    """What one run took the library behind `command`; `other` is on the other side."""
    receiver, sender = (command, other) if verb == "receive" else (other, command)
    with started([*receiver, "receive", *task]) as receiving, started([*sender, "publish", *task]) as sending:
        tell(receiving)
        tell(sending)
        received, sent = figures(receiving), figures(sending)
    measured = received if verb == "receive" else sent
    return measured | {"expected": int(task[2]), "lost": int(task[2]) - received["count"]}


@contextlib.contextmanager
def started(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A program that is connected."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if pipe(process.stdout).readline() != "ready\n":
                raise RuntimeError(f"{command} did not connect")
            yield process
        finally:
            process.kill()


def tell(process: "subprocess.Popen[str]") -> None:
    """Have it begin."""
    stdin = pipe(process.stdin)
    stdin.write("\n")
    stdin.flush()


def figures(process: "subprocess.Popen[str]") -> dict[str, int]:
    """What it prints at its end."""
    try:
        said, _ = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{process.args!r} was not done after {SECONDS_MAX} s") from None
    if not said:
        raise RuntimeError(f"{process.args!r} ended with status {process.returncode} and without figures")
    found: dict[str, int] = json.loads(said)
    return found


def pipe(stream: IO[str] | None) -> IO[str]:
    """One that was asked for is there."""
    if stream is None:
        raise RuntimeError("no pipe")
    return stream


@contextlib.contextmanager
def broker(command: Path, output: Path) -> Iterator[tuple[str, str]]:
    """FerroMQ's broker on a free port, with queues that lose nothing of QoS 1 however slow who receives is."""
    settings = output / "broker.toml"
    settings.write_text('[queue]\nmessages_max = 1000000\nbytes_max = "1GiB"\n', encoding="utf-8")
    arguments = [str(command), "broker", "--port", "0", "--log-level", "error", "--config", str(settings)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = pipe(process.stdout).readline().split()[1]
            host, _, port = url.rpartition("//")[2].rpartition(":")
            yield host, port
        finally:
            process.terminate()


def table(found: dict[str, dict[str, list[dict[str, int]]]]) -> str:
    """Medians, and losses where there were any."""
    lines = ["| CPU us/message | " + " | ".join(LIBRARIES) + " |", "|---|" + "---:|" * len(LIBRARIES)]
    for title, runs in found.items():
        costs = {name: statistics.median(run["cpu_ns"] / run["count"] / 1e3 for run in of) for name, of in runs.items()}
        ours = costs["ferromq"]
        shares = {
            name: sum(run["lost"] for run in of) / sum(run["expected"] for run in of) for name, of in runs.items()
        }
        told = {name: f", {share:.0%} lost" if share else "" for name, share in shares.items()}
        cells = (f"{costs[n]:.2f} ({costs[n] / ours:.1f}{told[n]})" if n in costs else "" for n in LIBRARIES)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
