"""Functions for topics: `@router.on("plant/{line}/temp")`, and `await router.run(client)` or `router.running(client)`.

Each route is a subscription of its own. What one topic brings goes through its handler one message at a time, in order;
messages of different topics are handled at the same time, up to a bound. A message is acknowledged when its handler has
returned, so what was being handled when the process died is delivered again.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from contextlib import asynccontextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from ._ferromq import Message, parse_pattern

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
    from typing import Literal

    from ._ferromq import Client, Subscription

    _Handler = TypeVar("_Handler", bound=Callable[..., object])
    _OnError = Callable[[Message, Exception], object] | None

# Messages of a busy topic that wait for the one before, for each that may be handled at a time. While so many wait, no
# more are taken from the subscription.
_WAITING_PER_SLOT = 16


class Router:
    """Handlers of messages, by topic.

        router = ferromq.Router()

        @router.on("plant/{line}/temp", qos=1)
        async def temperature(line: int, payload: float) -> None: ...

        await router.run(client, concurrency=8)

    A handler has any of these parameters, by name: `message`, `topic`, `payload`, `params` (all named levels), and each
    named level of the filter. What it is annotated with, it gets: named levels as `str`, or what their annotation makes
    of it (`int`, `float`, an `Enum`); `payload` as `bytes` unless it is annotated with `str`, `int`, `float`, `bool`,
    `dict` or `list` (JSON), a dataclass (made of a JSON object), or a class with `model_validate_json` (pydantic).
    """

    def __init__(self) -> None:
        self._routes: list[_Route] = []

    def on(
        self,
        *filters: str,
        qos: Literal[0, 1, 2] = 1,
        thread: bool = False,
        maxsize: int = 65_536,
        max_bytes: int = 67_108_864,
        overflow: Literal["block", "drop_oldest", "drop_new", "latest_per_topic", "error"] = "block",
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: Literal["send", "new", "none"] = "send",
        user_properties: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> Callable[[_Handler], _Handler]:
        """Decorator: have a function, `async` or not, handle messages.

        Args:
            *filters: Topic filters, with named levels.
            qos: Greatest quality of service to deliver with.
            thread: Call the function, which is not `async`, on a thread: it may block.
            maxsize: Messages that may wait for the router, of the route.
            max_bytes: Their bytes.
            overflow: What happens when more come; this and the rest as with `Client.subscribe`.
            no_local: Leave out what this client publishes itself (MQTT 5).
            retain_as_published: Keep the retain flag as it was published (MQTT 5).
            retain_handling: Whether retained messages are sent: `"send"`, `"new"` (only if the subscription did not
                exist), or `"none"` (MQTT 5).
            user_properties: User properties of SUBSCRIBE (MQTT 5).

        Raises:
            InvalidTopic: A filter is not valid.
            TypeError: The function has a parameter that nothing is known for.
        """
        options: dict[str, Any] = {
            "qos": qos,
            "maxsize": maxsize,
            "max_bytes": max_bytes,
            "overflow": overflow,
            "no_local": no_local,
            "retain_as_published": retain_as_published,
            "retain_handling": retain_handling,
            "user_properties": user_properties,
        }

        def decorate(handler: _Handler) -> _Handler:
            self._routes.append(_Route(handler, filters, thread, options))
            return handler

        return decorate

    def include(self, router: Router) -> None:
        """Add the handlers of another router."""
        self._routes += router._routes

    async def run(self, client: Client, *, concurrency: int = 8, on_error: _OnError = None) -> None:
        """Subscribe, and handle messages until the client is closed or this is cancelled.

        Args:
            client: Who subscribes; it is connected.
            concurrency: Handlers that run at a time.
            on_error: What to call when a handler raises an `Exception`: the message is acknowledged then, and all
                go on. Without it the exception ends `run`.

        Raises:
            ExceptionGroup: Handlers raised; it has their exceptions, one or more. The other handlers were cancelled,
                and what they had not finished is not acknowledged. So catch it with `except*`.
            Refused: The server refused a subscription.
        """
        async with self._reading(client, _Work(concurrency, on_error)):
            pass  # it is left when all have ended

    @asynccontextmanager
    async def running(
        self, client: Client, *, concurrency: int = 8, on_error: _OnError = None
    ) -> AsyncGenerator[None, None]:
        """Handle messages as long as the block lasts. Entered means that the server has granted all subscriptions.

            async with router.running(client):
                ...

        Arguments and exceptions are those of `run`. What is being handled when the block is left is finished first,
        and what waits for its turn, too; the rest is not acknowledged.
        """
        async with self._reading(client, _Work(concurrency, on_error)) as readers:
            yield
            for reader in readers:
                reader.cancel()

    @asynccontextmanager
    async def _reading(self, client: Client, work: _Work) -> AsyncGenerator[list[asyncio.Task[None]], None]:
        """Subscribe and read; at the end, wait until all is read."""
        if not self._routes:
            raise ValueError("the router has no handlers: decorate some with @router.on(filter)")
        subscriptions = [client.subscribe(*route.filters, ack="manual", **route.options) for route in self._routes]
        try:
            for subscription in subscriptions:
                await subscription
            async with asyncio.TaskGroup() as group:
                routes = zip(self._routes, subscriptions, strict=True)
                yield [group.create_task(work.read(group, route, subscription)) for route, subscription in routes]
        finally:
            for subscription in subscriptions:
                await subscription.unsubscribe()

    def __len__(self) -> int:
        return len(self._routes)

    def __repr__(self) -> str:
        return f"Router({', '.join(name for route in self._routes for name in route.filters)})"


class _Work:
    """The handlers that run, and the messages that wait for one of the same topic."""

    def __init__(self, concurrency: int, on_error: _OnError) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency is 1 or more, not {concurrency}")
        self._slots = asyncio.Semaphore(concurrency)
        self._room = asyncio.Semaphore(concurrency * (_WAITING_PER_SLOT + 1))
        self._on_error = on_error

    async def read(self, group: asyncio.TaskGroup, route: _Route, subscription: Subscription[Message]) -> None:
        """Start a handler for each message, or have the one that handles its topic take it up."""
        busy: dict[str, deque[Message]] = {}
        async for message in subscription:
            if route.is_immediate:
                # It runs from beginning to end here: nothing of its topic can be under way.
                await self._handle(route, message)
                continue
            await self._room.acquire()
            topic = message.topic
            waiting = busy.get(topic)
            if waiting is not None:
                waiting.append(message)
                continue
            busy[topic] = deque([message])
            group.create_task(self._drain(route, topic, busy))

    async def _drain(self, route: _Route, topic: str, busy: dict[str, deque[Message]]) -> None:
        """Handle what comes on one topic until nothing waits."""
        waiting = busy[topic]
        while waiting:
            # For each message anew, so that a busy topic does not keep its slot from others.
            async with self._slots:
                await self._handle(route, waiting.popleft())
            self._room.release()
        del busy[topic]

    async def _handle(self, route: _Route, message: Message) -> None:
        try:
            result = route.call(message)
            if result is not None:
                await result
        except Exception as error:
            if self._on_error is None:
                raise
            said = self._on_error(message, error)
            if inspect.isawaitable(said):
                await said
        message.ack()


class _Route:
    """A handler, and how its arguments are made."""

    def __init__(
        self, handler: Callable[..., Any], filters: tuple[str, ...], thread: bool, options: dict[str, Any]
    ) -> None:
        if not filters:
            raise TypeError("a handler needs a topic filter: @router.on(filter)")
        self.filters = filters
        self.options = options
        self._handler = handler
        self._is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object whose __call__ is a coroutine function
        )
        if thread and self._is_async:
            raise TypeError(f"{handler!r} is a coroutine function: it runs on the event loop, not on a thread")
        self._is_threaded = thread
        self._makers = _makers(handler, _common_names(filters))

    @property
    def is_immediate(self) -> bool:
        """Whether the handler returns without giving others a turn."""
        return not (self._is_async or self._is_threaded)

    def call(self, message: Message) -> Awaitable[object] | None:
        """Begin; what is to be awaited, if anything."""
        arguments = {name: make(message) for name, make in self._makers.items()}
        if self._is_threaded:
            return asyncio.to_thread(self._handler, **arguments)
        result = self._handler(**arguments)
        return result if self._is_async else None


def _common_names(filters: tuple[str, ...]) -> list[str]:
    """The named levels that every filter has."""
    names = [parse_pattern(pattern)[1] for pattern in filters]
    return [name for name in names[0] if all(name in others for others in names)]


def _makers(handler: Callable[..., Any], levels: list[str]) -> dict[str, Callable[[Message], Any]]:
    """For each parameter of a handler, what makes its argument of a message."""
    try:
        hints: Mapping[str, Any] = get_type_hints(handler)
    except (NameError, TypeError):
        hints = {}  # imported for type checkers only: then names decide
    makers: dict[str, Callable[[Message], Any]] = {}
    for name, parameter in inspect.signature(handler).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        maker = _maker(name, hints.get(name), levels)
        if maker is not None:
            makers[name] = maker
        elif parameter.default is parameter.empty:
            known = ["message", "topic", "payload", "params", *levels]
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{handler!r} has a parameter {name!r}; a message has {', '.join(known)}{hint}")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(f"{handler!r}: parameter {name!r} is positional-only; arguments are passed by name")
    return makers


def _maker(name: str, hint: Any, levels: list[str]) -> Callable[[Message], Any] | None:  # noqa: ANN401
    if name in levels:
        is_text = hint in (None, str, Any) or not callable(hint)
        return (lambda message: message.params[name]) if is_text else (lambda message: hint(message.params[name]))
    if name == "payload":
        return _payload_maker(hint)
    makers: dict[str, Callable[[Message], Any]] = {
        "message": lambda message: message,
        "topic": lambda message: message.topic,
        "params": lambda message: message.params,
    }
    return makers["message"] if hint is Message else makers.get(name)


def _payload_maker(hint: Any) -> Callable[[Message], Any]:  # noqa: ANN401
    kind = getattr(hint, "__origin__", hint)
    plain: dict[Any, Callable[[Message], Any]] = {
        None: lambda message: message.payload,
        Any: lambda message: message.payload,
        bytes: lambda message: message.payload,
        memoryview: memoryview,
        str: lambda message: message.text(),
        int: lambda message: int(message.text()),
        float: lambda message: float(message.text()),
        bool: lambda message: _json_of(message, bool),
        dict: lambda message: _json_of(message, dict),
        list: lambda message: _json_of(message, list),
    }
    if kind in plain:
        return plain[kind]
    if hasattr(hint, "model_validate_json"):
        return lambda message: hint.model_validate_json(message.payload)
    if hasattr(hint, "__dataclass_fields__"):
        return lambda message: hint(**_json_of(message, dict))
    raise TypeError(
        f"payload: {hint!r} is not known; annotate it with bytes, str, int, float, bool, dict, list, a dataclass or a "
        "pydantic model, or take the message"
    )


def _json_of(message: Message, kind: type) -> Any:  # noqa: ANN401
    found = message.json()
    if not isinstance(found, kind):
        raise TypeError(f"the payload on {message.topic!r} is {type(found).__name__} as JSON, and not {kind.__name__}")
    return found
