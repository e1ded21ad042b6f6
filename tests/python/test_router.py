"""Router: arguments made of messages, order within a topic, bounded concurrency, exceptions that reach the caller."""

import asyncio
import enum
from contextlib import asynccontextmanager
from dataclasses import dataclass

import ferromq
import pytest
from ferromq import Message


@dataclass
class Reading:
    celsius: float
    unit: str = "C"


class Line(enum.Enum):
    A = "a"
    B = "b"


@asynccontextmanager
async def running(router, client, broker, **options):
    """The router at work: all its subscriptions are made."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(router.run(client, **options))
        wanted = len(router)
        while sum(info.subscriptions for info in broker.clients if info.client_id == client.client_id) < wanted:
            assert not task.done()
            await asyncio.sleep(0)  # it cannot tell
        yield task
        task.cancel()


async def test_arguments_are_made_of_the_message(broker, client, other):
    router, seen = ferromq.Router(), asyncio.Queue()

    @router.on("plant/{line}/{number}/temp")
    async def async_handler(line: Line, number: int, payload: Reading, topic):
        seen.put_nowait((line, number, payload, topic))

    @router.on("raw/{rest:#}")
    def sync_handler(m: Message, params, payload, unused=1):
        seen.put_nowait((m.topic, params, payload, unused))

    @router.on("thread/+", thread=True)
    def threaded(payload: float):
        asyncio.run_coroutine_threadsafe(seen.put(payload), loop).result()

    loop = asyncio.get_running_loop()
    async with running(router, client, broker), asyncio.timeout(20):
        await other.publish("plant/a/7/temp", {"celsius": 21.5}, encode="json")
        assert await seen.get() == (Line.A, 7, Reading(21.5), "plant/a/7/temp")
        await other.publish("raw/x/y", b"\xff")
        assert await seen.get() == ("raw/x/y", {"rest": "x/y"}, b"\xff", 1)
        await other.publish("thread/1", "2.5")
        assert await seen.get() == 2.5


@pytest.mark.parametrize(
    ("hint", "payload", "made"),
    [
        (bytes, b"x", b"x"),
        (str, b"x", "x"),
        (int, b"7", 7),
        (bool, b"true", True),
        (dict, b'{"a": 1}', {"a": 1}),
        (list[int], b"[1, 2]", [1, 2]),
    ],
)
async def test_a_payload_is_what_it_is_annotated_with(  # noqa: PLR0917
    broker, client, within, hint, payload, made
):
    router, seen = ferromq.Router(), asyncio.Queue()

    def handler(payload):
        seen.put_nowait(payload)

    handler.__annotations__ = {"payload": hint}
    router.on("x")(handler)
    async with running(router, client, broker):
        broker.publish("x", payload)
        assert await within(seen.get()) == made


def test_what_no_message_has_is_refused_when_it_is_written():
    router = ferromq.Router()
    with pytest.raises(TypeError, match="did you mean 'line'"):
        router.on("plant/{line}")(lambda lime: lime)
    with pytest.raises(TypeError, match="line"):
        # Only one of the two filters has it.
        router.on("plant/{line}", "other/+")(lambda line: line)
    with pytest.raises(TypeError, match="not known"):

        @router.on("x")
        def handler(payload: complex):
            return payload

    with pytest.raises(ferromq.InvalidTopic):
        router.on("a/#/b")(print)
    with pytest.raises(TypeError, match="filter"):
        router.on()(print)
    with pytest.raises(TypeError, match="thread"):

        @router.on("x", thread=True)
        async def never():
            pass

    assert len(router) == 0


async def test_a_router_without_handlers_is_refused(client, within):
    with pytest.raises(ValueError, match="no handlers"):
        await within(ferromq.Router().run(client))
    router = ferromq.Router()
    router.on("x")(print)
    with pytest.raises(ValueError, match="concurrency"):
        await within(router.run(client, concurrency=0))


async def test_topics_run_side_by_side_and_each_in_order(broker, client, other):
    router, done, most, now = ferromq.Router(), [], 0, 0
    finished = asyncio.Event()

    @router.on("t/{n}")
    async def handler(n, payload: int):
        nonlocal most, now
        now += 1
        most = max(most, now)
        # Later messages are the faster ones: order is not luck.
        for _ in range(20 - payload):
            await asyncio.sleep(0)
        now -= 1
        done.append((n, payload))
        if len(done) == 100:
            finished.set()

    async with running(router, client, broker, concurrency=3), asyncio.timeout(20):
        await other.publish_many([(f"t/{i % 5}", str(i // 5)) for i in range(100)], qos=1)
        await finished.wait()
    for topic in "01234":
        assert [payload for n, payload in done if n == topic] == list(range(20))
    assert done != sorted(done, key=lambda one: (one[1], one[0]))
    assert most == 3


async def test_an_exception_reaches_who_awaits_and_its_message_comes_again(broker, other, within):
    router, began = ferromq.Router(), []

    @router.on("x")
    async def handler(payload: int):
        began.append(payload)
        if payload == 2:
            raise KeyError(payload)

    async def drive(client):
        async with running(router, client, broker) as task:
            await other.publish_many(["1", "2", "3"], topic="x", qos=1)
            await within(task)

    session = {"client_id": "worker", "session": ferromq.Session()}
    async with ferromq.Client(broker, **session) as client:
        with pytest.raises(ExceptionGroup) as raised:
            await drive(client)
        (inner,) = raised.value.exceptions
        (error,) = inner.exceptions
        assert isinstance(error, KeyError)
        assert error.args == (2,)
    assert began == [1, 2]
    async with ferromq.Client(broker, **session) as client:
        again = client.subscribe("x", qos=1)
        async with again:
            assert [(await within(anext(again))).payload for _ in range(2)] == [b"2", b"3"]


async def test_on_error_lets_the_others_go_on(broker, client, other, within):
    router, failed, seen = ferromq.Router(), [], asyncio.Queue()

    @router.on("x")
    def handler(payload: int):
        seen.put_nowait(payload)

    async with running(router, client, broker, on_error=lambda message, error: failed.append((message.payload, error))):
        await other.publish_many(["1", "two", "3"], topic="x", qos=1)
        assert [await within(seen.get()) for _ in range(2)] == [1, 3]
        await within(broker.settled())
        ((payload, error),) = failed
        assert payload == b"two"
        assert isinstance(error, ValueError)


async def test_it_ends_with_the_client_and_leaves_no_subscription(broker, within):
    router = ferromq.Router()
    router.on("x")(lambda message: message)
    client = ferromq.Client(broker, client_id="closing")
    await client.connect()
    async with running(router, client, broker) as task:
        await client.disconnect()
        await within(task)
    async with ferromq.Client(broker, client_id="cancelled") as client:
        async with running(router, client, broker):
            pass
        (info,) = [info for info in broker.clients if info.client_id == "cancelled"]
        assert info.subscriptions == 0


async def test_cancelling_cancels_what_is_being_handled(broker, client, other):
    router, was_cancelled = ferromq.Router(), []
    started = asyncio.Event()

    @router.on("x")
    async def handler():
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled.append(True)
            raise

    async with running(router, client, broker), asyncio.timeout(20):
        await other.publish("x", qos=1)
        await started.wait()
    assert was_cancelled == [True]


async def test_a_busy_topic_does_not_hold_up_others_and_is_bounded(broker, client, other, within):
    router, gate, seen = ferromq.Router(), asyncio.Event(), asyncio.Queue()

    @router.on("busy", maxsize=4)
    async def busy():
        await gate.wait()

    @router.on("quick")
    def quick(payload):
        seen.put_nowait(payload)

    router_too = ferromq.Router()
    router_too.include(router)
    async with running(router_too, client, broker, concurrency=1):
        await other.publish_many([b""] * 10, topic="busy", qos=1)
        await other.publish("quick", b"q", qos=1)
        assert await within(seen.get()) == b"q"
        gate.set()
        await within(broker.settled())


async def test_a_block_is_entered_subscribed_and_left_when_what_began_is_done(broker, client, other, within):
    router, began, gate, seen = ferromq.Router(), asyncio.Event(), asyncio.Event(), []

    @router.on("x")
    async def handler(payload):
        began.set()
        await gate.wait()
        seen.append(payload)

    async with router.running(client):
        (info,) = [info for info in broker.clients if info.client_id == "client"]
        assert info.subscriptions == 1
        await other.publish("x", b"1", qos=1)
        await within(began.wait())
        asyncio.get_running_loop().call_soon(gate.set)
    assert seen == [b"1"]
    (info,) = [info for info in broker.clients if info.client_id == "client"]
    assert info.subscriptions == 0


async def test_an_exception_of_a_handler_ends_the_block_and_is_raised(client, other, within):
    router = ferromq.Router()

    @router.on("x")
    def handler(payload: int):
        pass

    async def block():
        async with router.running(client):
            await other.publish("x", b"no number", qos=1)
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as raised:
        await within(block())
    assert raised.value.subgroup(ValueError)
