"""The client across a restart of its broker."""

import asyncio

import ferromq
import pytest


@pytest.fixture
def restartable():
    """A broker that comes back on its port, as a new one without memory."""
    with ferromq.Broker() as first:
        settings = {"listeners": [f"tcp://127.0.0.1:{first.port}"]}
        brokers = [first]

        def restart():
            brokers[-1].stop()
            brokers.append(ferromq.Broker(**settings).start())
            return brokers[-1]

        yield first, restart
        brokers[-1].stop()


async def test_subscriptions_and_publications_survive_a_restart(restartable, within):
    broker, restart = restartable
    quick = ferromq.Reconnect(min=0.01, max=0.05)
    async with (
        ferromq.Client(broker.url, reconnect=quick) as client,
        client.subscribe("x", qos=1) as messages,
    ):
        events = client.events()
        await asyncio.to_thread(broker.stop)
        lost = await within(anext(events))
        assert isinstance(lost, ferromq.Disconnected)
        assert lost.reason.reason_code == 0x8B
        assert lost.retry_in <= 0.05
        # Published without a connection: it waits.
        waiting = asyncio.ensure_future(client.publish("x", b"kept", qos=1))
        await asyncio.to_thread(restart)
        while True:
            match await within(anext(events)):
                case ferromq.Connected(session_present):
                    assert session_present is False
                    break
                case ferromq.Connecting() | ferromq.Disconnected():
                    pass
        assert (await within(waiting)).reason_code in {0, 0x10}
        await client.publish("x", b"later", qos=1)
        while (await within(anext(messages))).payload != b"later":
            pass


async def test_giving_up_is_told_and_ends_the_client(restartable, within):
    broker, _ = restartable
    async with ferromq.Client(broker.url, reconnect=ferromq.Reconnect(min=0.01, max=0.01, attempts=2)) as client:
        subscription = await client.subscribe("x")
        events = client.events()
        await asyncio.to_thread(broker.stop)
        told = [event async for event in events]
        assert isinstance(told[-1], ferromq.Disconnected)
        assert told[-1].retry_in is None
        assert [type(event) for event in told].count(ferromq.Connecting) == 2
        with pytest.raises(ferromq.ConnectError):
            await within(anext(subscription))
        with pytest.raises(ferromq.FerroMQError):
            await client.publish("x", qos=1)
        assert client.state == "disconnected"


async def test_without_reconnecting_the_loss_is_the_end(restartable, within):
    broker, _ = restartable
    async with ferromq.Client(broker.url, reconnect=False) as client, client.subscribe("x") as messages:
        await asyncio.to_thread(broker.stop)
        with pytest.raises(ferromq.ConnectionLost):
            await within(anext(messages))


async def test_an_in_memory_client_comes_back_too(within):
    broker = ferromq.Broker()
    broker.start()
    async with (
        ferromq.Client(broker, reconnect=ferromq.Reconnect(min=0.01, max=0.05)) as client,
        client.subscribe("x", qos=1) as messages,
    ):
        await asyncio.to_thread(broker.stop)
        broker.start()
        await within(client.publish("x", b"1", qos=1))
        while (await within(client.publish("x", b"2", qos=1))).reason_code:
            pass
        assert (await within(anext(messages))).payload in {b"1", b"2"}
    broker.stop()


async def test_attempts_bound_the_first_connection_too(within):
    with ferromq.Broker() as broker:
        url = broker.url
    client = ferromq.Client(url, reconnect=ferromq.Reconnect(min=0.01, max=0.01, first=True, attempts=2))
    events = client.events()
    with pytest.raises(ferromq.ConnectError):
        await within(client.connect())
    assert [type(event) async for event in events].count(ferromq.Connecting) > 1


async def test_the_first_connection_may_be_retried(within):
    with ferromq.Broker() as broker:
        url = broker.url
    client = ferromq.Client(url, reconnect=ferromq.Reconnect(min=0.01, max=0.05, first=True))
    connecting = asyncio.ensure_future(client.connect())
    with ferromq.Broker(listeners=[url.replace("mqtt", "tcp")]):
        assert (await within(connecting)).connected
        await client.disconnect()
