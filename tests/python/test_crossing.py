# ruff: noqa: PLC0415 - uvloop is optional
"""Between tokio and asyncio: cancellation, fairness, one consumer, loops of all kinds, and their ends."""

import asyncio
import gc
import selectors
import threading
import weakref

import ferromq
import pytest


class NoReaderLoop(asyncio.SelectorEventLoop):
    """As Windows' Proactor loop: it cannot watch a socket."""

    def add_reader(self, fd, callback, *args):
        raise NotImplementedError


def each_loop():
    yield pytest.param(asyncio.SelectorEventLoop, id="selector")
    yield pytest.param(lambda: asyncio.SelectorEventLoop(selectors.SelectSelector()), id="select")
    yield pytest.param(NoReaderLoop, id="no-reader")
    try:
        import uvloop
    except ImportError:
        yield pytest.param(None, id="uvloop", marks=pytest.mark.skip(reason="needs uvloop: pip install uvloop"))
    else:
        yield pytest.param(uvloop.new_event_loop, id="uvloop")


LOOPS = list(each_loop())


def run(factory, coroutine):
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)


async def one_by_one(url, count=200):
    async with ferromq.Client(url) as client, client.subscribe("x", qos=1) as messages:
        received = []
        for n in range(count):
            await client.publish("x", str(n), qos=n % 3)
            received.append(int((await anext(messages)).text()))
        return received


@pytest.mark.parametrize("factory", LOOPS)
def test_any_loop_will_do(broker, factory):
    assert run(factory, one_by_one(broker.url)) == list(range(200))


@pytest.mark.parametrize("factory", LOOPS)
def test_a_batch_is_given_out_in_time_on_any_loop(broker, factory):
    async def main():
        async with ferromq.Client(broker.url) as client, client.subscribe("x") as messages:
            await client.publish("x", b"1")
            return [m.payload for m in await anext(messages.batches(max=10, within=0.01))]

    assert run(factory, main()) == [b"1"]


def test_several_loops_in_several_threads_at_once(broker):
    results = {}

    def work(number):
        results[number] = run(None, one_by_one_on(number))

    async def one_by_one_on(number):
        async with ferromq.Client(broker.url) as client, client.subscribe(f"x/{number}", qos=1) as messages:
            received = []
            for n in range(100):
                await client.publish(f"x/{number}", str(n), qos=1)
                received.append(int((await anext(messages)).text()))
            return received

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {number: list(range(100)) for number in range(4)}


def test_one_client_serves_several_loops_one_after_the_other(broker):
    client = ferromq.Client(broker.url)

    async def enter():
        await client.connect()
        await client.publish("x", b"1", qos=1)

    async def use():
        async with client.subscribe("x") as messages:
            await client.publish("x", b"2", qos=1)
            payload = (await anext(messages)).payload
        await client.disconnect()
        return payload

    asyncio.run(enter())
    assert asyncio.run(use()) == b"2"


def test_verbs_may_be_called_before_the_loop_runs(broker):
    loop = asyncio.new_event_loop()
    client = ferromq.Client(broker.url)
    assert loop.run_until_complete(client.connect()) is client
    assert loop.run_until_complete(client.publish("x", b"", qos=1)).reason_code == 0x10
    assert loop.run_until_complete(client.publish("x", b"")).reason_code == 0
    assert loop.run_until_complete(client.publish_many([b""] * 3, topic="x", qos=1)) == 3
    operation = client.disconnect()
    assert loop.run_until_complete(operation) is None
    assert loop.run_until_complete(operation) is None
    loop.close()
    assert asyncio.run(client.connect()) is client


def test_without_a_loop_the_error_says_what_to_use():
    connecting = ferromq.Client().connect()
    with pytest.raises(RuntimeError, match="SyncClient"):
        connecting.send(None)


@pytest.mark.parametrize("factory", LOOPS)
def test_a_closed_loop_leaves_nothing_behind(broker, factory):
    """Futures of a loop that was closed under a waiting consumer are dropped without a word."""

    async def main():
        client = ferromq.Client(broker.url)
        await client.connect()
        subscription = await client.subscribe("x", qos=1)
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        assert not waiting.done()
        return client, subscription, weakref.ref(asyncio.get_running_loop())

    loop = factory()
    client, subscription, loop_ref = loop.run_until_complete(main())
    assert [task.cancel() for task in asyncio.all_tasks(loop)] == [True]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    # Things still come in, for nobody.
    broker.publish("x", b"1", qos=1)
    broker.wait_settled(timeout=20)

    async def later():
        payload = (await anext(subscription)).payload
        await client.disconnect()
        return payload

    assert run(factory, later()) == b"1"
    del loop
    gc.collect()
    assert loop_ref() is None, "something keeps a closed loop alive"


async def test_a_cancelled_anext_loses_no_message(client, other, within):
    count = 300
    async with other.subscribe("n", qos=1) as messages:
        received = []
        publishing = asyncio.create_task(client.publish_many([str(n) for n in range(count)], topic="n", qos=1))
        cancelled = 0
        while len(received) < count:
            waiting = asyncio.ensure_future(anext(messages))
            await asyncio.sleep(0)
            if len(received) % 2 and waiting.cancel():
                cancelled += 1
            try:
                received.append(int((await within(waiting)).text()))
            except asyncio.CancelledError:
                received.append(int((await within(anext(messages))).text()))
        await publishing
    assert received == list(range(count))


async def test_a_wait_that_timed_out_loses_no_message(client, other, within):
    async with other.subscribe("n") as messages:
        for n in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await anext(messages)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(messages), 0.001)
            await client.publish("n", str(n))
            assert int((await within(anext(messages))).text()) == n


async def test_a_second_consumer_is_refused_and_the_first_goes_on(client, other, within):
    async with other.subscribe("n") as messages:
        first = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one consumer"):
            await anext(messages)
        with pytest.raises(RuntimeError, match="one consumer"):
            await anext(messages.batches())
        await client.publish("n", b"1")
        assert (await within(first)).payload == b"1"
        await client.publish("n", b"2")
        assert (await within(anext(messages))).payload == b"2"


async def test_gather_of_two_anext_is_two_consumers(client, other, within):
    async with other.subscribe("n") as messages:
        both = asyncio.gather(anext(messages), anext(messages), return_exceptions=True)
        await asyncio.sleep(0)
        await client.publish("n")
        first, second = await within(both)
        assert isinstance(first, ferromq.Message)
        assert isinstance(second, RuntimeError)


async def test_anext_of_a_stream_is_a_coroutine_for_asyncio(client, other, within):
    async with other.subscribe("n") as messages:
        stream = aiter(messages)
        task = asyncio.create_task(anext(stream))
        await client.publish("n", b"1")
        assert (await within(task)).payload == b"1"


async def test_a_flood_leaves_turns_to_others(client, other, broker, within):
    count = 20_000
    turns = 0

    async def tick():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with other.subscribe("n") as messages:
        await client.publish_many([b""] * count, topic="n")
        await within(broker.settled())
        ticker = asyncio.create_task(tick())
        received = 0
        async for _ in messages:
            received += 1
            if received == count:
                break
        ticker.cancel()
    assert turns >= count // 256


@pytest.mark.parametrize("verb", ["publish", "publish_many"])
async def test_a_loop_that_only_publishes_leaves_turns_to_others(client, verb):
    count, at_once = 20_000, 10
    turns = 0

    async def tick():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    if verb == "publish":
        for _ in range(count):
            await client.publish("n")
    else:
        for _ in range(count // at_once):
            assert await client.publish_many([b""] * at_once, topic="n") == at_once
    ticker.cancel()
    assert turns >= count // 300


async def test_a_timeout_ends_a_loop_that_only_publishes(client):
    published = 0

    async def flood():
        nonlocal published
        while published < 100_000:
            await client.publish("n")
            published += 1

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flood(), 0.001)
    assert published < 100_000


async def test_an_exception_thrown_into_a_waiting_task_frees_the_stream(client, other, within):
    async with other.subscribe("n") as messages:

        async def consume():
            async for _ in messages:
                raise AssertionError

        task = asyncio.create_task(consume())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.publish("n", b"1")
        assert (await within(anext(messages))).payload == b"1"


async def test_operations_can_be_awaited_again_and_by_several(client):
    publication = client.publish("x", b"", qos=1)
    acks = await asyncio.gather(*(asyncio.create_task(wait(publication)) for _ in range(3)))
    assert acks == [await publication] * 3
    publication.close()


async def wait(awaitable):
    return await awaitable


async def test_a_publication_that_is_over_before_it_is_awaited_gives_its_end(client, broker):
    publications = [client.publish("x", b"", qos=1) for _ in range(100)]
    await client.publish("x", b"", qos=1)
    await broker.settled()
    for publication in publications:
        # Without a turn of the loop: there is nothing to wait for.
        with pytest.raises(StopIteration) as ended:
            publication.send(None)
        assert ended.value.value.reason_code in {0, 0x10}
        assert await publication == ended.value.value


@pytest.fixture
def strict():
    with ferromq.Broker(acl=ferromq.Acl(no_match="deny")) as broker:
        yield broker


async def test_a_refusal_is_raised_however_late_and_often_it_is_asked_for(strict):
    async with ferromq.Client(strict) as client:
        publications = [client.publish("x", b"", qos=1) for _ in range(3)]
        for publication in publications * 2:
            with pytest.raises(ferromq.Refused) as refused:
                await publication
            assert refused.value.reason_code == 0x87


@pytest.mark.parametrize("is_dropped_first", [True, False])
async def test_a_refusal_that_nobody_asks_for_goes_to_the_exception_handler(strict, within, is_dropped_first):
    told = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.put_nowait(context))
    async with ferromq.Client(strict) as client:
        lost = client.publish("x", b"", qos=1)
        if is_dropped_first:
            del lost
        with pytest.raises(ferromq.Refused):
            await client.publish("x", b"", qos=1)
        if not is_dropped_first:
            assert told.empty()
            del lost
        context = await within(told.get())
    assert isinstance(context["exception"], ferromq.Refused)
    assert context["message"] == "a publication failed, and nobody awaited it"
    assert told.empty(), "the one that was awaited is known"


@pytest.mark.parametrize("is_over", [True, False], ids=["over", "under way"])
async def test_publications_that_another_thread_drops_are_told_of_on_their_loop(strict, within, is_over):
    count = 500
    home, told = threading.get_ident(), []
    enough = asyncio.Event()

    def note(_loop, context):
        told.append((threading.get_ident(), type(context["exception"]), context["message"]))
        if len(told) == count:
            enough.set()

    asyncio.get_running_loop().set_exception_handler(note)
    async with ferromq.Client(strict) as client:
        held = [client.publish("x", b"", qos=1) for _ in range(count)]
        if is_over:
            with pytest.raises(ferromq.Refused):
                await client.publish("x", b"", qos=1)
            assert told == []
        # The list's only reference goes to the thread, and there the publications go, while the answers come here.
        handed = [held]
        del held
        dropping = asyncio.to_thread(lambda: handed.pop().clear())
        await within(asyncio.gather(dropping, enough.wait()))
    assert told == [(home, ferromq.NotAuthorized, "a publication failed, and nobody awaited it")] * count


async def test_publications_that_succeed_are_dropped_by_another_thread_without_a_word(broker, within):
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    async with ferromq.Client(broker) as client:
        for _ in range(20):
            handed = [[client.publish("x", b"", qos=1) for _ in range(50)]]
            waited = [client.publish("x", b"", qos=2) for _ in range(5)]
            await within(asyncio.gather(asyncio.to_thread(lambda handed=handed: handed.pop().clear()), *waited))
        await within(broker.settled())
        # Of what was dropped nothing is left, and nothing was lost.
        assert broker.stats()["publish_received"] == 20 * 55
        assert client.stats()["unfinished"] == 0
    assert told == []


async def test_a_publication_that_is_awaited_here_may_be_dropped_there(strict, within):
    async with ferromq.Client(strict) as client:
        for _ in range(50):
            publication = client.publish("x", b"", qos=1)
            waiting = asyncio.ensure_future(wait(publication))
            await asyncio.sleep(0)
            handed = [publication]
            del publication
            await asyncio.to_thread(handed.clear)
            with pytest.raises(ferromq.NotAuthorized):
                await within(waiting)


async def test_a_publication_may_be_awaited_on_another_loop(client):
    publications = [client.publish("x", b"", qos=1) for _ in range(50)]

    async def elsewhere():
        return [await publication for publication in publications]

    acks = await asyncio.to_thread(asyncio.run, elsewhere())
    assert acks == [await publication for publication in publications]


async def test_cancelling_a_publication_does_not_disturb_the_others(within):
    with ferromq.Broker(faults=True) as broker:
        broker.faults.delay("PUBACK", by="20 s", client="slow", direction="to_client")
        async with (
            ferromq.Client(broker, client_id="slow") as client,
            ferromq.Client(broker) as other,
            other.subscribe("x", qos=1) as messages,
        ):
            tasks = [asyncio.create_task(wait(client.publish("x", str(n), qos=1))) for n in range(20)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            received = sorted([int((await within(anext(messages))).text()) for _ in range(20)])
            assert received == list(range(20)), "they were on their way already"
            assert not any(task.done() for task in tasks[1::2])
            broker.clock.advance("20 s")
            results = await within(asyncio.gather(*tasks, return_exceptions=True))
            assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
            assert all(isinstance(result, ferromq.PublishAck) for result in results[1::2])


async def test_cancelling_a_connection_attempt_ends_it(within):
    async def silent(reader, writer):
        await reader.read()
        writer.close()
        closed.set()

    closed = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = ferromq.Client(f"mqtt://127.0.0.1:{port}", timeout=60)
    attempt = asyncio.create_task(client.connect())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(attempt), 0.2)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await within(closed.wait())
    server.close()
    await server.wait_closed()


async def test_objects_that_only_ferromq_makes_cannot_be_made():
    with pytest.raises(TypeError):
        ferromq.Stream()
    with pytest.raises(TypeError):
        ferromq.Operation()
    assert ferromq.Subscription[ferromq.Message]
    assert ferromq.Stream[ferromq.Message]


async def collect():
    gc.collect()
    await asyncio.sleep(0)  # the loop's turn holds what was awaited last


async def test_a_subscription_in_a_reference_cycle_is_collected(broker, client, within):
    class Holder:
        pass

    holder = Holder()
    holder.subscription = await client.subscribe("x")
    holder.operation = client.publish("x", b"", qos=1)
    await holder.operation
    holder.itself = holder
    reference = weakref.ref(holder)
    del holder
    with pytest.warns(RuntimeWarning, match="the subscription to x ends"):
        await collect()
    assert reference() is None
    await within(broker.settled())
