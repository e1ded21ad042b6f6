//! How received messages are printed: payload alone, with the topic, as JSON, or by a format string.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use clap::Args;
use serde_json::{Map, Value, json};

use super::Failure;
use crate::{
    client::Message,
    codec::{Properties, Property},
};

/// Options of printing.
#[derive(Debug, Args)]
pub(super) struct Printer {
    /// Print the topic before the payload.
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON object a line: topic, payload, qos, retain, properties, timestamps.
    #[arg(long, conflicts_with_all = ["verbose", "format"])]
    json: bool,
    /// Print by a format: %t topic, %p payload, %x payload in hexadecimal, %l payload bytes, %q QoS, %r retain, %d dup,
    /// %I time (ISO 8601), %U Unix time, %j JSON, %J JSON with the payload as JSON, %C content type, %R response topic,
    /// %D correlation data, %E message expiry, %F payload format, %P user properties, %S subscription identifiers, %%,
    /// \n, \t, \\.
    #[arg(short = 'F', long, conflicts_with = "verbose")]
    format: Option<String>,
    /// Print no line end after each message.
    #[arg(short = 'N')]
    no_newline: bool,
}

/// A printer whose format is known to be valid.
#[derive(Debug)]
pub(super) struct Prepared {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(char),
}

impl Printer {
    /// Parses the format.
    pub(super) fn prepare(&self) -> Result<Prepared, Failure> {
        let format = match (&self.format, self.json, self.verbose) {
            (Some(format), ..) => format.as_str(),
            (None, true, _) => "%j",
            (None, false, true) => "%t %p",
            (None, false, false) => "%p",
        };
        let mut parts = parse(format)?;
        if !self.no_newline {
            parts.push(Part::Text("\n".into()));
        }
        Ok(Prepared { parts })
    }
}

impl Prepared {
    /// Prints one message, whole, to standard output.
    pub(super) fn print(&self, message: &Message) -> io::Result<()> {
        let mut line = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => line.extend_from_slice(text.as_bytes()),
                Part::Field('p') => line.extend_from_slice(message.payload()),
                Part::Field(field) => line.extend_from_slice(field_of(message, *field).as_bytes()),
            }
        }
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()
    }
}

fn parse(format: &str) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(next) = rest.next() {
        match (next, rest.clone().next()) {
            ('%', Some('%')) => text.push('%'),
            ('%', Some(field)) if FIELDS.contains(field) => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Field(field));
            }
            ('%', other) => {
                let code = other.map(String::from).unwrap_or_default();
                return Err(Failure::usage(format!("-F: %{code} is no field; known are {FIELDS}")));
            }
            ('\\', Some('n')) => text.push('\n'),
            ('\\', Some('t')) => text.push('\t'),
            ('\\', Some('r')) => text.push('\r'),
            ('\\', Some('\\')) => text.push('\\'),
            _ => {
                text.push(next);
                continue;
            }
        }
        rest.next();
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

fn field_of(message: &Message, field: char) -> String {
    let properties = message.properties();
    match field {
        't' => message.topic().to_owned(),
        'l' => message.payload().len().to_string(),
        'q' => (message.qos() as u8).to_string(),
        'r' => u8::from(message.retain()).to_string(),
        'd' => u8::from(message.dup()).to_string(),
        'x' => hexadecimal(message.payload()),
        'I' => iso_time(message.received_at_us()),
        'U' => unix_time(message.received_at_us()),
        'j' => as_json(message, &properties, false).to_string(),
        'J' => as_json(message, &properties, true).to_string(),
        'C' => properties.content_type().map(ToString::to_string).unwrap_or_default(),
        'R' => properties.response_topic().map(ToString::to_string).unwrap_or_default(),
        'D' => properties.correlation_data().map(|data| readable(data)).unwrap_or_default(),
        'E' => properties.message_expiry_interval().map(|seconds| seconds.to_string()).unwrap_or_default(),
        'F' => properties.payload_format_indicator().map(|format| format.to_string()).unwrap_or_default(),
        'P' => join(properties.user_properties().map(|(name, value)| format!("{name}:{value}"))),
        'S' => join(properties.subscription_identifiers().map(|id| id.to_string())),
        _ => String::new(),
    }
}

/// A message as JSON: all there is to know about it.
fn as_json(message: &Message, properties: &Properties, payload_is_json: bool) -> Value {
    let payload = message.payload();
    let mut object = Map::new();
    object.insert("topic".into(), json!(message.topic()));
    object.insert("timestamp".into(), json!(iso_time(message.received_at_us())));
    object.insert("timestamp_us".into(), json!(message.received_at_us()));
    object.insert("qos".into(), json!(message.qos() as u8));
    object.insert("retain".into(), json!(message.retain()));
    object.insert("dup".into(), json!(message.dup()));
    object.insert("payload_bytes".into(), json!(payload.len()));
    let decoded = if payload_is_json { serde_json::from_slice(payload).ok() } else { None };
    match (decoded, std::str::from_utf8(payload)) {
        (Some(value), _) => object.insert("payload".into(), value),
        (None, Ok(text)) => object.insert("payload".into(), json!(text)),
        (None, Err(_)) => object.insert("payload_hex".into(), json!(hexadecimal(payload))),
    };
    if !properties.is_empty() {
        object.insert("properties".into(), properties_as_json(properties));
    }
    Value::Object(object)
}

fn properties_as_json(properties: &Properties) -> Value {
    let mut object = Map::new();
    for property in properties {
        match property {
            Property::PayloadFormatIndicator(format) => {
                object.insert("payload_format_indicator".into(), json!(format));
            }
            Property::MessageExpiryInterval(seconds) => {
                object.insert("message_expiry_interval".into(), json!(seconds));
            }
            Property::ContentType(text) => {
                object.insert("content_type".into(), json!(text.as_str()));
            }
            Property::ResponseTopic(text) => {
                object.insert("response_topic".into(), json!(text.as_str()));
            }
            Property::CorrelationData(data) => {
                object.insert("correlation_data".into(), json!(readable(data)));
            }
            _ => {}
        }
    }
    let ids: Vec<u32> = properties.subscription_identifiers().collect();
    if !ids.is_empty() {
        object.insert("subscription_identifiers".into(), json!(ids));
    }
    let user: Vec<_> =
        properties.user_properties().map(|(name, value)| json!([name.as_str(), value.as_str()])).collect();
    if !user.is_empty() {
        object.insert("user_properties".into(), json!(user));
    }
    Value::Object(object)
}

fn readable(data: &[u8]) -> String {
    std::str::from_utf8(data).map_or_else(|_| hexadecimal(data), str::to_owned)
}

fn hexadecimal(data: &[u8]) -> String {
    data.iter().fold(String::with_capacity(data.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(" ")
}

fn unix_time(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// ISO 8601 in UTC. The date is counted in the proleptic Gregorian calendar from 1 March of year 0, so that the leap
/// day ends its year.
fn iso_time(us: u64) -> String {
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// Letters that may follow a % in a format.
const FIELDS: &str = "tplqrdxIUjJCRDEFPS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_taken_apart_and_unknown_fields_refused() {
        let parts = parse("%t\\t%p%%").ok().unwrap();
        assert_eq!(parts, [Part::Field('t'), Part::Text("\t".into()), Part::Field('p'), Part::Text("%".into())]);
        assert!(parse("%z").is_err());
        assert!(parse("%").is_err());
    }

    #[test]
    fn times_are_calendar_dates() {
        assert_eq!(iso_time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(iso_time(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(iso_time(1_795_219_199_999_999), "2026-11-20T23:59:59.999999Z");
    }
}
