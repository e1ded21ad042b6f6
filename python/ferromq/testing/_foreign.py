"""A broker of somebody else, with as much of the face of `ferromq.Broker` as MQTT can give.

What it is asked goes over a connection of its own. It cannot look inside, so `settled()` is a judgement and not a
knowledge: what this process had sent has come back, and nothing has moved for a while.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import urlsplit
from uuid import uuid4

import ferromq

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# Messages that are remembered to clean up after a test; more than that, and the oldest retained ones are left behind.
_MESSAGES_MAX = 1_000_000
# How long any answer of the broker may take, seconds.
_ANSWER_TIMEOUT = 10.0
# An unencrypted MQTT port.
_DEFAULT_PORT = 1883
# What this module itself publishes, here and in other processes that test with the same broker.
_OWN_TOPICS = ("ferromq/settled/", "ferromq/retained/")


class Unsupported(ferromq.FerroMQError):
    """A foreign broker has no such thing."""


class ForeignBroker:
    """A running broker, known by its URL.

    Args:
        url: Where it listens.
        version: Version of MQTT to speak with it: 5, 4 or 3.
        quiet: For how long nothing must have moved to call it settled, seconds.
        ignore: Whether a topic is none of ours, so that its messages do not count when the broker is settled: those of
            other tests that run at the same time.
        faults: Put a `FaultProxy` in front of it: `url` is that of the proxy, and `faults` and `trace()` are there.
        unsupported: What to call, with words, when something is asked for that only FerroMQ's own broker has; it must
            not return. Default: raise `Unsupported`.
    """

    def __init__(
        self,
        url: str,
        *,
        version: Any = 5,  # noqa: ANN401 - as `Client` takes it
        quiet: float = 0.2,
        ignore: Callable[[str], bool] | None = None,
        faults: bool = False,
        unsupported: Callable[[str], NoReturn] | None = None,
    ) -> None:
        self.upstream = url
        self.quiet = quiet
        self._ignore = ignore
        self._looking = threading.Lock()
        self._proxy = ferromq.FaultProxy(url) if faults else None
        self._version = version
        self._unsupported = unsupported
        self._token = uuid4().hex
        self._client: ferromq.SyncClient | None = None
        self._all: ferromq.SyncSubscription[ferromq.Message] | None = None
        self._echo: ferromq.SyncSubscription[ferromq.Message] | None = None
        self._retained_topics: set[str] = set()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    def start(self) -> Self:
        """Connect, to watch it."""
        client = ferromq.SyncClient(self.upstream, version=self._version).connect()
        # On a connection of its own: some brokers send a message once for each subscription that it matches.
        self._watch = ferromq.SyncClient(self.upstream, version=self._version).connect()
        if self._proxy is not None:
            self._proxy.start()
        is_v5 = self.is_v5
        self._client = client
        self._all = self._watch.subscribe(
            "#",
            overflow="drop_oldest",
            maxsize=_MESSAGES_MAX,
            retain_as_published=is_v5,
            retain_handling="none" if is_v5 else "send",
        )
        self._echo = client.subscribe(self._echo_topic, qos=1)
        return self

    def stop(self) -> None:
        """Clear what was retained meanwhile (as far as MQTT 5 shows it), and disconnect."""
        if self._client is None:
            return
        client, self._client = self._client, None
        # An answer comes after whatever the broker had sent before it.
        self._watch.unsubscribe(self._echo_topic)
        for topic in self._retained_meanwhile():
            client.publish(topic, b"", qos=1, retain=True, timeout=_ANSWER_TIMEOUT)
        self._watch.disconnect()
        client.disconnect()
        if self._proxy is not None:
            self._proxy.stop()

    @property
    def url(self) -> str:
        """Where clients connect to: the broker, or the faults in front of it."""
        return self.upstream if self._proxy is None else self._proxy.url

    @property
    def version(self) -> Any:  # noqa: ANN401
        """Version of MQTT to speak with it."""
        return self._version

    @property
    def has_faults(self) -> bool:
        """Whether there are faults in front of it."""
        return self._proxy is not None

    @property
    def faults(self) -> ferromq.Faults:
        """Faults between it and whoever connects to `url`."""
        if self._proxy is None:
            self._refuse("faults")
        return self._proxy.faults

    @property
    def clock(self) -> ferromq.Clock:
        """The clock of the faults, and of clients that are given it; the broker's own time goes on as it does."""
        if self._proxy is None:
            self._refuse("clock")
        return self._proxy.clock

    def trace(self, client: str | None = None) -> list[ferromq.ConnectionTrace]:
        """The last packets of each connection that came through the faults."""
        if self._proxy is None:
            self._refuse("trace")
        return self._proxy.trace(client)

    @property
    def urls(self) -> list[str]:
        """The one URL."""
        return [self.url]

    @property
    def port(self) -> int:
        """Its port."""
        return urlsplit(self.url).port or _DEFAULT_PORT

    @property
    def running(self) -> bool:
        """Whether it is watched."""
        return self._client is not None

    def publish(self, topic: str, payload: object = None, **options: Any) -> None:  # noqa: ANN401
        """Publish; arguments are those of `Broker.publish`."""
        self._connected().publish(topic, payload, **options)

    @property
    def retained(self) -> ForeignRetained:
        """Its retained messages, asked for anew each time."""
        return ForeignRetained(self)

    def wait_settled(self, timeout: float | None = None) -> None:
        """Wait until what this connection sent has come back, and nothing has come for `quiet` seconds.

        Raises:
            Timeout: It took longer.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self._look()
        moved = 1
        while moved > 0:
            if deadline is not None and deadline - time.monotonic() < self.quiet:
                raise ferromq.Timeout(f"settling took longer than {timeout} s")
            self._wait_echo(deadline)
            time.sleep(self.quiet)  # no broker tells that it has nothing more to send
            moved = self._look()

    async def settled(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as `Broker.settled`
        """The same, for coroutines."""
        await asyncio.to_thread(self.wait_settled, timeout)

    def _wait_echo(self, deadline: float | None) -> None:
        if self._echo is None:
            raise ferromq.Closed("the broker is not watched: enter it with `with`")
        left = _ANSWER_TIMEOUT if deadline is None else max(deadline - time.monotonic(), 0.0)
        self._connected().publish(self._echo_topic, b"", qos=1, timeout=left)
        self._echo.get(timeout=left)

    def _retained_meanwhile(self) -> set[str]:
        self._look()
        return self._retained_topics

    def _look(self) -> int:
        """Take in what has come, and remember what is retained; how many messages of ours there were."""
        count = 0
        with self._looking:
            while self._all is not None and self._all.pending:
                for message in self._all.batch(4096, within=0.0):
                    topic = message.topic
                    if message.retain:
                        change = self._retained_topics.add if len(message) else self._retained_topics.discard
                        change(topic)
                    count += self._is_of_test(topic)
        return count

    def _is_of_test(self, topic: str) -> bool:
        """Whether a message is neither of this class nor of other tests."""
        return not (topic.startswith(_OWN_TOPICS) or (self._ignore is not None and self._ignore(topic)))

    def _connected(self) -> ferromq.SyncClient:
        if self._client is None:
            raise ferromq.Closed("the broker is not watched: enter it with `with`")
        return self._client

    @property
    def is_v5(self) -> bool:
        """Whether MQTT 5 is spoken with it."""
        return str(self._version).startswith("5")

    @property
    def _echo_topic(self) -> str:
        return f"ferromq/settled/{self._token}"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_") or not hasattr(ferromq.Broker, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        words = f"Broker.{name} looks inside a broker, and {self.upstream} is a foreign one"
        if self._unsupported is not None:
            self._unsupported(words)
        raise Unsupported(words)

    def __repr__(self) -> str:
        return f"ForeignBroker({self.upstream})"


class ForeignRetained:
    """The retained messages of a foreign broker."""

    def __init__(self, broker: ForeignBroker) -> None:
        self._broker = broker

    def __getitem__(self, filter: str) -> dict[str, bytes]:  # noqa: A002 - MQTT's name for it
        broker = self._broker
        found: dict[str, bytes] = {}
        with ferromq.SyncClient(broker.upstream, version=broker.version) as client:
            end = f"ferromq/retained/{uuid4().hex}"
            # Retained messages are sent before what is published after SUBACK.
            with client.subscribe(filter, end, qos=1) as messages:
                client.publish(end, b"", qos=1, timeout=_ANSWER_TIMEOUT)
                while (message := messages.get(timeout=_ANSWER_TIMEOUT)).topic != end:
                    if message.retain:
                        found[message.topic] = message.payload
        return found

    def get(self, topic: str, default: bytes | None = None) -> bytes | None:
        """The payload of one topic."""
        return self[topic].get(topic, default)

    def __contains__(self, topic: str) -> bool:
        return topic in self[topic]

    def __len__(self) -> int:
        return len(self["#"])
