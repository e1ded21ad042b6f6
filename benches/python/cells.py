"""One cell of the table, once: starts the process that is measured, and the one that sends to it."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest_cost
from servers import Server
from table import Row

HERE = Path(__file__).parent
SECONDS_MAX = 300.0
"""What takes longer hangs."""

END_SECONDS_MAX = 30.0
"""The same, of a process that has said its last line."""


def measure(row: Row, peer: str, count: int, server: Server | None) -> dict[str, Any]:
    """The figures of one run; `error` says why there are none."""
    try:
        if row.workload == "pytest":
            return pytest_once(peer, count)
        if server is None:
            return last_line([sys.executable, str(HERE / "costs.py"), row.workload, peer, str(count)])
        return through(row, peer, count, server)
    except (RuntimeError, subprocess.SubprocessError, ValueError) as error:
        return {"error": str(error)}


def through(row: Row, peer: str, count: int, server: Server) -> dict[str, Any]:
    """A workload that needs a broker. What was received is counted by the peer, what was published by our broker."""
    arguments = [row.workload, server.url, str(count), str(row.qos)]
    before, subscriptions = server.publishes(), server.subscriptions()
    with started([HERE / "measure.py", peer, *arguments]) as (measured, answers):
        if row.sends:
            with started([HERE / "send.py", server.url, row.sends, str(count), str(row.qos)]) as (sender, told):
                expect(told, "ready")
                expect(answers, "ready")
                wait_for_subscription(server, subscriptions, measured)
                tell(sender)
                found = result(answers, measured)
                expect(told, "sent")
        else:
            expect(answers, "ready")
            found = result(answers, measured)
    after = server.publishes()
    if not row.sends and before is not None and after is not None:
        found["received_by_broker"] = min(after - before, count)
    return found


def wait_for_subscription(server: Server, before: int | None, measured: "subprocess.Popen[str]") -> None:
    """`collect` subscribes after it has begun; a broker that does not say is not asked."""
    while before is not None and measured.poll() is None:
        if (server.subscriptions() or 0) > before:
            return


@contextlib.contextmanager
def started(command: list[Any]) -> Iterator[tuple["subprocess.Popen[str]", IO[str]]]:
    """A program of ours, which ends here at the latest."""
    arguments = [sys.executable, *map(str, command)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("no pipe")
            yield process, process.stdout
            process.wait(END_SECONDS_MAX)
        finally:
            process.kill()


def expect(answers: IO[str], line: str) -> None:
    """Read one line that says this."""
    found = answers.readline().strip()
    if found != line:
        raise RuntimeError(f"{line!r} was expected, not {found!r}")


def tell(process: "subprocess.Popen[str]") -> None:
    """Have it go on."""
    if process.stdin is not None:
        process.stdin.write("\n")
        process.stdin.flush()


def result(answers: IO[str], process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The figures it prints."""
    line = answers.readline()
    if not line:
        raise RuntimeError(f"it ended with status {process.wait(10)} and without figures")
    found: dict[str, Any] = json.loads(line)
    return found


def last_line(command: list[str]) -> dict[str, Any]:
    """What a program prints last, as JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def pytest_once(peer: str, count: int) -> dict[str, Any]:
    """Milliseconds of one more test."""
    with tempfile.TemporaryDirectory() as folder:
        cost = pytest_cost.one_more(pytest_cost.OF_PEER[peer], count, Path(folder))
    return {"count": count, "cpu_s": cost.cpu / 1e3, "wall_s": cost.wall / 1e3}
