//! What must hold for any payload, condition and layout of telemetry. Each function panics if it does not.

use ferromq::telemetry::{Decoder, Filter, Kind, Limits, OnError, Pattern, Rows, RowsOptions, Table, TelemetryError};

/// The first byte picks a decoder, the second how it is used, the rest are payloads, each behind a byte with its length.
/// Decoding never panics; every payload is at least one row, good ones before and after it are the same, and batches of
/// whatever columns go together into one table.
pub(super) fn decode(data: &[u8]) {
    let &[decoder, options, ref rest @ ..] = data else { return };
    let name = DECODERS[usize::from(decoder) % DECODERS.len()];
    let payloads = payloads(rest);
    let good = good(name);
    let whole = rows_of(name, options, &[&good[..], &payloads.concat()[..], &good[..]], false);
    assert_eq!(whole.first(), whole.last(), "{name}: a payload changes others");

    let between: Vec<&[u8]> = payloads.iter().map(|payload| &payload[..]).collect();
    let one_batch = rows_of(name, options, &between, false);
    assert!(one_batch.len() >= payloads.len() || options & RAISES != 0, "{name}: a payload is no row");
    let apart = rows_of(name, options, &between, true);
    assert_eq!(apart.len(), one_batch.len(), "{name}: batches decide how many rows there are");
}

/// Text as a condition, a decoder, a type and a filter with names: it is refused, or works.
pub(super) fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(filter) = Filter::parse(text) {
        let mut rows = Rows::new(RowsOptions::new(vec![pattern()], decoder("json")));
        rows.push(0, "a/b", br#"{"n": 1.5, "s": "x", "b": true, "l": [1], "z": null}"#).expect("errors are null");
        let batch = rows.finish();
        if let Ok(kept) = filter.apply(&batch) {
            assert!(kept.num_rows() <= 1);
        }
    }
    if let Ok(decoder) = Decoder::parse(text) {
        let mut rows = Rows::new(RowsOptions::new(vec![pattern()], decoder));
        for payload in [&b""[..], b"\0\0\0\0", data] {
            rows.push(0, "a/b", payload).expect("errors are null");
        }
        let count = rows.len();
        assert!(count >= 3, "{text:?}");
        assert_eq!(rows.finish().num_rows(), count);
    }
    if let Ok(kind) = Kind::parse(text) {
        let mut options = RowsOptions::new(vec![pattern()], decoder("json"));
        options.schema = Some(vec![("n".to_owned(), kind)]);
        let mut rows = Rows::new(options);
        for payload in [r#"{"n": 1}"#, r#"{"n": "x"}"#, r#"{"n": [{"n": null}]}"#, "[]"] {
            rows.push(0, "a/b", payload.as_bytes()).expect("errors are null");
        }
        assert_eq!(rows.finish().num_rows(), 4, "{text:?}");
    }
    if let Ok(pattern) = Pattern::parse(text) {
        let mut rows = Rows::new(RowsOptions::new(vec![pattern], decoder("raw")));
        rows.push(0, "a/b", data).expect("raw payloads are as they are");
        assert_eq!(rows.finish().num_rows(), 1, "{text:?}");
    }
}

/// The rows of these payloads as JSON, in one batch or in a batch for each.
fn rows_of(name: &str, options: u8, payloads: &[&[u8]], are_apart: bool) -> Vec<String> {
    let mut rows = rows(name, options);
    let (mut batches, mut taken) = (Vec::new(), 0);
    for (at, payload) in payloads.iter().enumerate() {
        let before = rows.len();
        match rows.push(at as u64, "spBv1.0/g/NBIRTH/n", payload) {
            Ok(()) => {
                assert!(rows.len() > before, "{name}: a payload is no row");
                taken += 1;
            }
            Err(TelemetryError::Decode { .. }) if options & RAISES != 0 => assert_eq!(rows.len(), before),
            Err(other) => panic!("{name}: {other}"),
        }
        if options & FREEZES != 0 {
            rows.freeze();
        }
        if are_apart || rows.is_full() {
            batches.push(rows.finish());
        }
    }
    assert_eq!(rows.counts().messages, taken, "{name}");
    batches.push(rows.finish());
    let table = Table::unify(batches).expect("batches go together");
    (0..table.rows()).map(|row| normal(&table.row_json(row).expect("a row of the table"))).collect()
}

/// A row without the time, which alone tells two rows of one payload apart, and with whole numbers alike: those that have
/// been in a column of floating point before it became one of JSON text are written `1.0`.
fn normal(row: &str) -> String {
    let row = row.split_once(",\"topic\":").map_or("", |(_, rest)| rest);
    row.replace(".0,", ",").replace(".0]", "]").replace(".0}", "}")
}

fn rows(name: &str, choice: u8) -> Rows {
    let mut options = RowsOptions::new(vec![pattern()], decoder(name));
    options.on_error = match choice & (RAISES | KEEPS_RAW) {
        RAISES => OnError::Raise,
        KEEPS_RAW => OnError::Raw,
        _ => OnError::Null,
    };
    if choice & HAS_SCHEMA != 0 {
        let kind = |text| Kind::parse(text).expect("a type");
        options.schema = Some(vec![("a".to_owned(), kind("int8")), ("b".to_owned(), kind("list[str]"))]);
    }
    if choice & IS_SMALL != 0 {
        options.limits = Limits {
            depth_max: 3,
            values_per_message_max: 20,
            columns_max: 4,
            batch_rows_max: 3,
            batch_bytes_max: 64,
            batch_values_max: 40,
        };
    }
    Rows::new(options)
}

fn payloads(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    while let Some((&length, rest)) = data.split_first() {
        let (payload, rest) = rest.split_at(usize::from(length).min(rest.len()));
        payloads.push(payload.to_vec());
        data = rest;
        if payloads.len() == PAYLOADS_MAX {
            break;
        }
    }
    payloads
}

/// A payload of one row that this decoder takes, within all limits.
fn good(name: &str) -> Vec<u8> {
    match name {
        "json" => br#"{"a": 1}"#.to_vec(),
        "cbor" => vec![0xa1, 0x61, b'a', 0x01],
        "msgpack" => vec![0x81, 0xa1, b'a', 0x01],
        "number" | "text" => b"1".to_vec(),
        // The time, and a metric "a" of the value 1.
        "sparkplug" => vec![0x08, 0x01, 0x12, 0x07, 0x0a, 0x01, b'a', 0x20, 0x03, 0x50, 0x01],
        packed => vec![1; Packed::size(packed)],
    }
}

/// Sizes of the layouts below.
struct Packed;

impl Packed {
    fn size(format: &str) -> usize {
        if format == "<ffI" { 12 } else { 4 + 1 + 2 + 1 + 8 }
    }
}

fn decoder(name: &str) -> Decoder {
    Decoder::parse(name).expect("a decoder")
}

fn pattern() -> Pattern {
    Pattern::parse("{first}/#").expect("a filter")
}

/// Decoders of the first byte.
const DECODERS: [&str; 8] = ["json", "cbor", "msgpack", "number", "text", "sparkplug", "<ffI", ">4s?exq"];

/// Bits of the second byte.
const RAISES: u8 = 1;
const KEEPS_RAW: u8 = 2;
const HAS_SCHEMA: u8 = 4;
const IS_SMALL: u8 = 8;
const FREEZES: u8 = 16;

/// Payloads of one input.
const PAYLOADS_MAX: usize = 16;
