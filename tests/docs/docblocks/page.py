"""Runs the blocks of one page, in a process and a folder of their own: `python -m docblocks.page PAGE FOLDER`.

A page is run as a reader would who tries it from the top:

* Blocks of Python share their names. `await` at the top level works, as in a notebook. Every block finds `ferromq`,
  `asyncio`, a running `broker` and a connected `client`, which the guides say at their beginning.
* `mqtt://localhost` is that broker, and so is port 1883 for other libraries. `seconds=30` is half of one.
* A block with tests is run by pytest. A block whose title is the name of a file is that file, there from the beginning.
* TOML is a configuration that `ferromq broker --check` accepts. Rust is an example that the build compiles.
"""

import ast
import asyncio
import contextlib
import faulthandler
import inspect
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ferromq

from . import commands, parse

# Of one block, seconds, and of the whole page.
BLOCK_SECONDS_MAX = 20
PAGE_SECONDS_MAX = 100
PUMP_INTERVAL = 0.005
ROOT = commands.ROOT


class Failed(Exception):  # noqa: N818 - it is what the block has
    """A block does not do what it says."""


class Output(io.StringIO):
    """Keeps what is printed, and presses Ctrl-C when the text that is waited for has come."""

    def __init__(self, until: str | None) -> None:
        super().__init__()
        self.until = until
        self.is_seen = False

    def write(self, text: str) -> int:
        """Take in text."""
        written = super().write(text)
        if self.until is not None and not self.is_seen and self.until in self.getvalue():
            self.is_seen = True
            signal.raise_signal(signal.SIGINT)
        return written


class Page:
    """The blocks of a page, and what they share."""

    def __init__(self, page: Path, broker: ferromq.Broker, runner: asyncio.Runner) -> None:
        self.blocks = parse.blocks(page)
        self.broker = broker
        self.runner = runner
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.printed = ""
        self.tests: list[str] = []

    def run(self) -> list[str]:
        """Run all; the complaints."""
        runnable = [block for block in self.blocks if block.is_runnable]
        complaints = []
        for block in runnable:
            if block.file:
                Path(block.file).write_text(self.localised(block), encoding="utf-8")
        for block in runnable:
            try:
                self.run_block(block)
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - the next may be well
                trace = "" if isinstance(error, Failed) else traceback.format_exc()
                complaints.append(f"{block}: {type(error).__name__}: {error}\n{trace}")
        if self.tests:
            complaints += self.run_tests()
        return complaints

    def run_block(self, block: parse.Block) -> None:
        """Run one."""
        kinds: dict[str, Callable[[parse.Block], None]] = {
            "json": lambda block: json.loads(block.text),
            "python": self.run_python,
            "rust": check_rust,
            "sh": self.run_shell,
            "text": self.check_output,
            "toml": check_toml,
        }
        if block.language not in kinds:
            raise Failed(f"nothing is known about blocks of {block.language or 'no language'}")
        with self.traffic(block), timeout(BLOCK_SECONDS_MAX):
            kinds[block.language](block)
        for text in block.values("prints"):
            if text not in self.printed:
                raise Failed(f"it does not print {text!r} but {self.printed!r}")

    def run_python(self, block: parse.Block) -> None:
        """Run Python, or leave it to pytest."""
        if is_test(block):
            self.tests.append(block.file or f"test_{block.page.stem.replace('-', '_').lower()}_{block.line}.py")
            Path(self.tests[-1]).write_text(self.localised(block), encoding="utf-8")
            return
        text = "\n" * (block.line - 1) + self.localised(block)
        code = compile(text, str(block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        until = next(iter(block.values("until")), None)
        output = Output(until)
        client = ferromq.Client(self.broker)
        client._connect_blocking()
        self.namespace |= {"asyncio": asyncio, "ferromq": ferromq, "broker": self.broker, "client": client}
        raised = None
        try:
            with contextlib.redirect_stdout(output):
                if code.co_flags & inspect.CO_COROUTINE:
                    self.runner.run(eval(code, self.namespace))  # noqa: S307 - it is our documentation
                else:
                    exec(code, self.namespace)  # noqa: S102
        except KeyboardInterrupt:
            if not output.is_seen:
                raise
        except Exception as error:
            raised = type(error).__name__
            if raised not in block.values("raises"):
                raise
        finally:
            client._disconnect_blocking(is_hasty=True)
            self.printed = output.getvalue()
        if until is not None and not output.is_seen:
            raise Failed(f"it does not print {until!r} but {self.printed!r}")
        if block.values("raises") and raised is None:
            raise Failed(f"it does not raise {block.values('raises')[0]}")

    def run_shell(self, block: parse.Block) -> None:
        """Run shell, with the commands of `commands`."""
        done = run_command(["bash", "-euo", "pipefail", "-c", block.text])
        self.printed = done.stdout
        if done.returncode:
            raise Failed(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")

    def check_output(self, block: parse.Block) -> None:
        """Compare with what the block before has printed."""
        if not block.values("output"):
            raise Failed("text that is no output: what is it?")
        pattern = re.escape(block.text.strip()).replace(re.escape("..."), ".*")
        if not re.fullmatch(pattern, self.printed.strip(), re.DOTALL):
            raise Failed(f"the block before it prints\n{self.printed}")

    def run_tests(self) -> list[str]:
        """Run the tests of the page; what fails."""
        if not Path("pyproject.toml").exists():
            Path("pytest.ini").write_text(_PYTEST_INI, encoding="utf-8")
        arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "error", *self.tests]
        done = run_command([sys.executable, "-m", "pytest", *arguments])
        is_well = done.returncode == 0 and "skipped" not in done.stdout
        return [] if is_well else [f"the tests of the page:\n{done.stdout}{done.stderr}"]

    def localised(self, block: parse.Block) -> str:
        """The text, with the broker of the test in it."""
        text = re.sub(r"mqtt://localhost(:1883)?\b", self.broker.url, block.text)
        return re.sub(r"\bseconds=\d+\b", "seconds=0.5", text)

    @contextlib.contextmanager
    def traffic(self, block: parse.Block) -> Iterator[None]:
        """What goes on at the broker while the block runs."""
        is_over = threading.Event()
        threads = [
            *(threading.Thread(target=self.pump, args=(is_over, *pair)) for pair in block.pairs("pump")),
            *(threading.Thread(target=self.serve, args=(is_over, *pair)) for pair in block.pairs("serve")),
        ]
        for topic, payload in block.pairs("feed"):
            self.broker.publish(topic, payload, retain=True)
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
            for topic, _ in block.pairs("feed"):
                self.broker.publish(topic, retain=True)

    def pump(self, is_over: threading.Event, topic: str, payload: str) -> None:
        """Publish the same again and again."""
        while not is_over.wait(PUMP_INTERVAL):
            self.broker.publish(topic, payload)

    def serve(self, is_over: threading.Event, topic: str, answer: str) -> None:
        """Answer requests."""
        with ferromq.SyncClient(self.broker) as client, client.serve(topic) as requests:
            while not is_over.is_set():
                for request in requests.take(1, seconds=0.05):
                    request.respond(answer)


_PYTEST_INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"


def is_test(block: parse.Block) -> bool:
    """Whether pytest runs it."""
    if block.file and block.file != "conftest.py":
        return block.file.startswith("test_")
    names = [getattr(node, "name", "") for node in ast.parse(block.text).body]
    return block.file == "conftest.py" or any(name.startswith("test_") for name in names)


def check_rust(block: parse.Block) -> None:
    """It is one of the examples, which the build compiles."""
    examples = (ROOT / "examples" / "rust").glob("*.rs")
    if block.text.strip() not in {without_header(path.read_text(encoding="utf-8")) for path in examples}:
        raise Failed("it is none of examples/rust, or not as it is there")


def without_header(source: str) -> str:
    """The source without the documentation on top."""
    lines = source.splitlines()
    while lines and (lines[0].startswith("//!") or not lines[0]):
        lines.pop(0)
    return "\n".join(lines).strip()


def check_toml(block: parse.Block) -> None:
    """A configuration of the broker that it accepts, or of Python projects."""
    if block.file == "pyproject.toml":
        tomllib.loads(block.text)
        return
    path = Path(f"block-{block.line}.toml")
    path.write_text(block.text, encoding="utf-8")
    done = run_command(["ferromq", "broker", "--config", str(path), "--check"])
    if done.returncode:
        raise Failed(done.stderr)


def run_command(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@contextlib.contextmanager
def timeout(seconds: int) -> Iterator[None]:
    """End what hangs."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"it took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def redirect_port(port: int) -> None:
    """Have port 1883 of this machine be another one, for whatever asks Python for an address."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, service: Any, *rest: Any, **options: Any) -> Any:
        if str(service) == "1883":
            host, service = "127.0.0.1", port
        return look_up(host, service, *rest, **options)

    socket.getaddrinfo = getaddrinfo


def install_commands(folder: Path) -> None:
    """Put scripts for all commands into a folder, and that in front of the others."""
    folder.mkdir()
    for name in commands.COMMANDS:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{commands.__file__}" {name} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def main() -> int:
    """Run a page."""
    faulthandler.dump_traceback_later(PAGE_SECONDS_MAX, exit=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    page, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    os.environ |= {"MPLBACKEND": "Agg", "PYTHONUTF8": "1"}
    install_commands(folder / "bin")
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    with ferromq.Broker() as broker, asyncio.Runner() as runner:
        os.environ["DOCS_PORT"] = str(broker.port)
        redirect_port(broker.port)
        complaints = Page(page, broker, runner).run()
    print("\n".join(complaints))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
