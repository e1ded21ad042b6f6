"""Brokers as subprocesses on free ports of the loopback interface."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 15
WS_PATH = "/mqtt"


def ferromq_command() -> str | None:
    """The `ferromq` command of this environment, or the one that FERROMQ names."""
    named = os.environ.get("FERROMQ")
    installed = Path(sys.executable).with_name("ferromq")
    return named or (str(installed) if installed.exists() else shutil.which("ferromq"))


def missing(name: str) -> str | None:
    """Why a broker cannot run here; None when it can."""
    if name == "mosquitto" and shutil.which("mosquitto") is None:
        return "mosquitto is not installed: sudo apt-get install mosquitto"
    if name == "ferromq" and ferromq_command() is None:
        return "the ferromq command is not installed: make build"
    return None


@dataclass
class Broker:
    """A running broker: where it listens, what it logged."""

    name: str
    process: subprocess.Popen[str]
    ports: dict[str, int]
    log: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, name: str, directory: Path) -> Self:
        return cls._start_ferromq() if name == "ferromq" else cls._start_mosquitto(directory)

    @classmethod
    def _start_ferromq(cls) -> Self:
        command = [ferromq_command(), "broker"]
        for url in ("tcp://127.0.0.1:0", f"ws://127.0.0.1:0{WS_PATH}"):
            command += ["--listen", url]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        broker = cls("ferromq", process, {})
        broker._follow(process.stderr)
        for line in _lines_until(process, process.stdout, "ready"):
            word, _, url = line.partition(" ")
            if word == "listening":
                parts = urlsplit(url)
                broker.ports[{"tcp": "tcp", "mqtt": "tcp", "ws": "ws"}[parts.scheme]] = parts.port
        broker._follow(process.stdout)
        assert set(broker.ports) == {"tcp", "ws"}, f"ferromq announced {broker.ports}"
        return broker

    @classmethod
    def _start_mosquitto(cls, directory: Path) -> Self:
        tcp, ws = _free_ports(2)
        config = directory / "mosquitto.conf"
        config.write_text(
            f"listener {tcp} 127.0.0.1\nlistener {ws} 127.0.0.1\nprotocol websockets\n"
            "allow_anonymous true\nlog_dest stderr\nlog_type all\n"
            # MQTT 3.1.1 has no receive maximum: beyond its 20 in flight, mosquitto loses QoS 2.
            "set_tcp_nodelay true\nmax_inflight_messages 1000\n"
        )
        command = ["mosquitto", "-c", str(config)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        broker = cls("mosquitto", process, {"tcp": tcp, "ws": ws})
        for line in _lines_until(process, process.stderr, " running"):
            broker.log.append(line)
        broker._follow(process.stderr)
        return broker

    def stop(self) -> None:
        """Ask for a graceful end and insist on it."""
        alive = self.process.poll() is None
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} did not stop on SIGTERM\n{self.tail()}") from None
        assert alive, f"{self.name} died during the tests with status {status}\n{self.tail()}"
        assert status == 0, f"{self.name} stopped with status {status}\n{self.tail()}"

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log[-lines:])

    def _follow(self, stream) -> None:
        def read():
            with stream:
                self.log.extend(line.rstrip("\n") for line in stream)

        threading.Thread(target=read, daemon=True).start()


def _lines_until(process, stream, last: str):
    """Lines up to the one that ends in `last`; a broker that hangs before is ended by a watchdog."""
    watchdog = threading.Timer(START_SECONDS_MAX, process.kill)
    watchdog.start()
    seen = []
    try:
        for line in stream:
            text = line.rstrip("\n")
            if text.endswith(last):
                return
            seen.append(text)
            yield text
    finally:
        watchdog.cancel()
    raise RuntimeError(f"the broker ended before it was ready (status {process.wait()}):\n" + "\n".join(seen))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
