"""Command-line clients: mosquitto_pub and mosquitto_sub, `ferromq pub` and `ferromq sub`, which take the same flags.

A connection is one `sub` process, started by subscribe; every publish is a `pub` process of its own. A last will rides
on the subscriber.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import lines

SEPARATOR = "\x1f"
# Fields of the -F format of mosquitto_sub, in this order.
FORMAT = SEPARATOR.join(["message", "%t", "%q", "%r", "%x", "%P", "%R", "%D", "%C", "%E"])
STREAM_BYTES_MAX = 64 * 1024 * 1024
FERROMQ = os.environ.get("FERROMQ") or str(Path(sys.executable).with_name("ferromq"))


@dataclass(frozen=True)
class Flavour:
    """What differs between the two families."""

    pub: list[str]
    sub: list[str]
    # What `-d` says of a SUBACK, on standard output or standard error; the last digit of each word is a granted QoS.
    subscribed: re.Pattern[str]


FLAVOURS = {
    "mosquitto": Flavour(["mosquitto_pub"], ["mosquitto_sub"], re.compile(r"^Subscribed \(mid: \d+\): (.*)")),
    "ferromq": Flavour([FERROMQ, "pub"], [FERROMQ, "sub"], re.compile(r" subscribed .*reasons=\[(.*)\]")),
}


class Cli:
    """At most one `sub` process at a time."""

    def __init__(self, flavour):
        self._flavour = FLAVOURS[flavour]
        # Without it the C library holds lines back when its output is a pipe.
        self._unbuffered = [shutil.which("stdbuf"), "-oL"] if shutil.which("stdbuf") else []
        self._process = None
        self._published = 0

    def connect(self, *, host, port, transport, path, version, client_id, clean, expiry, will):
        self._client_id = client_id
        server = ["-L", f"ws://{host}:{port}{path}"] if transport == "ws" else ["-h", host, "-p", str(port)]
        self._server = [*server, "-V", {4: "311", 5: "5"}[version]]
        self._session = [] if clean else ["-c"]
        if version == 5:
            self._session += ["-x", str(expiry)]
        if will:
            self._session += ["--will-topic", will["topic"], "--will-payload", will["payload"].decode()]
            self._session += ["--will-qos", str(will["qos"])] + (["--will-retain"] if will["retain"] else [])

    async def subscribe(self, *, filters, qos, options):
        if options:
            raise NotImplementedError(f"options {options}")
        arguments = [*self._server, *self._session, "-i", self._client_id, "-q", str(qos), "-d", "-F", FORMAT]
        for name in filters:
            arguments += ["-t", name]
        process = self._process = await asyncio.create_subprocess_exec(
            *self._unbuffered,
            *self._flavour.sub,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=STREAM_BYTES_MAX,
        )
        granted = asyncio.get_running_loop().create_future()
        self._readers = asyncio.gather(self._read(process.stdout, granted), self._read(process.stderr, granted))
        self._readers.add_done_callback(lambda _: _ended(granted))
        return {"granted": await granted}

    async def _read(self, stream, granted):
        async for raw in stream:
            line = raw.decode(errors="surrogateescape").rstrip("\n")
            if line.startswith("message" + SEPARATOR):
                _received(line.split(SEPARATOR))
            elif (told := self._flavour.subscribed.search(line)) and not granted.done():
                granted.set_result([_granted_qos(word) for word in told[1].split(", ")])
            elif stream is self._process.stderr:
                sys.stderr.write(line + "\n")

    async def publish(self, *, topic, payload, qos, retain, properties):
        # Each is a client of its own: one that follows with the same identifier could take over the one before.
        self._published += 1
        name = f"{self._client_id}-pub{self._published}"
        arguments = [*self._server, "-i", name, "-t", topic, "-q", str(qos)]
        arguments += ["-r"] if retain else []
        arguments += ["-s"] if payload else ["-n"]
        for name, value in properties.items():
            arguments += _property(name, value)
        process = await asyncio.create_subprocess_exec(
            *self._flavour.pub, *arguments, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate(payload)
        if process.returncode != 0:
            raise RuntimeError(f"status {process.returncode}: {errors.decode(errors='replace').strip()}")

    async def disconnect(self):
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()
            await self._readers
            self._process = None


def _granted_qos(word):
    """`2` or `GrantedQoS2`; QoS 0 is also known as `Success`."""
    return int(word[-1]) if word[-1].isdigit() else 0


def _ended(granted):
    if not granted.done():
        granted.set_exception(RuntimeError("the subscriber ended before it had subscribed"))


def _property(name, value):
    if name == "user":
        return [word for pair in value for word in ("-D", "publish", "user-property", *pair)]
    names = {
        "response_topic": "response-topic",
        "correlation": "correlation-data",
        "expiry": "message-expiry-interval",
        "content_type": "content-type",
    }
    text = value.decode() if isinstance(value, bytes) else str(value)
    return ["-D", "publish", names[name], text]


def _received(fields):
    _, topic, qos, retain, payload, user, response_topic, correlation, content_type, expiry = fields
    found = {
        "user": [pair.split(":", 1) for pair in user.split(" ")] if user else None,
        "response_topic": response_topic,
        "correlation": lines.encode(correlation.encode(errors="surrogateescape")) if correlation else None,
        "content_type": content_type,
        "expiry": int(expiry) if expiry else None,
    }
    properties = {name: value for name, value in found.items() if value}
    lines.emit_message(topic, bytes.fromhex(payload), int(qos), retain == "1", properties)


if __name__ == "__main__":
    lines.run(Cli(sys.argv[1]))
