//! The fuzz targets of telemetry on stable Rust, over a bounded number of inputs: bytes at random, and payloads of each
//! format that were changed a little, so that decoding gets deep before it fails. And what is valid comes out as it went in.
#![allow(clippy::unwrap_used)]

#[path = "fuzz/telemetry.rs"]
mod targets;
#[allow(dead_code)] // each test uses some of it
mod telemetry_support;

use ferromq::telemetry::{Decoder, Packed, Pattern, Rows, RowsOptions, Table};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Map, Value, json};

use telemetry_support::{Message, any_json, cbor, metric, msgpack, payload, pruned};

fn rows(decoder: Decoder) -> Rows {
    Rows::new(RowsOptions::new(vec![Pattern::parse("#").unwrap()], decoder))
}

/// The fields of all rows.
fn fields(mut rows: Rows) -> Vec<Value> {
    assert_eq!(rows.counts().first_error, None);
    let table = Table::unify(vec![rows.finish()]).unwrap();
    let row = |row| {
        let mut value: Value = serde_json::from_str(&table.row_json(row).unwrap()).unwrap();
        let object = value.as_object_mut().unwrap();
        object.remove("received_at");
        object.remove("topic");
        value
    };
    (0..table.rows()).map(row).collect()
}

/// An input of the target: decoder, options, and payloads behind their lengths.
fn input(decoder: u8, options: u8, payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut input = vec![decoder, options];
    for payload in payloads {
        let length = payload.len().min(255);
        input.push(length as u8);
        input.extend_from_slice(&payload[..length]);
    }
    input
}

/// A payload of the format that the target has at this number, or nearly one.
fn nearly(decoder: u8) -> BoxedStrategy<Vec<u8>> {
    let whole = match decoder {
        0 => any_json().prop_map(|value| value.to_string().into_bytes()).boxed(),
        1 => (any_json(), any::<u64>()).prop_map(|(value, choices)| cbor(&value, choices)).boxed(),
        2 => any_json().prop_map(|value| msgpack(&value)).boxed(),
        3 => any::<f64>().prop_map(|value| value.to_string().into_bytes()).boxed(),
        4 => ".{0,20}".prop_map(String::into_bytes).boxed(),
        5 => vec(any_metric(), 0..4).prop_map(|metrics| sparkplug(&metrics, Naming::Both)).boxed(),
        6 => vec(any::<u8>(), 12..=24).boxed(),
        _ => vec(any::<u8>(), 16).boxed(),
    };
    let changes = vec((any::<Index>(), any::<u8>(), 0..3_u8), 0..3);
    (whole, changes)
        .prop_map(|(mut payload, changes)| {
            for (at, byte, how) in changes {
                if payload.is_empty() {
                    break;
                }
                let at = at.index(payload.len());
                match how {
                    0 => payload[at] = byte,
                    1 => payload.truncate(at),
                    _ => payload.insert(at, byte),
                }
            }
            payload
        })
        .boxed()
}

/// Name, and value of one of the types that JSON tells apart.
fn any_metric() -> impl Strategy<Value = (String, Value)> {
    let value = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has none", |value| value.is_finite()).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "[a-z ]{0,6}".prop_map(Value::from),
    ];
    ("[a-d]", value)
}

/// What names metrics in a payload.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Naming {
    /// As in a birth.
    Both,
    /// As in data after it.
    Alias,
}

fn sparkplug(metrics: &[(String, Value)], naming: Naming) -> Vec<u8> {
    let metrics: Vec<Message> = metrics
        .iter()
        .map(|(name, value)| {
            let alias = u64::from(name.as_bytes()[0]);
            let datatype = match value {
                Value::Number(number) if number.is_i64() => 4,
                Value::Number(_) => 10,
                Value::Bool(_) => 11,
                _ => 12,
            };
            let metric = match naming {
                Naming::Both => metric(Some(name), Some(alias), Some(datatype)),
                Naming::Alias => metric(None, Some(alias), None),
            };
            match value {
                Value::Number(number) if number.is_i64() => metric.varint(11, number.as_i64().unwrap().cast_unsigned()),
                Value::Number(number) => metric.double(13, number.as_f64().unwrap()),
                Value::Bool(value) => metric.varint(14, u64::from(*value)),
                value => metric.bytes(15, value.as_str().unwrap()),
            }
        })
        .collect();
    payload(1_000, 0, &metrics)
}

/// A field of a packed struct: its letters, its bytes, and what it is read as.
fn any_field(is_little: bool) -> impl Strategy<Value = (String, Vec<u8>, Option<Value>)> {
    let whole = (any::<i64>(), prop::sample::select(vec!["b", "B", "h", "H", "i", "I", "q", "Q"]));
    let whole = whole.prop_map(move |(value, letter)| {
        let size = match letter {
            "b" | "B" => 1,
            "h" | "H" => 2,
            "i" | "I" => 4,
            _ => 8,
        };
        let bytes = value.to_le_bytes()[..size].to_vec();
        let unused = 64 - 8 * size;
        let value = if letter.chars().all(char::is_lowercase) {
            json!(value << unused >> unused)
        } else {
            json!(value.cast_unsigned() << unused >> unused)
        };
        (letter.to_owned(), bytes, Some(value))
    });
    let float = any::<f64>().prop_filter("JSON has none", |value| value.is_finite());
    let float = float.prop_map(|value| ("d".to_owned(), value.to_le_bytes().to_vec(), Some(json!(value))));
    let flag = any::<bool>().prop_map(|value| ("?".to_owned(), vec![u8::from(value)], Some(json!(value))));
    let pad = (1..4_usize).prop_map(|count| (format!("{count}x"), vec![7; count], None));
    let text = "[a-zä]{1,6}".prop_map(|text| {
        let size = text.len() + 2;
        let mut bytes = text.clone().into_bytes();
        bytes.resize(size, 0);
        (format!("{size}s"), bytes, Some(json!(text)))
    });
    let plain = prop_oneof![whole, float].prop_map(move |(letter, mut bytes, value)| {
        if !is_little {
            bytes.reverse();
        }
        (letter, bytes, value)
    });
    prop_oneof![plain, flag, pad, text]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_break_a_decoder(data in vec(any::<u8>(), 0..400)) {
        targets::decode(&data);
    }

    #[test]
    fn nearly_valid_payloads_never_break_a_decoder(
        (decoder, payloads) in (0..8_u8).prop_flat_map(|decoder| (Just(decoder), vec(nearly(decoder), 1..6))),
        options in 0..32_u8,
    ) {
        targets::decode(&input(decoder, options, &payloads));
    }

    #[test]
    fn words_are_refused_or_work(
        words in prop_oneof![
            ".{0,40}",
            "[<>!=@][0-9xbBhHiIlLqQefds? ?]{0,8}",
            "(a|n|s|b|l|z|topic|received_at) (=|<>|<|>=|like|in|is) (1|'x'|null|not null|true|\\(1, 'x'\\)) ?(and|or)? ?",
            "(list|timestamp|category|json|int8)(\\[[a-z0-9]{0,5}\\])?",
        ],
    ) {
        targets::words(words.as_bytes());
    }

    #[test]
    fn cbor_comes_out_as_it_went_in(values in vec((any_json(), any::<u64>()), 1..6)) {
        let mut rows = rows(Decoder::Cbor);
        for (value, choices) in &values {
            rows.push(0, "a", &cbor(value, *choices)).unwrap();
        }
        for ((value, _), found) in values.iter().zip(fields(rows)) {
            prop_assert_eq!(normal(&found), normal(&as_object(value)));
        }
    }

    #[test]
    fn messagepack_comes_out_as_it_went_in(values in vec(any_json(), 1..6)) {
        let mut rows = rows(Decoder::MsgPack);
        for value in &values {
            rows.push(0, "a", &msgpack(value)).unwrap();
        }
        for (value, found) in values.iter().zip(fields(rows)) {
            prop_assert_eq!(normal(&found), normal(&as_object(value)));
        }
    }

    #[test]
    fn numbers_and_texts_come_out_as_they_went_in(number in any::<f64>(), whole in any::<i64>(), text in ".{0,20}") {
        let mut numbers = rows(Decoder::Number);
        numbers.push(0, "a", whole.to_string().as_bytes()).unwrap();
        prop_assert_eq!(&fields(numbers)[0]["value"], &json!(whole));
        let mut numbers = rows(Decoder::Number);
        numbers.push(0, "a", format!("{number:e}").as_bytes()).unwrap();
        let found = &fields(numbers)[0];
        if number.is_finite() {
            prop_assert_eq!(found["value"].as_f64(), Some(number));
        }
        let mut texts = rows(Decoder::Text);
        texts.push(0, "a", text.as_bytes()).unwrap();
        prop_assert_eq!(&fields(texts)[0]["value"], &json!(text));
    }

    #[test]
    fn packed_structs_come_out_as_they_went_in(
        (is_little, layout) in any::<bool>().prop_flat_map(|little| (Just(little), vec(any_field(little), 1..8))),
        count in 1..4_usize,
    ) {
        prop_assume!(layout.iter().any(|(_, _, value)| value.is_some()));
        let letters: Vec<&str> = layout.iter().map(|(letters, ..)| &letters[..]).collect();
        let format = format!("{}{}", if is_little { '<' } else { '>' }, letters.join(" "));
        let mut rows = rows(Decoder::Packed(Packed::parse(&format, &[]).unwrap()));
        let bytes: Vec<u8> = layout.iter().flat_map(|(_, bytes, _)| bytes.clone()).collect();
        rows.push(0, "a", &bytes.repeat(count)).unwrap();
        let values = layout.iter().filter_map(|(.., value)| value.clone()).enumerate();
        let expected: Map<String, Value> = values.map(|(at, value)| (format!("f{at}"), value)).collect();
        let found = fields(rows);
        prop_assert_eq!(found.len(), count);
        for row in found {
            prop_assert_eq!(normal(&row), normal(&Value::Object(expected.clone())), "{}", format);
        }
    }

    #[test]
    fn sparkplug_metrics_come_out_under_the_names_of_their_birth(
        birth in prop::collection::btree_map("[a-d]", any_metric().prop_map(|(_, value)| value), 1..4),
    ) {
        let metrics: Vec<(String, Value)> = birth.into_iter().collect();
        let mut rows = rows(Decoder::parse("sparkplug").unwrap());
        rows.push(0, "spBv1.0/g/NBIRTH/n", &sparkplug(&metrics, Naming::Both)).unwrap();
        rows.push(0, "spBv1.0/g/NDATA/n", &sparkplug(&metrics, Naming::Alias)).unwrap();
        let found = fields(rows);
        for (row, kind) in found.iter().zip(["NBIRTH", "NDATA"]) {
            prop_assert_eq!(&row["sp_type"], kind);
            for (name, value) in &metrics {
                prop_assert_eq!(normal(&row[name]), normal(value), "{}", name);
            }
        }
    }
}

/// A payload that is no object is its field `value`.
fn as_object(value: &Value) -> Value {
    if value.is_object() { value.clone() } else { json!({"value": value}) }
}

/// As far as columns can tell things apart.
fn normal(value: &Value) -> Value {
    pruned(value, true).filter(|value| !value.is_null()).unwrap_or(json!({}))
}
