"""What waits when its client, its broker or its server ends is told so: nothing waits for what will not come."""

import asyncio
import contextlib
import threading

import ferromq
import pytest

# What may wait: how it is begun, with what kept from it, and how it ends.
WAITS = {
    "publish": ("PUBACK", lambda client: client.publish("x", qos=1)),
    "publish, QoS 2": ("PUBREC", lambda client: client.publish("x", qos=2)),
    "publish_many": ("PUBACK", lambda client: client.publish_many([b"1", b"2"], topic="x", qos=1)),
    "anext": (None, lambda client: anext(client.subscribe("x"))),
    "batches": (None, lambda client: anext(client.subscribe("x").batches())),
    "arrow": (None, lambda client: anext(client.subscribe("x").arrow(decode="json"))),
    "request": (None, lambda client: client.request("nobody/answers", timeout=3600)),
    "serve": (None, lambda client: anext(client.serve("x"))),
    "subscribe": ("SUBACK", lambda client: client.subscribe("x").__aenter__()),
    "unsubscribe": ("UNSUBACK", lambda client: client.unsubscribe("x")),
}

# An iterator over messages ends when its client is closed; whoever waits for an answer is told that none will come.
ITERATORS = {"anext", "batches", "arrow", "serve"}


async def wait(awaitable):
    return await awaitable


async def subscribed(broker):
    while broker.stats()["subscriptions"] == 0:  # noqa: ASYNC110 - the broker is asked, and tells nobody
        await asyncio.sleep(0)


@pytest.fixture
def faults_broker():
    with ferromq.Broker(faults=True) as broker:
        yield broker


@contextlib.contextmanager
def kept(broker, packet):
    """Have a packet kept from the client, and wait until it was: then it is waited for."""
    with broker.faults.drop(packet, direction="to_client") if packet else contextlib.nullcontext() as rule:
        yield rule


@pytest.mark.parametrize("end", ["disconnect", "stop", "kick"])
@pytest.mark.parametrize("name", WAITS)
async def test_what_waits_is_told_of_the_end(faults_broker, name, end, within):
    broker, (packet, begin) = faults_broker, WAITS[name]
    client = ferromq.Client(broker.url, client_id="c", reconnect=False, clock=broker.clock)
    await client.connect()
    with kept(broker, packet) as rule:
        waiting = asyncio.ensure_future(wait(begin(client)))
        if rule is not None:
            await within(rule.struck())
        else:
            # What it needs is there when its subscription is.
            await within(subscribed(broker))
        assert not waiting.done()
        if end == "disconnect":
            ending = asyncio.ensure_future(client.disconnect())
            # What is under way has until the time-out to come to its end.
            await asyncio.sleep(0)
            broker.clock.advance("1m")
        elif end == "stop":
            ending = asyncio.ensure_future(asyncio.to_thread(broker.stop))
        else:
            assert broker.kick("c", 0x98)
            ending = asyncio.ensure_future(asyncio.sleep(0))
        if end == "disconnect" and name in ITERATORS:
            expected = StopAsyncIteration
        elif end == "disconnect":
            expected = (ferromq.Closed, ferromq.Timeout)
        else:
            expected = ferromq.ConnectionLost
        with pytest.raises(expected) as ended:
            await within(waiting)
        if end != "disconnect":
            assert ended.value.reason_code == {"stop": 0x8B, "kick": 0x98}[end]
            assert ended.value.packet == "DISCONNECT"
        with contextlib.suppress(ferromq.Timeout):
            await within(ending)
    await within(client.disconnect())


async def test_events_and_taps_end_with_what_they_are_of(broker, within):
    client = ferromq.Client(broker.url, reconnect=False)
    await client.connect()
    events, tap = client.events(), broker.tap("#")
    of_client = asyncio.ensure_future(wait(anext(events)))
    of_broker = asyncio.ensure_future(wait(anext(tap)))
    await within(subscribed(broker))
    await asyncio.to_thread(broker.stop)
    last = await within(of_client)
    assert isinstance(last, ferromq.Disconnected)
    assert last.retry_in is None
    with pytest.raises(StopAsyncIteration):
        await within(anext(events))
    with pytest.raises(ferromq.ConnectionLost):
        await within(of_broker)


@pytest.mark.parametrize("name", ["get", "iterate", "take", "batch", "publish", "request", "events", "serve"])
def test_a_thread_that_waits_is_told_when_another_closes_its_client(faults_broker, name):
    broker = faults_broker
    client = ferromq.SyncClient(broker.url, client_id="c", timeout=2).connect()
    messages = client.subscribe("x")
    ended, outcome = threading.Event(), []
    calls = {
        "get": messages.get,
        "iterate": lambda: list(messages),
        "take": lambda: list(messages.take(5)),
        "batch": lambda: messages.batch(max=5, within=3600),
        "publish": lambda: client.publish("y", qos=1),
        "request": lambda: client.request("nobody/answers", timeout=3600),
        "events": lambda: [type(event) for event in client.events()],
        "serve": lambda: list(client.serve("rpc")),
    }

    def run():
        try:
            outcome.append(calls[name]())
        except ferromq.FerroMQError as error:
            outcome.append(type(error))
        ended.set()

    with kept(broker, "PUBACK" if name == "publish" else None) as rule:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        if rule is not None:
            rule.wait_struck(timeout=20)
        client.disconnect()
        assert ended.wait(20), "it waits for ever"
    expected = {"get": ferromq.Closed, "publish": ferromq.Closed, "request": ferromq.Closed}
    # Who had not begun by then finds the client closed, or its streams at their end.
    assert outcome[0] in ([], [ferromq.Disconnected], expected.get(name, []), ferromq.Closed)
