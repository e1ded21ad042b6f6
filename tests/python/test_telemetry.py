"""Messages to tables, and tables to those who take them without a copy."""

import asyncio
import itertools
import json
import math
import struct
import threading
import warnings

import ferromq
import pytest
from ferromq import _chart

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
duckdb = pytest.importorskip("duckdb")


@pytest.fixture
def publish(broker):
    """Publish as soon as somebody has subscribed."""
    threads = []

    def start(messages, subscribers=1):
        def run():
            with ferromq.SyncClient(broker) as client:
                while broker.stats()["subscriptions"] < subscribers:
                    threading.Event().wait(0.002)
                client.publish_many(messages, qos=1)

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)

    yield start
    for thread in threads:
        thread.join()


def readings(count):
    for at in range(count):
        payload = {"ts": 1_700_000_000_000 + at, "device": f"d{at % 3}", "value": at / 2, "unit": "C"}
        payload["ok"] = at % 2 == 0
        yield f"plant/L{at % 2}/s{at % 3}/temp", json.dumps(payload)


def test_messages_become_a_table_that_all_four_take(broker, publish):
    publish(list(readings(100)))
    table = ferromq.collect(broker, "plant/{line}/{sensor}/temp", rows=100, seconds=20, decode="json")
    assert len(table) == 100
    assert table.schema == {
        "received_at": "timestamp[us]",
        "topic": "category",
        "line": "category",
        "sensor": "category",
        "ts": "int64",
        "device": "str",
        "value": "float64",
        "unit": "str",
        "ok": "bool",
    }
    arrow = pa.table(table)
    assert arrow.column("value").to_pylist() == [at / 2 for at in range(100)]
    assert arrow.schema.field("received_at").type == pa.timestamp("us", "UTC")
    frame = pl.DataFrame(table)
    assert frame.filter(pl.col("line") == "L1")["value"].sum() == sum(at / 2 for at in range(1, 100, 2))
    assert duckdb.sql('select count(*), max(value) from "table" where ok').fetchall() == [(50, 49.0)]
    pandas = table.to_pandas()
    assert pandas.groupby("sensor", observed=True)["value"].count().to_dict() == {"s0": 34, "s1": 33, "s2": 33}
    assert table.to_polars().shape == (100, 9)
    assert table.to_arrow() == arrow


def test_columns_are_shared_and_not_copied(broker, publish):
    publish([("a", b"%d.5" % at) for at in range(1000)])
    table = ferromq.collect(broker, "#", rows=1000, decode="number")
    first, second = (pa.table(table).column("value").chunk(0).buffers()[1] for _ in range(2))
    assert first.address == second.address
    address = first.address
    del table, first
    assert second.address == address
    assert memoryview(second).cast("d")[999] == 999.5


def test_without_a_decoder_there_is_the_payload(broker, publish):
    publish([("a/1", b"\x00\xff"), ("a/2", b"")])
    table = ferromq.collect(broker, "a/{n}", rows=2)
    assert pa.table(table).select(["n", "payload"]).to_pylist() == [
        {"n": "1", "payload": b"\x00\xff"},
        {"n": "2", "payload": b""},
    ]
    (batch,) = table.batches()
    assert pa.record_batch(batch).num_rows == len(batch) == 2
    assert pl.DataFrame(batch)["topic"].to_list() == ["a/1", "a/2"]


def test_given_types_and_what_does_not_fit(broker, publish):
    payloads = ['{"at": 5, "v": 1, "tags": ["a"], "o": {"x": "t", "y": 2}, "z": 0}', '{"at": "x", "v": []}', "{"]
    publish([("a", payload) for payload in payloads])
    schema = {"at": "timestamp[ms]", "v": float, "tags": [str], "o": {"x": str}}
    table = ferromq.collect(broker, "#", rows=3, decode="json", schema=schema, on_error="raw")
    rows = pa.table(table).select(["at", "v", "tags", "o", "raw"]).to_pylist()
    assert rows[0]["at"].timestamp() == 0.005
    assert rows[0] | {"at": None} == {"at": None, "v": 1.0, "tags": ["a"], "o": {"x": "t"}, "raw": None}
    assert [row["raw"] for row in rows[1:]] == [payload.encode() for payload in payloads[1:]]
    assert table.errors == 2
    assert table.first_error == 'message 1 on "a": "x" is no timestamp[ms]'


def test_a_payload_that_cannot_be_decoded_may_raise(broker, publish):
    publish([("a/b", b"{"), ("a/b", b"{}")])
    with pytest.raises(ferromq.DecodeError, match=r'message 0 on "a/b" cannot be decoded: EOF'):
        ferromq.collect(broker, "#", rows=2, decode="json", on_error="raise")


def test_packed_structs_have_names(broker, publish):
    publish([("a", struct.pack("<fH", 1.5, 7) * 2)])
    table = ferromq.collect(broker, "#", rows=2, decode=("<fH", ["x", "n"]))
    assert pa.table(table).select(["x", "n"]).to_pylist() == [{"x": 1.5, "n": 7}] * 2


def test_a_function_decodes_a_batch_at_a_time(broker, publish):
    publish([("a", b"1,2"), ("a", b"3,4")])

    def decode(batch):
        pairs = [payload.split(b",") for payload in pa.record_batch(batch).column("payload").to_pylist()]
        return pl.DataFrame({"x": [int(x) for x, _ in pairs], "y": [int(y) for _, y in pairs]})

    table = ferromq.collect(broker, "#", rows=2, decode=decode)
    assert pa.table(table).to_pylist() == [{"x": 1, "y": 2}, {"x": 3, "y": 4}]


def test_a_collection_ends_in_time_and_when_it_is_full(broker, publish):
    assert len(ferromq.collect(broker, "#", seconds="50ms", decode="json")) == 0
    publish([("a", b"x" * 1000)] * 100)
    with pytest.warns(UserWarning, match="the table is full"):
        table = ferromq.collect(broker, "#", rows=1_000_000, seconds=20, max_bytes=1)
    assert len(table) < 1_000_000
    with pytest.raises(ValueError, match="some seconds"):
        ferromq.collect(broker, "#")


def test_arguments_that_cannot_be_are_refused_with_what_can(broker):
    for arguments, fault in [
        ({"decode": "xml"}, "no decoder; use json"),
        ({"decode": "@f"}, "native alignment"),
        ({"decode": "json", "schema": {"a": "decimal"}}, "no type of a column"),
        ({"schema": {"a": int}}, "needs a decoder"),
        ({"decode": "json", "on_error": "ignore"}, "on_error is"),
        ({"decode": "json", "rows": 0}, "rows"),
    ]:
        with pytest.raises(ferromq.InvalidArgument, match=fault):
            ferromq.collect(broker, "#", **{"rows": 1} | arguments)
    with pytest.raises(ferromq.InvalidArgument, match="must name a level once"):
        ferromq.collect(broker, "{x}/{x}", rows=1)
    with pytest.raises(TypeError, match="a Client or a SyncClient"):
        ferromq.Capture(object(), "#")


def test_any_frame_is_a_table_and_tables_are_put_together(broker):
    del broker
    table = ferromq.Table.concat([pl.DataFrame({"a": [1], "b": ["y"]}), pd.DataFrame({"a": [0.5], "c": ["x"]})])
    rows = pa.table(table).to_pylist()
    assert rows == [{"a": 1.0, "b": "y", "c": None}, {"a": 0.5, "b": None, "c": "x"}]
    assert len(ferromq.Table(pa.table({"n": range(5)}))) == 5
    with pytest.raises(AttributeError, match="__arrow_c_stream__"):
        ferromq.Table(3)


def test_a_table_shows_itself(broker, publish):
    publish(list(readings(50)))
    table = ferromq.collect(broker, "plant/{line}/{sensor}/temp", rows=50, decode="json")
    assert repr(table).startswith("Table(50 rows, 6 topics, ")
    assert "value: float64" in repr(table)
    html = table._repr_html_()
    assert "<td>plant/L0/s0/temp</td><td>9</td>" in html
    assert html.count("<svg") == 6


def test_nan_and_infinity_come_back(broker, publish):
    publish([("a", struct.pack("<d", value)) for value in (math.nan, math.inf)])
    values = pl.DataFrame(ferromq.collect(broker, "#", rows=2, decode="<d"))["f0"].to_list()
    assert math.isnan(values[0])
    assert values[1] == math.inf


def test_live_keeps_the_last_rows(broker, publish):
    with ferromq.live(broker, "a", decode="number", keep=None, keep_rows=10) as live:
        publish([("a", str(at)) for at in range(100)])
        while live.progress["rows"] < 100:
            live.table()
        while live.progress["forgotten"] < 90:
            live.table()
        assert live.to_polars()["value"].to_list() == list(range(90, 100))
        assert len(live.to_pandas()) == 10
        assert pa.table(live).num_rows == 10
    assert len(live.table()) == 10


def test_the_chart_of_live_is_redrawn_ten_times_a_second_at_most_and_only_with_news(broker, sync_client, monkeypatch):
    pytest.importorskip("anywidget")
    clock, redrawn = [0.0], []

    async def sleep(seconds):
        clock[0] += seconds
        if clock[0] < 5.0:  # afterwards nothing comes any more
            sync_client.publish_many(["1.5"] * 10, topic="a", qos=1)
            while live.progress["pending"] or live.progress["messages"] < published():
                pass
        elif clock[0] > 20.0:
            live.stop()

    def published():
        return broker.stats()["publish_received"]

    async def main():
        bundle = live._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in (bundle[0] if isinstance(bundle, tuple) else bundle)
        live._chart.observe(lambda _: redrawn.append(clock[0]), names=["headline"])
        await asyncio.gather(*_chart._followers)

    monkeypatch.setattr(_chart.asyncio, "sleep", sleep)
    with ferromq.live(broker, "a", decode="number") as live:
        asyncio.run(main())
    assert len(redrawn) >= 10
    assert all(later - earlier > 0.099 for earlier, later in itertools.pairwise(redrawn))
    assert redrawn[-1] < 6.0, "and not without news"


def test_it_ends_although_messages_come_faster_than_they_are_decoded(broker):
    wide = json.dumps({f"f{at}": {"x": at, "s": "text"} for at in range(100)})
    is_over = threading.Event()

    def flood():
        with ferromq.SyncClient(broker) as client:
            while not is_over.is_set():
                client.publish_many([wide] * 100, topic="a")

    with ferromq.live(broker, "a", decode="json", keep_rows=1000) as live:
        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            while live.progress["pending"] < 1000:
                assert flooding.is_alive()
            stopping = threading.Thread(target=live.stop, daemon=True)
            stopping.start()
            stopping.join(60)
            assert not stopping.is_alive(), "it goes on for as long as messages come"
        finally:
            is_over.set()
            flooding.join()
        assert live.progress["done"]
        assert len(live.table()) == 1000


def test_how_far_a_capture_is(broker, sync_client):
    capture = ferromq.Capture(sync_client, "a", decode="number", rows=2)
    sync_client.publish_many(["1", "x"], topic="a", qos=1)
    assert capture.wait(20)
    assert {name: capture.progress[name] for name in ("messages", "rows", "bytes", "errors", "done", "full")} == {
        "messages": 2,
        "rows": 2,
        "bytes": 2,
        "errors": 1,
        "done": True,
        "full": False,
    }
    assert broker.url


def test_a_client_that_is_given_stays_connected(broker, sync_client, publish):
    publish([("a", b"1")])
    ferromq.collect(sync_client, "a", rows=1, decode="number")
    sync_client.publish("b", b"", qos=1)
    with pytest.raises(TypeError, match="cannot take keep_alive"):
        ferromq.collect(sync_client, "a", rows=1, keep_alive=5)
    assert broker.url


def test_nothing_is_left_behind(broker):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            ferromq.live(broker, "#").stop()
    assert threading.active_count() == 1
    broker.wait_settled(20)  # it has read the last DISCONNECT
    assert len(broker.clients) == 0
