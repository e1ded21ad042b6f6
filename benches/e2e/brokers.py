"""Brokers in processes of their own, each started afresh for a run: FerroMQ, mosquitto, and whatever else is named."""

import contextlib
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cores import ALL, Cores, on

START_SECONDS_MAX = 30.0
END_SECONDS_MAX = 20.0
TEMPLATE = re.compile(r"\{config:([^}]+)\}")
"""In a command: a file of configuration in which `{port}` stands for the port."""

LISTEN = "0A"
"""State of a socket in /proc/net/tcp."""

INFLIGHT_MAX = 1000
"""QoS 1 and 2 messages in flight to one client, of FerroMQ and mosquitto alike."""

FERROMQ = f"""
[limits]
max_inflight = {INFLIGHT_MAX}
[queue]
messages_max = 1000000
bytes_max = "1GiB"
[log]
level = "warn"
"""
MOSQUITTO = f"""
listener {{port}} 127.0.0.1
allow_anonymous true
log_dest none
set_tcp_nodelay true
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages {INFLIGHT_MAX}
"""
SETTINGS = (
    f"{INFLIGHT_MAX} messages in flight to a client and queues that lose nothing for both FerroMQ and mosquitto "
    "(whose defaults are 20 and 1,000), TCP_NODELAY, no log, everything else as it comes"
)


@dataclass(frozen=True)
class Command:
    """How a broker is started."""

    name: str
    line: str
    """`{port}`, `{config}` and `{config:FILE}` stand for the port, for a file with `config`, and for a copy of FILE."""
    config: str = ""
    cores: Cores = ALL
    """That it may use."""


@dataclass(frozen=True)
class Running:
    """One that takes connections."""

    port: int
    pid: int


def ferromq(path: Path) -> Command:
    """Ours."""
    return Command("ferromq", f"{shlex.quote(str(path.resolve()))} broker --port {{port}} --config {{config}}", FERROMQ)


def mosquitto() -> Command | None:
    """The one that all are compared with; `make interop-mosquitto` installs it where that may be done."""
    # It is a daemon, and not everybody's PATH has those.
    path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    return Command("mosquitto", f"{shlex.quote(path)} -c {{config}}", MOSQUITTO) if path else None


def grpc(path: Path) -> Command:
    """No broker, but what messages are compared with: a server that echoes."""
    return Command("grpc", f"{shlex.quote(str(path))} serve --port {{port}}")


def relay(path: Path) -> Command:
    """No broker either: the least that can pass messages on, `benches/e2e/relay.rs`."""
    return Command("relay", f"{shlex.quote(str(path.resolve()))} --port {{port}}")


def named(text: str) -> Command:
    """NAME=COMMAND of the command line."""
    name, separator, line = text.partition("=")
    if not separator or not name or not ("{port}" in line or TEMPLATE.search(line)):
        raise ValueError(f"{text!r} is not like NAME='COMMAND --port {{port}}' or NAME='COMMAND {{config:FILE}}'")
    if missing := next((path for path in TEMPLATE.findall(line) if not Path(path).is_file()), None):
        raise ValueError(f"{missing} is not there")
    return Command(name, line)


def filled(line: str, port: int, folder: Path) -> str:
    """The command with its port, and with copies of the configurations it names that have it as well."""

    def copy(found: re.Match[str]) -> str:
        original = Path(found[1])
        config = folder / f"copy-{original.name}"
        config.write_text(original.read_text(encoding="utf-8").replace("{port}", str(port)), encoding="utf-8")
        return shlex.quote(str(config))

    return TEMPLATE.sub(copy, line).replace("{port}", str(port))


@contextlib.contextmanager
def started(command: Command) -> Iterator[Running]:
    """Run it until the block ends."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "broker.conf")
        config.write_text(command.config.replace("{port}", str(port)), encoding="ascii")
        line = filled(command.line, port, Path(folder)).replace("{config}", str(config))
        with tempfile.TemporaryFile("w+") as said, contextlib.ExitStack() as stack:
            with on(command.cores):
                process = subprocess.Popen(shlex.split(line), cwd=folder, stdout=said, stderr=subprocess.STDOUT)
            stack.enter_context(process)
            try:
                wait_for(port, process, command.name)
                yield Running(port, listener(port) or process.pid)
            except RuntimeError as error:
                said.seek(0)
                raise RuntimeError(f"{error}: {said.read()[-500:]}") from error
            finally:
                stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to end, and end it if it does not."""
    process.terminate()
    try:
        process.wait(END_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def wait_for(port: int, process: "subprocess.Popen[bytes]", name: str) -> None:
    """Return when it listens: it need print nothing."""
    until = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with status {process.returncode}")
        time.sleep(0.02)
    raise RuntimeError(f"{name} does not listen on port {port} after {START_SECONDS_MAX:.0f} s")


def listener(port: int) -> int | None:
    """The process that listens: a start command may be a script, and what it starts is what is measured."""
    inodes = listening(Path("/proc/net/tcp").read_text(encoding="ascii"), port)
    inodes |= listening(Path("/proc/net/tcp6").read_text(encoding="ascii"), port)
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if any(str(link.readlink()) in wanted for link in folder.iterdir()):
                return int(folder.parent.name)
    return None


def listening(table: str, port: int) -> set[str]:
    """Inodes of the sockets of /proc/net/tcp that listen on this port."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == LISTEN}
