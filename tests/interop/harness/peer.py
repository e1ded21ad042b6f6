"""A client under test, as a process that answers JSON lines.

A request is `{"id": 1, "op": "publish", ...}`; its answer `{"id": 1, "ok": {...}}` or `{"id": 1, "error": "why"}`.
Unasked come `{"event": "message", ...}` and `{"event": "closed"}`. Payloads and correlation data travel as base64.
An answer means that the peer has acknowledged: CONNACK, SUBACK, UNSUBACK, or the last packet of the publish's QoS.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.cells import Cell

# Generous, because a loaded machine is no fault of a client; nothing waits for it to pass.
DEADLINE_SECONDS = 30


class PeerError(Exception):
    """The client said no."""


@dataclass
class Message:
    """What a client says it received."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict = field(default_factory=dict)


class Peer:
    """One client process; connected to at most one broker at a time."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.broker = None
        self.connected = False
        self._ids = itertools.count(1)
        self._pending: dict[int, Future] = {}
        self._inbox: queue.Queue[Message] = queue.Queue()
        self._closed = threading.Event()
        self._stderr: list[str] = []
        self._process = subprocess.Popen(
            cell.spec.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # kill() then ends the programs that an adapter started, too
        )
        self._readers = [
            threading.Thread(target=self._read_answers, daemon=True),
            threading.Thread(target=self._read_stderr, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    # --- verbs; each returns when acknowledged --------------------------------------------------------------------

    def connect(self, broker, client_id: str, *, clean=True, expiry=0, will=None) -> dict:
        self._inbox = queue.Queue()
        self._closed.clear()
        self.broker = broker
        answer = self._call(
            "connect",
            host="127.0.0.1",
            port=broker.ports[self.cell.transport],
            transport=self.cell.transport,
            path="/mqtt",
            version=self.cell.version,
            client_id=client_id,
            clean=clean,
            expiry=expiry,
            will=will and {**will, "payload": _encode(will["payload"])},
        )
        self.connected = True
        return answer

    def subscribe(self, *filters: str, qos=0, **options) -> list[int]:
        return self._call("subscribe", filters=filters, qos=qos, options=options)["granted"]

    def unsubscribe(self, topic_filter: str) -> None:
        self._call("unsubscribe", filter=topic_filter)

    def publish(self, topic: str, payload: bytes, *, qos=0, retain=False, **properties) -> None:
        self.publishing(topic, payload, qos=qos, retain=retain, **properties).result(DEADLINE_SECONDS)

    def publishing(self, topic: str, payload: bytes, *, qos=0, retain=False, **properties) -> Future:
        """Publish without waiting; the result comes with the acknowledgement."""
        if "correlation" in properties:
            properties["correlation"] = _encode(properties["correlation"])
        return self._request(
            "publish", topic=topic, payload=_encode(payload), qos=qos, retain=retain, properties=properties
        )

    def disconnect(self) -> None:
        self._call("disconnect")
        self.connected = False

    def kill(self) -> None:
        """End the process without a word to the broker."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(BrokenPipeError):  # what stdin still buffers has no reader any more
                pipe.close()
        self.connected = False

    # --- what arrives ---------------------------------------------------------------------------------------------

    def receive(self) -> Message:
        try:
            return self._inbox.get(timeout=DEADLINE_SECONDS)
        except queue.Empty:
            raise AssertionError(f"{self.cell} received nothing within {DEADLINE_SECONDS} s{self._why()}") from None

    def receive_many(self, count: int) -> list[Message]:
        return [self.receive() for _ in range(count)]

    def receive_until(self, topic: str) -> list[Message]:
        """Everything up to the message on `topic`, which is left out: what is not in here has not been sent."""
        received = []
        while (message := self.receive()).topic != topic:
            received.append(message)
        return received

    def wait_closed(self) -> None:
        assert self._closed.wait(DEADLINE_SECONDS), f"{self.cell} was not told that its connection ended"

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    # --- the wire -------------------------------------------------------------------------------------------------

    def _call(self, op: str, **arguments) -> dict:
        return self._request(op, **arguments).result(DEADLINE_SECONDS)

    def _request(self, op: str, **arguments) -> Future:
        number = next(self._ids)
        future = self._pending[number] = Future()
        line = json.dumps({"id": number, "op": op, **arguments}).encode() + b"\n"
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError as error:
            self._process.wait()
            raise PeerError(f"{self.cell} is gone{self._why()}") from error
        return future

    def _read_answers(self) -> None:
        for line in self._process.stdout:
            answer = json.loads(line)
            if answer.get("event") == "message":
                self._inbox.put(_message(answer))
            elif answer.get("event") == "closed":
                self._closed.set()
            elif "error" in answer:
                self._pending.pop(answer["id"]).set_exception(PeerError(f"{self.cell}: {answer['error']}"))
            else:
                self._pending.pop(answer["id"]).set_result(answer["ok"])
        for future in list(self._pending.values()):
            future.set_exception(PeerError(f"{self.cell} ended{self._why()}"))

    def _read_stderr(self) -> None:
        for line in self._process.stderr:
            self._stderr.append(line.decode(errors="replace").rstrip("\n"))

    def _why(self) -> str:
        return "".join(f"\n  {line}" for line in self._stderr[-20:])


class Pool:
    """Client processes, kept while they behave: starting one costs more than most tests."""

    def __init__(self) -> None:
        self._idle: dict[Cell, list[Peer]] = {}
        self._lent: list[Peer] = []

    def take(self, cell: Cell) -> Peer:
        idle = self._idle.setdefault(cell, [])
        peer = idle.pop() if idle else Peer(cell)
        self._lent.append(peer)
        return peer

    def give_back(self) -> None:
        """After a test: what ended well is kept for the next one."""
        lent, self._lent = self._lent, []
        for peer in lent:
            if not peer.alive:
                peer.kill()
                continue
            try:
                if peer.connected:
                    peer.disconnect()
            except (PeerError, TimeoutError):
                peer.kill()
            else:
                self._idle[peer.cell].append(peer)

    def close(self) -> None:
        for peer in itertools.chain(self._lent, *self._idle.values()):
            peer.kill()


def _message(answer: dict) -> Message:
    properties = answer.get("properties") or {}
    if "correlation" in properties:
        properties["correlation"] = base64.b64decode(properties["correlation"])
    if "user" in properties:
        properties["user"] = [tuple(pair) for pair in properties["user"]]
    payload = base64.b64decode(answer["payload"])
    return Message(answer["topic"], payload, answer["qos"], bool(answer["retain"]), properties)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()
