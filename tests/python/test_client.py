import asyncio
import gc
import time
import warnings

import ferromq
import pytest


@pytest.mark.parametrize("version", [3, 4, 5, "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_message_arrives_in_every_version_with_every_qos(broker, version, qos, within):
    async with (
        ferromq.Client(broker.url, version=version, client_id="a") as client,
        client.subscribe("a/b", qos=2) as messages,
    ):
        await client.publish("a/b", b"1", qos=qos)
        message = await within(anext(messages))
        assert (message.topic, message.payload, message.qos, message.retain) == ("a/b", b"1", qos, False)
        assert messages.granted == [2]


async def test_in_memory_and_tcp_clients_meet(client, other, within):
    async with other.subscribe("x") as messages:
        await client.publish("x", "over TCP")
        assert (await within(anext(messages))).text() == "over TCP"


async def test_a_message_is_made_of_what_was_published(client, within):
    async with client.subscribe("plant/{line}/{rest:#}") as messages:
        before = time.time()
        await client.publish(
            "plant/7/temp/in",
            {"v": 1.5, "ü": [None]},
            encode="json",
            message_expiry=59.5,
            content_type="application/json",
            response_topic="answers",
            correlation_data=b"\x00\x01",
            user_properties=[("a", "1"), ("a", "2")],
            payload_format=1,
        )
        message = await within(anext(messages))
    assert message.payload == '{"v":1.5,"ü":[null]}'.encode()
    assert message.json() == {"v": 1.5, "ü": [None]}
    assert message.params == {"line": "7", "rest": "temp/in"}
    assert before - 1 <= message.received_at <= time.time() + 1
    properties = message.properties
    assert 0 < properties.message_expiry <= 60
    assert properties.content_type == "application/json"
    assert properties.response_topic == "answers"
    assert properties.correlation_data == b"\x00\x01"
    assert properties.user_properties == (("a", "1"), ("a", "2"))
    assert properties.payload_format == 1
    assert properties
    assert repr(message.props) == repr(properties)
    assert "application/json" in repr(properties)
    assert repr(message).startswith("Message('plant/7/temp/in', b'{\"v\"")


@pytest.mark.parametrize("size", [0, 5, 1025, 300_000])
async def test_a_payload_is_a_buffer_without_a_copy(client, size, within):
    payload = bytes(range(256)) * (size // 256 + 1)
    payload = payload[:size]
    async with client.subscribe("x") as messages:
        await client.publish("x", payload)
        message = await within(anext(messages))
    view = memoryview(message)
    assert view.readonly
    assert view == payload
    assert len(message) == size
    assert message, "a message without payload is a message"
    assert bytes(message) == message.payload == payload
    del message
    assert view.tobytes() == payload, "the view keeps the message alive"


@pytest.mark.parametrize(
    ("payload", "arrives"),
    [
        (None, b""),
        ("ü", "ü".encode()),
        (b"b", b"b"),
        (bytearray(b"ba"), b"ba"),
        (memoryview(b"xmvx")[1:3], b"mv"),
        (memoryview(b"a-b-c-")[::2], b"abc"),
    ],
)
async def test_payloads_are_bytes_like_text_or_nothing(client, payload, arrives, within):
    async with client.subscribe("x") as messages:
        await client.publish("x", payload)
        assert (await within(anext(messages))).payload == arrives


async def test_a_payload_of_another_kind_is_refused_with_advice(client):
    with pytest.raises(TypeError, match='encode="json"'):
        await client.publish("x", {"a": 1})
    with pytest.raises(TypeError, match='encode="text"'):
        await client.publish("x", 1)
    with pytest.raises(ferromq.InvalidArgument, match="encode"):
        await client.publish("x", 1, encode="cbor")


async def test_encoded_as_text(client, within):
    async with client.subscribe("x") as messages:
        await client.publish("x", 21.5, encode="text")
        assert (await within(anext(messages))).text() == "21.5"


async def test_text_that_is_none_raises(client, within):
    async with client.subscribe("x") as messages:
        await client.publish("x", b"\xff")
        message = await within(anext(messages))
        with pytest.raises(UnicodeDecodeError):
            message.text()
        assert message.text("latin-1") == "ÿ"
        assert message.text(errors="replace") == "\ufffd"


async def test_order_is_kept_and_nothing_is_lost_over_many_messages(client, other, within):
    count = 5_000
    async with other.subscribe("n", qos=1) as messages:
        await client.publish_many([("n", str(n)) for n in range(count)], qos=1)

        async def collect():
            received = []
            async for message in messages:
                received.append(int(message.text()))
                if len(received) == count:
                    break
            return received

        assert await within(collect(), 60) == list(range(count))


async def test_publish_many_takes_pairs_or_payloads_of_one_topic(client, other, within):
    async with other.subscribe("m/#") as messages:
        assert await client.publish_many([]) == 0
        assert await client.publish_many((("m/1", "a"), ("m/2", b"b")), qos=2) == 2
        assert await client.publish_many((p for p in ["c", {"d": 1}]), topic="m/3", encode="json") == 2
        received = [await within(anext(messages)) for _ in range(4)]
    assert [(m.topic, m.text()) for m in received] == [("m/1", "a"), ("m/2", "b"), ("m/3", '"c"'), ("m/3", '{"d":1}')]
    with pytest.raises(TypeError, match="pairs"):
        await client.publish_many([b"no topic"])
    with pytest.raises(ferromq.InvalidTopic):
        await client.publish_many([("m/+", b"")])


async def test_publish_nowait_publishes(client, other, within):
    async with other.subscribe("x", qos=1) as messages:
        client.publish_nowait("x", b"0")
        client.publish_nowait("x", b"1", qos=1)
        assert [(await within(anext(messages))).payload for _ in range(2)] == [b"0", b"1"]


async def test_publications_are_coroutines_for_asyncio(client, other, within):
    async with other.subscribe("x", qos=1) as messages:
        first = asyncio.create_task(client.publish("x", b"1", qos=1))
        second = asyncio.create_task(client.publish("x", b"2"))
        acks = await asyncio.gather(first, second, client.publish("x", b"3", qos=1), client.publish("x", b"4"))
        assert [ack.reason_code for ack in acks] == [0, 0, 0, 0]
        assert await asyncio.wait_for(client.publish("x", b"5", qos=2), 10)
        async with asyncio.TaskGroup() as group:
            group.create_task(client.publish("x", b"6", qos=1))
        received = sorted([(await within(anext(messages))).payload for _ in range(6)])
        assert received == [b"1", b"2", b"3", b"4", b"5", b"6"]


async def test_an_acknowledgement_says_that_nobody_listened(client):
    ack = await client.publish("nobody/listens", qos=1)
    assert ack.reason_code == 0x10
    assert "no matching subscribers" in repr(ack)
    assert ack.user_properties == ()


async def test_retained_messages_come_with_the_subscription(client, other, broker, within):
    await client.publish("state/1", b"on", retain=True, qos=1)
    await client.publish("state/2", b"off", retain=True, qos=1)
    async with other.subscribe("state/+") as messages:
        received = {m.topic: (m.payload, m.retain) for m in [await within(anext(messages)) for _ in range(2)]}
    assert received == {"state/1": (b"on", True), "state/2": (b"off", True)}
    async with other.subscribe("state/+", retain_handling="none") as messages:
        await client.publish("state/1", b"live", qos=1)
        message = await within(anext(messages))
        assert (message.payload, message.retain) == (b"live", False)
    await client.publish("state/1", None, retain=True, qos=1)
    assert broker.retained["state/#"] == {"state/2": b"off"}


async def test_the_will_is_published_for_a_client_that_vanishes(broker, client, within):
    will = ferromq.Will("state/a", b"gone", qos=1, retain=True, user_properties={"k": "v"})
    assert (will.topic, will.payload, will.qos, will.retain, will.delay) == ("state/a", b"gone", 1, True, 0)
    assert repr(will) == "Will('state/a', 4 bytes, qos=1, retain=True)"
    async with client.subscribe("state/a", qos=1) as messages:
        doomed = ferromq.Client(broker.url, client_id="doomed", will=will, reconnect=False)
        await doomed.connect()
        assert broker.kick("doomed")
        message = await within(anext(messages))
        assert (message.payload, message.properties.user_properties) == (b"gone", (("k", "v"),))
        await doomed.disconnect()


@pytest.mark.parametrize(("with_will", "published"), [(True, [b"gone", b"end"]), (False, [b"end"])])
async def test_disconnecting_keeps_the_will_back_unless_asked(broker, client, with_will, published, within):
    async with client.subscribe("state/a") as messages:
        leaver = ferromq.Client(broker.url, will=ferromq.Will("state/a", "gone"))
        await leaver.connect()
        await leaver.disconnect(with_will=with_will)
        await within(broker.settled())
        await client.publish("state/a", "end")
        assert [(await within(anext(messages))).payload for _ in published] == published


async def test_requests_are_answered(client, other, within):
    async with other.serve("rpc/{verb}") as requests:

        async def serve():
            async for request in requests:
                assert request.params == {"verb": "add"}
                assert request.response_topic
                await request.respond(sum(request.json()), encode="json")

        server = asyncio.create_task(serve())
        answers = [client.request("rpc/add", numbers, encode="json") for numbers in ([1, 2], [3, 4], [])]
        assert [(await within(answer)).json() for answer in answers] == [3, 7, 0]
        server.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server


async def test_a_message_that_is_no_request_is_left_out_and_counted(client, other, within):
    async with other.serve("rpc/x") as requests:
        await client.publish_many([b"?"] * 300, topic="rpc/x", qos=1)
        await client.publish("rpc/x", b"?", retain=True)
        answer = client.request("rpc/x", b"!")
        request = await within(anext(requests))
        assert (request.topic, request.payload, request.text()) == ("rpc/x", b"!", "!")
        await request.respond(b"yes")
        assert (await within(answer)).payload == b"yes"
        assert requests.dropped == 301


async def test_a_request_is_answered_once(client, other, within):
    async with other.serve("rpc/x") as requests, client.subscribe("answers") as answers:
        await client.publish("rpc/x", response_topic="answers")
        request = await within(anext(requests))
        with pytest.raises(TypeError, match="payload"):
            await request.respond(1)
        await request.respond(b"1", encode=None)
        with pytest.raises(RuntimeError, match="answered already"):
            await request.respond(b"2")
        await other.publish("answers", b"end")
        assert [(await within(anext(answers))).payload for _ in range(2)] == [b"1", b"end"]


async def test_requests_need_mqtt_5(broker):
    async with ferromq.Client(broker, version=4) as client:
        with pytest.raises(ferromq.InvalidArgument, match="MQTT 5"):
            client.serve("rpc/x")


async def test_a_request_nobody_answers_times_out(client):
    with pytest.raises(ferromq.Timeout) as timeout:
        await client.request("rpc/nobody", timeout=0.05)
    assert isinstance(timeout.value, TimeoutError)
    assert timeout.value.retryable


async def test_a_session_keeps_messages_while_its_client_is_away(broker, client, within):
    session = ferromq.Session(expiry=60)
    keeper = ferromq.Client(broker.url, client_id="keeper", session=session)
    assert keeper.session_present is None
    await keeper.connect()
    assert keeper.session_present is False
    subscription = await keeper.subscribe("kept", qos=1)
    events = keeper.events()
    # Vanish without unsubscribing, as a crash would.
    broker.kick("keeper")
    await client.publish("kept", b"1", qos=1)
    while not isinstance(await within(anext(events)), ferromq.Connected):
        pass
    assert (await within(anext(subscription))).payload == b"1"
    assert keeper.session_present is True
    await keeper.disconnect()
    while [info.client_id for info in broker.clients if not info.connected] != ["keeper"]:
        await within(asyncio.sleep(0))


async def test_what_a_session_kept_waits_for_the_next_run_to_subscribe(broker, client, within):
    session = ferromq.Session(expiry=60)
    crashed = ferromq.Client(broker.url, client_id="keeper", session=session, reconnect=False)
    await crashed.connect()
    subscription = await crashed.subscribe("kept/+", qos=1)
    broker.kick("keeper")
    with pytest.raises(ferromq.FerroMQError):
        await within(anext(subscription))
    for number in range(200):
        await client.publish("kept/a", b"%d" % number, qos=1)
    keeper = ferromq.Client(broker.url, client_id="keeper", session=session)
    events = keeper.events()
    async with keeper:
        assert keeper.session_present
        seen = [type(await within(anext(events))) for _ in range(2)]
        assert seen == [ferromq.Connecting, ferromq.Connected]
        async with keeper.subscribe("kept/+", qos=1) as messages:
            got = [int((await within(anext(messages))).payload) for _ in range(200)]
    assert got == list(range(200))


async def test_shared_subscriptions_share(broker, client, within):
    async with (
        ferromq.Client(broker.url) as first,
        ferromq.Client(broker.url) as second,
        first.subscribe("$share/g/work/{n}", qos=1) as ours,
        second.subscribe("$share/g/work/{n}", qos=1) as theirs,
    ):
        await client.publish_many([(f"work/{n}", b"") for n in range(10)], qos=1)
        await within(broker.settled())
        received = [await within(anext(ours)) for _ in range(5)] + [await within(anext(theirs)) for _ in range(5)]
        assert sorted(int(m.params["n"]) for m in received) == list(range(10))


async def test_no_local_and_several_filters(client, other, within):
    async with client.subscribe("a", ["b", "c"], no_local=True, qos=1) as messages:
        assert messages.filters == ["a", "b", "c"]
        await client.publish("a", b"mine", qos=1)
        await other.publish("c", b"theirs", qos=1)
        assert (await within(anext(messages))).payload == b"theirs"


async def test_iterating_subscribes_by_itself_and_leaving_unsubscribes(broker, client, other, within):
    async def first():
        async for message in client.subscribe("x", retain_handling="send"):
            return message
        raise AssertionError

    await other.publish("x", b"1", retain=True, qos=1)
    assert (await within(first())).payload == b"1"
    # The subscription object is gone, and with it the subscription.
    await other.publish("x", b"2", qos=1)
    await within(broker.settled())
    (info,) = [info for info in broker.clients if info.client_id == "client"]
    assert info.subscriptions == 0


async def test_a_subscription_is_entered_once(client):
    subscription = client.subscribe("x")
    assert subscription.granted == []
    async with subscription:
        assert subscription.granted == [0]
    with pytest.raises(ferromq.Closed):
        await subscription
    with pytest.raises(ferromq.Closed):
        await anext(subscription)


async def test_the_subscription_ends_with_the_client(broker, within):
    async with ferromq.Client(broker.url) as client:
        subscription = await client.subscribe("x")
        await client.publish("x", b"1")
        await within(broker.settled())
    assert [m.payload async for m in subscription] == [b"1"]


async def test_batches_are_full_or_timely(client, other, within):
    async with other.subscribe("x") as messages:
        await client.publish_many([str(n) for n in range(25)], topic="x")
        sizes, numbers = [], []
        batches = messages.batches(max=10, within=0.2)
        while sum(sizes) < 25:
            batch = await within(anext(batches))
            assert isinstance(batch, list)
            sizes.append(len(batch))
            numbers += [int(m.text()) for m in batch]
        assert max(sizes) == 10
        assert numbers == list(range(25))
        with pytest.raises(ferromq.InvalidArgument):
            messages.batches(max=0)


async def test_the_client_tells_what_it_is(broker):
    client = ferromq.Client([broker.url, "mqtt://127.0.0.1:1"], client_id="me")
    assert (client.client_id, client.connected, client.state) == ("me", False, "disconnected")
    async with client:
        assert (client.connected, client.state) == (True, "connected")
        await client.publish("x", b"1", qos=1)
        assert client.stats()["published"] == 1
        with pytest.raises(ferromq.Closed, match="connected already"):
            await client.connect()
    assert not client.connected
    assert repr(client).endswith("disconnected)")
    async with client:
        assert client.connected, "it can be entered again"


async def test_the_second_server_is_tried(broker):
    async with ferromq.Client(["mqtt://127.0.0.1:1", broker.url]) as client:
        assert client.connected


async def test_the_server_chooses_an_identifier(broker):
    async with ferromq.Client(broker.url) as client:
        assert client.client_id
        assert [info.client_id for info in broker.clients] == [client.client_id]


async def test_reconnect_and_session_are_values():
    assert ferromq.Reconnect(min=1, max=2) == ferromq.Reconnect(min=1, max=2)
    assert ferromq.Reconnect() != ferromq.Reconnect(attempts=3)
    assert ferromq.Reconnect(attempts=3).attempts == 3
    assert ferromq.Session(60).expiry == 60
    assert ferromq.Session().expiry == float("inf")
    with pytest.raises(ferromq.InvalidArgument):
        ferromq.Reconnect(min=2, max=1)
    with pytest.raises(ferromq.InvalidArgument):
        ferromq.Session(-1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"version": 6},
        {"receive_maximum": 0},
        {"timeout": float("nan")},
        {"client_id": "a\0b"},
        {"server": "http://localhost"},
        {"server": []},
    ],
)
async def test_arguments_that_cannot_be_are_refused(arguments):
    with pytest.raises(ferromq.InvalidArgument):
        ferromq.Client(**arguments)


async def test_a_server_of_another_kind_is_a_type_error():
    with pytest.raises(TypeError, match="Broker"):
        ferromq.Client(1883)


@pytest.mark.parametrize("reconnect", [5, 0, "yes", 0.5])
async def test_reconnecting_is_said_in_no_other_way(reconnect):
    with pytest.raises(TypeError, match="reconnect is True, False, None or a Reconnect, not"):
        ferromq.Client("mqtt://localhost", reconnect=reconnect)


async def test_a_text_is_not_taken_for_many_payloads(client):
    for one in ("on", b"on"):
        with pytest.raises(TypeError, match="publish_many takes many payloads, not one"):
            client.publish_many(one, topic="x")


async def lose(subscription):
    await subscription
    del subscription
    await asyncio.sleep(0)  # the loop's turn holds it, too


def lost_subscriptions(caught):
    return [str(warning.message) for warning in caught if issubclass(warning.category, RuntimeWarning)]


async def test_a_subscription_that_nobody_has_looked_at_is_told_of_when_it_goes(client, sync_client):
    with pytest.warns(
        RuntimeWarning, match=r"to plant/\+/temp was never entered, awaited or read, so nothing was subsc"
    ):
        client.subscribe("plant/{line}/temp")
    with pytest.warns(RuntimeWarning, match="to a, b ends, since nobody refers to it any more, and nobody has read it"):
        await lose(client.subscribe("a", "b"))
    with pytest.warns(RuntimeWarning, match="to a ends, since nobody refers to it any more"):
        sync_client.subscribe("a")


async def test_who_has_looked_at_a_subscription_or_left_it_hears_nothing(broker, client, sync_client, within):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with client.subscribe("x"):
            pass
        await (await client.subscribe("x")).unsubscribe()
        for form in (aiter, lambda subscription: subscription.batches(), lambda subscription: subscription.arrow()):
            messages = form(await client.subscribe("x", qos=1))
            await client.publish("x", b"1", qos=1)
            assert await within(anext(messages))
            del messages
        with sync_client.subscribe("x"):
            pass
        sync_client.subscribe("x").unsubscribe()
        taking = sync_client.subscribe("x").take(1)
        sync_client.publish("x", b"1")
        assert [message.payload for message in taking] == [b"1"]
        del taking
        # The client goes first: then there is nothing to lose.
        async with ferromq.Client(broker.url) as short:
            kept = await short.subscribe("x")
        del kept
        with pytest.raises(ferromq.Closed):
            ferromq.Client(broker.url).subscribe("x")
        gc.collect()
    assert lost_subscriptions(caught) == []
