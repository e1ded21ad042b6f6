"""Cassettes: what was recorded is played again, in order, to whom and as fast as wanted."""

import json

import ferromq
import pytest
from ferromq.testing import Capture, Cassette, CassetteMessage, ForeignBroker, SyncCapture

MESSAGES = [
    CassetteMessage(0.0, "a/1", b"text"),
    CassetteMessage(0.01, "a/2", b"\x00\xff", qos=2, retain=True),
    CassetteMessage(0.02, "a/1", "Grüße".encode(), qos=1, properties={"content_type": "text/plain"}),
]


def essence(messages):
    return [(m.topic, m.payload, m.qos, m.retain) for m in messages]


async def test_what_is_recorded_can_be_played(broker, client, tmp_path):
    path = tmp_path / "devices.jsonl"
    properties = {"user_properties": [("a", "b"), ("a", "c")], "correlation_data": b"\xff", "message_expiry": 60}
    recorder = Cassette.record(path, broker, "a/#")
    async with recorder:
        await client.publish("a/1", "text", qos=1, **properties)
        await client.publish("b", "left out", qos=1)
        await client.publish("a/2", b"\x00\xff", qos=2, retain=True)
    assert recorder.count == 2
    cassette = Cassette.load(path)
    assert essence(cassette) == [("a/1", b"text", 1, False), ("a/2", b"\x00\xff", 2, True)]
    assert cassette.topics == ["a/1", "a/2"]
    assert 0 <= cassette.messages[0].at <= cassette.duration < 20
    async with Capture(broker) as capture:
        assert await cassette.play(client, speed=None, map=lambda topic: "again/" + topic) == 2
        await capture.wait_for_all("again/#", count=2)
        assert essence(capture.messages) == [("again/a/1", b"text", 1, False), ("again/a/2", b"\x00\xff", 2, True)]
        found = capture.messages[0].properties
        assert found.user_properties == (("a", "b"), ("a", "c"))
        assert found.correlation_data == b"\xff"
        assert found.message_expiry == 60


@pytest.mark.parametrize("version", [5, 4])
def test_any_broker_can_be_recorded(broker, sync_client, tmp_path, version):
    sync_client.publish("kept", b"1", qos=1, retain=True)
    for server in (broker.url, ForeignBroker(broker.url, version=version)):
        options = {"version": version} if isinstance(server, str) else {}
        with Cassette.record(tmp_path / "x", server, **options):
            sync_client.publish("x", b"2", qos=1)
        found = essence(Cassette.load(tmp_path / "x"))
        assert found == [("kept", b"1", 1, True), ("x", b"2", 1, False)]


def test_a_file_keeps_everything_and_is_readable(tmp_path):
    path = tmp_path / "c.jsonl"
    Cassette(reversed(MESSAGES)).save(path)
    assert Cassette.load(path).messages == MESSAGES
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines[0]["ferromq_cassette"] == 1
    assert lines[1] == {"at": 0.0, "topic": "a/1", "payload": "text"}
    assert "Grüße" in path.read_text(encoding="utf-8")
    assert repr(Cassette(MESSAGES)) == "Cassette(3 messages, 2 topics, 0.02 s)"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", None),
        ('{"other": 1}\n', "line 1: no cassette"),
        ('{"ferromq_cassette": 2}\n', "line 1: a cassette of format 2"),
        ('{"ferromq_cassette": 1}\n{"at": 0}\n', "line 2: no 'topic'"),
        ('{"ferromq_cassette": 1}\n\n{"at": 0, "topic": "x"\n', "line 3: "),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_line(tmp_path, text, complaint):
    path = tmp_path / "c.jsonl"
    path.write_text(text)
    if complaint is None:
        assert len(Cassette.load(path)) == 0
        return
    with pytest.raises(ValueError, match=complaint):
        Cassette.load(path)


def test_threads_play_too(broker, sync_client):
    with SyncCapture(broker) as capture:
        played = Cassette(MESSAGES).play_sync(sync_client, map=lambda topic: topic if topic != "a/2" else None)
        assert played == 2
        assert [m.payload for m in capture.wait_for_all(count=2)] == [b"text", "Grüße".encode()]


async def test_time_between_messages_is_kept_or_scaled(client, monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(round(seconds, 6))

    monkeypatch.setattr("asyncio.sleep", sleep)
    await Cassette(MESSAGES).play(client)
    await Cassette(MESSAGES).play(client, speed=10)
    await Cassette(MESSAGES).play(client, speed=None)
    assert slept == [0.01, 0.01, 0.001, 0.001]
    with pytest.raises(ValueError, match="speed"):
        await Cassette(MESSAGES).play(client, speed=0)


async def test_a_refused_message_ends_it(client):
    with pytest.raises(ferromq.InvalidTopic):
        await Cassette([CassetteMessage(0, "a/#")]).play(client)


def test_a_recorder_is_waited_for(broker, sync_client, tmp_path):
    with Cassette.record(tmp_path / "x", broker, "a") as recorder:
        for number in range(3):
            sync_client.publish("a", str(number), qos=1)
        recorder.wait(3, timeout=20)
        assert recorder.count == 3
        with pytest.raises(ferromq.Timeout, match="3 of 4 messages"):
            recorder.wait(4, timeout=0.01)
