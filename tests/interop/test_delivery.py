"""QoS 0, 1 and 2 from publisher to subscriber."""

import pytest
from harness.cells import TAKEN_OVER, UNSUBSCRIBE

# Beyond the windows that clients and brokers open by default (20 to 65,535), short enough for one process a message.
BURST = 40
LARGE = bytes(range(256)) * 4096 + b"one more than 1 MiB"


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_arrives_with_its_topic_payload_and_qos(peer, topic, qos):
    subscriber, publisher = peer.connected(), peer.connected()
    assert subscriber.subscribe(f"{topic}/+/level", qos=2) == [2]
    publisher.publish(f"{topic}/größe 水/level", bytes(range(256)), qos=qos)
    message = subscriber.receive()
    assert (message.topic, message.payload) == (f"{topic}/größe 水/level", bytes(range(256)))
    assert (message.qos, message.retain) == (qos, False)


@pytest.mark.parametrize("granted", [0, 1])
def test_delivery_is_lowered_to_the_granted_qos(peer, topic, granted):
    subscriber, publisher = peer.connected(), peer.connected()
    assert subscriber.subscribe(f"{topic}/#", qos=granted) == [granted]
    publisher.publish(f"{topic}/a", b"x", qos=2)
    assert subscriber.receive().qos == granted


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_burst_arrives_once_each_and_in_order(peer, topic, qos):
    subscriber, publisher = peer.connected(), peer.connected()
    subscriber.subscribe(topic, f"{topic}/end", qos=qos)
    payloads = [f"{number}".encode() for number in range(BURST)]
    if peer.cell.can(UNSUBSCRIBE):
        for sent in [publisher.publishing(topic, payload, qos=qos) for payload in payloads]:
            sent.result(30)
    else:  # each publish is a process of its own, and those keep an order only one after the other
        for payload in payloads:
            publisher.publish(topic, payload, qos=qos)
    publisher.publish(f"{topic}/end", b"", qos=qos)
    assert [message.payload for message in subscriber.receive_until(f"{topic}/end")] == payloads


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_payload_beyond_one_mebibyte_arrives_whole(peer, topic, qos):
    subscriber, publisher = peer.connected(), peer.connected()
    subscriber.subscribe(topic, qos=qos)
    publisher.publish(topic, LARGE, qos=qos)
    assert subscriber.receive().payload == LARGE


def test_an_empty_payload_arrives(peer, topic):
    subscriber, publisher = peer.connected(), peer.connected()
    subscriber.subscribe(topic, qos=1)
    publisher.publish(topic, b"", qos=1)
    assert subscriber.receive().payload == b""


def test_wildcards_match_what_they_should_and_nothing_else(peer, topic):
    subscriber, publisher = peer.connected(), peer.connected()
    subscriber.subscribe(f"{topic}/+/c", f"{topic}/deep/#", f"{topic}/end", qos=1)
    matching = [f"{topic}/a/c", f"{topic}//c", f"{topic}/deep", f"{topic}/deep/er/still"]
    for name in [*matching, topic, f"{topic}/c", f"{topic}/a/b/c", f"{topic}/a/c/d", f"{topic}/deeper"]:
        publisher.publish(name, b"", qos=1)
    publisher.publish(f"{topic}/end", b"", qos=1)
    assert [message.topic for message in subscriber.receive_until(f"{topic}/end")] == matching


@pytest.mark.needs(UNSUBSCRIBE)
def test_nothing_arrives_after_unsubscribe(peer, topic):
    subscriber, publisher = peer.connected(), peer.connected()
    subscriber.subscribe(f"{topic}/a", f"{topic}/end", qos=1)
    subscriber.unsubscribe(f"{topic}/a")
    publisher.publish(f"{topic}/a", b"", qos=1)
    publisher.publish(f"{topic}/end", b"", qos=1)
    assert subscriber.receive_until(f"{topic}/end") == []


@pytest.mark.needs(TAKEN_OVER)
def test_a_second_connection_with_the_same_client_id_ends_the_first(peer, topic):
    first = peer.connected("taken-" + topic)
    second = peer.connected("taken-" + topic)
    first.wait_closed()
    second.subscribe(topic, qos=1)
    second.publish(topic, b"still here", qos=1)
    assert second.receive().payload == b"still here"
    first.kill()
