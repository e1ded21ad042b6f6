//! What connections cost while they do nothing, and when they come and go: memory and CPU of a broker's process.
//!
//! Starts `ferromq broker`, and mosquitto where it is installed, each in a process of its own, and holds as many real
//! connections to it as one process may have. Then the same with in-process connections, which need no descriptors, for
//! the slope. Prints a Markdown table and writes JSON. CPU comes from the kernel's accounting of the broker's threads, memory
//! is what is resident (`VmRSS`); the clock on the wall decides nothing.
//!
//! `make bench-idle`, or `cargo bench --bench idle --no-default-features --features cli -- [--connections N] [--rounds N]
//! [--idle-seconds N] [--pings-as N] [--in-process N,N] [--broker PATH] [--relay PATH] [--json FILE]`. `cargo test` runs it
//! once, small.
#![allow(clippy::disallowed_methods)] // it measures what happens while time goes by

mod broker;
mod in_process;
mod load;
mod report;

use std::{error::Error, path::PathBuf};

use broker::Broker;
use load::{Idle, Measured, Plan};

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::from_args()?;
    if let Some(connections) = options.in_process_child {
        return in_process::run_child(connections);
    }
    let mut rows: Vec<(String, Vec<Measured>)> = Vec::new();
    let mut relayed: Vec<Idle> = Vec::new();
    for round in 0..options.rounds {
        for (at, command) in broker::commands(&options.broker).into_iter().enumerate() {
            if at >= rows.len() {
                rows.push((command.name.clone(), Vec::new()));
            }
            let broker = Broker::start(&command)?;
            eprintln!("round {}: {} with {} connections", round + 1, command.name, options.plan.connections);
            rows[at].1.push(load::run(&broker, &options.plan)?);
        }
        if let Some(program) = &options.relay {
            eprintln!("round {}: a relay with {} connections", round + 1, options.plan.connections);
            relayed.push(load::run_relay(&Broker::start(&broker::relay(program))?, &options.plan)?);
        }
    }
    let in_process = options.in_process.iter().map(|n| in_process::measure(*n)).collect::<Result<Vec<_>, _>>()?;
    print!("{}", report::markdown(&options.plan, &rows, &relayed, &in_process));
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&options.plan, &rows, &relayed, &in_process))?;
    }
    Ok(())
}

/// What was asked for on the command line.
#[derive(Debug)]
struct Options {
    plan: Plan,
    rounds: usize,
    /// Numbers of in-process connections to measure.
    in_process: Vec<usize>,
    /// This is the process that measures them.
    in_process_child: Option<usize>,
    broker: PathBuf,
    /// A program that does the least, whose pings are to be measured as well.
    relay: Option<PathBuf>,
    json: Option<PathBuf>,
}

impl Options {
    fn from_args() -> Result<Self, Box<dyn Error>> {
        let mut arguments = std::env::args().skip(1).peekable();
        // Cargo says `--bench` when it measures; `cargo test` does not.
        let is_test = !std::env::args().any(|argument| argument == "--bench");
        let mut options = Self {
            plan: if is_test { Plan::SMALL } else { Plan::FULL },
            rounds: if is_test { 1 } else { 3 },
            in_process: if is_test { vec![200] } else { vec![100_000, 1_000_000] },
            in_process_child: None,
            broker: env!("CARGO_BIN_EXE_ferromq").into(),
            relay: None,
            json: None,
        };
        while let Some(name) = arguments.next() {
            if matches!(name.as_str(), "--bench" | "--test") {
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--connections" => options.plan.connections = value.parse()?,
                "--rounds" => options.rounds = value.parse()?,
                "--idle-seconds" => options.plan.idle_seconds = value.parse()?,
                "--pings-as" => options.plan.pings_as = value.parse()?,
                "--in-process" => {
                    let numbers = value.split(',').filter(|number| !number.is_empty());
                    options.in_process = numbers.map(str::parse).collect::<Result<_, _>>()?;
                }
                "--in-process-child" => options.in_process_child = Some(value.parse()?),
                "--broker" => options.broker = value.into(),
                "--relay" => options.relay = Some(value.into()),
                "--json" => options.json = Some(value.into()),
                _ => {
                    return Err(
                        format!("{name} is not an option of this bench; see the top of benches/idle/main.rs").into()
                    );
                }
            }
        }
        Ok(options)
    }
}
