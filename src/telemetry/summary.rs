//! A table in words, and in HTML for notebooks: rows, rate, and for each topic its rate, its last value and a sparkline.

use std::{collections::HashMap, fmt::Write as _};

use arrow_array::{
    Array, ArrayRef,
    cast::AsArray,
    types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType},
};
use arrow_schema::DataType;

use super::{
    Table,
    column::{is_present, render},
    delivery::is_delivery,
    messages::Messages,
    rows::{RECEIVED_AT, TOPIC},
    table::type_name,
};

/// What a table holds, for people.
#[derive(Debug)]
pub struct Summary {
    rows: usize,
    bytes: usize,
    columns: Vec<(String, String)>,
    seconds: f64,
    /// The column of last values.
    shown: Option<String>,
    topics: Vec<Topic>,
    topics_in_all: usize,
}

#[derive(Debug, Default)]
struct Topic {
    name: String,
    rows: usize,
    last: String,
    values: Vec<f64>,
}

impl Summary {
    /// Looks through a table once.
    pub fn of(table: &Table) -> Self {
        let columns: Vec<(String, String)> =
            table.schema().fields().iter().map(|field| (field.name().clone(), type_name(field))).collect();
        let shown = shown_column(table);
        let mut topics: HashMap<String, Topic> = HashMap::new();
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        for batch in table.batches() {
            let times = batch
                .column_by_name(RECEIVED_AT)
                .and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
            if let Some(times) = times {
                for time in times.values() {
                    (first, last) = (first.min(*time), last.max(*time));
                }
            }
            let Ok(messages) = Messages::with(batch, Some(TOPIC), None) else { continue };
            let value = shown.as_ref().and_then(|name| batch.schema_ref().column_with_name(name));
            let value = value.map(|(at, field)| (field, batch.column(at)));
            for row in 0..batch.num_rows() {
                let name = messages.topic(row);
                let topic = match topics.get_mut(name) {
                    Some(topic) => topic,
                    None => topics
                        .entry(name.to_owned())
                        .or_insert_with(|| Topic { name: name.to_owned(), ..Topic::default() }),
                };
                topic.rows += 1;
                if let Some((field, array)) = value.filter(|(_, array)| is_present(array, row)) {
                    match number(array, row) {
                        Some(number) => topic.add(number),
                        None => topic.last = shown_value(field, array, row),
                    }
                }
            }
        }
        let topics_in_all = topics.len();
        let mut topics: Vec<Topic> = topics.into_values().collect();
        topics.sort_by(|left, right| right.rows.cmp(&left.rows).then_with(|| left.name.cmp(&right.name)));
        topics.truncate(TOPICS_SHOWN);
        let seconds = if last > first { (last - first) as f64 / 1e6 } else { 0.0 };
        Self { rows: table.rows(), bytes: table.bytes(), columns, seconds, shown, topics, topics_in_all }
    }

    /// A few lines.
    pub fn text(&self) -> String {
        let mut text = format!("Table({})", self.headline());
        for (name, data_type) in self.columns.iter().take(COLUMNS_SHOWN) {
            write!(text, "\n  {name}: {data_type}").expect("a string takes all");
        }
        if self.columns.len() > COLUMNS_SHOWN {
            write!(text, "\n  and {} more columns", self.columns.len() - COLUMNS_SHOWN).expect("a string takes all");
        }
        text
    }

    /// A table for a notebook. It has no scripts, and all that came from the network is escaped.
    pub fn html(&self) -> String {
        let mut html = format!("<div class=\"ferromq-table\"><p><b>{}</b></p>", escape(&self.headline()));
        html.push_str("<table><thead><tr><th>topic</th><th>rows</th><th>per second</th>");
        if let Some(shown) = &self.shown {
            write!(html, "<th>last {0}</th><th>{0}</th>", escape(shown)).expect("a string takes all");
        }
        html.push_str("</tr></thead><tbody>");
        for topic in &self.topics {
            let rate = if self.seconds > 0.0 { rounded(topic.rows as f64 / self.seconds) } else { String::new() };
            write!(html, "<tr><td>{}</td><td>{}</td><td>{rate}</td>", escape(&topic.name), grouped(topic.rows as u64))
                .expect("a string takes all");
            if self.shown.is_some() {
                let last = topic.values.last().map_or_else(|| topic.last.clone(), |value| rounded(*value));
                write!(html, "<td>{}</td><td>{}</td>", escape(&last), sparkline(&topic.values))
                    .expect("a string takes all");
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table>");
        if self.topics_in_all > self.topics.len() {
            write!(html, "<p>and {} more topics</p>", self.topics_in_all - self.topics.len())
                .expect("a string takes all");
        }
        let columns: Vec<String> =
            self.columns.iter().take(COLUMNS_SHOWN).map(|(name, data_type)| format!("{name}: {data_type}")).collect();
        write!(html, "<p><small>{}</small></p></div>", escape(&columns.join(", "))).expect("a string takes all");
        html
    }

    /// Rows, topics, rate and memory, in a line.
    pub fn headline(&self) -> String {
        let rate = if self.seconds > 0.0 {
            format!(", {} per second", rounded(self.rows as f64 / self.seconds))
        } else {
            String::new()
        };
        let topics = if self.topics_in_all == 1 { "topic" } else { "topics" };
        format!(
            "{} rows, {} {topics}{rate}, {:.1} MB",
            grouped(self.rows as u64),
            grouped(self.topics_in_all as u64),
            self.bytes as f64 / 1e6
        )
    }
}

impl Topic {
    fn add(&mut self, value: f64) {
        // Twice as many as are drawn, so that dropping the older half is rare.
        if self.values.len() >= 2 * POINTS_SHOWN {
            self.values.drain(..POINTS_SHOWN);
        }
        self.values.push(value);
    }
}

/// The last values of one topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The topic.
    pub topic: String,
    /// When and what, Unix time in milliseconds.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// The values of the topics with most rows, of the column that a [`Summary`] shows. A topic with more than
    /// `points_max` is thinned out: of each stretch the least and the greatest stay, so that no peak is lost.
    pub fn of(table: &Table, points_max: usize) -> Vec<Self> {
        let Some(shown) = shown_column(table) else { return Vec::new() };
        let mut topics: HashMap<&str, Vec<(f64, f64)>> = HashMap::new();
        for batch in table.batches() {
            let Ok(messages) = Messages::with(batch, Some(TOPIC), None) else { continue };
            let Some(values) = batch.column_by_name(&shown) else { continue };
            for row in (0..batch.num_rows()).filter(|row| is_present(values, *row)) {
                if let Some(value) = number(values, row).filter(|value| value.is_finite()) {
                    let time = messages.received_at_us(row) as f64 / 1e3;
                    topics.entry(messages.topic(row)).or_default().push((time, value));
                }
            }
        }
        let mut series: Vec<(&str, Vec<(f64, f64)>)> = topics.into_iter().collect();
        series.sort_by(|(left, some), (right, more)| more.len().cmp(&some.len()).then_with(|| left.cmp(right)));
        series.truncate(LINES_SHOWN);
        let thin =
            |(topic, points): (&str, Vec<_>)| Self { topic: topic.to_owned(), points: thinned(points, points_max) };
        series.into_iter().map(thin).collect()
    }
}

fn thinned(points: Vec<(f64, f64)>, points_max: usize) -> Vec<(f64, f64)> {
    if points.len() <= points_max {
        return points;
    }
    let stretch = points.len().div_ceil(points_max.max(2) / 2);
    let mut thin = Vec::with_capacity(points_max);
    for part in points.chunks(stretch) {
        let by_value = |(_, left): &&(f64, f64), (_, right): &&(f64, f64)| left.total_cmp(right);
        let (least, most) = (part.iter().min_by(by_value), part.iter().max_by(by_value));
        if let (Some(least), Some(most)) = (least, most) {
            thin.extend(if least.0 <= most.0 { [*least, *most] } else { [*most, *least] });
        }
    }
    thin
}

/// The first column of numbers after those that all tables have, else the first of anything.
fn shown_column(table: &Table) -> Option<String> {
    let is_own = |data_type: &DataType| {
        !matches!(data_type, DataType::Dictionary(..) | DataType::Timestamp(..) | DataType::Null)
    };
    let fields: Vec<_> =
        table.schema().fields().iter().filter(|field| is_own(field.data_type()) && !is_delivery(field)).collect();
    let by_name = |name: &str| fields.iter().find(|field| field.name() == name && field.data_type().is_numeric());
    let float = || fields.iter().find(|field| field.data_type().is_floating());
    let number = || fields.iter().find(|field| field.data_type().is_numeric());
    by_name("value").or_else(float).or_else(number).or_else(|| fields.first()).map(|field| field.name().clone())
}

fn number(array: &ArrayRef, row: usize) -> Option<f64> {
    match array.data_type() {
        DataType::Float64 => Some(array.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => Some(f64::from(array.as_primitive::<Float32Type>().value(row))),
        DataType::Int64 => Some(array.as_primitive::<Int64Type>().value(row) as f64),
        _ => None,
    }
}

fn shown_value(field: &arrow_schema::Field, array: &ArrayRef, row: usize) -> String {
    let mut text = Vec::new();
    if array.data_type() == &DataType::Binary {
        text.extend_from_slice(array.as_binary::<i32>().value(row));
    } else {
        render(field, array, row, &mut text);
    }
    String::from_utf8_lossy(text.get(..VALUE_SHOWN_BYTES).unwrap_or(&text)).into_owned()
}

/// The last values as a line.
fn sparkline(values: &[f64]) -> String {
    let values = &values[values.len().saturating_sub(POINTS_SHOWN)..];
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) =
        finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if finite().count() < 2 {
        return String::new();
    }
    let span = if high > low { high - low } else { 1.0 };
    let mut points = String::new();
    for (at, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
        let x = at as f64 * 120.0 / (values.len() - 1) as f64;
        let y = 22.0 - (value - low) / span * 20.0;
        write!(points, "{x:.1},{y:.1} ").expect("a string takes all");
    }
    format!(
        "<svg width=\"122\" height=\"24\" role=\"img\" aria-label=\"{} to {}\"><polyline fill=\"none\" stroke=\"currentColor\" \
         stroke-width=\"1.5\" points=\"{}\"/></svg>",
        rounded(low),
        rounded(high),
        points.trim_end()
    )
}

/// Three digits that matter, or all of a whole number.
fn rounded(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => value.to_string(),
        size if size >= 1e15 => format!("{value:.3e}"),
        size if size >= 1000.0 => {
            format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped((size.round() as i64).unsigned_abs()))
        }
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        size if size >= 0.001 => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Topics in the table, those of most rows.
const TOPICS_SHOWN: usize = 20;

/// Topics in a chart.
const LINES_SHOWN: usize = 9;

/// Columns whose types are named.
const COLUMNS_SHOWN: usize = 40;

/// Points of a sparkline.
const POINTS_SHOWN: usize = 60;

/// Bytes of a last value that is no number.
const VALUE_SHOWN_BYTES: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Decoder, Pattern, Rows, RowsOptions};

    #[test]
    fn a_table_is_shown_by_topic_with_nothing_of_the_network_taken_for_markup() {
        let mut rows = Rows::new(RowsOptions::new(vec![Pattern::parse("#").unwrap()], Decoder::Json));
        for at in 0..3_u64 {
            rows.push(at * 1_000_000, "a/<b>", format!("{{\"value\": {at}.5, \"<i>\": 1}}").as_bytes()).unwrap();
        }
        rows.push(2_000_000, "b", b"{\"value\": 7}").unwrap();
        let summary = Summary::of(&Table::unify(vec![rows.finish()]).unwrap());
        assert!(summary.text().starts_with("Table(4 rows, 2 topics, 2.00 per second, "), "{}", summary.text());
        let html = summary.html();
        assert!(html.contains("<td>a/&lt;b&gt;</td><td>3</td><td>1.50</td><td>2.50</td><td><svg"), "{html}");
        assert!(html.contains("points=\"0.0,22.0 60.0,12.0 120.0,2.0\""), "{html}");
        assert!(html.contains("&lt;i&gt;: int64") && !html.contains("<i>"), "{html}");
    }

    #[test]
    fn a_line_that_is_thinned_out_keeps_its_peaks() {
        let points: Vec<(f64, f64)> =
            (0..1000).map(|at| (f64::from(at), if at == 777 { 99.0 } else { f64::from(at % 7) })).collect();
        let thin = thinned(points, 100);
        assert!(thin.len() <= 100 && thin.contains(&(777.0, 99.0)));
        assert!(thin.is_sorted_by(|left, right| left.0 <= right.0));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 1.234, 123.45, 1_234_567.0, 0.012_34, -4_321.0].map(rounded),
            ["0", "1.23", "123.5", "1,234,567", "0.0123", "-4,321"]
        );
    }
}
