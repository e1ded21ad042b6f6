import asyncio
import socket

import ferromq
import pytest


def test_it_starts_on_a_free_port_and_stops():
    with ferromq.Broker() as broker:
        assert broker.running
        assert broker.url == f"mqtt://127.0.0.1:{broker.port}"
        with socket.create_connection(("127.0.0.1", broker.port), timeout=20):
            pass
        with pytest.raises(RuntimeError, match="runs already"):
            broker.start()
    assert not broker.running
    with pytest.raises(ferromq.Closed):
        _ = broker.url
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(repr(broker).count("x"))), timeout=1)
    with broker:
        assert broker.running, "it can be started again"


async def test_the_same_object_is_asynchronous(within):
    async with ferromq.Broker() as broker, ferromq.Client(broker) as client:
        await within(client.publish("x", b"1", qos=1))
        assert await within(broker.settled(timeout=20)) is None
    assert not broker.running


async def test_it_listens_where_it_is_told(tmp_path, within):
    socket_path = tmp_path / "mqtt.sock"
    listeners = ["tcp://127.0.0.1:0", "ws://127.0.0.1:0/mqtt", f"unix://{socket_path}"]
    async with ferromq.Broker(listeners=listeners) as broker:
        tcp, ws, unix = broker.urls
        assert tcp.startswith("mqtt://127.0.0.1:")
        assert ws.startswith("ws://127.0.0.1:")
        assert unix == f"unix://{socket_path}"
        for url in (tcp, unix):
            async with ferromq.Client(url) as client:
                assert await within(client.publish("x", b"1", qos=1))
    assert not socket_path.exists()


def test_a_port_in_use_is_an_error(broker):
    with pytest.raises(ferromq.ConnectError, match=str(broker.port)):
        ferromq.Broker(listeners=[f"tcp://127.0.0.1:{broker.port}"]).start()


async def test_without_listeners_it_is_reached_from_inside(within):
    async with ferromq.Broker(listeners=[]) as broker, ferromq.Client(broker) as client:
        assert broker.urls == []
        await within(client.publish("x", b"1", qos=2))
        with pytest.raises(ferromq.Closed):
            _ = broker.url


async def test_publishing_without_a_client(broker, client, within):
    async with client.subscribe("plant/#", qos=1) as messages:
        broker.publish("plant/alarm", {"level": 3}, encode="json", qos=1, user_properties={"a": "b"})
        message = await within(anext(messages))
    assert message.json() == {"level": 3}
    assert message.properties.user_properties == (("a", "b"),)
    with pytest.raises(ferromq.InvalidTopic):
        broker.publish("plant/#")


def test_retained_messages_are_looked_up(broker):
    broker.publish("plant/1/temp", b"1", retain=True)
    broker.publish("plant/2/temp", b"2", retain=True)
    broker.wait_settled(timeout=20)
    retained = broker.retained
    assert retained["plant/+/temp"] == {"plant/1/temp": b"1", "plant/2/temp": b"2"}
    assert retained["nothing/#"] == {}
    assert retained.get("plant/1/temp") == b"1"
    assert retained.get("plant/3/temp") is None
    assert retained.get("plant/3/temp", b"?") == b"?"
    assert "plant/2/temp" in retained
    assert "plant/3/temp" not in retained
    assert sorted(retained) == ["plant/1/temp", "plant/2/temp"]
    assert len(retained) == 2
    with pytest.raises(ferromq.InvalidTopic):
        retained["a/#/b"]


async def test_clients_are_listed_and_kicked(broker, client, within):
    (info,) = broker.clients
    assert (info.client_id, info.connected, info.version, info.username) == ("client", True, "5.0", None)
    assert info.address.startswith("127.0.0.1:")
    assert (info.subscriptions, info.queued, info.inflight) == (0, 0, 0)
    assert repr(info) == "ClientInfo('client', connected, MQTT 5.0)"
    events = client.events()
    assert broker.kick("client", 0x98)
    gone = await within(anext(events))
    assert gone.reason.reason_code == 0x98
    assert not broker.kick("nobody")
    with pytest.raises(ferromq.InvalidArgument):
        broker.kick("client", 0)


async def test_a_reason_code_keeps_a_kicked_client_away(broker, client, within):
    events = client.events()
    with pytest.raises(ferromq.InvalidArgument, match="DISCONNECT"):
        broker.kick("client", 0x8A)
    assert broker.kick("client", 0x87)
    gone = await within(anext(events))
    assert (gone.reason.reason_code, gone.retry_in) == (0x87, None)
    with pytest.raises(StopAsyncIteration):
        await within(anext(events))


async def test_counters_count(broker, client):
    await client.publish_many([b"12345"] * 10, topic="x", qos=1)
    stats = broker.stats()
    assert stats["clients_connected"] == 1
    assert stats["publish_received"] == 10
    assert stats["publish_bytes_received"] == 50
    assert stats["dropped"]["queue_full"] == 0
    assert "client_disconnect" in stats["ended"]


async def test_a_tap_sees_traffic(broker, client, within):
    async with broker.tap("plant/#", "other") as tap:
        await client.publish("plant/1", b"1", retain=True, qos=1)
        message = await within(anext(tap))
        assert (message.topic, message.payload, message.retain) == ("plant/1", b"1", True)


async def test_what_a_broker_tells_goes_into_frames(broker, client):
    await client.publish("plant/1", b"1", qos=1, retain=True)
    pa = pytest.importorskip("pyarrow")
    (row,) = pa.Table.from_pylist([info.as_dict() for info in broker.clients]).to_pylist()
    assert row == {name: getattr(broker.clients[0], name) for name in row}
    assert row["client_id"] == "client"
    assert row.keys() == {name for name in dir(broker.clients[0]) if not name.startswith("_")} - {"as_dict"}
    (stats,) = pa.Table.from_pylist([broker.stats()]).to_pylist()
    assert stats["clients_connected"] == 1
    retained = broker.retained["plant/#"]
    assert pa.table({"topic": list(retained), "payload": list(retained.values())}).num_rows == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"users": {"dev": "secret"}},
        {"users": {"dev": "secret"}, "acl": ferromq.Acl().allow("plant/#", users=["dev"], action="publish")},
        {"users": {"dev": "secret"}, "limits": {"max_connections": 1}},
        {"users": {"dev": "secret"}, "capabilities": {"wildcard_subscription_available": False}},
    ],
    ids=["users", "acl", "max_connections", "no wildcards"],
)
async def test_a_tap_is_no_client_and_nothing_is_refused_to_it(arguments, within):
    broker = ferromq.Broker(**arguments)
    told = []
    broker.on_auth(lambda info: told.append(info.client_id) or True)
    broker.on_connect(lambda info, _: told.append(f"+{info.client_id}"))
    broker.on_disconnect(lambda client_id, _: told.append(f"-{client_id}"))
    broker.on_subscribe(lambda client_id, *_: told.append(client_id))
    with broker:
        async with broker.tap("plant/#") as tap:
            assert broker.clients == []
            assert broker.stats()["clients_connected"] == 0
            async with ferromq.Client(broker, client_id="dev", username="dev", password="secret") as client:  # noqa: S106
                await client.publish("plant/1", b"1", qos=1)
                assert (await within(anext(tap))).topic == "plant/1"
                assert [info.client_id for info in broker.clients] == ["dev"]
                with pytest.raises(ferromq.NotAuthorized if "limits" not in arguments else ferromq.Refused):
                    await ferromq.Client(broker.url, client_id="stranger").connect()
            assert broker.stats()["clients_maximum"] == 1
    assert told[:2] == ["dev", "+dev"]
    assert "-dev" in told
    assert not [name for name in told if "auto" in name]


async def test_settled_waits_for_acknowledgements(broker, client, other, within):
    async with other.subscribe("x", qos=2) as messages:
        await client.publish_many([b""] * 500, topic="x", qos=2)
        await within(broker.settled())
        (info,) = [info for info in broker.clients if info.client_id == "other"]
        assert (info.queued, info.inflight) == (0, 0)
        assert messages.pending == 500


async def test_settled_times_out(broker, within):
    async with (
        ferromq.Client(broker.url, client_id="lazy") as lazy,
        lazy.subscribe("x", qos=1, ack="manual"),
    ):
        broker.publish("x", qos=1)
        with pytest.raises(ferromq.Timeout):
            await within(broker.settled(timeout=0.05))


async def test_users_are_checked(within):
    async with ferromq.Broker(users={"dev": "secret", "ops": b"\xff"}) as broker:
        for username, password in (("dev", "secret"), ("ops", b"\xff")):
            async with ferromq.Client(broker.url, username=username, password=password) as client:
                await within(client.publish("x", qos=1))
        for credentials, code in (
            ({"username": "dev", "password": "wrong"}, 0x86),
            ({"username": "nobody", "password": "secret"}, 0x86),
            ({}, 0x87),
        ):
            with pytest.raises(ferromq.NotAuthorized) as refused:
                await within(ferromq.Client(broker.url, **credentials).connect())
            assert refused.value.reason_code == code
            assert not refused.value.retryable


async def judge_later(info):
    return info is not None


class JudgeLater:
    async def __call__(self, info):
        return info is not None


@pytest.mark.parametrize(("hook", "says"), [(judge_later, "async"), (JudgeLater(), "async"), (True, "bool")])
def test_a_hook_that_could_never_answer_is_refused(hook, says):
    broker = ferromq.Broker()
    with pytest.raises(TypeError, match=says):
        broker.on_auth(hook)
    assert broker.on_auth(len) is len


async def test_a_hook_decides_who_may_connect(within):
    seen = []
    broker = ferromq.Broker()

    @broker.on_auth
    def judge(info: ferromq.ConnectInfo):
        seen.append((info.client_id, info.username, info.password, info.version))
        assert repr(info).startswith("ConnectInfo(" + repr(info.client_id) + f", username={info.username!r}, address=")
        assert "hidden" not in repr(info)
        return {"good": True, "bad": False, "banned": 0x8A}[info.username]

    assert judge.__name__ == "judge"
    async with broker:
        async with ferromq.Client(broker.url, client_id="a", username="good", password="hidden"):  # noqa: S106
            pass
        for username, code in (("bad", 0x87), ("banned", 0x8A)):
            with pytest.raises(ferromq.NotAuthorized) as refused:
                await within(ferromq.Client(broker.url, username=username).connect())
            assert refused.value.reason_code == code
    assert seen[0] == ("a", "good", b"hidden", "5.0")


@pytest.mark.parametrize(
    ("answer", "error"), [(lambda _info: 1 / 0, ZeroDivisionError), (lambda _info: 0x98, TypeError)]
)
async def test_a_hook_that_fails_refuses_and_is_reported(monkeypatch, within, answer, error):
    reported = asyncio.Queue()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(
        "sys.unraisablehook", lambda args: loop.call_soon_threadsafe(reported.put_nowait, args.exc_type)
    )
    broker = ferromq.Broker()
    broker.on_auth(answer)
    async with broker:
        with pytest.raises(ferromq.Refused) as refused:
            await within(ferromq.Client(broker.url).connect())
        assert refused.value.reason_code == 0x83
        assert await within(reported.get()) is error
        ended = broker.stats()["ended"]
        assert (ended["internal_error"], ended["protocol_error"]) == (1, 0)
        with pytest.raises(RuntimeError, match="before"):
            broker.on_auth(lambda _info: True)


async def test_settings_come_from_a_file_a_dictionary_and_keywords(tmp_path, within):
    path = tmp_path / "broker.toml"
    path.write_text(
        'listeners = ["tcp://127.0.0.1:0"]\n[capabilities]\nmaximum_packet_size = "1 KiB"\nmaximum_qos = 1\n'
    )
    for broker in (
        ferromq.Broker(config=path, capabilities={"maximum_qos": 0}),
        ferromq.Broker(config={"capabilities": {"maximum_packet_size": 1024}}, capabilities={"maximum_qos": 0}),
    ):
        async with broker, ferromq.Client(broker.url) as client:
            with pytest.raises(ferromq.InvalidArgument, match="QoS 0"):
                await within(client.publish("x", qos=1))
            with pytest.raises(ferromq.InvalidArgument, match="1024"):
                await within(client.publish("x", bytes(2000)))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"limits": {"max_inflght": 1}}, "max_inflight"),
        ({"config": {"lstener": 1}}, "lstener"),
        ({"listeners": ["http://x"]}, "http"),
        ({"capabilities": {"maximum_qos": 7}}, "maximum_qos"),
        ({"drain_timeout": -1}, "drain_timeout"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(arguments, complaint):
    with pytest.raises(ferromq.InvalidArgument, match=complaint):
        ferromq.Broker(**arguments)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ferromq.InvalidArgument, match=r"no\.toml"):
        ferromq.Broker(config=tmp_path / "no.toml")
    with pytest.raises(TypeError):
        ferromq.Broker(config=1)


async def test_several_shards_serve_one_broker(within):
    async with ferromq.Broker(shards=3, seed=1) as broker:
        clients = [ferromq.Client(broker.url, client_id=str(n)) for n in range(6)]
        subscriptions = []
        for client in clients:
            await client.connect()
            subscriptions.append(await client.subscribe("x", qos=1))
        await clients[0].publish("x", b"1", qos=1)
        for subscription in subscriptions:
            assert (await within(anext(subscription))).payload == b"1"
        for client in clients:
            await client.disconnect()


async def test_rules_say_who_may_do_what():
    rules = [
        {"permission": "allow", "users": ["dev"], "filters": ["dev/%c/#"]},
        {"permission": "allow", "filters": ["public/#"]},
    ]
    with ferromq.Broker(users={"dev": "s"}, allow_anonymous=True, acl=rules) as broker:
        async with ferromq.Client(broker, client_id="a", username="dev", password=b"s") as client:
            await client.publish("dev/a/temp", b"1", qos=1)
            with pytest.raises(ferromq.NotAuthorized):
                await client.publish("dev/b/temp", b"1", qos=1)
            with pytest.raises(ferromq.NotAuthorized):
                await client.subscribe("dev/#")
        async with ferromq.Client(broker) as anyone:
            public = await anyone.subscribe("public/#")
            assert public.granted == [0]
            with pytest.raises(ferromq.NotAuthorized):
                await anyone.publish("dev/a/temp", b"1", qos=1)
        assert broker.stats()["dropped"]["not_authorized"] == 2


def test_a_rule_that_is_none_is_told():
    with pytest.raises(ferromq.InvalidArgument, match=r"acl\.rules\[0\]\.filters\[0\]"):
        ferromq.Broker(acl=[{"permission": "allow", "filters": ["a/#/b"]}])
    with pytest.raises(ferromq.InvalidArgument, match='did you mean "no_match"'):
        ferromq.Broker(acl={"nomatch": "allow"})


async def test_settings_with_names_of_their_own():
    limits = ferromq.Limits(max_packet_size=1000, max_inflight=3)
    acl = ferromq.Acl().allow("dev/%c/#", users=["dev"]).deny("public/secret").allow("public/#")
    users = {"dev": "s"}
    with ferromq.Broker(users=users, allow_anonymous=True, acl=acl, limits=limits) as broker:
        async with ferromq.Client(broker, client_id="a", username="dev", password=b"s") as client:
            await client.publish("dev/a/temp", b"1", qos=1)
            for topic in ("dev/b/temp", "public/secret"):
                with pytest.raises(ferromq.NotAuthorized):
                    await client.publish(topic, b"1", qos=1)
            await client.publish("public/x", b"1", qos=1)
            with pytest.raises(ferromq.FerroMQError, match="1000"):
                await client.publish("public/x", b"x" * 1000, qos=1)


def test_settings_say_what_is_wrong_with_them():
    assert repr(ferromq.Limits(max_inflight=3)) == "Limits(max_inflight=3)"
    assert repr(ferromq.Acl().allow("a")) == "Acl(1 rules)"
    with pytest.raises(TypeError, match=r"write \['dev'\]"):
        ferromq.Acl().allow("a", users="dev")
    with pytest.raises(ferromq.InvalidArgument, match="max_inflight"):
        ferromq.Broker(limits=ferromq.Limits(max_inflight=0))


async def test_a_list_without_rules_that_denies_denies_all():
    with ferromq.Broker(acl=ferromq.Acl(no_match="deny")) as broker:
        async with ferromq.Client(broker) as client:
            with pytest.raises(ferromq.NotAuthorized):
                await client.publish("t", b"1", qos=1)


def test_brokers_may_live_by_one_clock():
    with ferromq.Broker() as one, ferromq.Broker(clock=one.clock) as other:
        with ferromq.SyncClient(one, will=ferromq.Will("gone", delay=0)) as a, ferromq.SyncClient(other) as b:
            one.clock.advance("8h")
            assert a.connected
            assert b.connected, "its pings went on at the same time"
        assert other.clock.offset == one.clock.offset


async def test_sys_names_the_clients_for_which_most_is_held():
    place = "$SYS/broker/clients/memory/1"
    with ferromq.Broker(sys={"interval": "10s"}) as broker:
        session = ferromq.Session(expiry=86_400)
        async with ferromq.Client(broker, client_id="away", session=session) as client:
            subscription = await client.subscribe("t", qos=1)
            assert subscription.granted == [1]
        del subscription  # it is the session's now
        await broker.settled()  # the broker knows that nobody is there
        for _ in range(3):
            broker.publish("t", b"x" * 1000, qos=1)
        broker.clock.advance("1m")
        held, client_id = broker.retained.get(place, b"").split()
        assert client_id == b"away"
        assert int(held) > 3000
        async with (
            ferromq.Client(broker, client_id="away", session=session) as client,
            client.subscribe("t", qos=1) as messages,
        ):
            for _ in range(3):
                await anext(messages)
            await broker.settled()
        broker.clock.advance("1m")
        assert broker.retained.get(place) is None
