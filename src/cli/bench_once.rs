//! `ferromq bench crowd` and `ferromq bench retained`: loads that end by themselves.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{EXIT_OK, Outcome, bench_target::Target, connection::random};
use crate::bench::{Crowd, CrowdReport, Retained, RetainedReport, Step, Usage};

/// Loads that end by themselves.
#[derive(Debug, Subcommand)]
#[command(disable_help_flag = true)]
pub(super) enum Once {
    /// Many connections: what it takes to accept them, to hold them and to see them go.
    Crowd(CrowdArguments),
    /// Many retained messages for one subscriber.
    Retained(RetainedArguments),
}

/// What both have in common.
#[derive(Debug, Args)]
struct Common {
    /// Prints help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    target: Target,
    /// Process of the broker on this machine, to report its processor time and memory (Linux).
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `ferromq bench crowd`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct CrowdArguments {
    #[command(flatten)]
    common: Common,
    /// How many; the broker and this process need a descriptor for each.
    #[arg(short = 'n', long, default_value_t = 1000)]
    connections: u32,
    /// Threads that open them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// CONNECTs of a thread that are under way at a time.
    #[arg(long, default_value_t = 64)]
    opening: u32,
    /// Keep-alive, seconds; 0 is none.
    #[arg(short, long, default_value_t = 60)]
    keep_alive: u16,
    /// Seconds for which nothing is sent.
    #[arg(long, default_value_t = 1.0)]
    idle: f64,
    /// Each subscribes to a topic of its own, and gets one message.
    #[arg(long)]
    subscribe: bool,
    /// Each leaves a will and breaks off.
    #[arg(long)]
    wills: bool,
}

/// Arguments of `ferromq bench retained`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct RetainedArguments {
    #[command(flatten)]
    common: Common,
    /// Retained messages, each with a topic of its own.
    #[arg(short = 'n', long, default_value_t = 10_000)]
    count: u32,
    /// Bytes of each payload.
    #[arg(short = 's', long = "size", default_value_t = 64)]
    payload_bytes: usize,
    /// Subscribers, one after the other; the mean is told.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
}

pub(super) fn run(once: Once) -> Outcome {
    match once {
        Once::Crowd(arguments) => arguments.run(),
        Once::Retained(arguments) => arguments.run(),
    }
}

impl CrowdArguments {
    fn run(self) -> Outcome {
        let crowd = Crowd {
            server: self.common.target.address()?,
            version: self.common.target.version,
            connections: self.connections,
            threads: self.threads,
            opening: self.opening,
            keep_alive: self.keep_alive,
            idle: Duration::try_from_secs_f64(self.idle).unwrap_or_default(),
            subscribe: self.subscribe,
            wills: self.wills,
            run: random() as u32,
            broker: self.common.broker_pid,
        };
        let report = crowd.run()?;
        if self.common.json {
            println!("{:#}", crowd_as_json(&crowd, &report));
        } else {
            print_crowd(&crowd, &report);
        }
        Ok(EXIT_OK)
    }
}

fn steps(report: &CrowdReport) -> impl Iterator<Item = (&'static str, Step)> {
    [
        ("connect", Some(report.connect)),
        ("subscribe", report.subscribe),
        ("idle", Some(report.idle)),
        ("deliver", report.deliver),
        ("wills", report.wills),
    ]
    .into_iter()
    .filter_map(|(name, step)| Some((name, step?)))
}

fn print_crowd(crowd: &Crowd, report: &CrowdReport) {
    println!("{} connections", crowd.connections);
    for (name, step) in steps(report) {
        let each = |usage: Usage| usage.cpu.as_secs_f64() * 1e6 / f64::from(crowd.connections);
        let broker =
            step.broker.map_or_else(String::new, |usage| format!(", broker {:.2} us of CPU each", each(usage)));
        let own = step.own.map_or_else(String::new, |usage| format!(", load {:.2} us", each(usage)));
        println!("{name:<12} {:>9.3} s{broker}{own}", step.elapsed.as_secs_f64());
    }
    if let Some(bytes) = report.bytes_each {
        println!("memory       {bytes:>9.0} bytes of the broker each");
    }
}

fn crowd_as_json(crowd: &Crowd, report: &CrowdReport) -> Value {
    let mut found = json!({
        "connections": crowd.connections,
        "load_threads": crowd.threads,
        "keep_alive": crowd.keep_alive,
        "bytes_per_connection": report.bytes_each,
    });
    for (name, step) in steps(report) {
        found[format!("{name}_s")] = json!(step.elapsed.as_secs_f64());
        found[format!("{name}_broker_cpu_s")] = json!(step.broker.map(cpu));
        found[format!("{name}_load_cpu_s")] = json!(step.own.map(cpu));
    }
    found
}

impl RetainedArguments {
    fn run(self) -> Outcome {
        let retained = Retained {
            server: self.common.target.address()?,
            version: self.common.target.version,
            count: self.count,
            payload_bytes: self.payload_bytes,
            repeat: self.repeat,
            run: random() as u32,
            broker: self.common.broker_pid,
        };
        let report = retained.run()?;
        if self.common.json {
            println!("{:#}", retained_as_json(&retained, &report));
            return Ok(EXIT_OK);
        }
        println!("{} retained messages of {} B", self.count, self.payload_bytes);
        println!("to one subscriber {:.1} ms", report.elapsed.as_secs_f64() * 1e3);
        if let Some(usage) = report.broker {
            println!("broker            {:.1} ms of CPU", cpu(usage) * 1e3);
        }
        if let Some(bytes) = report.bytes_each {
            println!("memory            {bytes:.0} bytes each");
        }
        Ok(EXIT_OK)
    }
}

fn retained_as_json(retained: &Retained, report: &RetainedReport) -> Value {
    let (stored, stored_in) = report.stored;
    json!({
        "received": retained.count,
        "payload_bytes": retained.payload_bytes,
        "elapsed_s": report.elapsed.as_secs_f64(),
        "messages_per_s": f64::from(retained.count) / report.elapsed.as_secs_f64(),
        "broker_cpu_s": report.broker.map(cpu),
        "load_cpu_s": report.own.map(cpu),
        "load_threads": 1,
        "stored_s": stored_in.as_secs_f64(),
        "stored_broker_cpu_s": stored.map(cpu),
        "bytes_per_message": report.bytes_each,
    })
}

fn cpu(usage: Usage) -> f64 {
    usage.cpu.as_secs_f64()
}
