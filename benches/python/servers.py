"""Brokers in processes of their own: ours, and mosquitto where its ordinary binary is installed."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MOSQUITTO_TRIES = 200
END_SECONDS_MAX = 20.0


@dataclass(frozen=True)
class Server:
    """A broker that runs."""

    url: str
    process: "subprocess.Popen[str]"

    def publishes(self) -> int | None:
        """PUBLISH packets that it has taken; `None` if it does not say."""
        counters = self._counters()
        return None if counters is None else int(counters["publish_received"])

    def subscriptions(self) -> int | None:
        """Subscriptions there are; `None` if it does not say."""
        counters = self._counters()
        return None if counters is None else int(counters["subscriptions"])

    def _counters(self) -> dict[str, Any] | None:
        if self.process.stdin is None or self.process.stdout is None:
            return None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@contextlib.contextmanager
def ferromq_server() -> Iterator[Server]:
    """Our broker."""
    command = [sys.executable, str(HERE / "serve.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server((process.stdout.readline() if process.stdout else "").strip(), process)
        finally:
            # It ends with its input, and not by a signal: a build with counters writes them at its end.
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()


def has_mosquitto() -> bool:
    """Whether there is one to start; `make interop-mosquitto` installs it where that may be done."""
    return mosquitto_path() is not None


def mosquitto_path() -> str | None:
    """Where it is: it is a daemon, and not everybody's PATH has those."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def mosquitto_server() -> Iterator[Server]:
    """mosquitto, told to drop nothing."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = (
        f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest none\nset_tcp_nodelay true\n"
        "max_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_messages 1000\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "mosquitto.conf")
        config.write_text(settings, encoding="ascii")
        with subprocess.Popen([str(mosquitto_path()), "-c", str(config)], text=True) as process:
            try:
                wait_for_port(port)
                yield Server(f"mqtt://127.0.0.1:{port}", process)
            finally:
                process.terminate()


def wait_for_port(port: int) -> None:
    """Return when somebody listens there."""
    for _ in range(MOSQUITTO_TRIES):
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        # It prints nothing when it is ready.
        subprocess.run(["sleep", "0.02"], check=True)  # noqa: S607
    raise RuntimeError(f"mosquitto does not listen on port {port}")
