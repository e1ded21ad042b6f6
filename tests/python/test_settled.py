"""`settled()` is true quiescence: what a test counts after it does not change any more."""

import asyncio
from contextlib import AsyncExitStack

import ferromq
import pytest

ROUNDS = 60


@pytest.fixture(params=[1, 3], ids=["1 shard", "3 shards"])
def broker(request):
    with ferromq.Broker(shards=request.param, seed=1) as broker:
        yield broker


@pytest.fixture
async def clients(broker):
    async with AsyncExitStack() as stack:

        async def connect(client_id, **options):
            return await stack.enter_async_context(ferromq.Client(broker, client_id=client_id, **options))

        yield connect


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_was_published_is_in_the_mailboxes_unread(broker, clients, within, qos):
    publisher = await clients("publisher")
    inboxes = [await (await clients(f"subscriber {n}")).subscribe("x/#", qos=2) for n in range(4)]
    for n in range(1, ROUNDS + 1):
        for _ in range(3):
            publisher.publish_nowait(f"x/{n}", bytes(n * 50), qos=qos)
        await within(broker.settled())
        assert [inbox.pending for inbox in inboxes] == [3 * n] * 4


async def test_what_the_broker_itself_publishes_is_in_the_mailboxes(broker, clients, within):
    inbox = await (await clients("subscriber")).subscribe("#")
    for n in range(1, ROUNDS + 1):
        broker.publish("x", bytes(20_000))
        await within(broker.settled())
        assert inbox.pending == n


def test_threads_can_wait_as_well(broker):
    with ferromq.SyncClient(broker) as publisher, ferromq.SyncClient(broker) as subscriber:
        inbox = subscriber.subscribe("x")
        for n in range(1, ROUNDS + 1):
            publisher.publish("x", b"")
            broker.wait_settled(timeout=20)
            assert inbox.pending == n


async def test_a_tap_is_waited_for_too(broker, clients, within):
    publisher = await clients("publisher")
    async with broker.tap("#") as tap:
        for n in range(1, ROUNDS + 1):
            publisher.publish_nowait("x")
            await within(broker.settled())
            assert tap.pending == n


async def test_retained_messages_have_come_to_a_new_subscription(broker, clients, within):
    publisher = await clients("publisher")
    await publisher.publish_many([(f"r/{n}", bytes(500)) for n in range(1000)], qos=1, retain=True)
    inbox = await (await clients("subscriber")).subscribe("r/#", qos=1)
    await within(broker.settled())
    assert inbox.pending == 1000


async def test_members_of_a_shared_subscription_have_all_of_it(broker, clients, within):
    publisher = await clients("publisher")
    inboxes = [await (await clients(f"member {n}")).subscribe("$share/g/x", qos=1) for n in range(3)]
    for n in range(1, ROUNDS + 1):
        publisher.publish_nowait("x", qos=n % 2)
        await within(broker.settled())
        assert sum(inbox.pending for inbox in inboxes) == n


async def test_what_waits_for_an_absent_session_is_not_under_way(broker, clients, within):
    publisher = await clients("publisher")
    async with ferromq.Client(broker, client_id="away", session=ferromq.Session()) as away:
        kept = await away.subscribe("x", qos=1)  # dropped, it would unsubscribe
        assert kept.granted == [1]
    await publisher.publish("x", qos=1)
    await within(broker.settled())
    (info,) = [info for info in broker.clients if info.client_id == "away"]
    # It may have been sent into the pipe of a client that had just left.
    assert (info.connected, info.queued + info.inflight) == (False, 1)
    async with ferromq.Client(broker, client_id="away", session=ferromq.Session()) as away:
        inbox = await away.subscribe("x", qos=1)
        await within(broker.settled())
        assert inbox.pending == 1


async def test_a_message_that_is_not_acknowledged_is_under_way(broker, clients, within):
    publisher, lazy = await clients("publisher"), await clients("lazy")
    async with lazy.subscribe("x", qos=1, ack="manual") as inbox:
        await publisher.publish("x", qos=1)
        with pytest.raises(ferromq.Timeout, match='"lazy": 1 unacknowledged, 0 queued'):
            await within(broker.settled(timeout=0.02))
        await (await within(anext(inbox))).ack()
        await within(broker.settled())


async def test_a_message_that_is_being_processed_is_under_way(broker, clients, within):
    publisher, lazy = await clients("publisher"), await clients("lazy")
    async with lazy.subscribe("x", qos=2, ack="processed") as inbox:
        await publisher.publish("x", qos=2)
        await within(anext(inbox))
        with pytest.raises(ferromq.Timeout, match='"lazy": 1 unacknowledged'):
            await within(broker.settled(timeout=0.02))
        waiting = asyncio.create_task(asyncio.wait_for(anext(inbox), 20))
        await within(broker.settled())
        waiting.cancel()


async def test_what_a_full_mailbox_has_no_room_for_is_under_way(broker, clients, within):
    publisher, full = await clients("publisher"), await clients("full")
    inbox = await full.subscribe("x", maxsize=2)
    await publisher.publish_many([b""] * 3, topic="x", qos=1)
    with pytest.raises(ferromq.Timeout, match='"full": a full mailbox'):
        await within(broker.settled(timeout=0.02))
    await within(anext(inbox))
    await within(broker.settled())
    # One was taken, and what the reader holds besides makes room.
    assert inbox.pending == 2


async def test_a_client_that_comes_and_goes_does_not_hold_it_up(broker, clients, within):
    publisher = await clients("publisher")

    async def come_and_go():
        while True:
            async with ferromq.Client(broker) as client, client.subscribe("#"):
                await client.publish("y")

    noise = asyncio.create_task(come_and_go())
    for _ in range(ROUNDS):
        publisher.publish_nowait("x")
        await within(broker.settled())
    noise.cancel()


async def test_a_chain_of_reactions_in_the_process_is_followed_when_they_are_acknowledged_late(broker, clients, within):
    publisher, relay, last = await clients("publisher"), await clients("relay"), await clients("last")
    inbox = await last.subscribe("b")

    async def forward():
        async with relay.subscribe("a", qos=1, ack="processed") as messages:
            is_ready.set()
            async for message in messages:
                await relay.publish("b", message.payload)

    is_ready = asyncio.Event()
    task = asyncio.create_task(forward())
    await within(is_ready.wait())
    for n in range(1, ROUNDS + 1):
        await publisher.publish("a", qos=1)
        await within(broker.settled())
        assert inbox.pending == n
    task.cancel()
