"""Cassettes: messages kept in a file, and played as if the devices were there.

The file is text, one JSON object a line, so that it can be read, edited and compared in version control: a header, then
for each message its time since the beginning, topic, payload (`payload` as text, or `base64`) and what else is unusual.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from uuid import uuid4

import ferromq

from ._foreign import ForeignBroker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from os import PathLike
    from types import TracebackType

    _Map: TypeAlias = Callable[[str], str | None] | None

# Version of the format; a reader refuses newer ones.
FORMAT = 1
# How often a recorder looks whether it is to end, seconds; messages at a time.
_LOOK_INTERVAL = 0.05
_BITE = 4096
# Messages published without waiting for each, when time does not matter.
_WINDOW = 256

# Properties of a message that are kept, by the argument of `publish` that sets them.
_PROPERTIES = (
    "message_expiry",
    "content_type",
    "response_topic",
    "correlation_data",
    "user_properties",
    "payload_format",
)


class CassetteMessage:
    """A message of a cassette.

    Args:
        at: Seconds since the beginning.
        topic: Topic name.
        payload: Payload.
        qos: Quality of service.
        retain: Whether it is to be retained.
        properties: Arguments of `Client.publish` for its properties.
    """

    __slots__ = ("at", "payload", "properties", "qos", "retain", "topic")

    def __init__(
        self,
        at: float,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        self.at = at
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = dict(properties or {})

    @classmethod
    def _from_message(cls, message: ferromq.Message, began: float) -> Self:
        found = {}
        properties = message.properties
        if properties:
            found = {name: value for name in _PROPERTIES if (value := getattr(properties, name)) not in (None, ())}
        at = round(max(message.received_at - began, 0.0), 6)
        return cls(at, message.topic, message.payload, qos=message.qos, retain=message.retain, properties=found)

    @classmethod
    def _from_line(cls, text: str) -> Self:
        record = json.loads(text)
        payload = base64.b64decode(record["base64"]) if "base64" in record else record.get("payload", "").encode()
        properties = record.get("properties", {})
        if "correlation_data" in properties:
            properties["correlation_data"] = base64.b64decode(properties["correlation_data"])
        if "user_properties" in properties:
            properties["user_properties"] = tuple((name, value) for name, value in properties["user_properties"])
        topic, qos, retain = record["topic"], record.get("qos", 0), record.get("retain", False)
        return cls(float(record["at"]), topic, payload, qos=qos, retain=retain, properties=properties)

    def _to_line(self) -> str:
        record: dict[str, Any] = {"at": self.at, "topic": self.topic}
        try:
            record["payload"] = self.payload.decode()
        except UnicodeDecodeError:
            record["base64"] = base64.b64encode(self.payload).decode()
        if self.qos:
            record["qos"] = self.qos
        if self.retain:
            record["retain"] = True
        if self.properties:
            record["properties"] = dict(self.properties)
            if "correlation_data" in self.properties:
                encoded = base64.b64encode(self.properties["correlation_data"]).decode()
                record["properties"]["correlation_data"] = encoded
        return json.dumps(record, ensure_ascii=False) + "\n"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CassetteMessage):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"CassetteMessage(at={self.at}, {self.topic!r}, {self.payload!r}, qos={self.qos})"


class Cassette:
    """Messages with their times.

        with Cassette.record("line7.jsonl", "mqtt://factory", "plant/7/#"):
            ...                                             # let the devices speak
        cassette = Cassette.load("line7.jsonl")
        await cassette.play(client, speed=10)               # or clock=broker.clock, or speed=None

    Args:
        messages: The messages; they are put in the order of their times.
    """

    def __init__(self, messages: Iterable[CassetteMessage] = ()) -> None:
        self.messages = sorted(messages, key=lambda message: message.at)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a file.

        Raises:
            ValueError: It is none of a cassette; the message names the line.
        """
        messages = []
        with Path(path).open(encoding="utf-8") as lines:
            for number, text in enumerate(lines, 1):
                try:
                    if number == 1:
                        _check_header(text)
                    elif text.strip():
                        messages.append(CassetteMessage._from_line(text))  # noqa: SLF001
                except (ValueError, KeyError, TypeError) as error:
                    what = f"no {error}" if isinstance(error, KeyError) else str(error)
                    raise ValueError(f"{path}, line {number}: {what}") from error
        return cls(messages)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file."""
        with Path(path).open("w", encoding="utf-8") as file:
            file.write(_header())
            file.writelines(message._to_line() for message in self.messages)  # noqa: SLF001

    @staticmethod
    def record(
        path: str | PathLike[str],
        server: ferromq.Broker | ForeignBroker | str,
        *filters: str,
        **client: Any,  # noqa: ANN401 - the arguments of `Client`
    ) -> Recorder:
        """Record what comes, as long as the block lasts: `with` or `async with`.

        Args:
            path: File to write; one that is there is replaced.
            server: A `Broker` of this process, a `ForeignBroker`, or the URL of any.
            *filters: Topic filters; `"#"` by default.
            **client: Arguments of `SyncClient`.
        """
        return Recorder(path, server, filters, client)

    @property
    def duration(self) -> float:
        """Seconds from the beginning to the last message."""
        return self.messages[-1].at if self.messages else 0.0

    @property
    def topics(self) -> list[str]:
        """The topics, in the order of their first messages."""
        return list(dict.fromkeys(message.topic for message in self.messages))

    async def play(
        self,
        client: ferromq.Client,
        *,
        speed: float | None = 1.0,
        clock: ferromq.Clock | None = None,
        map: _Map = None,  # noqa: A002 - python's name for it
    ) -> int:
        """Publish all messages, in order, and wait until the last is acknowledged; how many there were.

        Args:
            client: Who publishes.
            speed: 1 keeps the time between messages, 10 makes it a tenth, and `None` does not wait at all.
            clock: Advance this clock by the time between messages, rather than wait for it to pass.
            map: Makes the topic to publish to of the recorded one; `None` leaves the message out.
        """
        count = 0
        under_way: list[ferromq.Operation[ferromq.PublishAck]] = []
        for wait, topic, message in self._schedule(speed, map):
            is_pause = wait > 0 and (clock is not None or speed is not None)
            if is_pause or len(under_way) >= _WINDOW:
                await asyncio.gather(*under_way)
                under_way.clear()
            if is_pause and clock is not None:
                clock.advance(wait)
            elif is_pause:
                await asyncio.sleep(wait)
            under_way.append(client.publish(topic, message.payload, **_arguments(message)))
            count += 1
        await asyncio.gather(*under_way)
        return count

    def play_sync(
        self,
        client: ferromq.SyncClient,
        *,
        speed: float | None = 1.0,
        clock: ferromq.Clock | None = None,
        map: _Map = None,  # noqa: A002
    ) -> int:
        """The same, blocking."""
        count = 0
        for wait, topic, message in self._schedule(speed, map):
            if wait > 0 and clock is not None:
                clock.advance(wait)
            elif wait > 0 and speed is not None:
                time.sleep(wait)  # the time that lay between the two when they were recorded
            client.publish(topic, message.payload, **_arguments(message))
            count += 1
        return count

    def _schedule(self, speed: float | None, map: _Map) -> Iterator[tuple[float, str, CassetteMessage]]:  # noqa: A002
        """Each message that is to be sent, to which topic, and how long after the one before."""
        if speed is not None and not speed > 0:
            raise ValueError(f"speed is above 0, or None not to wait, and not {speed}")
        before = 0.0
        for message in self.messages:
            topic = message.topic if map is None else map(message.topic)
            if topic is not None:
                yield (message.at - before) / (speed or 1.0), topic, message
                before = message.at

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[CassetteMessage]:
        return iter(self.messages)

    def __repr__(self) -> str:
        return f"Cassette({len(self)} messages, {len(self.topics)} topics, {self.duration:g} s)"


class Recorder:
    """Writes messages to a file as they come, on a thread of its own. `Cassette.record` makes it."""

    def __init__(
        self,
        path: str | PathLike[str],
        server: ferromq.Broker | ForeignBroker | str,
        filters: tuple[str, ...],
        client: dict[str, Any],
    ) -> None:
        if isinstance(server, ForeignBroker):
            client.setdefault("version", server.version)
            server = server.upstream
        self.path = Path(path)
        self.count = 0
        self._is_v5 = str(client.get("version", 5)).startswith("5")
        self._filters = filters or ("#",)
        self._client = ferromq.SyncClient(server, **client)
        self._subscription: ferromq.SyncSubscription[ferromq.Message] | None = None
        self._thread = Thread(target=self._write, name="ferromq-recorder", daemon=True)
        self._is_ending = False
        self._failure: Exception | None = None
        self._news = Condition()

    def start(self) -> Self:
        """Begin; `with` does it, too."""
        self._client.connect()
        # `block`: what the disk has not taken yet stays with the broker.
        self._subscription = self._client.subscribe(
            *self._filters,
            qos=2,
            retain_as_published=self._is_v5,
        )
        self._thread.start()
        return self

    def wait(self, count: int, timeout: float | None = None) -> None:
        """Wait until so many messages have come.

        Args:
            count: How many, since the beginning.
            timeout: Seconds that it may take; `None` does not limit it.

        Raises:
            Timeout: It took longer.
        """
        with self._news:
            is_over = self._news.wait_for(lambda: self.count >= count or self._failure is not None, timeout)
        if not is_over:
            raise ferromq.Timeout(f"{self.count} of {count} messages came within {timeout:g} s")

    def stop(self) -> Cassette:
        """Write what has come, and end; the cassette.

        Raises:
            FerroMQError: The connection had ended for good.
            OSError: The file could not be written.
        """
        # An answer comes after whatever the server had sent before it, so nothing of that is missed.
        self._client.unsubscribe(f"ferromq/recorder/{uuid4().hex}")
        self._is_ending = True
        self._thread.join()
        self._client.disconnect()
        if self._failure is not None:
            raise self._failure
        return Cassette.load(self.path)

    def _write(self) -> None:
        try:
            began = time.time()
            with self.path.open("w", encoding="utf-8") as file:
                file.write(_header())
                is_last = False
                while not is_last:
                    is_last = self._is_ending
                    for message in self._batch(0.0 if is_last else _LOOK_INTERVAL):
                        file.write(CassetteMessage._from_message(message, began)._to_line())  # noqa: SLF001
                        self.count += 1
                    with self._news:
                        self._news.notify_all()
        except Exception as error:  # noqa: BLE001 - `stop` raises it
            self._failure = error
            with self._news:
                self._news.notify_all()

    def _batch(self, within: float) -> list[ferromq.Message]:
        if self._subscription is None:
            return []
        found = self._subscription.batch(_BITE, within=within)
        while within == 0.0 and (more := self._subscription.batch(_BITE, within=0.0)):
            found += more
        return found

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


def _arguments(message: CassetteMessage) -> dict[str, Any]:
    return {"qos": message.qos, "retain": message.retain, **message.properties}


def _header() -> str:
    return (
        json.dumps({"ferromq_cassette": FORMAT, "recorded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}) + "\n"
    )


def _check_header(text: str) -> None:
    header = json.loads(text)
    version = header.get("ferromq_cassette") if isinstance(header, dict) else None
    if version is None:
        raise ValueError("no cassette: the first line has no ferromq_cassette")
    if not 1 <= version <= FORMAT:
        raise ValueError(f"a cassette of format {version}; this FerroMQ knows up to {FORMAT}")
