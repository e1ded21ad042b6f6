"""Retained messages."""


def test_a_retained_message_waits_for_later_subscribers_until_it_is_cleared(peer, topic):
    live, publisher = peer.connected(), peer.connected()
    live.subscribe(topic, qos=1)
    publisher.publish(topic, b"first", qos=1, retain=True)
    publisher.publish(topic, b"kept", qos=1, retain=True)
    # [MQTT-3.3.1-9] a subscription that was there before sees it as any other message
    assert [(message.payload, message.retain) for message in live.receive_many(2)] == [
        (b"first", False),
        (b"kept", False),
    ]

    later = peer.connected()
    later.subscribe(topic, qos=1)
    message = later.receive()
    assert (message.payload, message.qos, message.retain) == (b"kept", 1, True)

    publisher.publish(topic, b"", qos=1, retain=True)
    assert live.receive().payload == b""
    latest = peer.connected()
    latest.subscribe(topic, f"{topic}/end", qos=1)
    publisher.publish(f"{topic}/end", b"", qos=1)
    assert latest.receive_until(f"{topic}/end") == []


def test_a_wildcard_subscription_gets_every_retained_message_that_matches(peer, topic):
    subscriber, publisher = peer.connected(), peer.connected()
    wanted = {f"{topic}/a/t": b"1", f"{topic}/b/t": b"2", f"{topic}/c/t": b"3"}
    for name, payload in [*wanted.items(), (f"{topic}/d/u", b"4")]:
        publisher.publish(name, payload, qos=1, retain=True)
    subscriber.subscribe(f"{topic}/+/t", f"{topic}/end", qos=0)
    received = subscriber.receive_many(len(wanted))
    assert {message.topic: message.payload for message in received} == wanted
    assert all(message.retain and message.qos == 0 for message in received)
    publisher.publish(f"{topic}/end", b"", qos=0)
    assert subscriber.receive_until(f"{topic}/end") == []
