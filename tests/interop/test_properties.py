"""What MQTT 5 adds to a message and to a subscription, as far as each client lets its user see it."""

import pytest
from harness.cells import SUBSCRIPTION_ID, TOPIC_ALIAS

pytestmark = pytest.mark.version(5)


@pytest.mark.needs("user_properties", "response_topic", "content_type")
def test_properties_travel_with_the_message(peer, topic):
    subscriber, publisher = peer.connected(), peer.connected()
    subscriber.subscribe(topic, qos=1)
    sent = {
        "user": [("unit", "kelvin"), ("site", "north"), ("site", "south")],
        "response_topic": f"{topic}/answer",
        "correlation": b"request-7",
        "content_type": "text/plain",
    }
    publisher.publish(topic, b"293.1", qos=1, **sent)
    received = subscriber.receive().properties
    assert {name: received.get(name) for name in sent} == sent


@pytest.mark.needs("response_topic")
def test_a_request_is_answered_over_its_response_topic(peer, topic):
    asking, answering = peer.connected(), peer.connected()
    answering.subscribe(f"{topic}/ask", qos=1)
    asking.subscribe(f"{topic}/answers", qos=1)
    asking.publish(f"{topic}/ask", b"2+3", qos=1, response_topic=f"{topic}/answers", correlation=b"id-1")
    question = answering.receive().properties
    answering.publish(question["response_topic"], b"5", qos=1, correlation=question["correlation"])
    answer = asking.receive()
    assert (answer.payload, answer.properties["correlation"]) == (b"5", b"id-1")


@pytest.mark.needs("message_expiry")
def test_the_expiry_interval_is_passed_on_and_never_grows(peer, topic):
    subscriber, publisher = peer.connected(), peer.connected()
    subscriber.subscribe(topic, qos=1)
    publisher.publish(topic, b"", qos=1, expiry=500)
    assert 0 < subscriber.receive().properties["expiry"] <= 500


@pytest.mark.needs(TOPIC_ALIAS)
def test_a_topic_alias_stands_for_its_topic(peer, topic):
    subscriber, publisher = peer.connected(), peer.connected()
    subscriber.subscribe(topic, qos=1)
    publisher.publish(topic, b"named", qos=1, alias=3)
    publisher.publish("", b"aliased", qos=1, alias=3)
    assert [(message.topic, message.payload) for message in subscriber.receive_many(2)] == [
        (topic, b"named"),
        (topic, b"aliased"),
    ]


@pytest.mark.needs(SUBSCRIPTION_ID)
def test_a_message_names_the_subscription_that_it_matched(peer, topic):
    subscriber, publisher = peer.connected(), peer.connected()
    subscriber.subscribe(f"{topic}/a", qos=1, subscription_id=7)
    subscriber.subscribe(f"{topic}/b", qos=1, subscription_id=268_435_455)
    publisher.publish(f"{topic}/a", b"", qos=1)
    publisher.publish(f"{topic}/b", b"", qos=1)
    assert [message.properties["subscription_ids"] for message in subscriber.receive_many(2)] == [[7], [268_435_455]]


@pytest.mark.needs("no_local")
def test_no_local_spares_a_client_its_own_messages(peer, topic):
    client, other = peer.connected(), peer.connected()
    client.subscribe(f"{topic}/a", f"{topic}/end", qos=1, no_local=True)
    client.publish(f"{topic}/a", b"own", qos=1)
    other.publish(f"{topic}/a", b"other", qos=1)
    other.publish(f"{topic}/end", b"", qos=1)
    assert [message.payload for message in client.receive_until(f"{topic}/end")] == [b"other"]


@pytest.mark.needs("retain_as_published")
def test_retain_as_published_keeps_the_flag(peer, topic):
    subscriber, publisher = peer.connected(), peer.connected()
    subscriber.subscribe(topic, qos=1, retain_as_published=True)
    publisher.publish(topic, b"kept", qos=1, retain=True)
    publisher.publish(topic, b"passing", qos=1)
    assert [message.retain for message in subscriber.receive_many(2)] == [True, False]
    publisher.publish(topic, b"", qos=1, retain=True)


@pytest.mark.needs("retain_handling")
@pytest.mark.parametrize(("handling", "seen"), [(0, [2, 2]), (1, [2, 0]), (2, [0, 0])])
def test_retain_handling_decides_when_retained_messages_are_sent(peer, topic, handling, seen):
    subscriber, publisher = peer.connected(), peer.connected()
    for name in "ab":
        publisher.publish(f"{topic}/kept/{name}", b"", qos=1)
        publisher.publish(f"{topic}/kept/{name}", b"here", qos=1, retain=True)
    subscriber.subscribe(f"{topic}/end", qos=1)
    counts = []
    for _ in seen:  # the first SUBSCRIBE makes the subscription, the second finds it
        subscriber.subscribe(f"{topic}/kept/#", qos=1, retain_handling=handling)
        counts.append(seen[len(counts)])
        received = subscriber.receive_many(counts[-1])
        assert all(message.retain for message in received)
        publisher.publish(f"{topic}/end", b"", qos=1)
        assert subscriber.receive_until(f"{topic}/end") == []
    for name in "ab":
        publisher.publish(f"{topic}/kept/{name}", b"", qos=1, retain=True)
