"""Hours pass in moments, for a broker and the clients of this process."""

import datetime as dt
import socket
import time

import ferromq
import pytest


async def next_of(messages, within):
    return await within(anext(messages))


async def test_a_client_of_the_process_stays_connected_for_eight_hours(broker, within):
    async with (
        ferromq.Client(broker, client_id="memory", keep_alive=30) as in_memory,
        ferromq.Client(broker.url, client_id="tcp", keep_alive=30, clock=broker.clock) as over_tcp,
    ):
        before = broker.clock.now
        broker.clock.advance("8h")
        assert broker.clock.now - before >= 8 * 3600
        for client in (in_memory, over_tcp):
            assert client.connected
            assert client.stats()["connections"] == 1
        await within(in_memory.publish("still/there", b"1", qos=1))


async def test_a_client_with_the_time_of_the_system_is_not_heard_from_for_hours(broker):
    async with ferromq.Client(broker.url, client_id="foreign", keep_alive=30) as client:
        events = client.events()
        broker.clock.advance("8h")
        async for event in events:
            if isinstance(event, ferromq.Disconnected):
                assert event.reason.reason_code == 0x8D  # keep-alive timeout
                break


async def test_a_will_waits_for_its_delay(broker, within):
    async with ferromq.Client(broker) as watcher, watcher.subscribe("state/#", qos=1) as seen:
        will = ferromq.Will("state/late", b"gone", delay=3600)
        client = ferromq.Client(broker, client_id="mortal", will=will, session=ferromq.Session(7200))
        await client.connect()
        await client.disconnect(with_will=True)
        broker.clock.advance(3599)
        await broker.settled()
        assert seen.pending == 0
        broker.clock.advance(2)
        await broker.settled()
        assert seen.pending == 1
        assert (await next_of(seen, within)).topic == "state/late"
        assert [client.client_id for client in broker.clients if not client.connected] == ["mortal"]
        broker.clock.advance(3600)
        assert [client.client_id for client in broker.clients if not client.connected] == []


def test_sessions_and_messages_expire(broker):
    with ferromq.SyncClient(broker, client_id="away", session=ferromq.Session(86_400)) as away:
        jobs = away.subscribe("job/#", qos=1)
    # Until the broker has read DISCONNECT.
    broker.wait_settled(timeout=20)
    broker.publish("job/short", b"1", qos=1, retain=True, message_expiry=60)
    broker.publish("job/long", b"2", qos=1, retain=True, message_expiry=20_000)
    broker.clock.advance(dt.timedelta(hours=1))
    assert list(broker.retained["job/#"]) == ["job/long"]
    # Its client left first, so the session keeps the subscription and what came for it.
    (info,) = broker.clients
    assert (info.client_id, info.subscriptions, info.queued) == ("away", 1, 1)
    del jobs
    broker.clock.advance("2d")
    assert broker.clients == []


async def test_back_off_runs(broker):
    reconnect = ferromq.Reconnect(min=3600, max=3600)
    async with ferromq.Client(broker, client_id="c", reconnect=reconnect) as client:
        broker.kick("c")
        await broker.settled()
        broker.clock.advance(0)
        assert client.state == "reconnecting"
        broker.clock.advance(3600)
        assert client.state == "connected"
        assert client.stats()["connections"] == 2


async def test_connecting_runs_into_its_time_out(broker, within):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        client = ferromq.Client(f"mqtt://127.0.0.1:{port}", timeout=600, reconnect=False, clock=broker.clock)
        connecting = client.connect()
        broker.clock.advance(601)
        with pytest.raises(ferromq.Timeout):
            await within(connecting)


def test_a_clock_of_ones_own():
    clock = ferromq.Clock()
    before = clock.now
    assert abs(before - time.time()) < 60
    clock.advance("250ms")
    assert clock.offset == pytest.approx(0.25, abs=0.01)
    assert clock.now >= before + 0.25
    assert repr(clock).startswith("Clock(offset=0.2")


def test_what_is_no_time_is_refused(broker):
    for wrong in (-1, float("nan"), "soon", "8 parsecs"):
        with pytest.raises(ferromq.InvalidArgument):
            broker.clock.advance(wrong)
    with pytest.raises(TypeError, match="a time is"):
        broker.clock.advance(object())
    with pytest.raises(ferromq.InvalidArgument, match="lives by its clock"):
        ferromq.Client(broker, clock=broker.clock)
