"""Last wills."""

import pytest


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_connection_that_breaks_leaves_its_will(peer, topic, qos):
    observer = peer.connected()
    observer.subscribe(f"{topic}/will", qos=2)
    doomed = peer.connected(will={"topic": f"{topic}/will", "payload": b"gone", "qos": qos, "retain": False})
    doomed.subscribe(f"{topic}/other")  # a command-line client connects here
    doomed.kill()
    message = observer.receive()
    assert (message.topic, message.payload, message.qos, message.retain) == (f"{topic}/will", b"gone", qos, False)


def test_a_retained_will_waits_for_later_subscribers(peer, topic):
    observer = peer.connected()
    observer.subscribe(f"{topic}/will", qos=1)
    doomed = peer.connected(will={"topic": f"{topic}/will", "payload": b"gone", "qos": 1, "retain": True})
    doomed.subscribe(f"{topic}/other")
    doomed.kill()
    assert observer.receive().retain is False
    later = peer.connected()
    later.subscribe(f"{topic}/will", qos=1)
    message = later.receive()
    assert (message.payload, message.retain) == (b"gone", True)
    later.publish(f"{topic}/will", b"", qos=1, retain=True)


def test_a_disconnect_takes_the_will_along(peer, topic):
    observer = peer.connected()
    observer.subscribe(f"{topic}/#", qos=1)
    leaving = peer.connected(will={"topic": f"{topic}/will", "payload": b"gone", "qos": 1, "retain": False})
    leaving.subscribe(f"{topic}/other")
    leaving.disconnect()
    observer.publish(f"{topic}/end", b"", qos=1)
    assert observer.receive_until(f"{topic}/end") == []
