//! Payloads for tests of telemetry: any JSON, and the same in other formats.

use minicbor::Encoder;
use proptest::prelude::*;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// JSON as a device might send it, and stranger.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-100_i64..100).prop_map(Value::from),
        any::<f64>().prop_filter("JSON has none", |value| value.is_finite()).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What columns cannot tell apart from absence goes: null fields, and objects that are empty then.
pub(crate) fn pruned(value: &Value, is_item: bool) -> Option<Value> {
    match value {
        Value::Null => is_item.then_some(Value::Null),
        Value::Object(map) => {
            let kept: Map<_, _> =
                map.iter().filter_map(|(key, value)| Some((key.clone(), pruned(value, false)?))).collect();
            if kept.is_empty() { is_item.then_some(Value::Null) } else { Some(Value::Object(kept)) }
        }
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(|item| pruned(item, true)).collect())),
        Value::Number(number) => match number.as_i64() {
            Some(whole) if whole.unsigned_abs() <= 1 << 53 => number.as_f64().map(Value::from),
            _ => Some(serde_json::from_str(&number.to_string()).unwrap()),
        },
        other => Some(other.clone()),
    }
}

/// As MessagePack.
pub(crate) fn msgpack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(&Plain(value)).unwrap()
}

/// JSON whose numbers are numbers; `serde_json` with arbitrary precision has another idea.
struct Plain<'a>(&'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => to.serialize_i64(whole),
                (None, number) => to.serialize_f64(number.unwrap()),
            },
            Value::Array(items) => to.collect_seq(items.iter().map(Plain)),
            Value::Object(fields) => to.collect_map(fields.iter().map(|(name, value)| (name, Plain(value)))),
            other => other.serialize(to),
        }
    }
}

/// As CBOR. `choices` decides, bit by bit, what may be written in several ways: lengths, widths, tags.
pub(crate) fn cbor(value: &Value, choices: u64) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write_cbor(value, &mut choices.clone(), &mut encoder);
    encoder.into_writer()
}

fn write_cbor(value: &Value, choices: &mut u64, to: &mut Encoder<Vec<u8>>) {
    let mut choose = || {
        *choices = choices.rotate_left(1);
        *choices & 1 == 1
    };
    let (is_long, is_tagged) = (choose(), choose());
    if is_tagged {
        to.tag(minicbor::data::Tag::new(55_799)).unwrap();
    }
    match value {
        Value::Null if is_long => to.undefined().unwrap(),
        Value::Null => to.null().unwrap(),
        Value::Bool(value) => to.bool(*value).unwrap(),
        Value::Number(number) => match (number.as_i64(), number.as_f64().unwrap()) {
            (Some(whole), _) => to.i64(whole).unwrap(),
            // Bit by bit: what is no shorter number stays long.
            (None, float) if is_long && f64::from(float as f32).to_bits() == float.to_bits() => {
                to.f32(float as f32).unwrap()
            }
            (None, float) => to.f64(float).unwrap(),
        },
        Value::String(text) if is_long => {
            to.begin_str().unwrap();
            text.chars().for_each(|character| {
                to.str(character.encode_utf8(&mut [0; 4])).unwrap();
            });
            to.end().unwrap()
        }
        Value::String(text) => to.str(text).unwrap(),
        Value::Array(items) => {
            if is_long {
                to.begin_array().unwrap()
            } else {
                to.array(items.len() as u64).unwrap()
            };
            for item in items {
                write_cbor(item, choices, to);
            }
            if is_long { to.end().unwrap() } else { to }
        }
        Value::Object(fields) => {
            if is_long {
                to.begin_map().unwrap()
            } else {
                to.map(fields.len() as u64).unwrap()
            };
            for (name, value) in fields {
                to.str(name).unwrap();
                write_cbor(value, choices, to);
            }
            if is_long { to.end().unwrap() } else { to }
        }
    };
}

/// A protocol buffer in the making, for Sparkplug B.
#[derive(Debug, Default, Clone)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    pub(crate) fn varint(mut self, number: u8, value: u64) -> Self {
        self.push(u64::from(number) << 3);
        self.push(value);
        self
    }

    pub(crate) fn bytes(mut self, number: u8, bytes: impl AsRef<[u8]>) -> Self {
        self.push(u64::from(number) << 3 | 2);
        self.push(bytes.as_ref().len() as u64);
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    pub(crate) fn double(mut self, number: u8, value: f64) -> Self {
        self.push(u64::from(number) << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn float(mut self, number: u8, value: f32) -> Self {
        self.push(u64::from(number) << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn push(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A metric, with what names it.
pub(crate) fn metric(name: Option<&str>, alias: Option<u64>, datatype: Option<u64>) -> Message {
    let mut metric = Message::default();
    if let Some(name) = name {
        metric = metric.bytes(1, name);
    }
    if let Some(alias) = alias {
        metric = metric.varint(2, alias);
    }
    if let Some(datatype) = datatype {
        metric = metric.varint(4, datatype);
    }
    metric
}

/// A payload of metrics.
pub(crate) fn payload(timestamp: u64, sequence: u64, metrics: &[Message]) -> Vec<u8> {
    let payload =
        metrics.iter().fold(Message::default().varint(1, timestamp), |payload, metric| payload.bytes(2, &metric.0));
    payload.varint(3, sequence).0
}
