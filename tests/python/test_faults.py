"""What goes wrong between clients and a broker, made to happen. Without its fault, each of these tests fails."""

import asyncio
import socket
import threading

import ferromq
import pytest


@pytest.fixture
def broker():
    with ferromq.Broker(faults=True, trace=64, seed=7) as broker:
        yield broker


@pytest.fixture
def faults(broker):
    return broker.faults


@pytest.fixture(params=["memory", "tcp"])
def client_of(request, broker):
    """Make a client, inside the process or by TCP, that lives by the clock of the broker."""

    def client_of(client_id="c", **arguments):
        if request.param == "memory":
            return ferromq.Client(broker, client_id=client_id, **arguments)
        return ferromq.Client(broker.url, client_id=client_id, clock=broker.clock, **arguments)

    return client_of


async def drain(subscription, broker):
    await broker.settled()
    return [(await anext(subscription)).text() for _ in range(subscription.pending)]


async def test_a_dropped_publish_never_arrives(broker, faults, client_of):
    async with client_of() as client, client.subscribe("t/#") as messages:
        with faults.drop("PUBLISH", topic="t/lost", direction="to_broker") as rule:
            await client.publish("t/lost", b"1")
            await client.publish("t/kept", b"2")
            assert await drain(messages, broker) == ["2"]
        assert (rule.kind, rule.hits, rule.active) == ("drop", 1, False)
        await client.publish("t/lost", b"3")
        assert await drain(messages, broker) == ["3"]


async def test_the_nth_puback_is_swallowed_and_the_message_sent_again(broker, faults, client_of, within):
    async with client_of(session=ferromq.Session()) as client:
        rule = faults.drop("PUBACK", nth=2)
        await within(client.publish("t", b"1", qos=1))
        second = client.publish("t", b"2", qos=1)
        await broker.settled()
        assert rule.hits == 1
        assert not rule.active
        assert client.stats()["unfinished"] == 1
        faults.drop_connections()
        await within(second)  # sent again on the next connection
    sent = [line for trace in broker.trace("c") for line in trace.lines if "> PUBLISH" in line]
    assert sum(" dup " in line for line in sent) == 1


async def test_a_delay_goes_by_the_clock_and_keeps_the_order(broker, faults, client_of):
    async with client_of() as client, client.subscribe("t") as messages:
        faults.delay("PUBLISH", by="30s", direction="to_broker", count=1)
        await client.publish("t", b"1")
        await client.publish("t", b"2")
        await client.publish("t", b"3", qos=0)
        with pytest.raises(ferromq.Timeout):
            await broker.settled(timeout=0.05)
        assert messages.pending == 0
        assert faults.held == 3
        broker.clock.advance(29)
        assert messages.pending == 0
        broker.clock.advance(2)
        assert await drain(messages, broker) == ["1", "2", "3"]
        assert faults.held == 0


async def test_a_duplicate_arrives_twice(broker, faults, client_of):
    async with client_of() as client, client.subscribe("t", qos=1) as messages:
        faults.duplicate("PUBLISH", direction="to_broker", count=1)
        await client.publish("t", b"1", qos=1)
        await client.publish("t", b"2", qos=1)
        assert await drain(messages, broker) == ["1", "1", "2"]


async def test_later_messages_overtake_one_that_is_reordered(broker, faults, client_of):
    async with client_of() as client, client.subscribe("t") as messages:
        faults.reorder("PUBLISH", by=2, direction="to_broker", count=1)
        for number in range(4):
            await client.publish("t", str(number))
        assert await drain(messages, broker) == ["1", "2", "0", "3"]
        faults.reorder("PUBLISH", by=2, within="10s", direction="to_broker", count=1)
        await client.publish("t", b"alone")
        broker.clock.advance("9s")
        assert messages.pending == 0
        broker.clock.advance("2s")
        assert await drain(messages, broker) == ["alone"]


async def test_corruption_is_seeded_and_breaks_what_it_strikes(within):
    async def payload_after_corruption(seed):
        with ferromq.Broker(faults=True, seed=seed) as broker:
            async with ferromq.Client(broker) as client, client.subscribe("t") as messages:
                broker.faults.corrupt("PUBLISH", bits=3, direction="to_client")
                await client.publish("t", bytes(4000))
                return (await within(anext(messages))).payload

    first = await payload_after_corruption(1)
    assert len(first) == 4000
    assert sum(byte.bit_count() for byte in first) == 3
    assert await payload_after_corruption(1) == first
    assert await payload_after_corruption(2) != first


async def test_a_connection_is_cut_after_n_bytes(broker, faults, client_of, within):
    async with client_of() as client:
        events = client.events()
        rule = faults.cut("PUBLISH", after=100, count=1)
        message = client.publish("t", bytes(1000), qos=1)
        async with asyncio.timeout(20):
            async for event in events:
                if isinstance(event, ferromq.Disconnected):
                    break
        await within(message)
        assert rule.hits == 1
    lines = broker.trace("c")[0].lines
    assert any("cut after 100 B" in line for line in lines)


def test_bytes_of_a_stream_are_cut_where_asked(broker, faults):
    faults.cut(direction="to_client", after=2)
    with socket.create_connection(("127.0.0.1", broker.port), timeout=20) as peer:
        peer.sendall(bytes.fromhex("100c00044d5154540402003c0000"))
        assert peer.recv(100) == bytes.fromhex("2002")
        assert peer.recv(100) == b""


async def test_a_half_open_connection_is_found_by_keep_alive(broker, faults, client_of):
    async with client_of(keep_alive=60) as client:
        rule = faults.half_open()
        assert rule.hits == 1
        events = client.events()
        assert client.connected
        broker.clock.advance(120)
        async with asyncio.timeout(20):
            async for event in events:
                if isinstance(event, ferromq.Disconnected):
                    break
        broker.clock.advance(120)
        assert client.connected, "a new connection is not affected"
        assert client.stats()["connections"] == 2
        rule.remove()


async def test_a_fake_reason_is_believed_although_the_message_arrived(broker, faults, client_of, within):
    async with client_of() as client, client.subscribe("t") as messages:
        with faults.fake_reason("PUBACK", 0x97, topic="t") as rule:
            with pytest.raises(ferromq.Refused) as refused:
                await within(client.publish("t", b"1", qos=1))
            await within(client.publish("other", b"1", qos=1))
        assert refused.value.reason_code == 0x97
        assert rule.hits == 1
        assert await drain(messages, broker) == ["1"]


async def test_a_throttle_takes_the_time_that_the_bytes_need(broker, faults, client_of):
    async with client_of() as client, client.subscribe("t") as messages:
        faults.throttle(100, packet="PUBLISH", direction="to_broker")
        for _ in range(3):
            await client.publish("t", bytes(995))  # 1,001 bytes or so with what is around them
        broker.clock.advance(9)
        assert messages.pending == 0
        broker.clock.advance(2)
        assert messages.pending == 1
        broker.clock.advance(20)
        assert messages.pending == 3


async def test_new_connections_are_refused(broker, faults, client_of, within):
    with faults.refuse() as rule, pytest.raises(ferromq.FerroMQError):
        await within(client_of(reconnect=False).connect())
    assert rule.hits == 1
    with faults.refuse(reason=0x97), pytest.raises(ferromq.Refused) as refused:
        await within(client_of(reconnect=False).connect())
    assert refused.value.reason_code == 0x97
    with faults.refuse(client="other"):
        async with client_of("c"):
            with pytest.raises(ferromq.FerroMQError):
                await within(client_of("other", reconnect=False).connect())
    faults.refuse(for_="1h")
    broker.clock.advance("61 min")
    async with client_of():
        pass


async def test_nothing_passes_a_partition_and_everything_after_it(broker, faults, client_of, within):
    async with client_of("a") as one, client_of("b") as other, other.subscribe("t") as messages:
        with faults.partition("a") as rule:
            await one.publish("t", b"from a")
            await other.publish("t", b"from b")
            assert (await within(anext(messages))).text() == "from b"
            with pytest.raises(ferromq.Timeout):
                await broker.settled(timeout=0.05)
            assert messages.pending == 0
        assert not rule.active
        assert await drain(messages, broker) == ["from a"]
        with faults.partition(for_="10s"):
            await one.publish("t", b"later")
            broker.clock.advance("11s")
            assert await drain(messages, broker) == ["later"]


async def test_a_partition_is_noticed_by_both_sides_when_it_lasts(broker, faults, client_of):
    async with client_of(keep_alive=60) as client:
        with faults.partition():
            broker.clock.advance("10 min")
            assert not client.connected
            assert broker.clients == []
        broker.clock.advance("1 min")
        assert client.connected


async def test_dropped_connections_are_reset_and_made_again(faults, client_of, within):
    async with client_of("a") as one, client_of("b") as other:
        assert faults.drop_connections("a") == 1
        await within(one.publish("t", b"1", qos=1))
        assert (one.stats()["connections"], other.stats()["connections"]) == (2, 1)
        assert faults.drop_connections() == 2
        assert faults.drop_connections("nobody") == 0


def test_a_reset_is_one(broker, faults):
    with socket.create_connection(("127.0.0.1", broker.port), timeout=20) as peer:
        peer.sendall(bytes.fromhex("100c00044d5154540402003c0000"))
        assert len(peer.recv(100)) == 4
        faults.drop_connections()
        with pytest.raises(ConnectionResetError):
            peer.recv(100)


async def test_a_client_is_kicked_with_a_reason(faults, client_of):
    async with client_of() as client:
        events = client.events()
        assert faults.kick("c", 0x8B)
        assert not faults.kick("nobody")
        async with asyncio.timeout(20):
            async for event in events:
                if isinstance(event, ferromq.Disconnected):
                    assert event.reason.reason_code == 0x8B
                    break


async def test_each_selector_selects(broker, faults, client_of):
    async with client_of("a") as one, client_of("b") as other, other.subscribe("#") as messages:
        rules = [
            faults.drop("PUBLISH", client="a", direction="to_broker", nth=2),
            faults.drop(["PINGREQ", "publish"], topic="plant/+/temp", direction="to_client"),
            faults.drop("PUBLISH", topic="dice", direction="to_broker", probability=0.5),
        ]
        for client in (one, other):
            for number in range(3):
                await client.publish("t", f"{client.client_id}{number}")
        await one.publish("plant/1/temp", b"hot")
        await one.publish("plant/1/load", b"low")
        for _ in range(40):
            await other.publish("dice", b"")
        got = await drain(messages, broker)
        assert sorted(text for text in got if text) == ["a0", "a2", "b0", "b1", "b2", "low"]
        assert [rule.hits for rule in rules[:2]] == [1, 1]
        assert rules[2].hits == 40 - got.count("")
        assert 5 < rules[2].hits < 35
        assert len(faults.rules) == 2
        faults.clear()
        assert faults.rules == []
        assert not rules[1].active


async def test_suback_is_selected_by_its_filters(faults, client_of, within):
    async with client_of(timeout=30) as client:
        faults.fake_reason("SUBACK", 0x87, topic="secret/#")
        with pytest.raises(ferromq.NotAuthorized):
            await within(client.subscribe("secret/a").__aenter__())
        async with client.subscribe("open/a"):
            pass


async def test_what_a_client_of_the_process_has_not_acknowledged_is_not_settled(broker, within):
    async with ferromq.Client(broker) as client, client.subscribe("t", qos=1, ack="manual") as messages:
        await client.publish("t", b"1", qos=1)
        message = await within(anext(messages))
        with pytest.raises(ferromq.Timeout):
            await broker.settled(timeout=0.05)
        await message.ack()
        await within(broker.settled())


async def test_settled_means_that_clients_of_the_process_have_all_of_it():
    with ferromq.Broker() as broker:
        async with ferromq.Client(broker) as client, client.subscribe("t") as messages:
            for round_ in range(200):
                broker.publish("t", b"1")
                broker.wait_settled()
                assert messages.pending == round_ + 1


async def test_the_trace_tells_what_happened(broker, faults, client_of):
    async with client_of("teller", keep_alive=30) as client:
        faults.drop("PUBLISH", count=1)
        await client.publish("plant/1/temp", b"21.5", retain=True)
        await broker.settled()
        (trace,) = broker.trace("teller")
        assert trace.open
        connect, connack, publish = (line.split(maxsplit=1)[1] for line in trace.lines)
        assert connect == '> CONNECT 5.0 "teller" keep-alive=30 clean'
        assert connack == "< CONNACK ok"
        assert publish == '> PUBLISH q0 retain "plant/1/temp" 4 B "21.5"   [dropped]'
        assert trace.lines[0].startswith("+0.0")
        assert "PUBLISH" in str(trace)
        assert "teller" in str(trace)
        assert broker.trace("nobody") == []
    await broker.settled()
    (trace,) = broker.trace("teller")
    assert not trace.open
    assert any("DISCONNECT" in line for line in trace.lines)


async def test_the_trace_keeps_the_last_packets_only():
    with ferromq.Broker(trace=4) as broker:
        async with ferromq.Client(broker) as client:
            for number in range(20):
                await client.publish("t", str(number))
            await broker.settled()
            (trace,) = broker.trace()
            assert [line.split('"')[-2] for line in trace.lines] == ["16", "17", "18", "19"]
            assert "packets before" in str(trace)
        with pytest.raises(ferromq.InvalidArgument, match="faults=True"):
            _ = broker.faults
    with ferromq.Broker() as broker, pytest.raises(ferromq.InvalidArgument, match="trace=32"):
        broker.trace()


async def test_websocket_connections_have_faults_of_bytes(within):
    with ferromq.Broker(listeners=["ws://127.0.0.1:0/mqtt"], faults=True) as broker:
        async with ferromq.Client(broker.url, clock=broker.clock, keep_alive=60) as client:
            with broker.faults.delay(by="5s"):
                slow = client.publish("t", b"1", qos=1)
                with pytest.raises(TimeoutError):
                    await within(asyncio.shield(slow), 0.05)
                broker.clock.advance(20)
            await within(slow)
            assert broker.faults.drop_connections() == 1
            await within(client.publish("t", b"2", qos=1))


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("drop", {"packet": "PUBLICATION"}),
        ("drop", {"topic": "a/#/b"}),
        ("drop", {"direction": "sideways"}),
        ("drop", {"nth": 0}),
        ("drop", {"count": -1}),
        ("drop", {"probability": 1.5}),
        ("delay", {"by": -1}),
        ("duplicate", {"copies": 0}),
        ("throttle", {"bytes_per_second": 0}),
        ("fake_reason", {"packet": "PUBACK", "reason": 0x8B}),
        ("fake_reason", {"packet": "PUBLISH", "reason": 0x80}),
        ("refuse", {"reason": 0}),
        ("kick", {"client_id": "c", "reason_code": 0x00}),
    ],
)
def test_what_makes_no_sense_is_refused(faults, verb, arguments):
    with pytest.raises(ferromq.InvalidArgument):
        getattr(faults, verb)(**arguments)


@pytest.fixture
def proxy():
    with ferromq.Broker() as upstream, ferromq.FaultProxy(upstream.url, seed=3) as proxy:
        yield proxy


async def test_a_proxy_has_the_same_faults_for_any_broker(proxy, within):
    async with (
        # The broker behind the proxy has a clock of its own, so nothing vouches for its answers to PINGREQ in time.
        ferromq.Client(proxy.url, client_id="c", clock=proxy.clock, keep_alive=0) as client,
        client.subscribe("t", qos=1) as messages,
    ):
        with proxy.faults.drop("PUBLISH", direction="to_client", count=1) as rule:
            await within(client.publish("t", b"lost"))
            await within(client.publish("t", b"kept"))
            assert (await within(anext(messages))).text() == "kept"
            assert rule.hits == 1
        proxy.faults.delay("PUBACK", by="1h", count=1)
        slow = client.publish("t", b"slow", qos=1)
        assert (await within(anext(messages))).text() == "slow"
        proxy.clock.advance("61 min")
        await within(slow)
        events = client.events()
        assert proxy.faults.kick("c", 0x8B)
        async with asyncio.timeout(20):
            async for event in events:
                if isinstance(event, ferromq.Disconnected):
                    assert event.reason.reason_code == 0x8B
                    break
    assert any("DISCONNECT" in line for trace in proxy.trace("c") for line in trace.lines)


async def test_a_proxy_looks_into_the_packets_of_another_library(proxy):
    paho = pytest.importorskip("paho.mqtt.client")
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="paho", protocol=paho.MQTTv311)
    client.connect("127.0.0.1", int(proxy.url.rsplit(":", 1)[1]))
    client.loop_start()
    try:
        with proxy.faults.drop("PUBACK", client="paho", count=1) as rule:
            lost = client.publish("t", b"1", qos=1)
            kept = client.publish("t", b"2", qos=1)
            kept.wait_for_publish(20)
            assert rule.hits == 1
            assert not lost.is_published()
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_proxy_without_its_broker_resets():
    with ferromq.Broker() as upstream, ferromq.FaultProxy(upstream.url) as proxy:
        upstream.stop()
        with pytest.raises(ferromq.ConnectError, match="reset"):
            ferromq.SyncClient(proxy.url, reconnect=False).connect()


def test_a_proxy_that_does_not_run_says_so():
    proxy = ferromq.FaultProxy("mqtt://127.0.0.1:1")
    with pytest.raises(ferromq.Closed, match="enter it"):
        _ = proxy.url
    assert "stopped" in repr(proxy)
    with proxy:
        assert proxy.url.startswith("mqtt://127.0.0.1:")
        address = proxy.url.removeprefix("mqtt://").split(":")
        with pytest.raises(RuntimeError):
            proxy.start()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    for wrong in ("http://localhost", "localhost:70000"):
        with pytest.raises(ferromq.InvalidArgument):
            ferromq.FaultProxy(wrong)
    with pytest.raises(ferromq.InvalidArgument, match="listens"):
        ferromq.FaultProxy("mqtt://localhost", listen="ws://127.0.0.1:0/mqtt")


async def test_a_fault_is_waited_for():
    with ferromq.Broker(faults=True) as broker:
        async with ferromq.Client(broker) as client:
            rule = broker.faults.drop("PUBLISH", count=2)
            with pytest.raises(ferromq.Timeout, match="drop has struck 0 of 1 times"):
                await rule.struck(timeout=0.001)
            for _ in range(2):
                await client.publish("t", b"lost")
            await rule.struck(2)
            rule.wait_struck(timeout=0)
            assert not rule.active
            with pytest.raises(ferromq.InvalidArgument, match="drop strikes 2 times at most, and never 3 times"):
                await rule.struck(3)
            with pytest.raises(ferromq.InvalidArgument, match="1 times at most"):
                broker.faults.drop("PUBACK", nth=2).wait_struck(2)


@pytest.mark.parametrize("end", ["remove", "clear", "leave", "stop"])
async def test_a_fault_that_will_not_come_is_not_waited_for(end, within):
    broker = ferromq.Broker(faults=True).start()
    rule = broker.faults.drop("PUBLISH", topic="never")
    waiting, blocked = asyncio.ensure_future(wait(rule.struck())), asyncio.to_thread(rule.wait_struck)
    blocked = asyncio.ensure_future(blocked)
    await asyncio.sleep(0)
    if end == "remove":
        rule.remove()
    elif end == "clear":
        broker.faults.clear()
    elif end == "leave":
        with rule:
            pass
    else:
        broker.stop()
    for waiter in (waiting, blocked) if end != "stop" else (waiting,):
        with pytest.raises(ferromq.Closed, match="stopped" if end == "stop" else "removed"):
            await within(waiter)
    # A thread that began to wait after the end of the broker waits for its next life.
    rule.remove()
    with pytest.raises(ferromq.Closed):
        await within(blocked)
    broker.stop()


def test_a_proxy_that_stops_ends_the_wait_for_its_faults():
    with ferromq.Broker() as broker, ferromq.FaultProxy(broker.url) as proxy:
        rule = proxy.faults.drop("PUBACK")
        begun = threading.Event()

        def wait_for_it():
            begun.set()
            with pytest.raises(ferromq.Closed):
                rule.wait_struck()

        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        begun.wait()
        # Who has only begun to wait by then is told by the next stop.
        while waiting.is_alive():
            proxy.stop()
            waiting.join(0.05)
            if waiting.is_alive():
                proxy.start()


async def wait(awaitable):
    return await awaitable
