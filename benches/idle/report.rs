//! The report: Markdown for people, JSON with each run for machines.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{
    in_process::InProcess,
    load::{Idle, KEEP_ALIVE_SECONDS, Measured, Plan},
};

/// A row of the table: its name, and what it takes from a run.
type Row = (&'static str, fn(&Measured) -> f64);

const ROWS: [Row; 13] = [
    ("resident bytes, connected and subscribed", |m| m.bytes),
    ("resident bytes, connected", |m| m.bytes_unsubscribed),
    ("resident bytes left when all have gone", |m| m.left_bytes),
    ("CPU a connect, us", |m| m.connect_us),
    ("CPU a subscribe, us", |m| m.subscribe_us),
    ("connects a second", |m| m.connects_per_second),
    ("CPU while nothing is said, % of a core", |m| m.idle.silent_percent),
    ("CPU while they ping, % of a core", |m| m.idle.percent),
    ("CPU of a PINGREQ that comes alone, us", |m| m.idle.ping_us),
    ("CPU of one message to each, us", |m| m.deliver_us),
    ("time of one message to each, ms", |m| m.deliver_ms),
    ("CPU of a close, all at once, us", |m| m.close_us),
    ("CPU of a close with a will, us", |m| m.will_us),
];

/// The table, medians of all runs.
pub(crate) fn markdown(
    plan: &Plan,
    brokers: &[(String, Vec<Measured>)],
    relayed: &[Idle],
    in_process: &[InProcess],
) -> String {
    let mut text = String::new();
    let runs = brokers.first().map_or(0, |(_, runs)| runs.len());
    let _ = writeln!(
        text,
        "{} connections with one subscription; medians of {runs} interleaved runs. While they ping, {:.0} PINGREQ come in a \
         second, one by one, as many as {} connections send with a keep-alive of {KEEP_ALIVE_SECONDS} s.\n",
        plan.connections,
        plan.pings_per_second(),
        plan.pings_as,
    );
    let names: Vec<&str> = brokers.iter().map(|(name, _)| name.as_str()).collect();
    let ratio = if brokers.len() == 2 { " ratio |" } else { "" };
    let _ = writeln!(text, "| per connection | {} |{ratio}", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(names.len() + usize::from(brokers.len() == 2)));
    for (name, value) in ROWS {
        let medians: Vec<f64> = brokers.iter().map(|(_, runs)| median(runs.iter().map(value))).collect();
        let cells: Vec<String> = medians.iter().map(|median| number(*median)).collect();
        let ratio = match medians[..] {
            [ours, theirs] if theirs > 0.0 => format!(" {:.2} |", ours / theirs),
            [_, _] => " |".to_owned(),
            _ => String::new(),
        };
        let _ = writeln!(text, "| {name} | {} |{ratio}", cells.join(" | "));
    }
    if !relayed.is_empty() {
        let percent = number(median(relayed.iter().map(|idle| idle.percent)));
        let ping_us = number(median(relayed.iter().map(|idle| idle.ping_us)));
        let _ = writeln!(
            text,
            "\nA relay, which answers PINGREQ and does nothing else: {percent} % of a core while they ping, {ping_us} us for each."
        );
    }
    if !in_process.is_empty() {
        text.push_str("\n| in-process connections (both ends) | bytes | CPU a connect, us | CPU a ping, us | idle, % of a core at 60 s | CPU of a message, us | all have one after, ms |\n|---:|---:|---:|---:|---:|---:|---:|\n");
    }
    for row in in_process {
        let idle = row.connections as f64 / KEEP_ALIVE_SECONDS as f64 * row.ping_us / 1e6 * 100.0;
        let numbers = [row.bytes, row.connect_us, row.ping_us, idle, row.deliver_us, row.deliver_ms].map(number);
        let _ = writeln!(text, "| {} | {} |", row.connections, numbers.join(" | "));
    }
    text
}

/// Every run.
pub(crate) fn json(
    plan: &Plan,
    brokers: &[(String, Vec<Measured>)],
    relayed: &[Idle],
    in_process: &[InProcess],
) -> String {
    let runs = |runs: &[Measured]| -> Value {
        ROWS.iter().map(|(name, value)| ((*name).to_owned(), runs.iter().map(value).collect::<Value>())).collect()
    };
    let brokers: Value = brokers.iter().map(|(name, measured)| (name.clone(), runs(measured))).collect();
    let in_process: Value = in_process
        .iter()
        .map(|row| {
            json!({
                "connections": row.connections, "bytes": row.bytes, "connect_us": row.connect_us, "ping_us": row.ping_us,
                "deliver_us": row.deliver_us, "deliver_ms": row.deliver_ms,
            })
        })
        .collect();
    let relayed: Value =
        relayed.iter().map(|idle| json!({ "percent": idle.percent, "ping_us": idle.ping_us })).collect();
    let report = json!({
        "connections": plan.connections, "keep_alive_seconds": KEEP_ALIVE_SECONDS, "pings_as": plan.pings_as,
        "brokers": brokers, "relay": relayed, "in_process": in_process,
    });
    format!("{report:#}\n")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
