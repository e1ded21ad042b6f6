//! Sparkplug B: births give names to aliases, deaths take them, and every measurement is somewhere in the table.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // each test uses some of it
mod telemetry_support;

use ferromq::telemetry::{Decoder, Pattern, Rows, RowsOptions, Table};
use serde_json::{Value, json};

use telemetry_support::{Message, metric, payload};

fn rows() -> Rows {
    let pattern = Pattern::parse("spBv1.0/{group}/{type}/{node:#}").unwrap();
    Rows::new(RowsOptions::new(vec![pattern], Decoder::parse("sparkplug").unwrap()))
}

/// The metrics of all rows.
fn table(mut rows: Rows) -> Vec<Value> {
    assert_eq!(rows.counts().first_error, None);
    let table = Table::unify(vec![rows.finish()]).unwrap();
    let row = |row| {
        let mut value: Value = serde_json::from_str(&table.row_json(row).unwrap()).unwrap();
        for name in ["received_at", "topic", "group", "type", "node"] {
            value.as_object_mut().unwrap().remove(name);
        }
        value
    };
    (0..table.rows()).map(row).collect()
}

#[test]
fn data_is_named_by_the_birth_of_its_node() {
    let mut rows = rows();
    let birth = [
        metric(Some("temp"), Some(1), Some(10)).double(13, 20.5),
        metric(Some("count"), Some(2), Some(3)).varint(10, u64::from(u32::MAX - 4)),
        metric(Some("on"), Some(3), Some(11)).varint(14, 1),
        metric(Some("since"), Some(4), Some(13)).varint(11, 1_700_000_000_000),
        metric(Some("id"), Some(5), Some(12)).bytes(15, "x-1"),
    ];
    rows.push(0, "spBv1.0/g/NBIRTH/n1", &payload(1_000, 0, &birth)).unwrap();
    let data =
        [metric(None, Some(1), None).double(13, 21.5), metric(None, Some(2), None).varint(10, u64::from(u32::MAX))];
    rows.push(0, "spBv1.0/g/NDATA/n1", &payload(2_000, 1, &data)).unwrap();
    // Another node has other aliases, and one whose birth was not seen keeps its numbers.
    rows.push(0, "spBv1.0/g/NDATA/n2", &payload(3_000, 1, &[metric(None, Some(1), None).float(12, 0.5)])).unwrap();
    assert_eq!(
        table(rows),
        [
            json!({"sp_type": "NBIRTH", "sp_timestamp": "1970-01-01T00:00:01Z", "sp_seq": 0, "temp": 20.5, "count": -5,
                "on": true, "since": "2023-11-14T22:13:20Z", "id": "x-1"}),
            json!({"sp_type": "NDATA", "sp_timestamp": "1970-01-01T00:00:02Z", "sp_seq": 1, "temp": 21.5, "count": -1}),
            json!({"sp_type": "NDATA", "sp_timestamp": "1970-01-01T00:00:03Z", "sp_seq": 1, "alias_1": 0.5}),
        ]
    );
}

#[test]
fn a_device_shares_the_aliases_of_its_node_until_that_dies() {
    let mut rows = rows();
    rows.push(0, "spBv1.0/g/DBIRTH/n1/d1", &payload(1_000, 1, &[metric(Some("rpm"), Some(9), Some(4))])).unwrap();
    let data = payload(2_000, 2, &[metric(None, Some(9), None).varint(11, (-3_i64).cast_unsigned())]);
    rows.push(0, "spBv1.0/g/DDATA/n1/d1", &data).unwrap();
    rows.push(0, "spBv1.0/g/NDEATH/n1", &payload(3_000, 0, &[])).unwrap();
    rows.push(0, "spBv1.0/g/DDATA/n1/d1", &data).unwrap();
    let found = table(rows);
    assert_eq!(found[1]["rpm"], -3);
    assert_eq!(found[2], json!({"sp_type": "NDEATH", "sp_timestamp": "1970-01-01T00:00:03Z", "sp_seq": 0}));
    // Without the type that the birth had told, the bits are taken for a number without a sign.
    assert_eq!((&found[3]["rpm"], found[3]["alias_9"].to_string()), (&Value::Null, (u64::MAX - 2).to_string()));
}

#[test]
fn measurements_of_different_times_are_different_rows() {
    let mut rows = rows();
    let at = |time, value| metric(Some("temp"), None, Some(10)).varint(3, time).double(13, value);
    let other = metric(Some("rpm"), None, Some(3)).varint(3, 2_000).varint(10, 7);
    let repeated = metric(Some("temp"), None, Some(10)).varint(3, 2_000).double(13, 4.0);
    let history = [at(1_000, 1.0), at(2_000, 2.0), other, repeated, at(3_000, 3.0)];
    rows.push(5, "spBv1.0/g/DDATA/n/d", &payload(9_000, 1, &history)).unwrap();
    let found: Vec<(String, Value, Value)> = table(rows)
        .into_iter()
        .map(|row| (row["sp_timestamp"].as_str().unwrap()[17..].to_owned(), row["temp"].clone(), row["rpm"].clone()))
        .collect();
    let row = |time: &str, temp: f64, rpm: Value| (time.to_owned(), json!(temp), rpm);
    assert_eq!(
        found,
        [
            row("01Z", 1.0, Value::Null),
            row("02Z", 2.0, json!(7)),
            row("02Z", 4.0, Value::Null),
            row("03Z", 3.0, Value::Null)
        ]
    );
}

#[test]
fn data_sets_and_templates_are_json() {
    let mut rows = rows();
    let row = |text: &str, number: u64| {
        Message::default()
            .bytes(1, Message::default().bytes(6, text).0)
            .bytes(1, Message::default().varint(1, number).0)
            .0
    };
    let set = Message::default().varint(1, 2).bytes(2, "name").bytes(2, "n").varint(3, 12).varint(3, 3);
    let set = set.bytes(4, row("a", 1)).bytes(4, row("b", 2));
    let template = Message::default().bytes(2, metric(Some("x"), None, Some(10)).double(13, 1.5).0);
    let nested = Message::default().bytes(2, metric(Some("inner"), None, Some(19)).bytes(18, &template.0).0);
    let metrics = [
        metric(Some("set"), None, Some(16)).bytes(17, &set.0),
        metric(Some("template"), None, Some(19)).bytes(18, &nested.0),
        metric(Some("nothing"), None, Some(10)).varint(7, 1),
    ];
    rows.push(0, "spBv1.0/g/DDATA/n/d", &payload(1_000, 1, &metrics)).unwrap();
    let found = &table(rows)[0];
    assert_eq!(found["set"], json!({"columns": ["name", "n"], "rows": [["a", 1], ["b", 2]]}));
    assert_eq!(found["template"], json!({"inner": {"x": 1.5}}));
    assert!(found.get("nothing").is_none());
}

#[test]
fn what_is_no_sparkplug_is_counted() {
    let mut rows = rows();
    rows.push(0, "spBv1.0/STATE", b"{}").unwrap();
    rows.push(0, "spBv1.0/g/NDATA/n", b"\x12\xff\x01").unwrap();
    let deep = (0..40).fold(metric(Some("x"), None, None).double(13, 1.0), |inner, _| {
        metric(Some("x"), None, Some(19)).bytes(18, Message::default().bytes(2, &inner.0).0)
    });
    rows.push(0, "spBv1.0/g/NDATA/n", &payload(1, 1, &[deep])).unwrap();
    assert_eq!((rows.counts().errors, rows.finish().num_rows()), (3, 3));
    assert!(rows.counts().first_error.as_ref().unwrap().contains("no Sparkplug one"));
}
