"""What came through a broker, for a test to ask about.

A capture is a client of its own (of a broker in this process a tap, which faults and limits do not touch). It keeps all
messages in the order in which they came. Questions look at all of them, so it does not matter whether a message came
before or after the question: there is nothing to miss, and no need to sleep.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import ferromq

from ._explain import Expectation, missing, topics_like, unwanted
from ._foreign import ForeignBroker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import EllipsisType, TracebackType

    from ferromq import Message

    _Payload: TypeAlias = bytes | bytearray | memoryview | str | EllipsisType
    _Where: TypeAlias = Callable[[Message], object] | None

# How long a message may take, seconds. Only tests that fail wait so long.
TIMEOUT = 5.0

# A test that makes more is told so, rather than that it loses some. Taken from the subscription at a time.
MESSAGES_MAX = 1_000_000
_BITE = 4096


class _Captured:
    """What both captures can do: whatever needs no waiting."""

    def __init__(
        self,
        server: ferromq.Broker | ForeignBroker | str,
        *filters: str,
        maxsize: int = MESSAGES_MAX,
        **client: Any,  # noqa: ANN401 - the arguments of `Client`
    ) -> None:
        self._foreign = server if isinstance(server, ForeignBroker) else None
        if isinstance(server, ForeignBroker):
            client.setdefault("version", server.version)
            server = server.upstream
        self._server = server
        self._filters = filters or ("#",)
        self._maxsize = maxsize
        self._options = client
        self._client: ferromq.Client | None = None
        self._subscription: ferromq.Subscription[Message] | None = None
        self._seen: list[Message] = []
        self._given: set[int] = set()
        self._is_over = False

    def start(self) -> Self:
        """Begin to capture; `with` does it, too. It blocks for a moment and needs no event loop."""
        self._prepare()
        if self._client is not None:
            self._client._connect_blocking()  # noqa: SLF001 - made for this
        self._subscription = self._subscribe()
        self._subscription._open_blocking()  # noqa: SLF001
        return self

    def stop(self) -> None:
        """Stop. What was captured can still be asked about."""
        self._drain()
        self._is_over = True
        if self._client is not None:
            self._client._disconnect_blocking(is_hasty=True)  # noqa: SLF001
        self._subscription = None

    def _prepare(self) -> None:
        if self._subscription is not None:
            raise RuntimeError("the capture has been started already")
        self._is_over = False
        if not isinstance(self._server, ferromq.Broker):
            self._client = ferromq.Client(self._server, **self._options)

    def _subscribe(self) -> ferromq.Subscription[Message]:
        if self._client is None:
            return cast("ferromq.Broker", self._server).tap(*self._filters, maxsize=self._maxsize, overflow="error")
        is_v5 = self._is_v5
        return self._client.subscribe(
            *self._filters,
            qos=2,
            maxsize=self._maxsize,
            overflow="error",
            retain_as_published=is_v5,
            retain_handling="none" if is_v5 else "send",
        )

    def _drain(self) -> None:
        """Take what is there."""
        if self._is_over:
            return
        if self._subscription is None:
            raise RuntimeError("the capture has not been started: enter it with `with` or `async with`")
        while self._take(0.0):
            pass

    def _take(self, timeout: float) -> int:
        if self._subscription is None or self._is_over:
            return 0
        try:
            more = self._subscription._take_blocking(_BITE, timeout)  # noqa: SLF001
        except (ferromq.Closed, ferromq.ConnectionLost):
            self._is_over = True  # the broker has stopped; what it had delivered is here
            return 0
        except ferromq.QueueFull:
            self._is_over = True  # told once, here
            raise
        count = len(more)
        if not self._is_v5:
            # Before MQTT 5 a subscription gets what was retained before it; what is published later has no flag.
            more = [message for message in more if not message.retain]
        if self._foreign is not None:
            more = [message for message in more if self._foreign._is_of_test(message.topic)]  # noqa: SLF001
        self._seen += more
        return count

    @property
    def _is_v5(self) -> bool:
        return str(self._options.get("version", 5)).startswith("5")

    @property
    def messages(self) -> list[Message]:
        """Everything that came, in order."""
        self._drain()
        return list(self._seen)

    records = messages

    @property
    def topics(self) -> list[str]:
        """The topics of all messages, in order, each as often as it came."""
        return [message.topic for message in self.messages]

    def clear(self) -> None:
        """Forget what came."""
        self._drain()
        self._seen.clear()
        self._given.clear()

    def matching(
        self,
        filter: str = "#",  # noqa: A002 - MQTT's name for it
        payload: _Payload = ...,
        *,
        json: Any = ...,  # noqa: ANN401 - JSON is anything
        qos: int | None = None,
        retain: bool | None = None,
        where: _Where = None,
    ) -> list[Message]:
        """Those that match, in order.

        Args:
            filter: Topic filter.
            payload: The whole payload; text is meant as UTF-8.
            json: What the payload is as JSON.
            qos: Quality of service it was published with.
            retain: Whether it was published to be retained.
            where: A function that says whether it is one.
        """
        self._drain()
        expectation = Expectation(filter, payload, json=json, qos=qos, retain=retain, where=where)
        return [message for message in self._seen if expectation.is_met_by(message)]

    def count(
        self,
        filter: str = "#",  # noqa: A002
        payload: _Payload = ...,
        *,
        json: Any = ...,  # noqa: ANN401
        qos: int | None = None,
        retain: bool | None = None,
        where: _Where = None,
    ) -> int:
        """How many match. After `settled()` of the broker none is on its way any more."""
        return len(self.matching(filter, payload, json=json, qos=qos, retain=retain, where=where))

    def assert_received(
        self,
        filter: str = "#",  # noqa: A002
        payload: _Payload = ...,
        *,
        json: Any = ...,  # noqa: ANN401
        qos: int | None = None,
        retain: bool | None = None,
        where: _Where = None,
        count: int | None = None,
    ) -> Message:
        """Fail unless at least one message has come that matches, or exactly `count`; the last of them.

        It does not wait: `wait_for` does, and so does `settled()` of the broker. The failure says what came instead:
        how the payloads differ, or which topics are most alike.
        """
        __tracebackhide__ = True
        found = self.matching(filter, payload, json=json, qos=qos, retain=retain, where=where)
        if found and count in (None, len(found)):
            return found[-1]
        expectation = Expectation(filter, payload, json=json, qos=qos, retain=retain, where=where)
        if count == 0:
            raise ValueError("count=0 is what assert_not_received is for")
        if found:
            raise AssertionError(unwanted(f"{len(found)} messages match, not {count}: {expectation}", found))
        outcome = f"no message matches (and none was waited for, as wait_for does): {expectation}"
        raise AssertionError(missing(expectation, self._seen, outcome))

    def assert_not_received(
        self,
        filter: str = "#",  # noqa: A002
        payload: _Payload = ...,
        *,
        json: Any = ...,  # noqa: ANN401
        qos: int | None = None,
        retain: bool | None = None,
        where: _Where = None,
    ) -> None:
        """Fail if a message matches. Call `settled()` of the broker first, or it may still be on its way."""
        __tracebackhide__ = True
        found = self.matching(filter, payload, json=json, qos=qos, retain=retain, where=where)
        if found:
            expectation = Expectation(filter, payload, json=json, qos=qos, retain=retain, where=where)
            outcome = f"{len(found)} messages match, and none should: {expectation}"
            raise AssertionError(unwanted(outcome, found))

    def assert_topics(self, *topics: str) -> None:
        """Fail unless messages came on these topics and no others, in this order."""
        __tracebackhide__ = True
        found = self.topics
        if found != list(topics):
            from difflib import ndiff  # noqa: PLC0415 - failures only

            lines = [text for text in ndiff(list(topics), found) if not text.startswith("?")]
            raise AssertionError("the topics are others (- is expected, + came):\n" + "\n".join(lines))

    def _not_in_time(self, expectation: Expectation, count: int, timeout: float, found: int) -> AssertionError:
        self._drain()
        wanted = "no message matches" if count == 1 else f"{found} of {count} messages match"
        why = "the broker or the connection has ended" if self._is_over else f"waited {timeout:g} s"
        return AssertionError(missing(expectation, self._seen, f"{wanted} ({why}): {expectation}"))

    def _find(self, expectation: Expectation, start: int, found: list[Message]) -> int:
        """Add what matches from `start` on; where to go on."""
        found += filter(expectation.is_met_by, self._seen[start:])
        return len(self._seen)

    def _next(self, expectation: Expectation) -> Message | None:
        for index, message in enumerate(self._seen):
            if index not in self._given and expectation.is_met_by(message):
                self._given.add(index)
                return message
        return None

    def __len__(self) -> int:
        return len(self.messages)

    def __repr__(self) -> str:
        listed = topics_like("", self._seen)
        return f"{type(self).__name__}({len(self._seen)} messages)" + "".join("\n" + text for text in listed)


class Capture(_Captured):
    """Captures what a broker delivers; for coroutines.

        async with Capture(broker) as capture:
            await my_app(broker.url)
            m = await capture.wait_for("alarm/#")

    Args:
        server: A `Broker` of this process, a `ForeignBroker`, or the URL of any.
        *filters: Topic filters; `"#"` by default.
        maxsize: Messages that may come between two questions; at more, the next question raises `QueueFull`.
        **client: Arguments of `Client`, if the server is a URL.
    """

    async def __aenter__(self) -> Self:
        self._prepare()
        if self._client is not None:
            await self._client.connect()
        self._subscription = self._subscribe()
        await self._subscription
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._drain()
        self._is_over = True
        if self._client is not None:
            await self._client.disconnect()
        self._subscription = None

    async def wait_for(
        self,
        filter: str = "#",  # noqa: A002
        payload: _Payload = ...,
        *,
        json: Any = ...,  # noqa: ANN401
        qos: int | None = None,
        retain: bool | None = None,
        where: _Where = None,
        timeout: float = TIMEOUT,  # noqa: ASYNC109 - the failure tells what came in that time
    ) -> Message:
        """The first message that matches, as soon as it is there, be it from before.

        Args:
            filter: Topic filter; for this and the others see `matching`.
            payload: The whole payload.
            json: What the payload is as JSON.
            qos: Quality of service.
            retain: Whether it was published to be retained.
            where: A function that says whether it is one.
            timeout: How long to wait, seconds.

        Raises:
            AssertionError: None came in time. It says what came instead.
        """
        __tracebackhide__ = True
        expectation = Expectation(filter, payload, json=json, qos=qos, retain=retain, where=where)
        return (await self._wait(expectation, 1, timeout))[0]

    async def wait_for_all(
        self,
        filter: str = "#",  # noqa: A002
        payload: _Payload = ...,
        *,
        count: int,
        json: Any = ...,  # noqa: ANN401
        qos: int | None = None,
        retain: bool | None = None,
        where: _Where = None,
        timeout: float = TIMEOUT,  # noqa: ASYNC109
    ) -> list[Message]:
        """The first `count` messages that match, as soon as they are there. As `wait_for`."""
        __tracebackhide__ = True
        return await self._wait(
            Expectation(filter, payload, json=json, qos=qos, retain=retain, where=where), count, timeout
        )

    async def next(
        self,
        filter: str = "#",  # noqa: A002
        payload: _Payload = ...,
        *,
        json: Any = ...,  # noqa: ANN401
        qos: int | None = None,
        retain: bool | None = None,
        where: _Where = None,
        timeout: float = TIMEOUT,  # noqa: ASYNC109
    ) -> Message:
        """The first message that matches and that `next` has not given out yet. As `wait_for`."""
        __tracebackhide__ = True
        expectation = Expectation(filter, payload, json=json, qos=qos, retain=retain, where=where)
        self._drain()
        try:
            async with asyncio.timeout(timeout):
                while (message := self._next(expectation)) is None:
                    await self._more()
        except TimeoutError:
            raise self._not_in_time(expectation, 1, timeout, 0) from None
        return message

    async def _wait(self, expectation: Expectation, count: int, timeout: float) -> list[Message]:  # noqa: ASYNC109
        __tracebackhide__ = True
        self._drain()
        found: list[Message] = []
        at = self._find(expectation, 0, found)
        try:
            async with asyncio.timeout(timeout):
                while len(found) < count:
                    await self._more()
                    at = self._find(expectation, at, found)
        except TimeoutError:
            raise self._not_in_time(expectation, count, timeout, len(found)) from None
        return found[:count]

    async def _more(self) -> None:
        """Wait for one more."""
        if self._subscription is None or self._is_over:
            raise TimeoutError
        try:
            message = await anext(self._subscription)
        except (ferromq.Closed, ferromq.ConnectionLost, StopAsyncIteration):
            self._is_over = True
            raise TimeoutError from None
        if self._is_v5 or not message.retain:
            self._seen.append(message)
        self._drain()


class SyncCapture(_Captured):
    """Captures what a broker delivers; for code without an event loop. Arguments are those of `Capture`.

    with SyncCapture(broker) as capture:
        m = capture.wait_for("alarm/#")
    """

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.stop()

    def wait_for(
        self,
        filter: str = "#",  # noqa: A002
        payload: _Payload = ...,
        *,
        json: Any = ...,  # noqa: ANN401
        qos: int | None = None,
        retain: bool | None = None,
        where: _Where = None,
        timeout: float = TIMEOUT,
    ) -> Message:
        """The first message that matches, as soon as it is there, be it from before. As `Capture.wait_for`.

        Raises:
            AssertionError: None came in time. It says what came instead.
        """
        __tracebackhide__ = True
        return self._wait(Expectation(filter, payload, json=json, qos=qos, retain=retain, where=where), 1, timeout)[0]

    def wait_for_all(
        self,
        filter: str = "#",  # noqa: A002
        payload: _Payload = ...,
        *,
        count: int,
        json: Any = ...,  # noqa: ANN401
        qos: int | None = None,
        retain: bool | None = None,
        where: _Where = None,
        timeout: float = TIMEOUT,
    ) -> list[Message]:
        """The first `count` messages that match, as soon as they are there. As `wait_for`."""
        __tracebackhide__ = True
        return self._wait(Expectation(filter, payload, json=json, qos=qos, retain=retain, where=where), count, timeout)

    def next(
        self,
        filter: str = "#",  # noqa: A002
        payload: _Payload = ...,
        *,
        json: Any = ...,  # noqa: ANN401
        qos: int | None = None,
        retain: bool | None = None,
        where: _Where = None,
        timeout: float = TIMEOUT,
    ) -> Message:
        """The first message that matches and that `next` has not given out yet. As `wait_for`."""
        __tracebackhide__ = True
        expectation = Expectation(filter, payload, json=json, qos=qos, retain=retain, where=where)
        self._drain()
        deadline = time.monotonic() + timeout
        while (message := self._next(expectation)) is None:
            left = deadline - time.monotonic()
            if left <= 0 or self._is_over:
                raise self._not_in_time(expectation, 1, timeout, 0)
            self._take(left)
        return message

    def _wait(self, expectation: Expectation, count: int, timeout: float) -> list[Message]:
        __tracebackhide__ = True
        self._drain()
        found: list[Message] = []
        deadline = time.monotonic() + timeout
        at = self._find(expectation, 0, found)
        while len(found) < count:
            left = deadline - time.monotonic()
            if left <= 0 or self._is_over:
                raise self._not_in_time(expectation, count, timeout, len(found))
            self._take(left)
            at = self._find(expectation, at, found)
        return found[:count]
