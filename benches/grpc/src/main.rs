//! A unary echo by gRPC: a server, and a load of many connections with one call under way on each.
//!
//! `grpc-echo serve --port PORT` and `grpc-echo load -p PORT ...`, whose report has the names of `ferromq bench --json`,
//! so that benches/e2e reads both alike. The service is written by hand, as tonic-build would, so that no protoc is needed.

mod echo;
mod load;
mod usage;

use std::{collections::HashMap, process::ExitCode};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let done = options(words).and_then(|options| match verb.as_str() {
        "serve" => echo::serve(port(&options)?),
        "load" => load::run(&load::Plan::new(&options)?),
        _ => Err("usage: grpc-echo serve --port PORT | grpc-echo load --port PORT [--connections N] [--size BYTES] \
                  [--seconds S] [--warmup S] [--broker-pid PID]"
            .to_owned()),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("grpc-echo: {why}");
            ExitCode::FAILURE
        }
    }
}

/// `--name value`, again and again.
fn options(mut words: impl Iterator<Item = String>) -> Result<HashMap<String, String>, String> {
    let mut found = HashMap::new();
    while let Some(name) = words.next() {
        let Some(plain) = name.strip_prefix("--") else { return Err(format!("{name:?} is no option")) };
        let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
        found.insert(plain.to_owned(), value);
    }
    Ok(found)
}

fn port(options: &HashMap<String, String>) -> Result<u16, String> {
    let port = options.get("port").ok_or("--port is missing")?;
    port.parse().map_err(|error| format!("--port {port}: {error}"))
}
