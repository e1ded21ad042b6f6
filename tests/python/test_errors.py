"""Failures carry what the protocol says about them, and what may be done."""

import asyncio

import ferromq
import pytest


def test_the_hierarchy_is_one_and_meets_the_builtin_one():
    names = [name for name in dir(ferromq) if isinstance(getattr(ferromq, name), type)]
    exceptions = [getattr(ferromq, name) for name in names if issubclass(getattr(ferromq, name), Exception)]
    assert len(exceptions) == 14
    assert all(issubclass(exception, ferromq.FerroMQError) for exception in exceptions)
    assert issubclass(ferromq.ConnectError, ConnectionError)
    assert issubclass(ferromq.ConnectionLost, ConnectionError)
    assert issubclass(ferromq.Timeout, TimeoutError)
    assert issubclass(ferromq.InvalidTopic, ValueError)
    assert issubclass(ferromq.NotAuthorized, ferromq.Refused)
    assert issubclass(ferromq.StorageError, OSError)
    assert ferromq.Closed.__module__ == "ferromq"
    assert ferromq.Closed.__doc__


def test_an_exception_raised_by_others_has_the_attributes_too():
    error = ferromq.Refused("no")
    assert (error.reason_code, error.reason_string, error.packet, error.retryable) == (None, None, None, False)
    assert error.user_properties == ()
    assert str(error) == "no"


async def test_nobody_listens_there():
    with pytest.raises(ferromq.ConnectError) as failed:
        await ferromq.Client("mqtt://127.0.0.1:1", timeout=20).connect()
    assert failed.value.retryable
    assert failed.value.reason_code is None
    assert "127.0.0.1:1" in str(failed.value)


async def test_a_server_that_says_nothing_is_a_timeout(within):
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ferromq.Timeout) as failed:
        await within(ferromq.Client(f"mqtt://127.0.0.1:{port}", timeout=0.1).connect())
    assert failed.value.retryable
    server.close()
    await server.wait_closed()


async def test_a_refused_connection_says_why(within):
    broker = ferromq.Broker()
    broker.on_auth(lambda _info: 0x89)
    async with broker:
        with pytest.raises(ferromq.Refused) as refused:
            await within(ferromq.Client(broker.url, reconnect=False).connect())
    assert refused.value.reason_code == 0x89
    assert refused.value.reason_string == "server busy"
    assert refused.value.packet == "CONNECT"
    assert refused.value.retryable, "a busy server may be free later"


async def test_a_refused_subscription_says_why():
    async with (
        ferromq.Broker(capabilities={"shared_subscription_available": False}) as broker,
        ferromq.Client(broker.url, version=4) as client,
    ):
        with pytest.raises(ferromq.Refused) as refused:
            await client.subscribe("$share/g/x")
        assert refused.value.reason_code == 0x80
        assert refused.value.packet == "SUBSCRIBE"


async def test_a_taken_over_session_is_told(broker, within):
    async with ferromq.Client(broker.url, client_id="one") as first:
        events = first.events()
        async with ferromq.Client(broker.url, client_id="one"):
            lost = await within(anext(events))
            assert isinstance(lost.reason, ferromq.ConnectionLost)
            assert (lost.reason.reason_code, lost.reason.packet) == (0x8E, "DISCONNECT")
            assert not lost.reason.retryable
            assert lost.retry_in is None
            assert "0x8E" in repr(lost)


async def test_an_invalid_topic_is_named(client):
    with pytest.raises(ferromq.InvalidTopic, match=r"a/\+"):
        await client.publish("a/+", b"")
    with pytest.raises(ferromq.InvalidTopic, match="a/#/b"):
        client.subscribe("a/#/b")


async def test_what_needs_mqtt_5_says_so(broker):
    async with ferromq.Client(broker.url, version=4) as client:
        with pytest.raises(ferromq.InvalidArgument, match="MQTT 5"):
            await client.request("x", timeout=5)


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"user_properties": {"a": "b"}}, "user_properties"),
        ({"will": ferromq.Will("x", delay=3)}, "delay of Will"),
        ({"will": ferromq.Will("x", content_type="text/plain")}, "content_type of Will"),
        ({"will": ferromq.Will("x", user_properties={"a": "b"})}, "user_properties of Will"),
        ({"session": ferromq.Session(30)}, "expires"),
        ({"session": ferromq.Session(clean_start=True)}, "clean_start"),
    ],
)
@pytest.mark.parametrize("client_class", [ferromq.Client, ferromq.SyncClient])
def test_what_an_old_version_cannot_carry_is_refused(client_class, version, arguments, named):
    with pytest.raises(ferromq.InvalidArgument, match=f"{named}.* needs MQTT 5"):
        client_class(version=version, client_id="a", **arguments)
    assert client_class(client_id="a", **arguments)


async def test_before_mqtt_5_a_session_is_kept_for_ever_or_not_at_all(broker):
    for session, is_kept in ((ferromq.Session(), True), (ferromq.Session(0), False)):
        async with ferromq.Client(broker.url, version=4, client_id="a", session=session):
            pass
        await broker.settled(20)  # it has read the DISCONNECT
        assert [info.client_id for info in broker.clients if not info.connected] == ["a"] * is_kept
    with pytest.raises(ferromq.InvalidArgument, match="with_will"):
        await ferromq.Client(broker.url, version=4).disconnect(with_will=True)


@pytest.mark.parametrize("version", [3, 4])
async def test_a_client_identifier_is_made_up_unless_a_session_needs_it(broker, version):
    async with (
        ferromq.Client(broker.url, version=version) as first,
        ferromq.Client(broker.url, version=version) as second,
    ):
        if version == 3:
            assert first.client_id != second.client_id
            assert first.client_id.startswith("ferromq-")
            assert len(first.client_id) == 23, "MQTT 3.1 allows no more"
        assert all(info.client_id for info in broker.clients)
        assert len(broker.clients) == 2
    with pytest.raises(ferromq.InvalidArgument, match="client_id="):
        ferromq.Client(version=version, session=ferromq.Session())


async def test_a_server_that_falls_silent_is_noticed_within_the_timeout(within):
    async def accept_and_fall_silent(reader, writer):
        await reader.read(1)
        writer.write(b"\x20\x03\x00\x00\x00")
        while await reader.read(100):
            pass
        writer.close()

    server = await asyncio.start_server(accept_and_fall_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with ferromq.Client(f"mqtt://127.0.0.1:{port}", keep_alive=1, timeout=0.2, reconnect=False) as client:
        lost = await within(anext(client.events()), 8)
        assert isinstance(lost, ferromq.Disconnected)
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ferromq.Client(keep_alive=70_000), "keep_alive is 0 to 65535, not 70000"),
        (lambda: ferromq.Client(keep_alive=-(10**30)), "keep_alive is 0 to 65535"),
        (lambda: ferromq.SyncClient(receive_maximum=0), "receive_maximum is 1 to 65535, not 0"),
        (lambda: ferromq.Client(max_packet_size=0), "max_packet_size is 1 to 268435460, not 0"),
        (lambda: ferromq.Client(max_queued=-1), "max_queued is at least 0, not -1"),
        (lambda: ferromq.Client(max_queued_bytes=-1), "max_queued_bytes is at least 0, not -1"),
        (lambda: ferromq.Reconnect(attempts=-1), "attempts is 0 to 4294967295, not -1"),
        (lambda: ferromq.Will("x", qos=256), "qos is 0, 1 or 2, not 256"),
        (lambda: ferromq.Will("x", payload_format=300), "payload_format is 0 to 1, not 300"),
        (lambda: ferromq.Broker(shards=-1), "shards is 0 to 64, not -1"),
        (lambda: ferromq.Broker(seed=-1), "seed is 0 to 18446744073709551615, not -1"),
        (lambda: ferromq.Broker(limits={"foo": 1}), "the keyword arguments: unknown key"),
        (lambda: ferromq.Broker(config={"limits": {"foo": 1}}), "config: unknown key"),
    ],
)
def test_a_number_out_of_range_is_named(call, says):
    with pytest.raises(ferromq.InvalidArgument, match=f"^{says}"):
        call()


async def test_values_out_of_range_are_refused(client, broker):
    for call, says in (
        (lambda: client.publish("x", qos=3), "qos is 0, 1 or 2, not 3"),
        (lambda: client.publish("x", qos=-1), "qos is 0, 1 or 2, not -1"),
        (lambda: client.publish("x", message_expiry=-1), "message_expiry is a number of seconds"),
        (lambda: client.publish("x", payload_format=2), "payload_format is 0 to 1, not 2"),
        (lambda: client.publish("x", float("nan"), encode="json"), "not JSON: "),
        (lambda: client.subscribe("x", maxsize=-1), "maxsize is at least 1, not -1"),
        (lambda: client.subscribe("x").batches(max=-1), "max is at least 1, not -1"),
        (
            lambda: broker.kick("client", 300),
            "reason_code is an MQTT reason code from 0x80 that DISCONNECT may have, not 0x12c",
        ),
    ):
        with pytest.raises(ferromq.InvalidArgument, match=f"^{says}"):
            await call()
    async with client.subscribe("x", ack="manual", qos=1) as messages:
        await client.publish("x", qos=1)
        message = await anext(messages)
        with pytest.raises(ferromq.InvalidArgument, match=r"reason_code is .* not 256"):
            message.ack(256)


@pytest.mark.parametrize("pairs", [[("a",)], [("a", 1)], {"a": 1}, 5])
async def test_user_properties_that_are_no_pairs_are_named(client, pairs):
    with pytest.raises(TypeError, match="user_properties"):
        client.publish("x", user_properties=pairs)
    with pytest.raises(TypeError, match="user_properties"):
        ferromq.Client(user_properties=pairs)


async def test_a_word_of_another_kind_is_named_in_a_note(client):
    for argument in ("retain_handling", "overflow", "ack"):
        with pytest.raises(TypeError) as wrong:
            client.subscribe("x", **{argument: 1})
        assert argument in wrong.value.__notes__[0]


async def test_a_long_topic_is_not_told_in_full(client):
    for call in (ferromq.validate_topic, client.publish, client.subscribe, ferromq.Will):
        with pytest.raises(ferromq.InvalidTopic) as invalid:
            await call("ü" * 70_000)
        assert 100 < len(str(invalid.value)) < 1100


async def test_times_are_told_in_seconds(client):
    with pytest.raises(ferromq.Timeout, match=r"took longer than 0\.25 s$"):
        await client.request("nobody", timeout=0.25)


async def test_unfinished_publications_fail_when_the_client_ends(broker):
    client = ferromq.Client(broker.url, timeout=0.1, reconnect=ferromq.Reconnect(min=60, max=60))
    await client.connect()
    events = client.events()
    broker.stop()
    while not isinstance(await anext(events), ferromq.Disconnected):
        pass
    publication = asyncio.ensure_future(client.publish("x", qos=1))
    await client.disconnect()
    with pytest.raises(ferromq.FerroMQError):
        await publication


async def test_a_publication_may_have_a_timeout(broker):
    async with ferromq.Client(broker.url, timeout=1, reconnect=ferromq.Reconnect(min=60, max=60)) as client:
        events = client.events()
        broker.stop()
        while not isinstance(await anext(events), ferromq.Disconnected):
            pass
        with pytest.raises(ferromq.Timeout, match="publishing"):
            await client.publish("x", qos=1, timeout=0.05)
        with pytest.raises(ferromq.Timeout):
            await client.publish_many([b""], topic="x", qos=1, timeout=0.05)


async def test_a_refusal_that_nobody_waits_for_is_counted():
    with ferromq.Broker(acl=ferromq.Acl(no_match="deny")) as broker:
        async with ferromq.Client(broker) as client:
            client.publish_nowait("t", b"1", qos=1)
            await broker.settled()
            assert client.stats()["given_up"] == 1
