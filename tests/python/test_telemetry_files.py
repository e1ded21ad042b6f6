"""Recording, reading and replaying; tables published, and messages taken as columns."""

import asyncio
import contextlib
import json
import pathlib
import re
import threading
import time

import ferromq
import pytest
from ferromq import _progress, telemetry

duckdb = pytest.importorskip("duckdb")
pa = pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")
pq = pytest.importorskip("pyarrow.parquet")


RECORDED = ["received_at", "topic", "payload", "qos", "retain", "properties"]


def record(broker, path, messages, filters="#", **arguments):
    """Record these messages."""
    with ferromq.record(broker, filters, path, **arguments) as recording:
        with ferromq.SyncClient(broker) as client:
            client.publish_many(messages, qos=1)
        while recording.rows < len(messages):
            recording.wait(0.01)
    return recording


def test_a_recording_is_complete_or_absent(broker, tmp_path):
    path = tmp_path / "run.parquet"
    with ferromq.record(broker, "plant/{line}/temp", path) as recording:
        with ferromq.SyncClient(broker) as client:
            client.publish_many([(f"plant/L{at % 2}/temp", b"%d" % at) for at in range(10)], qos=1)
        while recording.rows < 10:
            recording.wait(0.01)
        assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.parquet"]
    assert recording.files == [str(path)]
    assert recording.bytes == path.stat().st_size
    assert pq.read_table(path).column("payload").to_pylist() == [b"%d" % at for at in range(10)]
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    table = ferromq.read(path, where="line = 'L1'", decode="number", names="plant/{line}/temp")
    assert pl.DataFrame(table)["value"].to_list() == [1, 3, 5, 7, 9]
    with pytest.raises(ferromq.InvalidArgument, match="exists: choose another name"):
        ferromq.record(broker, "#", path)


def test_a_recording_without_messages_is_a_file_without_rows(broker, tmp_path):
    with ferromq.record(broker, ["a", "b"], tmp_path / "empty.parquet", compression=None):
        pass
    table = ferromq.read(tmp_path / "empty.parquet")
    assert (len(table), table.column_names) == (0, RECORDED)


def test_a_decoded_recording_loses_nothing(broker, tmp_path):
    path = tmp_path / "run.parquet"
    with ferromq.record(broker, "#", path, decode="json") as recording, ferromq.SyncClient(broker) as client:
        client.publish("a", '{"v": 1, "s": {"x": 1}}', qos=1)
        while recording.bytes == 0:  # the first rows decide the columns
            recording.wait(0.05)
        client.publish_many([("a", '{"v": 2.5, "s": {"y": 2}, "late": [1]}'), ("a", "{"), ("a", '{"v": 3}')], qos=1)
        while recording.rows < 4:
            recording.wait(0.01)
    rows = pa.table(ferromq.read(path)).to_pylist()
    assert [row["v"] for row in rows] == [1, None, None, 3]
    assert json.loads(rows[1]["rest"]) == {"v": 2.5, "s.y": 2, "late": [1]}
    assert rows[2]["raw"] == b"{"
    assert recording.errors == 1


def test_files_rotate_by_size_and_are_read_as_one(broker, tmp_path):
    path = tmp_path / "run.parquet"
    recording = ferromq.record(broker, "#", path, decode="json", rotate="1kB")
    with recording, ferromq.SyncClient(broker) as client:
        for part in range(3):
            client.publish("a", json.dumps({"part": part, f"only{part}": "x" * 3000}), qos=1)
            while len(recording.files) <= part:
                recording.wait(0.05)
    assert [pathlib.Path(file).name for file in recording.files] == [f"run-000{n}.parquet" for n in (1, 2, 3)]
    table = ferromq.read(tmp_path / "run-*.parquet")
    assert pl.DataFrame(table)["part"].to_list() == [0, 1, 2]
    assert {"only0", "only1", "only2"} <= set(table.column_names)
    assert pl.DataFrame(table)["only2"].null_count() == 2


def test_what_cannot_be_written_or_read_says_which_file(broker, tmp_path):
    with pytest.raises(ferromq.InvalidArgument, match="is no folder"):
        ferromq.record(broker, "#", tmp_path / "no" / "run.parquet")
    with pytest.raises(FileNotFoundError, match=r"no\.parquet"):
        ferromq.read(tmp_path / "no.parquet")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        ferromq.read(tmp_path / "*.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is none PAR1")
    with pytest.raises(ferromq.InvalidArgument, match=r"bad\.parquet"):
        ferromq.read(tmp_path / "bad.parquet")
    with pytest.raises(ferromq.InvalidArgument, match="compression is"):
        ferromq.record(broker, "#", tmp_path / "a.parquet", compression="gzip")
    with pytest.raises(TypeError, match="without Python"):
        ferromq.record(broker, "#", tmp_path / "a.parquet", decode=lambda batch: batch)


def test_reading_tells_how_far_it_is_and_may_be_ended(tmp_path):
    paths = [tmp_path / name for name in ("a.parquet", "b.parquet")]
    for path in paths:
        pq.write_table(pa.table({"n": range(100_000), "topic": ["t"] * 100_000, "payload": ["1"] * 100_000}), path)
    for arguments in ({}, {"decode": "number"}):
        told = []
        table = ferromq.read_parquet(paths, progress=lambda *far: told.append(far), **arguments)  # noqa: B023
        assert len(table) == 200_000
        assert told == sorted(told)
        assert told[-1] == (200_000, 200_000)
        assert len(told) >= 4

        def interrupt(done, total):
            assert 0 < done < total
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ferromq.read_parquet(paths, progress=interrupt, **arguments)


def test_a_bar_is_shown_of_what_lasts(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": range(200_000)}), path)
    bars = []

    class Bar(contextlib.AbstractContextManager):
        def __init__(self, title, total, show):
            self.told = [(title, total, show)]
            bars.append(self.told)

        def __exit__(self, *exc):
            self.told.append("closed")

        def update(self, done, note=""):
            self.told.append((done, note))

    monkeypatch.setattr(_progress, "bar", lambda title, total, *, show: Bar(title, total, show))
    ferromq.read(path, progress=False)
    monkeypatch.setattr(telemetry, "_PATIENCE", 3600)
    ferromq.read(path)
    assert bars == [], "it is over in a moment"
    ferromq.read(path, progress=True)
    (told,) = bars
    assert told[0] == ("reading", 200_000, True)
    assert told[-2:] == [(200_000, "200,000 rows"), "closed"]
    monkeypatch.setattr(telemetry, "_PATIENCE", 0)
    ferromq.read(path)
    assert bars[1][0] == ("reading", 200_000, None)


def test_named_levels_of_what_was_recorded_undecoded(broker, tmp_path):
    path = tmp_path / "run.parquet"
    record(broker, path, [("plant/L1/temp", b"1"), ("plant/L2/temp", b"2")])
    table = ferromq.read(path, names="plant/{line}/temp")
    assert pa.table(table).select(["line", "payload"]).to_pylist() == [
        {"line": "L1", "payload": b"1"},
        {"line": "L2", "payload": b"2"},
    ]
    with pytest.raises(ferromq.InvalidArgument, match="a schema needs a decoder"):
        ferromq.read(path, schema={"n": int})


@pytest.mark.parametrize("compression", ["snappy", "zstd", None])
def test_files_of_other_programs_are_read(tmp_path, compression):
    table = pa.table({"n": [1, 2, 3], "text": pa.array(["a", None, "c"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "other.parquet", compression=compression)
    assert pa.table(ferromq.read(tmp_path / "other.parquet", where="n <> 2")).to_pylist() == [
        {"n": 1, "text": "a"},
        {"n": 3, "text": "c"},
    ]


async def test_a_replay_keeps_order_topics_and_payloads(broker, tmp_path, within):
    path = tmp_path / "run.parquet"
    sent = [(f"plant/L{at % 3}", b"%d" % at) for at in range(500)]
    await asyncio.to_thread(record, broker, path, sent)
    async with ferromq.Client(broker) as client, client.subscribe("replay/#") as messages:
        count = await ferromq.replay(
            path, broker, speed=None, map=lambda topic: None if topic == "plant/L2" else f"replay/{topic}"
        )
        assert count == 500
        expected = [(f"replay/{topic}", payload) for topic, payload in sent if topic != "plant/L2"]
        found = [await within(anext(messages)) for _ in expected]
        assert [(message.topic, message.payload) for message in found] == expected


@pytest.mark.parametrize("speed", [1, 2, None])
def test_a_replay_keeps_the_time_between_messages_or_scales_it(broker, sync_client, tmp_path, speed):
    path = tmp_path / "run.parquet"
    start, gap = 1_700_000_000_000_000, 200_000 if speed else 3_600_000_000
    times = pa.array([start, start + gap, start + 2 * gap], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"received_at": times, "topic": ["a"] * 3, "payload": ["1", "2", "3"]}), path)
    with sync_client.subscribe("a") as messages:
        begun = time.time()
        assert ferromq.replay(path, broker, speed=speed).run() == 3
        *_, last = messages.take(3, seconds=20)
    # It may be late, and cannot be early.
    assert speed is None or last.received_at - begun >= 0.4 / speed


PROPERTIES = {
    "message_expiry": 3600,
    "content_type": "text/plain",
    "response_topic": "answers",
    "correlation_data": b"\x00\xff",
    "payload_format": 1,
    "user_properties": (("from", "7"), ("from", "8"), ("", "ä")),
}


def seen(message):
    found = {name: getattr(message.properties, name) for name in PROPERTIES}
    # A server tells how many seconds are left.
    found["message_expiry"] = found["message_expiry"] is not None and found["message_expiry"] > 3000
    return message.topic, message.payload, message.qos, message.retain, found


@pytest.fixture
def recording(broker, tmp_path):
    """Messages of each kind: how they came to a subscriber, and the file with them."""
    path = tmp_path / "run.parquet"
    with (
        ferromq.SyncClient(broker) as client,
        client.subscribe("a/#", qos=2, retain_as_published=True) as messages,
        ferromq.record(broker, "a/#", path, qos=2) as recording,
    ):
        client.publish("a/0", "plain")
        client.publish("a/1", "all", qos=1, retain=True, **PROPERTIES)
        client.publish("a/2", "some", qos=2, content_type="x", user_properties=[("k", "v")])
        client.publish("a/3", "kept", qos=2, retain=True)
        sent = [seen(message) for message in messages.take(4, seconds=20)]
        while recording.rows < 4:
            assert not recording.progress["done"]
    assert [(qos, retain) for _, _, qos, retain, _ in sent] == [(0, False), (1, True), (2, False), (2, True)]
    return path, sent


def test_a_replay_keeps_qos_retain_flags_and_properties(recording):
    path, sent = recording
    with (
        ferromq.Broker() as other,
        ferromq.SyncClient(other) as client,
        client.subscribe("#", qos=2, retain_as_published=True) as messages,
    ):
        assert ferromq.replay(path, client, speed=None).run() == 4
        assert [seen(message) for message in messages.take(4, seconds=20)] == sent
        assert other.retained["a/#"] == {"a/1": b"all", "a/3": b"kept"}

        assert ferromq.replay(path, client, speed=None, qos=1, retain=False).run() == 4
        expected = [(topic, payload, 1, False, found) for topic, payload, _, _, found in sent]
        assert [seen(message) for message in messages.take(4, seconds=20)] == expected


def test_where_asks_for_qos_and_retain_flags_and_tables_show_them(recording):
    path, sent = recording
    rows = pa.table(ferromq.read(path, where="retain = true and qos = 2"))
    assert rows.column("topic").to_pylist() == ["a/3"]
    table = ferromq.read(path)
    assert table.column_names == RECORDED
    frame = pl.DataFrame(table)
    assert frame["qos"].to_list() == [qos for _, _, qos, _, _ in sent]
    assert frame["properties"].struct.field("content_type").to_list() == [None, "text/plain", "x", None]
    (pairs,) = frame.filter(pl.col("topic") == "a/2")["properties"].struct.field("user_properties").to_list()
    assert pairs == [{"name": "k", "value": "v"}]
    assert duckdb.sql("select properties.response_topic from frame where qos = 1").fetchall() == [("answers",)]
    assert "<td>all</td>" in table._repr_html_(), "payloads are shown, and not how they were sent"
    decoded = ferromq.read(path, decode="text", names="a/{n}")
    assert decoded.column_names == ["received_at", "topic", "n", "value"]


@pytest.mark.parametrize("version", [3, 4])
def test_before_mqtt_5_properties_stay_in_the_file(recording, version):
    path, sent = recording
    with (
        ferromq.Broker() as other,
        ferromq.SyncClient(other) as client,
        client.subscribe("#", qos=2) as messages,
    ):
        assert ferromq.replay(path, other, speed=None, version=version).run() == 4
        nothing = dict.fromkeys(PROPERTIES) | {"user_properties": (), "message_expiry": False}
        expected = [(topic, payload, qos, False, nothing) for topic, payload, qos, _, _ in sent]
        assert [seen(message) for message in messages.take(4, seconds=20)] == expected


def test_a_replay_chooses_rows_and_scales_time(broker, tmp_path):
    path = tmp_path / "run.parquet"
    start = 1_700_000_000_000_000
    frame = pl.DataFrame(
        {
            "received_at": [start, start + 3_600_000_000, start + 7_200_000_000],
            "topic": ["a", "b", "a"],
            "value": [1.5, 2.5, 3.5],
            "unit": [None, "C", "C"],
        },
        schema_overrides={"received_at": pl.Datetime("us", "UTC")},
    )
    frame.write_parquet(path)
    with ferromq.SyncClient(broker) as client, client.subscribe("#") as messages:
        assert ferromq.replay(path, client, speed=1e6, where="topic = 'a' and value > 1").run() == 2
        assert [(m.topic, m.json()) for m in messages.take(2, seconds=20)] == [
            ("a", {"value": 1.5}),
            ("a", {"value": 3.5, "unit": "C"}),
        ]
        with pytest.raises(ZeroDivisionError):
            ferromq.replay(path, client, map=lambda _: 1 / 0).run()
    with pytest.raises(ferromq.InvalidArgument, match="speed must be"):
        ferromq.replay(path, broker, speed=0).run()


async def test_rows_of_a_table_are_published(client, within):
    frame = pl.DataFrame({"topic": ["a/1", "a/2"], "payload": ["one", "two"], "value": [1.5, None]})
    async with client.subscribe("a/#", "b") as messages:
        assert await client.publish_many(frame, qos=1) == 2
        assert await client.publish_many(frame, topic="b", payload="value") == 2
        assert await client.publish_many(frame, encode="json") == 2
        found = [await within(anext(messages)) for _ in range(6)]
    assert [(message.topic, message.payload) for message in found] == [
        ("a/1", b"one"),
        ("a/2", b"two"),
        ("b", b"1.5"),
        ("b", b""),
        ("a/1", b'{"payload":"one","value":1.5}'),
        ("a/2", b'{"payload":"two"}'),
    ]
    with pytest.raises(ferromq.InvalidArgument, match='no column "text"; there are topic, payload, value'):
        client.publish_many(frame, payload="text")
    with pytest.raises(ferromq.InvalidArgument, match="no table"):
        client.publish_many([("a", b"")], payload="x")


async def test_messages_are_taken_as_columns(client, other, within):
    async with client.subscribe("plant/{line}", qos=1, ack="processed") as messages:
        await other.publish_many([(f"plant/L{at}", json.dumps({"n": at})) for at in range(25)], qos=1)
        batches = messages.arrow(max=10, within=0.2, decode="json")
        found = [await within(anext(batches)) for _ in range(3)]
        assert [len(batch) for batch in found] == [10, 10, 5]
        rows = [row for batch in found for row in pa.record_batch(batch).select(["line", "n"]).to_pylist()]
        assert rows == [{"line": f"L{at}", "n": at} for at in range(25)]
        await other.publish("plant/x", "{", qos=1)
        with pytest.raises(ferromq.DecodeError):
            await within(anext(messages.arrow(max=1, decode="json", on_error="raise")))


def test_brokers_and_clients_show_themselves(broker, sync_client):
    sync_client.publish("a", b"", qos=1)
    html = broker._repr_html_()
    assert "<td>clients connected</td><td>1</td>" in html
    assert re.search(
        r"<tr><td>sync</td><td></td><td>5\.0</td><td>127\.0\.0\.1:\d+</td><td>0</td><td>0</td><td>0</td>", html
    )
    with contextlib.ExitStack() as crowd:
        for number in range(30):
            will_be_escaped = f"<{number}>"
            crowd.enter_context(ferromq.SyncClient(broker, client_id=will_be_escaped))
        html = broker._repr_html_()
        assert "<td>&lt;0&gt;</td>" in html
        assert "<0>" not in html
        assert "and 11 more clients" in html
    assert f"<b>SyncClient({broker.url}, connected)</b>" in sync_client._repr_html_()
    assert threading.active_count() >= 1
