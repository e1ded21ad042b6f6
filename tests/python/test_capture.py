"""Captures: what came, what came instead, and nothing to miss."""

import asyncio
import threading

import ferromq
import pytest
from ferromq.testing import Capture, SyncCapture


@pytest.fixture
def capture(broker):
    with SyncCapture(broker) as capture:
        yield capture


def failure(call, *arguments, **options):
    broker = call.__self__._server
    if isinstance(broker, ferromq.Broker) and broker.running:
        broker.wait_settled(timeout=20)
    with pytest.raises(AssertionError) as failed:
        call(*arguments, **options)
    return str(failed.value)


async def test_a_coroutine_waits_for_what_comes_and_for_what_came(broker, client, within):
    async with Capture(broker) as capture:
        await client.publish("a/1", b"before", qos=1)
        assert (await capture.wait_for("a/+")).payload == b"before"
        waiting = asyncio.create_task(capture.wait_for("b/#", json={"x": 1}, timeout=20))
        await asyncio.sleep(0)
        await client.publish("b/1", {"x": 0}, encode="json")
        await client.publish("b/2", {"x": 1}, encode="json")
        assert (await within(waiting)).topic == "b/2"
        assert [m.topic for m in await capture.wait_for_all("b/+", count=2)] == ["b/1", "b/2"]
        assert (await capture.wait_for("a/+")).payload == b"before", "it is not used up"
        assert [(await capture.next("b/+")).topic for _ in range(2)] == ["b/1", "b/2"]
        with pytest.raises(AssertionError, match=r"waited 0.01 s.*'b/\+'"):
            await capture.next("b/+", timeout=0.01)
        with pytest.raises(AssertionError, match="1 of 2 messages match"):
            await capture.wait_for_all("a/#", count=2, timeout=0.01)


def test_a_thread_waits_likewise(broker, sync_client, capture):
    sync_client.publish("a/1", b"1")
    assert capture.wait_for("a/+", b"1").topic == "a/1"
    threading.Timer(0.01, sync_client.publish_nowait, ("b", "2")).start()
    assert capture.wait_for("b", "2", timeout=20).topic == "b"
    assert [message.topic for message in capture.wait_for_all(count=2)] == ["a/1", "b"]
    assert capture.next().topic == "a/1"
    assert capture.next().topic == "b"
    assert "waited 0.01 s" in failure(capture.next, timeout=0.01)
    assert "1 of 2 messages match" in failure(capture.wait_for_all, "b", count=2, timeout=0.01)
    assert capture.topics == ["a/1", "b"]
    assert len(capture) == 2
    assert capture.records[0].topic == "a/1"
    capture.clear()
    assert capture.messages == []
    sync_client.publish("a/1", b"2", qos=1)
    broker.wait_settled(timeout=20)
    assert capture.next("a/1").payload == b"2"


def test_it_sees_how_a_message_was_published(broker, sync_client, capture):
    sync_client.publish("a", b"1", qos=2, retain=True)
    sync_client.publish("b", b"1", qos=1)
    broker.wait_settled(timeout=20)
    assert capture.count(qos=2, retain=True) == 1
    assert capture.count(retain=False) == 1
    assert capture.count(where=lambda message: message.topic > "a") == 1
    capture.assert_received("a", qos=2, count=1)
    capture.assert_not_received("c")
    capture.assert_topics("a", "b")


def test_what_was_retained_before_is_not_captured(broker, sync_client):
    sync_client.publish("old", b"1", qos=1, retain=True)
    for server, options in ((broker, {}), (broker.url, {}), (broker.url, {"version": 4})):
        with SyncCapture(server, "old", "new", **options) as capture:
            sync_client.publish("new", b"1", qos=1)
            assert capture.wait_for("new").topic == "new"
            assert capture.topics == ["new"]


async def test_it_takes_any_broker_by_url(broker, client):
    async with Capture(broker.url, "a/#", client_id="watch", version=4) as capture:
        assert any(info.client_id == "watch" for info in broker.clients)
        await client.publish("b/1", qos=1)
        await client.publish("a/1", qos=1)
        assert (await capture.wait_for()).topic == "a/1"
    assert capture.topics == ["a/1"], "what was captured stays"


def test_a_failure_tells_how_payloads_differ(sync_client, capture):
    sync_client.publish("a/1", {"v": 1, "list": [1, 2], "gone": 0}, encode="json", qos=1)
    text = failure(capture.wait_for, "a/+", json={"v": 2, "list": [1, 3], "new": 0}, timeout=0.01)
    assert "one on a matching topic, but" in text
    assert "$.v: expected 2, got 1" in text
    assert "$.list[1]: expected 3, got 2" in text
    assert "$.new: expected 0, is not there" in text
    assert "$.gone: not expected, is 0" in text
    text = failure(capture.assert_received, "a/1", b"\x00\xff\x10", qos=0)
    assert "different at 0" in text
    assert "- 00 ff 10" in text
    assert "qos: expected 0, got 1" in text
    sync_client.publish("t", "line 1\nline 2\n", qos=1)
    text = failure(capture.assert_received, "t", "line 1\nline two\n")
    assert "- line two" in text
    assert "+ line 2" in text
    assert "line 1" not in text.splitlines()[-3:]
    sync_client.publish("s", "high", qos=1)
    assert "expected 'low', got 'high'" in failure(capture.assert_received, "s", "low")
    assert "not JSON: 'high'" in failure(capture.assert_received, "s", json=1)
    assert "is_low said no" in failure(capture.assert_received, "s", where=is_low)


def is_low(message):
    return message.payload == b"low"


def test_a_failure_tells_the_topics_most_alike(broker, sync_client, capture):
    assert "no message came at all" in failure(capture.wait_for, "alarm/#", timeout=0.01)
    for topic in ("plant/1/temp", "alarms/7", "alarms/7", "x", "y", "z", "q"):
        sync_client.publish(topic, topic, qos=1)
    broker.wait_settled(timeout=20)
    lines = failure(capture.wait_for, "alarm/7", timeout=0.01).splitlines()
    assert "7 came on others" in lines[1]
    assert lines[2].strip() == "alarms/7  x2, last 'alarms/7'"
    assert lines[-1].strip() == "and 1 other topics"


def test_a_failure_tells_what_should_not_have_come(broker, sync_client, capture):
    for _ in range(7):
        sync_client.publish("alarm", "high", qos=1)
    broker.wait_settled(timeout=20)
    text = failure(capture.assert_not_received, "alarm")
    assert "7 messages match, and none should" in text
    assert text.count("alarm  'high'  (QoS 1)") == 5
    assert "and 2 more" in text
    assert "7 messages match, not 2" in failure(capture.assert_received, "alarm", count=2)
    text = failure(capture.assert_topics, "alarm", "other")
    assert "- other" in text
    assert text.count("+ alarm") == 6
    with pytest.raises(ValueError, match="assert_not_received"):
        capture.assert_received("nothing", count=0)


def test_a_long_payload_is_shown_in_part(sync_client, capture):
    sync_client.publish("big", "x" * 100_000, qos=1)
    text = failure(capture.assert_received, "big", "x" * 99_999)
    assert "100000 bytes" in text
    assert "99999 bytes expected, 100000 came" in text
    assert len(text) < 1000


def test_it_says_when_the_broker_has_ended(broker, sync_client, capture):
    sync_client.publish("a", qos=1)
    broker.wait_settled(timeout=20)
    broker.stop()
    assert capture.wait_for("a").topic == "a"
    assert "has ended" in failure(capture.wait_for, "b", timeout=20)


def test_more_than_was_bargained_for_is_an_error_and_no_silent_loss(broker, sync_client):
    with SyncCapture(broker, maxsize=10) as capture:
        sync_client.publish_many([b""] * 20, topic="x", qos=1)
        broker.wait_settled(timeout=20)
        with pytest.raises(ferromq.QueueFull):
            _ = capture.messages


def test_misuse_is_told(broker):
    capture = SyncCapture(broker)
    with pytest.raises(RuntimeError, match="not been started"):
        _ = capture.messages
    with capture:
        with pytest.raises(RuntimeError, match="already"):
            capture.start()
        with pytest.raises(ferromq.InvalidTopic):
            capture.count("a/#/b")
