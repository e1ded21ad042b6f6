//! One client library does one thing, alone in its process: `clients LIBRARY receive|publish HOST PORT COUNT QOS`.
//!
//! Prints `ready` when it is connected, waits for a line, works, and prints what that took as JSON: messages, and
//! nanoseconds of processor time (all threads of the process) and of a clock on the wall.

mod cost;
mod ferro;
mod rumqtt;

use std::{env, error::Error, io, process::ExitCode};

/// What is done.
struct Task {
    host: String,
    port: u16,
    count: u64,
    qos: u8,
}

type Outcome = Result<(), Box<dyn Error>>;

const TOPIC: &str = "bench/clients";

/// The last message, with QoS 1: of the others the broker drops some for a receiver that is too slow.
const END: &str = "bench/end";
const PAYLOAD: &[u8] = b"0123456789abcdef";

/// Publications that may be unacknowledged.
const WINDOW: usize = 100;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clients: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [library, verb, host, port, count, qos] = arguments.as_slice() else {
        return Err("usage: clients ferromq|rumqttc receive|publish HOST PORT COUNT QOS".into());
    };
    let task = Task { host: host.clone(), port: port.parse()?, count: count.parse()?, qos: qos.parse()? };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match (library.as_str(), verb.as_str()) {
        ("ferromq", "receive") => runtime.block_on(ferro::receive(&task)),
        ("ferromq", "publish") => runtime.block_on(ferro::publish(&task)),
        ("rumqttc", "receive") => runtime.block_on(rumqtt::receive(&task)),
        ("rumqttc", "publish") => runtime.block_on(rumqtt::publish(&task)),
        _ => Err(format!("no library {library}, or it does not {verb}").into()),
    }
}

/// Says that it is connected, and waits for the word to begin.
fn wait_for_word() -> io::Result<()> {
    println!("ready");
    io::stdin().read_line(&mut String::new()).map(drop)
}
