//! How received messages are printed: payload alone, with the topic, as JSON, as CSV, or by a format string.

use std::{
    borrow::Cow,
    cell::Cell,
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
    /// Print one line of CSV (RFC 4180) a message below a line of names: timestamp, topic, qos, retain, payload, and
    /// payload_hex for a payload that is no text.
    #[arg(long, conflicts_with_all = ["verbose", "format", "json", "no_newline"])]
    csv: bool,
    /// Print by a format, or as `json` or `csv`; -v is without effect then. %t topic, %p payload, %x and %X payload in hexadecimal, %l payload
    /// bytes, %q QoS, %r retain, %d dup, %m packet identifier, %I time (ISO 8601), %U Unix time, %j JSON, %J JSON with
    /// the payload as JSON, %A topic alias, %C content type, %R response topic, %D correlation data, %E message expiry,
    /// %F payload format, %P user properties, %S subscription identifiers, %%; between % and the letter a width: %05l,
    /// %-20t, %.8t. @ and a letter of strftime (d F H j m M N S s T Y y z Z) for the time in UTC, @@. \\n, \\t, \\r, \\a,
    /// \\e, \\0, \\\\.
    #[arg(short = 'F', long, allow_hyphen_values = true)]
    format: Option<String>,
    /// Print no line end after each message.
    #[arg(short = 'N')]
    no_newline: bool,
}

/// A printer whose format is known to be valid.
#[derive(Debug)]
pub(super) struct Prepared {
    parts: Vec<Part>,
    /// Printed before the first message.
    head: Cell<Option<&'static str>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(char, Width),
    /// The payload, or what mosquitto_sub prints in its place if there is none.
    PayloadOrNull,
    /// A conversion of strftime.
    Time(char),
    /// The line of a table.
    Csv,
}

/// How wide a field is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Width {
    min: usize,
    max: Option<usize>,
    left: bool,
    zeros: bool,
}

impl Printer {
    /// Parses the format.
    pub(super) fn prepare(&self) -> Result<Prepared, Failure> {
        let field = |letter| Part::Field(letter, Width::default());
        let named = self.format.as_deref();
        if self.csv || named == Some("csv") {
            return Ok(Prepared { parts: vec![Part::Csv], head: Cell::new(Some(CSV_HEAD)) });
        }
        let mut parts = match named {
            None if self.json => vec![field('j')],
            None if self.verbose => vec![field('t'), Part::Text(" ".into()), Part::PayloadOrNull],
            None => vec![field('p')],
            Some("json") => vec![field('j')],
            Some("parquet") => {
                return Err(Failure::usage("Parquet goes into files: ferromq record -t FILTER messages.parquet"));
            }
            Some(format) => parse(format)?,
        };
        if !self.no_newline {
            parts.push(Part::Text("\n".into()));
        }
        Ok(Prepared { parts, head: Cell::new(None) })
    }
}

impl Prepared {
    /// Prints one message, whole, to standard output. Of one that cannot be printed as the format wants it nothing is;
    /// why goes to `warn`, and the next may be printed.
    pub(super) fn print(&self, message: &Message, warn: impl Fn(&str)) -> io::Result<()> {
        let mut line = Vec::from(self.head.take().unwrap_or_default());
        for part in &self.parts {
            match part {
                Part::Csv => line.extend_from_slice(csv_line(message).as_bytes()),
                Part::Text(text) => line.extend_from_slice(text.as_bytes()),
                Part::Field(field, width) => match field_of(message, *field) {
                    Ok(value) => width.fit(*field, value, &mut line),
                    Err(fault) => {
                        warn(&fault);
                        return Ok(());
                    }
                },
                Part::PayloadOrNull if message.payload().is_empty() => line.extend_from_slice(b"(null)"),
                Part::PayloadOrNull => line.extend_from_slice(message.payload()),
                Part::Time(conversion) => {
                    let text = Moment::new(message.received_at_us()).strftime(*conversion).unwrap_or_default();
                    line.extend_from_slice(text.as_bytes());
                }
            }
        }
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()
    }
}

impl Width {
    /// Appends a value. Payloads and numbers are never cut.
    fn fit(&self, field: char, mut value: Vec<u8>, line: &mut Vec<u8>) {
        if let (Some(max), Ok(text)) = (self.max.filter(|_| CUTTABLE.contains(field)), std::str::from_utf8(&value)) {
            value = text.chars().take(max).collect::<String>().into_bytes();
        }
        let length = std::str::from_utf8(&value).map_or(value.len(), |text| text.chars().count());
        let fill = self.min.saturating_sub(length);
        if self.left {
            line.append(&mut value);
            line.extend(std::iter::repeat_n(b' ', fill));
        } else {
            line.extend(std::iter::repeat_n(if self.zeros { b'0' } else { b' ' }, fill));
            line.append(&mut value);
        }
    }

    /// Takes flags, width and precision off the front of a format.
    fn parse(rest: &mut std::str::Chars<'_>) -> Option<Self> {
        let mut width = Self::default();
        while let Some(flag @ ('-' | '0')) = rest.clone().next() {
            width.left |= flag == '-';
            width.zeros |= flag == '0';
            rest.next();
        }
        width.min = number(rest)?;
        if rest.clone().next() == Some('.') {
            rest.next();
            width.max = Some(number(rest)?);
        }
        Some(width)
    }
}

/// Takes a number off the front, 0 if none is there; `None` if it is too large to be meant.
fn number(rest: &mut std::str::Chars<'_>) -> Option<usize> {
    let text = rest.as_str();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, after) = text.split_at(digits);
    *rest = after.chars();
    if number.is_empty() { Some(0) } else { number.parse().ok().filter(|number| *number <= WIDTH_MAX) }
}

fn parse(format: &str) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(next) = rest.next() {
        let part = match next {
            '%' => parse_field(&mut rest)?,
            '@' => parse_time(&mut rest)?,
            '\\' => Part::Text(parse_escape(&mut rest)?.into()),
            other => Part::Text(other.into()),
        };
        match part {
            Part::Text(more) => text.push_str(&more),
            part => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(part);
            }
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

fn parse_field(rest: &mut std::str::Chars<'_>) -> Result<Part, Failure> {
    let wide = || Failure::usage(format!("-F: a field is at most {WIDTH_MAX} wide"));
    let width = Width::parse(rest).ok_or_else(wide)?;
    match rest.next() {
        Some('%') => Ok(Part::Text("%".into())),
        Some(field) if FIELDS.contains(field) => Ok(Part::Field(field, width)),
        other => {
            let code = other.map(String::from).unwrap_or_default();
            Err(Failure::usage(format!("-F: %{code} is no field; known are {FIELDS}")))
        }
    }
}

fn parse_time(rest: &mut std::str::Chars<'_>) -> Result<Part, Failure> {
    match rest.next() {
        Some('@') => Ok(Part::Text("@".into())),
        Some(conversion) if Moment::new(0).strftime(conversion).is_some() => Ok(Part::Time(conversion)),
        other => {
            let code = other.map(String::from).unwrap_or_default();
            Err(Failure::usage(format!(
                "-F: @{code} is no part of a time; known are d F H j m M N S s T Y y z Z, and @@"
            )))
        }
    }
}

fn parse_escape(rest: &mut std::str::Chars<'_>) -> Result<char, Failure> {
    match rest.next() {
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some('r') => Ok('\r'),
        Some('a') => Ok('\x07'),
        Some('e') => Ok('\x1b'),
        Some('0') => Ok('\0'),
        Some('\\') => Ok('\\'),
        other => {
            let code = other.map(String::from).unwrap_or_default();
            Err(Failure::usage(format!("-F: \\{code} is no escape; known are \\n \\t \\r \\a \\e \\0 \\\\")))
        }
    }
}

/// The value of a field, or why there is none.
fn field_of(message: &Message, field: char) -> Result<Vec<u8>, String> {
    let properties = message.properties();
    let text = match field {
        'p' => return Ok(message.payload().to_vec()),
        'D' => return Ok(properties.correlation_data().map(|data| data.to_vec()).unwrap_or_default()),
        'J' => {
            let payload = serde_json::from_slice(message.payload());
            let payload =
                payload.map_err(|error| format!("the payload on {:?} is no JSON: {error}", message.topic()))?;
            as_json(message, &properties, Some(payload)).to_string()
        }
        't' => message.topic().to_owned(),
        'l' => message.payload().len().to_string(),
        'q' => (message.qos() as u8).to_string(),
        'r' => u8::from(message.retain()).to_string(),
        'd' => u8::from(message.dup()).to_string(),
        'm' => message.ack_handle().map_or(0, |handle| handle.packet_id().get()).to_string(),
        'x' => hexadecimal(message.payload()),
        'X' => hexadecimal(message.payload()).to_uppercase(),
        'I' => iso_time(message.received_at_us()),
        'U' => unix_time(message.received_at_us()),
        'j' => as_json(message, &properties, None).to_string(),
        'A' => properties.topic_alias().map(|alias| alias.to_string()).unwrap_or_default(),
        'C' => properties.content_type().map(ToString::to_string).unwrap_or_default(),
        'R' => properties.response_topic().map(ToString::to_string).unwrap_or_default(),
        'E' => properties.message_expiry_interval().map(|seconds| seconds.to_string()).unwrap_or_default(),
        'F' => properties.payload_format_indicator().map(|format| format.to_string()).unwrap_or_default(),
        'P' => join(properties.user_properties().map(|(name, value)| format!("{name}:{value}"))),
        'S' => join(properties.subscription_identifiers().map(|id| id.to_string())),
        _ => String::new(),
    };
    Ok(text.into_bytes())
}

/// A message as JSON: all there is to know about it.
fn as_json(message: &Message, properties: &Properties, decoded: Option<Value>) -> Value {
    let payload = message.payload();
    let mut object = Map::new();
    object.insert("topic".into(), json!(message.topic()));
    object.insert("timestamp".into(), json!(iso_time(message.received_at_us())));
    object.insert("timestamp_us".into(), json!(message.received_at_us()));
    object.insert("qos".into(), json!(message.qos() as u8));
    object.insert("retain".into(), json!(message.retain()));
    object.insert("dup".into(), json!(message.dup()));
    object.insert("payload_bytes".into(), json!(payload.len()));
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

/// A message as the line of a table below [`CSV_HEAD`].
fn csv_line(message: &Message) -> String {
    let payload = message.payload();
    let (text, binary) = match std::str::from_utf8(payload) {
        Ok(text) => (text, String::new()),
        Err(_) => ("", hexadecimal(payload)),
    };
    let (time, topic) = (iso_time(message.received_at_us()), csv_field(message.topic()));
    let (qos, retain) = (message.qos() as u8, u8::from(message.retain()));
    format!("{time},{topic},{qos},{retain},{},{binary}\r\n", csv_field(text))
}

/// In quotes where it must be (RFC 4180, section 2).
fn csv_field(text: &str) -> Cow<'_, str> {
    if text.contains(['"', ',', '\r', '\n']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
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
                // As with payloads: what is no text goes by another name, so that neither is taken for the other.
                match std::str::from_utf8(data) {
                    Ok(text) => object.insert("correlation_data".into(), json!(text)),
                    Err(_) => object.insert("correlation_data_hex".into(), json!(hexadecimal(data))),
                };
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

/// ISO 8601 in UTC.
fn iso_time(us: u64) -> String {
    let Moment { year, month, day, hour, minute, second, us, .. } = Moment::new(us);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{us:06}Z")
}

/// A time as people count, in UTC.
struct Moment {
    unix: u64,
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    us: u64,
}

impl Moment {
    /// The date is counted in the proleptic Gregorian calendar from 1 March of year 0, so that the leap day ends its year.
    fn new(us: u64) -> Self {
        let (unix, us) = (us / 1_000_000, us % 1_000_000);
        let (days, time) = (unix / 86_400 + 719_468, unix % 86_400);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self {
            unix,
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            hour: time / 3_600,
            minute: time / 60 % 60,
            second: time % 60,
            us,
        }
    }

    /// One conversion of strftime, as far as it is known here; @N is mosquitto's, for nanoseconds.
    fn strftime(&self, conversion: char) -> Option<String> {
        let Self { unix, year, month, day, hour, minute, second, us } = self;
        Some(match conversion {
            'Y' => format!("{year:04}"),
            'y' => format!("{:02}", year % 100),
            'm' => format!("{month:02}"),
            'd' => format!("{day:02}"),
            'H' => format!("{hour:02}"),
            'M' => format!("{minute:02}"),
            'S' => format!("{second:02}"),
            'N' => format!("{:09}", us * 1000),
            's' => unix.to_string(),
            'F' => format!("{year:04}-{month:02}-{day:02}"),
            'T' => format!("{hour:02}:{minute:02}:{second:02}"),
            'j' => format!("{:03}", self.day_of_year()),
            'z' => "+0000".to_owned(),
            'Z' => "UTC".to_owned(),
            _ => return None,
        })
    }

    fn day_of_year(&self) -> u64 {
        let is_leap = self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let leap_day = u64::from(is_leap && self.month > 2);
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        before.get(self.month as usize - 1).copied().unwrap_or_default() + leap_day + self.day
    }
}

/// Columns of a table.
const CSV_HEAD: &str = "timestamp,topic,qos,retain,payload,payload_hex\r\n";

/// Letters that may follow a % in a format.
const FIELDS: &str = "tplqrdmxXIUjJACRDEFPS";

/// Fields that a precision cuts: texts. mosquitto_sub leaves payloads and numbers whole, too.
const CUTTABLE: &str = "tICRPS";

/// A wider field is a mistake.
const WIDTH_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_table_are_quoted_where_they_must_be() {
        let quoted = ["plain", "a,b", "say \"hi\"", "two\nlines"].map(csv_field);
        assert_eq!(quoted, ["plain", "\"a,b\"", "\"say \"\"hi\"\"\"", "\"two\nlines\""]);
    }

    #[test]
    fn formats_are_taken_apart_and_what_is_unknown_is_refused() {
        let field = |letter| Part::Field(letter, Width::default());
        let parts = parse("%t\\t%p%%@@@H").ok().unwrap();
        assert_eq!(parts, [field('t'), Part::Text("\t".into()), field('p'), Part::Text("%@".into()), Part::Time('H')]);
        for format in ["%z", "%", "%5", "\\x", "\\", "@Q", "@", "%99999t"] {
            assert!(parse(format).is_err(), "{format}");
        }
    }

    #[test]
    fn fields_are_as_wide_as_asked() {
        let fit = |format: &str, value: &str| {
            let parts = parse(format).ok().unwrap();
            let [Part::Field(field, width)] = parts.as_slice() else { panic!("{parts:?} is not one field") };
            let mut line = Vec::new();
            width.fit(*field, value.into(), &mut line);
            String::from_utf8(line).unwrap()
        };
        for (format, value, printed) in [
            ("%05l", "6", "00006"),
            ("%5t", "é", "    é"),
            ("%-5t", "é", "é    "),
            ("%.2t", "äöü", "äö"),
            ("%-4.2t", "abc", "ab  "),
            ("%.1p", "abc", "abc"),
            ("%2t", "abc", "abc"),
        ] {
            assert_eq!(fit(format, value), printed, "{format}");
        }
    }

    #[test]
    fn times_are_calendar_dates() {
        assert_eq!(iso_time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(iso_time(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(iso_time(1_795_219_199_999_999), "2026-11-20T23:59:59.999999Z");
        let printed = |us, conversions: &str| -> String {
            conversions.chars().filter_map(|conversion| Moment::new(us).strftime(conversion)).collect()
        };
        assert_eq!(printed(951_782_400_000_001, "FTNjs"), "2000-02-2900:00:00000001000060951782400");
        assert_eq!(printed(1_795_219_199_999_999, "yjz"), "26324+0000");
    }
}
