//! The `ferromq` command: `broker`, `pub`, `sub` and `rr`. One implementation, reached as the cargo binary and as the
//! console script that pip installs.

mod broker;
mod connection;
mod format;
mod log;
mod publish;
mod request;
mod subscribe;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// MQTT 3.1, 3.1.1 and 5.0: broker and clients.
#[derive(Debug, Parser)]
#[command(name = "ferromq", version, about, propagate_version = false)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a broker until SIGINT or SIGTERM.
    Broker(broker::Arguments),
    /// Publishes messages.
    Pub(publish::Arguments),
    /// Subscribes and prints what comes.
    Sub(subscribe::Arguments),
    /// Sends a request and prints the responses (MQTT 5 request/response).
    Rr(request::Arguments),
}

/// Runs the command with these arguments (the program's name first) and returns its exit code: 0 when all went well,
/// 1 when something failed, 2 when the arguments make no sense, 27 when `-W` ran out.
pub fn main<I, T>(arguments: I) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let code = if error.use_stderr() { EXIT_USAGE } else { EXIT_OK };
            return if error.print().is_ok() { code } else { EXIT_FAILED };
        }
    };
    let result = match arguments.command {
        Command::Broker(arguments) => broker::run(arguments),
        Command::Pub(arguments) => in_runtime(unless_interrupted(publish::run(arguments))),
        Command::Sub(arguments) => in_runtime(subscribe::run(arguments)),
        Command::Rr(arguments) => in_runtime(unless_interrupted(request::run(arguments))),
    };
    result.unwrap_or_else(|failure| {
        eprintln!("ferromq: {}", failure.message);
        failure.code
    })
}

/// As [`main`], for the binary.
pub fn main_from_env() -> ExitCode {
    ExitCode::from(main(std::env::args_os()))
}

/// Why the command failed.
#[derive(Debug)]
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_USAGE }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { message: error.to_string(), code: EXIT_FAILED }
    }
}

/// What a command comes to.
type Outcome = Result<u8, Failure>;

/// Runs a client command on a runtime of its own.
fn in_runtime(command: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Does something until it is done or the process is asked to end, which is no failure.
async fn unless_interrupted(work: impl Future<Output = Outcome>) -> Outcome {
    let ended = interrupted()?;
    tokio::select! {
        outcome = work => outcome,
        signal = ended => signal.map(|()| EXIT_OK),
    }
}

/// Listens for the wish that the process end, from the call on and not only when the future is first polled: whoever
/// reads `ready` may send the signal at once. The future is done when it has come.
#[cfg(unix)]
fn interrupted() -> Result<impl Future<Output = Result<(), Failure>>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

#[cfg(windows)]
fn interrupted() -> Result<impl Future<Output = Result<(), Failure>>, Failure> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
        Ok(())
    })
}

const EXIT_OK: u8 = 0;
const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// What mosquitto_sub and mosquitto_rr exit with when `-W` runs out.
const EXIT_TIMEOUT: u8 = 27;
