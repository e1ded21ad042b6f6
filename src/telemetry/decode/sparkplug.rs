//! Sparkplug B: each metric is a column, each time that a payload has measurements of is a row.
//!
//! A birth (NBIRTH, DBIRTH) gives metrics their names, types and aliases; data (NDATA, DDATA) may then name a metric by
//! its alias alone. Births are remembered for each edge node until its next birth or its death. A metric of an unknown
//! alias (we came after the birth) is not lost: its column is `alias_` and the number.
//!
//! Beside the metrics a row has `sp_type` (NBIRTH, DDATA, ...), `sp_timestamp` and `sp_seq`. Metrics of one payload with
//! different times, as a node sends after it was offline, are different rows, and so are repeated ones.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{
    end_row,
    protobuf::{Fields, Wire},
};
use crate::telemetry::{
    DecodeError,
    column::{Context, Record, Scalar, write_json_text},
    kind::Kind,
};

/// What births have told: name and type of aliases, for each edge node.
#[derive(Debug, Clone, Default)]
pub struct Births {
    nodes: HashMap<Box<str>, Aliases, RandomState>,
    /// Aliases of all nodes.
    count: usize,
}

type Aliases = HashMap<u64, (Box<str>, u64), RandomState>;

/// One metric of a payload.
#[derive(Debug, Default, Clone, Copy)]
struct Metric<'a> {
    name: Option<&'a str>,
    alias: Option<u64>,
    timestamp: Option<u64>,
    datatype: Option<u64>,
    is_null: bool,
    value: Option<(u64, Wire<'a>)>,
}

impl Births {
    pub(super) fn decode(
        &mut self,
        topic: &str,
        payload: &[u8],
        record: &mut Record,
        row: usize,
        context: &mut Context,
    ) -> Result<usize, DecodeError> {
        let (kind, node) = message_type(topic)?;
        let (mut timestamp, mut sequence, mut metrics) = (None, None, Vec::new());
        let mut fields = Fields::new(payload);
        while let Some((number, wire)) = fields.next()? {
            match number {
                1 => timestamp = wire.as_u64(),
                2 => metrics.push(Metric::read(wire)?),
                3 => sequence = wire.as_u64(),
                _ => {}
            }
            if metrics.len() > METRICS_MAX {
                return Err(DecodeError(format!("it has more than {METRICS_MAX} metrics")));
            }
        }
        if kind == "NBIRTH" || kind == "NDEATH" {
            self.count -= self.nodes.remove(&*node).map_or(0, |aliases| aliases.len());
        }
        if kind.ends_with("BIRTH") {
            self.learn(&node, &metrics)?;
        }
        let rows = Rows { kind, timestamp, sequence, aliases: self.nodes.get(&*node) };
        rows.write(&metrics, record, row, context)
    }

    fn learn(&mut self, node: &str, metrics: &[Metric<'_>]) -> Result<(), DecodeError> {
        for metric in metrics {
            let (Some(name), Some(alias)) = (metric.name, metric.alias) else { continue };
            let aliases = self.nodes.entry(node.into()).or_default();
            let is_new = aliases.insert(alias, (name.into(), metric.datatype.unwrap_or_default())).is_none();
            self.count += usize::from(is_new);
            if self.count > ALIASES_MAX {
                return Err(DecodeError(format!("nodes have more than {ALIASES_MAX} aliases in all")));
            }
        }
        Ok(())
    }
}

/// The rows of one payload.
struct Rows<'a> {
    kind: &'a str,
    timestamp: Option<u64>,
    sequence: Option<u64>,
    aliases: Option<&'a Aliases>,
}

impl Rows<'_> {
    fn write(
        &self,
        metrics: &[Metric<'_>],
        record: &mut Record,
        row: usize,
        context: &mut Context,
    ) -> Result<usize, DecodeError> {
        let (mut rows, mut is_begun, mut now) = (0, false, self.timestamp);
        for metric in metrics {
            let (name, datatype) = self.name(metric);
            let time = metric.timestamp.or(self.timestamp);
            if is_begun && (time != now || record.is_set(&name, row + rows)) {
                rows += end_row(record, row + rows, context)?;
                is_begun = false;
            }
            if !is_begun {
                self.begin(time, record, row + rows, context);
                (is_begun, now) = (true, time);
            }
            metric.write(&name, datatype, record, row + rows, context)?;
        }
        if !is_begun {
            self.begin(self.timestamp, record, row + rows, context);
        }
        Ok(rows + end_row(record, row + rows, context)?)
    }

    fn begin(&self, time: Option<u64>, record: &mut Record, row: usize, context: &mut Context) {
        record.push("sp_type", row, Some(Scalar::Text(self.kind)), context);
        let time = time.and_then(|time| i64::try_from(time).ok()).map(Scalar::Int);
        let moment = Kind::Timestamp(arrow_schema::TimeUnit::Millisecond);
        record.push_as("sp_timestamp", row, &moment, time, context);
        record.push("sp_seq", row, self.sequence.map(uint), context);
    }

    /// Name and type of a metric.
    fn name<'m>(&'m self, metric: &Metric<'m>) -> (std::borrow::Cow<'m, str>, Option<u64>) {
        let known = metric.alias.and_then(|alias| self.aliases?.get(&alias));
        let datatype = metric.datatype.or(known.map(|(_, datatype)| *datatype));
        let name = match (metric.name, known, metric.alias) {
            (Some(name), ..) => name.into(),
            (None, Some((name, _)), _) => (&**name).into(),
            (None, None, Some(alias)) => format!("alias_{alias}").into(),
            (None, None, None) => "unnamed".into(),
        };
        (name, datatype)
    }
}

impl<'a> Metric<'a> {
    fn read(wire: Wire<'a>) -> Result<Self, DecodeError> {
        let bytes = wire.as_bytes().ok_or_else(|| DecodeError::new("a metric is no message"))?;
        let (mut metric, mut fields) = (Self::default(), Fields::new(bytes));
        while let Some((number, wire)) = fields.next()? {
            match number {
                1 => metric.name = wire.as_text(),
                2 => metric.alias = wire.as_u64(),
                3 => metric.timestamp = wire.as_u64(),
                4 => metric.datatype = wire.as_u64(),
                7 => metric.is_null = wire.as_u64() == Some(1),
                10..=18 => metric.value = Some((number, wire)),
                _ => {}
            }
        }
        Ok(metric)
    }

    fn write(
        &self,
        name: &str,
        datatype: Option<u64>,
        record: &mut Record,
        row: usize,
        context: &mut Context,
    ) -> Result<(), DecodeError> {
        let Some(value) = self.value.filter(|_| !self.is_null) else {
            record.push(name, row, None, context);
            return Ok(());
        };
        match value {
            (17 | 18, wire) => {
                let mut text = Vec::new();
                let bytes = wire.as_bytes().ok_or_else(|| DecodeError::new("a data set is no message"))?;
                write_nested(value.0, bytes, TEMPLATE_DEPTH_MAX, &mut text)?;
                record.push(name, row, Some(Scalar::Json(&String::from_utf8_lossy(&text))), context);
            }
            (_, Wire::Varint(time)) if datatype == Some(DATE_TIME) => {
                let moment = Kind::Timestamp(arrow_schema::TimeUnit::Millisecond);
                record.push_as(name, row, &moment, i64::try_from(time).ok().map(Scalar::Int), context);
            }
            _ => record.push(name, row, Some(scalar(value, datatype)?), context),
        }
        Ok(())
    }
}

/// The value of a metric. Numbers with a sign come as those without one that have the same bits.
fn scalar((number, wire): (u64, Wire<'_>), datatype: Option<u64>) -> Result<Scalar<'_>, DecodeError> {
    Ok(match (number, wire) {
        (10, Wire::Varint(value)) => match datatype {
            Some(1) => Scalar::Int(i64::from(value as i8)),
            Some(2) => Scalar::Int(i64::from(value as i16)),
            Some(3) => Scalar::Int(i64::from(value as i32)),
            _ => uint(value),
        },
        (11, Wire::Varint(value)) if datatype == Some(4) => Scalar::Int(value.cast_signed()),
        (11, Wire::Varint(value)) => uint(value),
        (12, Wire::Fixed32(bits)) => Scalar::Float(f64::from(f32::from_bits(bits))),
        (13, Wire::Fixed64(bits)) => Scalar::Float(f64::from_bits(bits)),
        (14, Wire::Varint(value)) => Scalar::Bool(value != 0),
        (15, Wire::Bytes(text)) => Scalar::Text(std::str::from_utf8(text).map_err(DecodeError::new)?),
        (16, Wire::Bytes(bytes)) => Scalar::Binary(bytes),
        _ => return Err(DecodeError(format!("field {number} of a metric has the wrong type"))),
    })
}

fn uint(value: u64) -> Scalar<'static> {
    i64::try_from(value).map_or(Scalar::UInt(value), Scalar::Int)
}

/// A data set or a template as JSON text.
fn write_nested(number: u64, bytes: &[u8], depth_left: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    if depth_left == 0 {
        return Err(DecodeError::new("templates are nested deeper than allowed"));
    }
    if number == 17 { write_data_set(bytes, out) } else { write_template(bytes, depth_left, out) }
}

/// `{"columns": [...], "rows": [[...], ...]}`
fn write_data_set(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (mut columns, mut types, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let mut fields = Fields::new(bytes);
    while let Some((number, wire)) = fields.next()? {
        match (number, wire) {
            (2, Wire::Bytes(_)) => columns.push(wire.as_text().unwrap_or_default()),
            (3, Wire::Varint(datatype)) => types.push(datatype),
            (3, Wire::Bytes(mut packed)) => {
                // Repeated numbers may be packed into one field.
                while let [byte, rest @ ..] = packed {
                    types.push(u64::from(*byte));
                    packed = rest;
                }
            }
            (4, Wire::Bytes(row)) => rows.push(row),
            _ => {}
        }
    }
    out.extend_from_slice(b"{\"columns\":[");
    for (at, column) in columns.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b"," } else { b"" });
        write_json_text(column, out);
    }
    out.extend_from_slice(b"],\"rows\":[");
    for (at, row) in rows.into_iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",[" } else { b"[" });
        let (mut elements, mut place) = (Fields::new(row), 0);
        while let Some((_, wire)) = elements.next()? {
            out.extend_from_slice(if place > 0 { b"," } else { b"" });
            let mut value = Fields::new(wire.as_bytes().unwrap_or_default());
            match value.next()? {
                // An element numbers its kinds of value from 1, a metric from 10.
                Some((number, wire)) => {
                    let value = scalar((number + 9, wire), types.get(place).copied())?;
                    out.extend_from_slice(value.to_json().as_bytes());
                }
                None => out.extend_from_slice(b"null"),
            }
            place += 1;
        }
        out.push(b']');
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

/// The metrics of a template as an object.
fn write_template(bytes: &[u8], depth_left: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (mut fields, mut is_first) = (Fields::new(bytes), true);
    out.push(b'{');
    while let Some((number, wire)) = fields.next()? {
        if number != 2 {
            continue;
        }
        let metric = Metric::read(wire)?;
        out.extend_from_slice(if is_first { b"" } else { b"," });
        is_first = false;
        write_json_text(metric.name.unwrap_or("unnamed"), out);
        out.push(b':');
        match metric.value.filter(|_| !metric.is_null) {
            None => out.extend_from_slice(b"null"),
            Some((number @ (17 | 18), wire)) => {
                write_nested(number, wire.as_bytes().unwrap_or_default(), depth_left - 1, out)?;
            }
            Some(value) => out.extend_from_slice(scalar(value, metric.datatype)?.to_json().as_bytes()),
        }
    }
    out.push(b'}');
    Ok(())
}

/// Type of message and edge node of `spBv1.0/group/type/node/device`.
fn message_type(topic: &str) -> Result<(&str, String), DecodeError> {
    let mut levels = topic.split('/');
    match (levels.next(), levels.next(), levels.next(), levels.next()) {
        (Some("spBv1.0"), Some(group), Some(kind), Some(node)) => Ok((kind, format!("{group}/{node}"))),
        _ => Err(DecodeError::new("the topic is no Sparkplug one: spBv1.0/group/type/node")),
    }
}

/// The Sparkplug type of times, in milliseconds.
const DATE_TIME: u64 = 13;

/// Metrics of a payload.
const METRICS_MAX: usize = 65_536;

/// Aliases that are remembered, of all nodes.
const ALIASES_MAX: usize = 1 << 20;

/// Templates in templates.
const TEMPLATE_DEPTH_MAX: usize = 16;
