import asyncio
import threading

import ferromq
import pytest


def test_publish_and_get(sync_client):
    with sync_client.subscribe("a/{n}", qos=2) as messages:
        for qos in (0, 1, 2):
            assert sync_client.publish(f"a/{qos}", f"{qos}", qos=qos, timeout=20).reason_code == 0
            message = messages.get(timeout=20)
            assert (message.text(), message.qos, message.params) == (str(qos), qos, {"n": str(qos)})
        assert messages.granted == [2]
        assert messages.filters == ["a/+"]


def test_take_counts_or_watches_the_time(sync_client):
    with sync_client.subscribe("n") as messages:
        assert sync_client.publish_many([str(n) for n in range(100)], topic="n") == 100
        assert [int(m.text()) for m in messages.take(60, seconds=20)] == list(range(60))
        assert [int(m.text()) for m in messages.take(1000, seconds=0.1)] == list(range(60, 100))
        assert list(messages.take(1000, seconds=0)) == []
        assert list(messages.take(0)) == []


def test_batch_is_what_came_in_time(sync_client):
    with sync_client.subscribe("n") as messages:
        sync_client.publish_many([b""] * 30, topic="n", qos=1)
        assert len(messages.batch(max=20, within=20)) == 20
        assert len(messages.batch(max=20, within=0.2)) == 10
        assert messages.batch(max=20, within=0) == []


def test_get_times_out_or_does_not_wait(sync_client):
    with sync_client.subscribe("n") as messages:
        for timeout in (0, 0.01):
            with pytest.raises(ferromq.Timeout) as raised:
                messages.get(timeout=timeout)
            assert isinstance(raised.value, TimeoutError)
    with pytest.raises(ferromq.Closed):
        messages.get()


def test_iterating_ends_with_the_client(broker):
    with ferromq.SyncClient(broker.url) as client:
        messages = client.subscribe("x")
        received = []
        reader = threading.Thread(target=lambda: received.extend(messages))
        reader.start()
        client.publish("x", b"1", qos=1)
        broker.wait_settled(timeout=20)
    reader.join(20)
    assert not reader.is_alive()
    assert [m.payload for m in received] == [b"1"]


def test_a_second_thread_is_refused_while_one_waits(sync_client):
    with sync_client.subscribe("x") as messages:
        waiting = threading.Event()
        received = []

        def wait():
            waiting.set()
            received.append(messages.get(timeout=20))

        reader = threading.Thread(target=wait)
        reader.start()
        waiting.wait(20)
        refused = False
        while not refused:
            try:
                messages.get(timeout=0)
            except RuntimeError:
                refused = True
            except ferromq.Timeout:
                pass
        sync_client.publish("x", b"1")
        reader.join(20)
        assert [m.payload for m in received] == [b"1"]


async def test_it_works_while_a_loop_runs_as_in_jupyter(broker):
    with ferromq.SyncClient(broker.url) as client, client.subscribe("x") as messages:
        client.publish("x", b"1", qos=1)
        assert messages.get(timeout=20).payload == b"1"
    await asyncio.sleep(0)


def test_requests_are_answered(broker, sync_client):
    def serve():
        with ferromq.SyncClient(broker) as client:
            requests = client.serve("rpc/double")
            ready.set()
            for request in requests.take(2, seconds=20):
                request.respond(request.json() * 2, encode="json")

    ready = threading.Event()
    server = threading.Thread(target=serve)
    server.start()
    ready.wait(20)
    assert [sync_client.request("rpc/double", n, encode="json").json() for n in (2, 21)] == [4, 42]
    server.join(20)
    with pytest.raises(ferromq.Timeout):
        sync_client.request("rpc/nobody", timeout=0.01)


def test_events_tell_of_a_restart(broker):
    # The same port, so that the client finds it again.
    port = broker.port
    with ferromq.SyncClient(broker.url, reconnect=ferromq.Reconnect(min=0.01, max=0.05)) as client:
        events = client.events()
        broker.stop()
        lost = events.get(timeout=20)
        assert isinstance(lost, ferromq.Disconnected)
        assert lost.reason.reason_code == 0x8B
        assert lost.retry_in is not None
        with ferromq.Broker(listeners=[f"tcp://127.0.0.1:{port}"]):
            while not isinstance(events.get(timeout=20), ferromq.Connected):
                pass
            assert client.publish("x", b"1", qos=1)


def test_the_client_tells_what_it_is(broker):
    client = ferromq.SyncClient(broker.url, client_id="me")
    assert (client.client_id, client.connected, client.state) == ("me", False, "disconnected")
    with pytest.raises(ferromq.Closed):
        client.publish("x")
    assert client.connect() is client
    assert client.connected
    client.publish_nowait("x", b"1", qos=1)
    assert client.stats()["connections"] == 1
    client.disconnect()
    client.disconnect()
    assert repr(client).startswith("SyncClient(mqtt://127.0.0.1:")


def test_batches_of_columns():
    with (
        ferromq.Broker() as broker,
        ferromq.SyncClient(broker) as client,
        client.subscribe("plant/{line}/temp", qos=1) as messages,
    ):
        for number in range(10):
            client.publish(f"plant/{number % 2}/temp", {"value": number}, encode="json", qos=1)
        batches = messages.arrow(max=4, within=60, decode="json")
        first, second = next(batches), next(batches)
        assert [len(first), len(second)] == [4, 4]
        assert first.to_arrow().to_pydict()["value"] == [0, 1, 2, 3]
        assert first.to_arrow().to_pydict()["line"] == ["0", "1", "0", "1"]
        # What has begun is given out when its time is over, full or not.
        assert len(next(messages.arrow(max=4, within=0.01, decode="json"))) == 2


def test_how_far_a_consumer_lags_behind():
    with ferromq.Broker() as broker, ferromq.SyncClient(broker) as client, client.subscribe("t") as messages:
        assert messages.lag == 0
        client.publish("t", b"1", qos=1)
        broker.wait_settled()
        before = messages.lag
        assert 0 < before < 60
        assert messages.lag >= before, "it grows until somebody takes the message"
        messages.get(timeout=10)
        assert messages.lag == 0
