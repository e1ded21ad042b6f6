"""Sessions that outlive their connection."""

import pytest
from harness.cells import SESSION_PRESENT, SILENT_RESUME

EXPIRY_SECONDS = 600


def resume(peer, client_id, *filters, qos):
    """Connect again; a command-line client can only do so by subscribing again."""
    subscriber = peer()
    answer = subscriber.connect(peer.broker, client_id, clean=False, expiry=EXPIRY_SECONDS)
    if not subscriber.cell.can(SILENT_RESUME):
        subscriber.subscribe(*filters, qos=qos)
    return subscriber, answer


@pytest.mark.parametrize("qos", [1, 2])
def test_messages_wait_for_an_offline_subscriber_in_order(peer, topic, qos):
    client_id = peer.fresh_id()
    subscriber = peer.connected(client_id, clean=False, expiry=EXPIRY_SECONDS)
    subscriber.subscribe(f"{topic}/#", qos=qos)
    subscriber.disconnect()

    publisher = peer.connected()
    payloads = [f"offline {number}".encode() for number in range(20)]
    for payload in payloads:
        publisher.publish(f"{topic}/a", payload, qos=qos)

    subscriber, _ = resume(peer, client_id, f"{topic}/#", qos=qos)
    assert [message.payload for message in subscriber.receive_many(len(payloads))] == payloads
    publisher.publish(f"{topic}/end", b"", qos=qos)
    assert subscriber.receive_until(f"{topic}/end") == []


def test_a_subscriber_that_was_cut_off_gets_what_it_missed(peer, topic):
    client_id = peer.fresh_id()
    subscriber = peer.connected(client_id, clean=False, expiry=EXPIRY_SECONDS)
    subscriber.subscribe(topic, qos=1)
    subscriber.kill()
    publisher = peer.connected()
    publisher.publish(topic, b"missed", qos=1)
    subscriber, _ = resume(peer, client_id, topic, qos=1)
    assert subscriber.receive().payload == b"missed"


@pytest.mark.needs(SESSION_PRESENT)
def test_the_session_present_flag_tells_the_truth(peer, topic):
    client_id = peer.fresh_id()
    subscriber = peer()
    options = {"clean": False, "expiry": EXPIRY_SECONDS}
    assert subscriber.connect(peer.broker, client_id, **options)["session_present"] is False
    subscriber.subscribe(topic, qos=1)
    subscriber.disconnect()
    assert subscriber.connect(peer.broker, client_id, **options)["session_present"] is True
    subscriber.disconnect()
    assert subscriber.connect(peer.broker, client_id, clean=True)["session_present"] is False
    subscriber.disconnect()
    assert subscriber.connect(peer.broker, client_id, **options)["session_present"] is False


def test_a_clean_start_discards_the_session_and_its_messages(peer, topic):
    client_id = peer.fresh_id()
    subscriber = peer.connected(client_id, clean=False, expiry=EXPIRY_SECONDS)
    subscriber.subscribe(f"{topic}/old", qos=1)
    subscriber.disconnect()
    publisher = peer.connected()
    publisher.publish(f"{topic}/old", b"", qos=1)

    subscriber.connect(peer.broker, client_id, clean=True)
    subscriber.subscribe(f"{topic}/end", qos=1)
    publisher.publish(f"{topic}/old", b"", qos=1)
    publisher.publish(f"{topic}/end", b"", qos=1)
    assert subscriber.receive_until(f"{topic}/end") == []
