"""Shared subscriptions: an MQTT 5 feature that brokers offer to 3.1.1 clients as well."""

MESSAGES = 40


def test_two_members_share_the_messages_without_loss_or_duplicate(peer, topic):
    members, publisher = [peer.connected(), peer.connected()], peer.connected()
    for member in members:
        member.subscribe(f"$share/group/{topic}/work", f"{topic}/end", qos=1)
    payloads = [f"{number}".encode() for number in range(MESSAGES)]
    for payload in payloads:
        publisher.publish(f"{topic}/work", payload, qos=1)
    publisher.publish(f"{topic}/end", b"", qos=1)
    shares = [[message.payload for message in member.receive_until(f"{topic}/end")] for member in members]
    assert sorted(shares[0] + shares[1]) == sorted(payloads)
    assert all(shares), "one member got everything"


def test_groups_and_ordinary_subscriptions_get_a_copy_each(peer, topic):
    first, second, plain, publisher = (peer.connected() for _ in range(4))
    first.subscribe(f"$share/one/{topic}", qos=1)
    second.subscribe(f"$share/two/{topic}", qos=1)
    plain.subscribe(topic, qos=1)
    publisher.publish(topic, b"for all", qos=1)
    assert [member.receive().payload for member in (first, second, plain)] == [b"for all"] * 3
