"""Brokers that are weaker, by name: what each refuses, a client meets here first."""

import ferromq
import pytest

AVAILABLE = [("aws-iot-core", True), ("azure-event-grid", False), ("minimal", False)]
ALL = ["aws-iot-core", "azure-event-grid", "minimal", "impatient"]


def broker(like, **arguments):
    return ferromq.Broker(like=like, **arguments)


@pytest.mark.parametrize("like", ALL)
def test_what_every_broker_can_do_works(like):
    with (
        broker(like) as server,
        ferromq.SyncClient(server, client_id="c") as client,
        client.subscribe("plant/+/temp", qos=1) as messages,
    ):
        client.publish("plant/1/temp", b"21.5", qos=1)
        assert messages.get(timeout=20).payload == b"21.5"


@pytest.mark.parametrize("like", ["aws-iot-core", "azure-event-grid", "minimal"])
def test_there_is_no_quality_of_service_2(like):
    with broker(like) as server, ferromq.SyncClient(server) as client, pytest.raises(ferromq.InvalidArgument):
        client.publish("t", b"1", qos=2)


@pytest.mark.parametrize(
    ("like", "is_there"), [("aws-iot-core", True), ("azure-event-grid", False), ("minimal", False)]
)
def test_retained_messages(like, is_there):
    with broker(like) as server, ferromq.SyncClient(server) as client:
        if is_there:
            client.publish("t", b"1", qos=1, retain=True)
            assert list(server.retained["#"]) == ["t"]
        else:
            with pytest.raises(ferromq.InvalidArgument):
                client.publish("t", b"1", qos=1, retain=True)


@pytest.mark.parametrize(
    ("like", "is_there"), [("aws-iot-core", True), ("azure-event-grid", False), ("minimal", False)]
)
def test_shared_subscriptions(like, is_there):
    with broker(like) as server, ferromq.SyncClient(server) as client:
        if is_there:
            with client.subscribe("$share/workers/job/#"):
                pass
        else:
            with pytest.raises(ferromq.InvalidArgument, match="shared"):
                client.subscribe("$share/workers/job/#")


@pytest.mark.parametrize(
    ("like", "largest"),
    [("aws-iot-core", 128 << 10), ("azure-event-grid", 512 << 10), ("minimal", 4 << 10), ("impatient", 256 << 10)],
)
def test_packets_are_small(like, largest):
    with broker(like) as server, ferromq.SyncClient(server) as client:
        client.publish("t", bytes(largest - 100), qos=1, timeout=20)
        with pytest.raises(ferromq.FerroMQError):
            client.publish("t", bytes(largest), qos=1, timeout=20)


def test_topics_are_shallow():
    with broker("aws-iot-core") as server, ferromq.SyncClient(server, reconnect=False) as client:
        client.publish("1/2/3/4/5/6/7/8", b"", qos=1, timeout=20)
        with pytest.raises(ferromq.FerroMQError):
            client.publish("1/2/3/4/5/6/7/8/9", b"", qos=1, timeout=20)


def test_subscriptions_are_few():
    with broker("minimal") as server, ferromq.SyncClient(server) as client:
        ten = [client.subscribe(f"t/{number}").__enter__() for number in range(10)]
        assert len(ten) == 10
        with pytest.raises(ferromq.Refused):
            client.subscribe("t/10").__enter__()


def test_an_impatient_broker_ends_sessions_and_silent_connections_soon():
    with broker("impatient") as server:
        with ferromq.SyncClient(server, client_id="away", session=ferromq.Session()):
            pass
        assert [client.client_id for client in server.clients] == ["away"]
        server.clock.advance("31s")
        assert server.clients == []
        with ferromq.SyncClient(server.url, client_id="asleep", keep_alive=3600, reconnect=False):
            server.clock.advance("8s")  # half as long again as the 5 s that it grants
            assert server.clients == []


def test_arguments_win_over_a_preset():
    with (
        broker("minimal", capabilities={"maximum_qos": 2}) as server,
        ferromq.SyncClient(server, timeout=20) as client,
    ):
        client.publish("t", b"1", qos=2)
        with pytest.raises(ferromq.InvalidArgument):
            client.publish("t", b"1", retain=True)
    config = {"capabilities": {"retain_available": True}}
    with broker("minimal", config=config) as server, ferromq.SyncClient(server) as client:
        client.publish("t", b"1", qos=1, retain=True)


def test_an_unknown_name_is_refused_with_those_that_are_known():
    with pytest.raises(ferromq.InvalidArgument, match=r'"aws-iot-core".*"minimal"'):
        broker("mosquitto")
