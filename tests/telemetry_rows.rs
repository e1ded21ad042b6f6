//! Payloads to columns: what goes in comes out, whatever the order of types; what is malformed does no harm.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // each test uses some of it
mod telemetry_support;

use ferromq::telemetry::{Decoder, Kind, Limits, OnError, Packed, Pattern, Rows, RowsOptions, Table};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use telemetry_support::{any_json, msgpack, pruned};

fn rows(decoder: &str) -> Rows {
    Rows::new(RowsOptions::new(vec![Pattern::parse("#").unwrap()], Decoder::parse(decoder).unwrap()))
}

fn with_options(decoder: &str, change: impl FnOnce(&mut RowsOptions)) -> Rows {
    let mut options = RowsOptions::new(vec![Pattern::parse("#").unwrap()], Decoder::parse(decoder).unwrap());
    change(&mut options);
    Rows::new(options)
}

fn table(rows: &mut Rows) -> Table {
    Table::unify(vec![rows.finish()]).unwrap()
}

/// A row without what all rows have.
fn fields(table: &Table, row: usize) -> Value {
    let mut value: Value = serde_json::from_str(&table.row_json(row).unwrap()).unwrap();
    let object = value.as_object_mut().unwrap();
    object.remove("received_at");
    object.remove("topic");
    value
}

fn types(table: &Table) -> Vec<String> {
    table.schema().fields().iter().skip(2).map(|field| format!("{}: {}", field.name(), field.data_type())).collect()
}

#[test]
fn fields_become_columns_and_named_levels_too() {
    let patterns = vec![Pattern::parse("plant/{line}/{sensor}/temp").unwrap()];
    let mut rows = Rows::new(RowsOptions::new(patterns, Decoder::Json));
    rows.push(1_000_001, "plant/L1/s7/temp", br#"{"ts": 5, "value": 1.5, "ok": true, "unit": "C"}"#).unwrap();
    rows.push(1_000_002, "plant/L2/s7/temp", br#"{"ok": false, "value": 2, "ts": null, "unit": "\u00e4"}"#).unwrap();
    let table = table(&mut rows);
    assert_eq!(
        types(&table),
        [
            "line: Dictionary(Int32, Utf8)",
            "sensor: Dictionary(Int32, Utf8)",
            "ts: Int64",
            "value: Float64",
            "ok: Boolean",
            "unit: Utf8"
        ]
    );
    assert_eq!(
        table.row_json(1).unwrap(),
        r#"{"received_at":"1970-01-01T00:00:01.000002Z","topic":"plant/L2/s7/temp","line":"L2","sensor":"s7","value":2.0,"ok":false,"unit":"ä"}"#
    );
}

#[test]
fn late_fields_and_wider_types_are_columns_of_all_batches() {
    let mut rows = rows("json");
    rows.push(0, "a", br#"{"a": 1, "s": {"x": 1}, "l": [1], "m": 1, "n": null, "b": "t"}"#).unwrap();
    let first = rows.finish();
    rows.push(0, "a", br#"{"a": 2.5, "s": {"y": "z"}, "l": [2.5, null], "m": "one", "n": 3, "b": {"c": 1}}"#).unwrap();
    let table = Table::unify(vec![first, rows.finish()]).unwrap();
    assert_eq!(fields(&table, 0), json!({"a": 1.0, "s": {"x": 1}, "l": [1.0], "m": 1, "b": "t"}));
    assert_eq!(
        fields(&table, 1),
        json!({"a": 2.5, "s": {"y": "z"}, "l": [2.5, null], "m": "one", "n": 3, "b": {"c": 1}})
    );
}

#[test]
fn a_whole_number_that_floating_point_cannot_hold_is_not_rounded() {
    let mut rows = rows("json");
    for payload in ["9007199254740993", "0.5", "18446744073709551617"] {
        rows.push(0, "a", payload.as_bytes()).unwrap();
    }
    let table = table(&mut rows);
    let texts: Vec<String> = (0..3).map(|row| table.row_json(row).unwrap()).collect();
    assert!(texts[0].contains(r#""value":9007199254740993}"#), "{}", texts[0]);
    assert!(texts[1].contains(r#""value":0.5}"#), "{}", texts[1]);
    assert!(texts[2].contains(r#""value":18446744073709551617}"#), "{}", texts[2]);
}

#[test]
fn what_cannot_be_decoded_is_null_and_counted_or_kept_or_raised() {
    let bad: &[u8] = br#"{"a": 1, "b": [1, 2"#;
    let mut null = rows("json");
    null.push(0, "a", br#"{"a": 1, "b": [3]}"#).unwrap();
    null.push(0, "a/b", bad).unwrap();
    null.push(0, "a", br#"{"a": 2, "b": []}"#).unwrap();
    assert_eq!((null.counts().errors, null.counts().rows), (1, 3));
    assert!(null.counts().first_error.as_ref().unwrap().starts_with("message 1 on \"a/b\": EOF"));
    let decoded = table(&mut null);
    assert_eq!(
        (0..3).map(|row| fields(&decoded, row)).collect::<Vec<_>>(),
        [json!({"a": 1, "b": [3]}), json!({}), json!({"a": 2, "b": []})]
    );

    let mut raw = with_options("json", |options| options.on_error = OnError::Raw);
    raw.push(0, "a", b"{\"a\": 1}").unwrap();
    raw.push(0, "a", b"\xff").unwrap();
    let kept = table(&mut raw);
    assert_eq!((fields(&kept, 0), fields(&kept, 1)), (json!({"a": 1}), json!({"raw": "/w=="})));

    let mut raise = with_options("json", |options| options.on_error = OnError::Raise);
    let fault = raise.push(0, "a/b", bad).unwrap_err().to_string();
    assert!(fault.starts_with("message 0 on \"a/b\" cannot be decoded: EOF"), "{fault}");
    raise.push(0, "a", b"{\"a\": 1}").unwrap();
    assert_eq!(table(&mut raise).rows(), 1);
}

#[test]
fn given_types_are_kept_and_other_fields_left_out() {
    let schema = [
        ("ts", "timestamp[ms]"),
        ("n", "int8"),
        ("f", "float32"),
        ("tag", "category"),
        ("any", "json"),
        ("u", "uint64"),
    ];
    let schema = schema.map(|(name, kind)| (name.to_owned(), Kind::parse(kind).unwrap()));
    let mut rows = with_options("json", |options| options.schema = Some(schema.to_vec()));
    let payload = br#"{"ts": "2026-01-02T03:04:05.678Z", "n": -128, "f": 0.1, "tag": "x", "any": [1, {"a": null}], "more": 1, "u": 18446744073709551615}"#;
    rows.push(0, "a", payload).unwrap();
    rows.push(0, "a", br#"{"ts": 1700000000123, "n": 128, "f": [1], "tag": 5}"#).unwrap();
    assert_eq!(
        (rows.counts().errors, rows.counts().first_error.as_deref()),
        (1, Some("message 1 on \"a\": 128 is no int8"))
    );
    let table = table(&mut rows);
    assert_eq!(types(&table)[0], "ts: Timestamp(ms, \"UTC\")");
    assert_eq!(
        fields(&table, 0),
        json!({"ts": "2026-01-02T03:04:05.678Z", "n": -128, "f": 0.1, "tag": "x", "any": [1, {"a": null}], "u": u64::MAX})
    );
    assert_eq!(fields(&table, 1), json!({"ts": "2023-11-14T22:13:20.123Z", "tag": "5"}));
}

#[test]
fn what_a_frozen_batch_has_no_column_for_goes_to_rest() {
    let mut rows = rows("json");
    rows.push(0, "a", br#"{"a": 1, "s": {"x": 1}, "l": [{"y": 1}]}"#).unwrap();
    rows.freeze();
    let first = rows.finish();
    rows.push(0, "a", br#"{"a": 1.5, "new": [1, "two"], "s": {"x": "t", "z": {}}, "l": [{"y": 2}, {"y": true}]}"#)
        .unwrap();
    rows.push(0, "a", br#"{"a": 3}"#).unwrap();
    let second = rows.finish();
    assert_eq!(first.schema(), second.schema());
    let table = Table::unify(vec![first, second]).unwrap();
    let rest = json!({"a": 1.5, "new": [1, "two"], "s.x": "t", "s.z": {}, "l[1].y": true});
    assert_eq!(fields(&table, 1), json!({"s": {}, "l": [{"y": 2}, {}], "rest": rest}));
    assert_eq!(fields(&table, 2), json!({"a": 3}));
    assert_eq!(rows.counts().rest, 5);
}

#[test]
fn fields_that_are_called_like_other_columns_get_another_name() {
    let mut rows = Rows::new(RowsOptions::new(vec![Pattern::parse("{line}/#").unwrap()], Decoder::Json));
    rows.push(0, "L/x", br#"{"topic": 1, "line": 2, "payload_topic": 3, "rest": 4}"#).unwrap();
    let row: Value = serde_json::from_str(&table(&mut rows).row_json(0).unwrap()).unwrap();
    assert_eq!(row["topic"], "L/x");
    assert_eq!(row["line"], "L");
    assert_eq!(row["payload_line"], 2);
    assert_eq!(
        (&row["payload_payload_topic"], &row["payload_topic"], &row["payload_rest"]),
        (&json!(1), &json!(3), &json!(4))
    );
}

#[test]
fn nesting_columns_and_values_are_bounded() {
    let limits = Limits { depth_max: 4, columns_max: 3, values_per_message_max: 10, ..Limits::default() };
    let mut rows = with_options("json", |options| options.limits = limits);
    rows.push(0, "a", br#"{"a": 1, "b": {"c": 2, "d": 3}, "e": 4}"#).unwrap();
    rows.push(0, "a", b"[[[[[1]]]]]").unwrap();
    rows.push(0, "a", b"{\"a\": [1,2,3,4,5,6,7,8,9,10,11]}").unwrap();
    assert_eq!(rows.counts().errors, 2);
    let bounded = table(&mut rows);
    assert_eq!(fields(&bounded, 0), json!({"a": 1, "b": {"c": 2}, "rest": {"b.d": 3, "e": 4}}));
    // A short payload cannot write many nulls: each is counted in every column of the object that it stands for.
    let mut rows = with_options("json", |options| options.limits.values_per_message_max = 1000);
    let wide: Map<String, Value> = (0..100).map(|at| (format!("f{at}"), json!(at))).collect();
    rows.push(0, "a", json!({"l": [wide]}).to_string().as_bytes()).unwrap();
    rows.push(0, "a", json!({"l": vec![Value::Null; 100]}).to_string().as_bytes()).unwrap();
    assert!(rows.counts().first_error.as_ref().unwrap().contains("more values than one message may"));
}

#[test]
fn a_batch_is_full_at_each_of_its_bounds() {
    for change in [
        |limits: &mut Limits| limits.batch_rows_max = 3,
        |limits: &mut Limits| limits.batch_bytes_max = 24,
        |limits: &mut Limits| limits.batch_values_max = 3,
    ] {
        let mut rows = with_options("json", |options| change(&mut options.limits));
        for at in 0..3 {
            assert!(!rows.is_full(), "full after {at}");
            rows.push(0, "a", br#"{"a": 1}"#).unwrap();
        }
        assert!(rows.is_full());
        assert_eq!(rows.finish().num_rows(), 3);
        assert!(!rows.is_full() && rows.is_empty());
    }
}

#[test]
fn other_formats_have_the_same_columns() {
    let value = json!({"t": "x", "n": -5, "f": 2.5, "l": [1, 2], "o": {"k": null, "b": true}});
    let mut cbor = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut cbor);
    encoder.begin_map().unwrap().str("t").unwrap().begin_str().unwrap().str("x").unwrap().end().unwrap();
    encoder.str("n").unwrap().i64(-5).unwrap().str("f").unwrap().f16(2.5).unwrap();
    encoder.str("l").unwrap().begin_array().unwrap().u8(1).unwrap().u8(2).unwrap().end().unwrap();
    encoder.str("o").unwrap().map(2).unwrap().str("k").unwrap().null().unwrap().str("b").unwrap().bool(true).unwrap();
    encoder.end().unwrap();
    let msgpack = msgpack(&value);
    let payloads = [("json", value.to_string().into_bytes()), ("cbor", cbor), ("msgpack", msgpack)];
    for (decoder, payload) in payloads {
        let mut rows = rows(decoder);
        rows.push(0, "a", &payload).unwrap();
        let expected = json!({"t": "x", "n": -5, "f": 2.5, "l": [1, 2], "o": {"b": true}});
        assert_eq!(fields(&table(&mut rows), 0), expected, "{decoder}: {:?}", rows.counts());
    }
}

#[test]
fn cbor_tags_are_looked_through_and_large_numbers_kept() {
    // {"t": 1(1700000000), "n": 2(h'010000000000000000'), 1: h'ff'}
    let payload = b"\xa3\x61t\xc1\x1a\x65\x53\xf1\x00\x61n\xc2\x49\x01\0\0\0\0\0\0\0\0\x01\x41\xff";
    let mut rows = rows("cbor");
    rows.push(0, "a", payload).unwrap();
    let text = table(&mut rows).row_json(0).unwrap();
    assert!(text.ends_with(r#""t":1700000000,"n":18446744073709551616,"1":"/w=="}"#), "{text} {:?}", rows.counts());
}

#[test]
fn numbers_text_and_packed_structs_are_rows() {
    let mut numbers = rows("number");
    for payload in [&b"21"[..], b" 21.5 ", b"warm"] {
        numbers.push(0, "a", payload).unwrap();
    }
    let decoded = table(&mut numbers);
    let values: Vec<Value> = (0..3).map(|row| fields(&decoded, row)).collect();
    assert_eq!(values, [json!({"value": 21.0}), json!({"value": 21.5}), json!({})]);

    let names = ["x".to_owned(), "n".to_owned()];
    let mut packed = with_options("json", |options| {
        options.decoder = Decoder::Packed(Packed::parse("<fxH", &names).unwrap());
    });
    packed.push(7, "a", b"\0\0\xc0\x3f\xff\x01\x02\0\0\0\x40\0\x03\0").unwrap();
    packed.push(8, "a", b"\0").unwrap();
    let decoded = table(&mut packed);
    assert_eq!(decoded.rows(), 3);
    assert_eq!((fields(&decoded, 0), fields(&decoded, 1)), (json!({"x": 1.5, "n": 513}), json!({"x": 2.0, "n": 3})));
    assert!(packed.counts().first_error.as_ref().unwrap().contains("1 bytes are no multiple of the struct's 7"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_json_is_read_as_serde_json_reads_it(
        batches in prop::collection::vec(prop::collection::vec(any_json(), 1..6), 1..4)
    ) {
        let mut rows = rows("json");
        let mut finished = Vec::new();
        let mut expected = Vec::new();
        for batch in batches {
            for value in batch {
                rows.push(0, "a", value.to_string().as_bytes()).unwrap();
                let object = if value.is_object() { value } else { json!({"value": value}) };
                expected.push(pruned(&object, true).filter(|value| !value.is_null()).unwrap_or(json!({})));
            }
            finished.push(rows.finish());
        }
        prop_assert_eq!(&rows.counts().first_error, &None);
        let table = Table::unify(finished).unwrap();
        for (row, expected) in expected.iter().enumerate() {
            let found = pruned(&fields(&table, row), true).filter(|value| !value.is_null()).unwrap_or(json!({}));
            prop_assert_eq!(&found, expected, "row {}", row);
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        decoder in prop_oneof![Just("json"), Just("cbor"), Just("msgpack"), Just("number"), Just("text"),
            Just("sparkplug"), Just("<ffI"), Just(">4s?e")],
    ) {
        let mut rows = rows(decoder);
        for payload in &payloads {
            rows.push(0, "spBv1.0/g/NBIRTH/n", payload).unwrap();
        }
        let count = rows.len();
        prop_assert!(count >= payloads.len());
        prop_assert_eq!(rows.finish().num_rows(), count);
    }

    #[test]
    fn damaged_payloads_leave_whole_rows(
        value in any_json(),
        format in prop_oneof![Just("json"), Just("msgpack")],
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let good = json!({"a": 1, "b": [value.clone()], "c": {"d": value}});
        let encoded = if format == "json" { good.to_string().into_bytes() } else { msgpack(&good) };
        let mut bad = encoded.clone();
        let at = at.index(bad.len());
        bad[at] = byte;
        let mut rows = rows(format);
        for payload in [&encoded, &bad, &encoded[..at].to_vec(), &encoded] {
            rows.push(0, "a", payload).unwrap();
        }
        let table = Table::unify(vec![rows.finish()]).unwrap();
        prop_assert_eq!(table.rows(), 4);
        let (first, last) = (pruned(&fields(&table, 0), true), pruned(&fields(&table, 3), true));
        prop_assert_eq!(first, last);
    }
}
