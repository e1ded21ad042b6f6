# ruff: noqa: PT012 - what raises is one of many
"""Bounded queues: what each overflow policy keeps, and when messages are acknowledged."""

import asyncio
import concurrent.futures
import select
import socket
import threading

import ferromq
import pytest


@pytest.mark.parametrize(
    ("overflow", "kept"),
    [("drop_oldest", range(90, 100)), ("drop_new", range(10))],
)
async def test_a_full_queue_drops_by_its_policy(broker, client, other, overflow, kept, within):  # noqa: PLR0917
    async with other.subscribe("n", maxsize=10, overflow=overflow) as messages:
        await client.publish_many([str(n) for n in range(100)], topic="n")
        await within(broker.settled())
        # The broker has written everything; a request's answer comes behind it on the same connection.
        async with other.subscribe("marker") as marker:
            await client.publish("marker")
            await within(anext(marker))
        assert messages.pending == 10
        assert messages.dropped == 90
        assert [int((await within(anext(messages))).text()) for _ in kept] == list(kept)


async def test_the_latest_of_each_topic_is_kept(client, other, within):
    async with other.subscribe("n/+", overflow="latest_per_topic") as messages, other.subscribe("marker") as marker:
        await client.publish_many([(f"n/{n % 3}", str(n)) for n in range(30)])
        await client.publish("marker")
        await within(anext(marker))
        assert sorted([int((await within(anext(messages))).text()) for _ in range(3)]) == [27, 28, 29]
        assert messages.pending == 0
        assert messages.dropped == 27


async def test_a_full_queue_may_be_an_error(client, other, within):
    async with other.subscribe("n", maxsize=5, overflow="error") as messages:
        await client.publish_many([b""] * 20, topic="n", qos=1)
        with pytest.raises(ferromq.QueueFull):
            for _ in range(20):
                await within(anext(messages))


async def test_block_holds_the_server_back_and_loses_nothing(client, broker, within):
    count, size = 400, 50_000
    async with (
        ferromq.Client(broker.url, client_id="slow", receive_maximum=10) as slow,
        slow.subscribe("big", qos=1, maxsize=5, overflow="block") as messages,
    ):
        await client.publish_many([n.to_bytes(2, "big") + bytes(size) for n in range(count)], topic="big", qos=1)
        (info,) = [info for info in broker.clients if info.client_id == "slow"]
        assert info.queued + info.inflight > count // 2, "the broker holds what nobody takes"
        assert messages.pending <= 5
        received = [int.from_bytes((await within(anext(messages))).payload[:2], "big") for _ in range(count)]
        assert received == list(range(count))
        assert messages.dropped == 0


def a_server_that_floods(listener, payload, results):
    """Accept one client, and send it QoS 0 messages until the socket takes no more; then, once told to, the rest."""
    connection, _ = listener.accept()
    with connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        connection.recv(1 << 16)
        connection.sendall(bytes.fromhex("20020000"))  # CONNACK of 3.1.1
        subscribe = connection.recv(1 << 16)
        connection.sendall(bytes.fromhex("9003") + subscribe[2:4] + b"\0")  # SUBACK
        body = b"\0\1x" + payload
        message = b"\x30" + len(body).to_bytes(1) + body
        stream = memoryview(message * FLOOD)
        connection.setblocking(False)
        sent = 0
        # When nothing is taken for a while nobody reads: kernels move what there is within moments.
        while sent < len(stream) and select.select([], [connection], [], 1.0)[1]:
            sent += connection.send(stream[sent:])
        results["sent"].set_result(sent // len(message))
        connection.setblocking(True)
        connection.sendall(stream[sent:])
        connection.sendall(bytes.fromhex("d000"))
        while connection.recv(1 << 16):
            pass


# 25 MB: far above what sockets and the queue hold.
FLOOD = 250_000


async def test_block_stops_the_socket_and_not_only_acknowledgements(within):
    results = {"sent": concurrent.futures.Future()}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        arguments = (listener, b"p" * 97, results)
        flooding = threading.Thread(target=a_server_that_floods, args=arguments, daemon=True)
        flooding.start()
        url = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        async with ferromq.Client(url, version=4, client_id="slow", reconnect=False) as client:
            messages = await client.subscribe("x", maxsize=100)
            sent = await within(asyncio.wrap_future(results["sent"]))
            assert sent < FLOOD // 2, "the server was held back"
            assert messages.pending <= 100
            received = 0
            async for batch in messages.batches(max=5000, within=5):
                received += len(batch)
                if received == FLOOD:
                    break
            assert messages.dropped == 0
        flooding.join(20)
        assert not flooding.is_alive()


async def test_processed_messages_are_acknowledged_when_the_next_is_asked_for(broker, client, within):
    def inflight():
        (info,) = [info for info in broker.clients if info.client_id == "worker"]
        return info.inflight

    async with ferromq.Client(broker.url, client_id="worker") as worker:
        async with worker.subscribe("work", qos=1, ack="processed") as messages:
            await client.publish_many([b"1", b"2"], topic="work", qos=1)
            await within(anext(messages))
            assert inflight() == 2, "nothing is done yet"
            await within(anext(messages))
            # Leaving the block without an exception says that the last one is done, too.
        await within(broker.settled())
        assert inflight() == 0


async def test_messages_acknowledged_by_hand(broker, client, within):
    async with (
        ferromq.Client(broker.url, client_id="worker") as worker,
        worker.subscribe("work", qos=1, ack="manual") as messages,
    ):
        await client.publish("work", b"1", qos=1)
        message = await within(anext(messages))
        (info,) = [info for info in broker.clients if info.client_id == "worker"]
        assert info.inflight == 1
        await message.ack()
        await within(broker.settled())
        (info,) = [info for info in broker.clients if info.client_id == "worker"]
        assert info.inflight == 0
        with pytest.raises(ferromq.InvalidArgument):
            await message.ack(3)


async def test_acknowledging_by_hand_needs_to_be_asked_for(client, within):
    async with client.subscribe("x", qos=1) as messages:
        await client.publish("x", qos=1)
        message = await within(anext(messages))
        with pytest.raises(RuntimeError, match="manual"):
            await message.ack()


async def test_a_message_that_went_wrong_is_not_acknowledged(broker, client):
    session = ferromq.Session(60)
    with pytest.raises(ZeroDivisionError):
        async with ferromq.Client(broker.url, client_id="worker", session=session) as worker:
            subscription = await worker.subscribe("work", qos=1, ack="processed")
            await client.publish("work", b"1", qos=1)
            async for _ in subscription:
                1 / 0  # noqa: B018
    (info,) = [info for info in broker.clients if info.client_id == "worker"]
    assert info.queued + info.inflight == 1, "the broker still has it, for the next run"


@pytest.mark.parametrize("arguments", [{"overflow": "explode"}, {"ack": "never"}, {"maxsize": 0}, {"qos": 3}])
async def test_options_that_do_not_exist_are_refused(client, arguments):
    with pytest.raises(ferromq.InvalidArgument):
        client.subscribe("x", **arguments)


async def test_publishing_nowait_says_when_there_is_no_room(broker):
    async with ferromq.Client(broker.url, max_queued=3, reconnect=ferromq.Reconnect(min=60, max=60)) as client:
        events = client.events()
        broker.stop()
        while not isinstance(await anext(events), ferromq.Disconnected):
            pass
        with pytest.raises(ferromq.QueueFull) as full:
            for _ in range(10):
                client.publish_nowait("x", b"", qos=1)
        assert full.value.retryable
        raise_cancelled = asyncio.create_task(client.publish("x", b"", qos=1))
        raise_cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await raise_cancelled


async def test_qos0_without_a_connection_may_raise(broker):
    reconnect = ferromq.Reconnect(min=60, max=60)
    async with ferromq.Client(broker.url, queue_qos0=False, reconnect=reconnect) as client:
        events = client.events()
        broker.stop()
        while not isinstance(await anext(events), ferromq.Disconnected):
            pass
        assert client.state == "reconnecting"
        with pytest.raises(ferromq.ConnectionLost) as offline:
            await client.publish("x")
        assert isinstance(offline.value, ConnectionError)
        assert offline.value.retryable
