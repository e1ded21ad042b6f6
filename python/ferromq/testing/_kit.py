"""What one test uses of MQTT: the settings of its marker, its clients, and the report when it fails.

It knows nothing of pytest; `ferromq.pytest_plugin` makes fixtures of it.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

import ferromq

from ._explain import line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._capture import Capture, SyncCapture
    from ._foreign import ForeignBroker

# Packets of each connection that a failed test shows, and messages of its capture.
TRACE_PACKETS = 32
_CAPTURED_SHOWN = 10

# Characters of a test's name in its topics: enough to know it by, and well below what topics may have.
_NAME_CHARS_MAX = 80
# A topic of `Topics`: the run, the name of the test, and its number.
_TOPIC = re.compile(r"test/([0-9a-f]{6}(?:gw\d+)?)/[^/]+-[0-9a-f]{8}/")

# Listeners by their short names: on this machine only, and wherever there is room.
_LISTENERS = {"tcp": "tcp://127.0.0.1:0", "ws": "ws://127.0.0.1:0/mqtt"}
# With a certificate made for it; the path of its WebSocket, if it has one.
_TLS_LISTENERS = {"tls": None, "wss": "/mqtt"}

# Settings that are for the clients and the capture, and not for the broker.
_OWN_SETTINGS = ("version", "capture")


class Settings:
    """The arguments of `@pytest.mark.mqtt`.

    Args:
        **given: `version` of MQTT that clients speak, `capture` (filters of `mqtt_capture`), and arguments of `Broker`.
            Of its `listeners`, `"tcp"`, `"tls"`, `"ws"` and `"wss"` are short for one on a free port of this machine,
            those with TLS with a certificate made for it, which clients of the fixtures believe.

    Raises:
        TypeError: An argument is not known; it names the nearest that is.
    """

    def __init__(self, **given: Any) -> None:  # noqa: ANN401
        for name in given:
            if name not in (known := _known_settings()):
                raise TypeError(f"mqtt has no argument {name!r}{_nearest(name, known)}; it has {', '.join(known)}")
        capture = given.get("capture", ())
        self.version: Any = given.get("version", 5)
        self.capture: tuple[str, ...] = (capture,) if isinstance(capture, str) else tuple(capture)
        self.broker = {name: value for name, value in given.items() if name not in _OWN_SETTINGS}
        if "listeners" in self.broker:
            self.broker["listeners"] = [_listener(one) for one in self.broker["listeners"]]

    @property
    def credentials(self) -> dict[str, Any]:
        """User name and password of the first user, if there are users."""
        users = self.broker.get("users")
        if not users:
            return {}
        username, password = next(iter(users.items()))
        return {"username": username, "password": password}

    def new_broker(self, **extra: Any) -> ferromq.Broker:  # noqa: ANN401
        """A broker with these settings, not started; `extra` is what it has unless they say otherwise."""
        return ferromq.Broker(**{**extra, **self.broker})


class Clients:
    """Makes connected clients of one broker, and ends them in the end.

        client = clients(client_id="dev1")           # a `Client`, connected; no `await`
        client = clients.sync(client_id="dev2")      # a `SyncClient`

    Arguments are those of `Client`; the first is the server, if it is another. The user is the first of the broker's
    `users`, if there are any.
    """

    def __init__(self, broker: ferromq.Broker | ForeignBroker, settings: Settings, suffix: str = "") -> None:
        self._server = broker if isinstance(broker, ferromq.Broker) else broker.url
        # Clients of a broker whose clock is advanced have to follow it, or they would ping too late.
        self._clock = broker.clock if isinstance(broker, ferromq.Broker) or broker.has_faults else None
        self._certificate = broker.certificate if isinstance(broker, ferromq.Broker) else None
        self._settings = settings
        self._suffix = suffix
        self._made: list[ferromq.Client | ferromq.SyncClient] = []

    def __call__(self, server: ferromq.Broker | str | None = None, **options: Any) -> ferromq.Client:  # noqa: ANN401
        """A client for coroutines, connected."""
        server = server or self._server
        client = ferromq.Client(server, **self._with_defaults(server, options))
        client._connect_blocking()  # noqa: SLF001 - made for this
        self._made.append(client)
        return client

    def sync(self, server: ferromq.Broker | str | None = None, **options: Any) -> ferromq.SyncClient:  # noqa: ANN401
        """A client that blocks, connected."""
        server = server or self._server
        client = ferromq.SyncClient(server, **self._with_defaults(server, options)).connect()
        self._made.append(client)
        return client

    def close(self) -> None:
        """Disconnect all that are connected still, the last first. What is unfinished then has a second."""
        while self._made:
            client = self._made.pop()
            try:
                if isinstance(client, ferromq.Client):
                    client._disconnect_blocking(is_hasty=True)  # noqa: SLF001
                else:
                    client.__exit__(Exception)
            except ferromq.FerroMQError:
                continue  # what the test left unfinished it did not want to know

    def _with_defaults(self, server: ferromq.Broker | str, options: dict[str, Any]) -> dict[str, Any]:
        defaults: dict[str, Any] = {"version": self._settings.version}
        if isinstance(server, str) and self._clock is not None:
            defaults["clock"] = self._clock
        if isinstance(server, str) and server.startswith(("mqtts://", "wss://")) and self._certificate is not None:
            defaults["tls"] = ferromq.ClientTls(ca=self._certificate)
        if "username" not in options:
            defaults |= self._settings.credentials
        if self._suffix and options.get("client_id"):
            # On a broker that others use as well, a name is taken perhaps.
            options["client_id"] += self._suffix
        return {**defaults, **options}


class Topics:
    """Topics of one test, on a broker that others use as well.

        topic = mqtt_topic("plant/1/temp")

    The same test has the same topics, but for a part that tells runs apart.
    """

    def __init__(self, test: str, run: str) -> None:
        name = re.sub(r"[^\w.-]+", "_", test.rpartition("::")[2])[-_NAME_CHARS_MAX:]
        # What was replaced or cut off might have told two tests apart: a number stands for it.
        self.prefix = f"test/{run}/{name}-{crc32(test.encode()):08x}"

    def __call__(self, topic: str) -> str:
        """The topic, or filter, below those of this test."""
        return f"{self.prefix}/{topic}"


def run_of(topic: str) -> str | None:
    """The part of a topic of some test that tells runs apart; `None` if it is not of `Topics`."""
    found = _TOPIC.match(topic)
    return None if found is None else found[1]


class Kit:
    """What one test uses, for the report."""

    def __init__(self, options: dict[str, Any], marked: dict[str, Any]) -> None:
        self.settings = Settings(**{**options, **marked})
        # What this test alone wants of its broker.
        self.marked = [name for name in marked if name not in _OWN_SETTINGS]
        self.broker: ferromq.Broker | ForeignBroker | None = None
        self.capture: Capture | SyncCapture | None = None
        self.faults: ferromq.Faults | None = None

    def report(self) -> str:
        """The last packets of each connection, what was dropped and why, and what was captured."""
        lines: list[str] = []
        if isinstance(self.broker, ferromq.Broker) and self.broker.running:
            lines += _broker_lines(self.broker)
        elif self.broker is not None:
            lines.append(repr(self.broker))
            if self.faults is not None:
                lines += [str(connection) for connection in self.broker.trace()]
        if self.capture is not None:
            lines += _capture_lines(self.capture)
        return "\n".join(lines)


def _broker_lines(broker: ferromq.Broker) -> list[str]:
    stats = broker.stats()
    counted = f"{stats['publish_received']} messages in, {stats['publish_sent']} out"
    held = f"{stats['messages_inflight']} unacknowledged, {stats['messages_queued']} queued"
    lines = [
        f"{broker!r}: {counted}, {held}",
        *_counted("dropped messages", stats["dropped"]),
        *_counted("ended connections", stats["ended"]),
    ]
    lines += [str(connection) for connection in broker.trace()]
    return lines


def _counted(what: str, counters: Mapping[str, int]) -> list[str]:
    told = ", ".join(f"{reason} {count}" for reason, count in counters.items() if count)
    return [f"{what}: {told}"] if told else []


def _capture_lines(capture: Capture | SyncCapture) -> list[str]:
    try:
        messages = capture.messages
    except ferromq.FerroMQError as error:
        return [f"capture: {error}"]
    lines = [f"capture: {len(messages)} messages"]
    if len(messages) > _CAPTURED_SHOWN:
        lines.append(f"  the last {_CAPTURED_SHOWN} of them:")
    return lines + ["  " + line(message) for message in messages[-_CAPTURED_SHOWN:]]


@cache
def _known_settings() -> list[str]:
    return [*_OWN_SETTINGS, *inspect.signature(ferromq.Broker).parameters]


def _nearest(name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - failures only

    found = get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _listener(listener: str | ferromq.Tls) -> str | ferromq.Tls:
    if isinstance(listener, ferromq.Tls):
        return listener
    if listener in _TLS_LISTENERS:
        return ferromq.Tls(path=_TLS_LISTENERS[listener])
    if "://" in listener or listener in _LISTENERS:
        return _LISTENERS.get(listener, listener)
    known = [*_LISTENERS, *_TLS_LISTENERS]
    raise ValueError(f"no listener {listener!r}{_nearest(listener, known)}; it is a URL, or one of {', '.join(known)}")
