import asyncio
import contextlib
import threading

import ferromq
import pytest

HOOKS = ["on_auth", "on_acl", "on_publish", "on_connect", "on_disconnect", "on_subscribe", "on_unsubscribe", "on_drop"]


async def test_on_acl_decides_what_clients_may_do():
    broker = ferromq.Broker()
    asked = []

    @broker.on_acl
    def acl(client, action, topic):
        asked.append((client.client_id, action, topic))
        return topic != "secret"

    async with broker, ferromq.Client(broker, client_id="c") as client:
        kept = await client.subscribe("open", "other")
        assert kept.granted == [0, 0]
        with pytest.raises(ferromq.NotAuthorized):
            await client.subscribe("secret")
        for _ in range(3):
            await client.publish("open", b"1", qos=1)
        with pytest.raises(ferromq.NotAuthorized):
            await client.publish("secret", b"1", qos=2)
        will = ferromq.Will("secret", b"gone")
        with pytest.raises(ferromq.NotAuthorized):
            await ferromq.Client(broker, will=will, reconnect=None).connect()
    assert asked[:5] == [
        ("c", "subscribe", "open"),
        ("c", "subscribe", "other"),
        ("c", "subscribe", "secret"),
        ("c", "publish", "open"),  # and remembered
        ("c", "publish", "secret"),
    ]
    assert [action for _, action, _ in asked[5:]] == ["publish"]


async def test_on_publish_sees_each_message_and_may_refuse_it():
    broker = ferromq.Broker()
    seen = []

    @broker.on_publish
    def check(client, message):
        assert client.client_id == "c"
        seen.append((message.topic, message.payload, message.qos, message.retain))
        return False if message.payload == b"bad" else None

    async with broker, ferromq.Client(broker, client_id="c") as client, client.subscribe("t") as messages:
        await client.publish("t", b"first", retain=True)
        with pytest.raises(ferromq.NotAuthorized):
            await client.publish("t", b"bad", qos=1)
        await client.publish("t", b"last", qos=2)
        assert [(await anext(messages)).payload for _ in range(2)] == [b"first", b"last"]
    assert seen == [("t", b"first", 0, True), ("t", b"bad", 1, False), ("t", b"last", 2, False)]


async def test_others_do_not_wait_for_a_hook():
    broker = ferromq.Broker()
    may_answer = threading.Event()

    @broker.on_acl
    def acl(client, _action, _topic):
        return client.client_id == "quick" or may_answer.wait(20)

    async with (
        broker,
        ferromq.Client(broker, client_id="slow") as slow,
        ferromq.Client(broker, client_id="quick") as quick,
    ):
        waiting = asyncio.ensure_future(slow.publish("t", b"1", qos=1))
        for _ in range(5):
            await quick.publish("t", b"1", qos=1)
        assert not waiting.done()
        may_answer.set()
        await waiting


async def test_a_hook_that_raises_refuses_and_is_told(monkeypatch):
    broker = ferromq.Broker()
    raised = []
    monkeypatch.setattr("sys.unraisablehook", lambda info: raised.append(info.exc_type))

    @broker.on_acl
    def acl(_client, _action, _topic):
        raise LookupError

    async with broker, ferromq.Client(broker) as client:
        with pytest.raises(ferromq.NotAuthorized):
            await client.publish("t", b"1", qos=1)
    assert raised == [LookupError]


async def test_what_happens_is_told_in_order_and_done_when_the_broker_has_stopped():
    broker = ferromq.Broker()
    told = []
    broker.on_connect(lambda client, present: told.append(("connect", client.client_id, client.password, present)))
    broker.on_disconnect(lambda client_id, reason: told.append(("disconnect", client_id, reason)))
    broker.on_subscribe(lambda client_id, name, qos: told.append(("subscribe", client_id, name, qos)))
    broker.on_unsubscribe(lambda client_id, name: told.append(("unsubscribe", client_id, name)))
    broker.on_drop(lambda client_id, topic, reason: told.append(("drop", client_id, topic, reason)))
    async with broker:
        async with ferromq.Client(broker, client_id="c", username="u", password=b"p") as client:
            subscription = await client.subscribe("t", qos=1)
            await subscription.unsubscribe()
            with pytest.raises(ferromq.NotAuthorized):
                await client.publish("$SYS/mine", b"1", qos=1)
        await broker.settled()
    assert told == [
        ("connect", "c", None, False),
        ("subscribe", "c", "t", 1),
        ("unsubscribe", "c", "t"),
        ("drop", "c", "$SYS/mine", "not_authorized"),
        ("disconnect", "c", "client_disconnect"),
    ]


def test_a_hook_may_stop_the_broker():
    broker = ferromq.Broker()
    stopped = threading.Event()

    @broker.on_connect
    def stop(_client, _present):
        broker.stop()
        stopped.set()

    with broker:
        # It is let in and told of the end at once; which of the two it sees first is chance.
        with contextlib.suppress(ferromq.ConnectionLost):
            ferromq.SyncClient(broker, reconnect=None).connect()
        assert stopped.wait(20)
        assert not broker.running


@pytest.mark.parametrize("name", HOOKS)
def test_only_functions_that_can_answer_are_taken_and_in_time(name):
    broker = ferromq.Broker()

    async def later():
        pass

    with pytest.raises(TypeError, match=f"{name} takes a function, not int"):
        getattr(broker, name)(1)
    with pytest.raises(TypeError, match=f"{name} takes a plain function"):
        getattr(broker, name)(later)
    with broker, pytest.raises(RuntimeError, match="before the broker is started"):
        getattr(broker, name)(print)
