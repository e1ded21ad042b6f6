//! The `ferromq` command: `broker`, `pub`, `sub`, `rr`, `top`, `bench`, `record` and `replay`. One implementation,
//! reached as the cargo binary and as the console script that pip installs.

mod bench;
mod bench_once;
mod bench_target;
mod broker;
mod connection;
mod format;
mod log;
mod packets;
mod payload;
mod plot;
mod publish;
#[cfg(feature = "telemetry")]
mod record;
#[cfg(feature = "telemetry")]
mod replay;
mod request;
mod subscribe;
mod tls;
mod top;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    client::{self, CloseReason},
    codec::Version,
};

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
    /// Checks a broker's configuration file, and prints what is in effect.
    Check(broker::CheckArguments),
    /// Publishes messages.
    Pub(Box<publish::Arguments>),
    /// Subscribes and prints what comes.
    Sub(Box<subscribe::Arguments>),
    /// Sends a request and prints the responses (MQTT 5 request/response).
    Rr(Box<request::Arguments>),
    /// Shows what goes through a broker: topics by rate, clients, memory.
    Top(Box<top::Arguments>),
    /// Loads a broker and reports rates, latencies, losses and duplicates.
    Bench(Box<bench::Arguments>),
    /// Records messages into Parquet files.
    #[cfg(feature = "telemetry")]
    Record(Box<record::Arguments>),
    /// Publishes recorded messages again, in their order and time.
    #[cfg(feature = "telemetry")]
    Replay(Box<replay::Arguments>),
}

impl Command {
    /// Whether failures are to be told by the exit code alone.
    fn is_quiet(&self) -> bool {
        match self {
            Self::Broker(_) | Self::Check(_) | Self::Bench(_) => false,
            Self::Top(arguments) => arguments.connection.quiet,
            Self::Pub(arguments) => arguments.connection.quiet,
            Self::Sub(arguments) => arguments.connection.quiet,
            Self::Rr(arguments) => arguments.connection.quiet,
            #[cfg(feature = "telemetry")]
            Self::Record(arguments) => arguments.connection.quiet,
            #[cfg(feature = "telemetry")]
            Self::Replay(arguments) => arguments.connection.quiet,
        }
    }
}

/// Runs the command with these arguments (the program's name first) and returns its exit code, where mosquitto's tools
/// have one the same: 0 when all went well, 1 when something failed, 2 when the arguments make no sense, 7 when the
/// connection was lost, 27 when `-W` ran out, the code of CONNACK when the server refused the connection (4 and 5
/// before MQTT 5, 134 and 135 since, are credentials), and 128 and the signal's number for `pub` when one ended it.
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
    let is_quiet = arguments.command.is_quiet();
    let result = match arguments.command {
        Command::Broker(arguments) => broker::run(arguments),
        Command::Check(arguments) => broker::check(arguments),
        Command::Pub(arguments) => in_runtime(unless_interrupted(publish::run(*arguments), |signal| 128 + signal)),
        Command::Sub(arguments) => in_runtime(subscribe::run(*arguments)),
        Command::Top(arguments) => in_runtime(top::run(*arguments)),
        Command::Bench(arguments) => in_runtime(bench::run(*arguments)),
        Command::Rr(arguments) => in_runtime(unless_interrupted(request::run(*arguments), |_| EXIT_OK)),
        #[cfg(feature = "telemetry")]
        Command::Record(arguments) => in_runtime(record::run(*arguments)),
        #[cfg(feature = "telemetry")]
        Command::Replay(arguments) => in_runtime(unless_interrupted(replay::run(*arguments), |signal| 128 + signal)),
    };
    result.unwrap_or_else(|failure| {
        if let Some(message) = failure.message.filter(|_| !is_quiet) {
            complain(&message);
        }
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
    /// What to say about it, if anything.
    message: Option<String>,
    code: u8,
}

impl Failure {
    fn new(message: impl Into<String>, code: u8) -> Self {
        Self { message: Some(message.into()), code }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self::new(message, EXIT_USAGE)
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let any: &(dyn std::error::Error + 'static) = &error;
        if let Some(error) = any.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            // Whoever reads our output has had enough, as `head` has. Sockets' errors come inside the client's.
            return Self { message: None, code: EXIT_OK };
        }
        let code = any.downcast_ref::<client::Error>().map_or(EXIT_FAILED, |error| exit_code(error, Version::V5));
        Self::new(error.to_string(), code)
    }
}

/// What mosquitto's tools exit with: the code of a CONNACK that refuses, or one for a connection that was lost.
fn exit_code(error: &client::Error, version: Version) -> u8 {
    match error {
        client::Error::Connection { close, .. } => match &**close {
            CloseReason::Refused(connack) if version.is_v5() => connack.reason.as_u8(),
            CloseReason::Refused(connack) => connack.reason.connect_return_code(),
            CloseReason::ServerDisconnect { .. } | CloseReason::PingTimeout | CloseReason::Protocol { .. } => EXIT_LOST,
            _ => EXIT_FAILED,
        },
        client::Error::ConnectionLost { .. } => EXIT_LOST,
        _ => EXIT_FAILED,
    }
}

/// `-W` ran out.
fn timed_out() -> Outcome {
    Err(Failure::new("timed out", EXIT_TIMEOUT))
}

/// Says something on standard error. If that is closed, nobody wants to know.
fn complain(message: &str) {
    let _ = writeln!(io::stderr().lock(), "ferromq: {message}");
}

/// What a command comes to.
type Outcome = Result<u8, Failure>;

/// Runs a client command on a runtime of its own.
fn in_runtime(command: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Does something until it is done or the process is asked to end; `code` is what to exit with then.
async fn unless_interrupted(work: impl Future<Output = Outcome>, code: fn(u8) -> u8) -> Outcome {
    let mut interruptions = interrupted()?;
    tokio::select! {
        outcome = work => outcome,
        signal = interruptions.recv() => Ok(code(signal)),
    }
}

/// The wish that the process end, listened for from [`interrupted`] on and not only from the first wait: whoever reads
/// `ready` may send the signal at once.
#[cfg(unix)]
struct Interruptions {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
fn interrupted() -> io::Result<Interruptions> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(Interruptions { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
}

#[cfg(unix)]
impl Interruptions {
    /// Waits for the next one; its number.
    async fn recv(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}

#[cfg(windows)]
struct Interruptions(tokio::signal::windows::CtrlC);

#[cfg(windows)]
fn interrupted() -> io::Result<Interruptions> {
    tokio::signal::windows::ctrl_c().map(Interruptions)
}

#[cfg(windows)]
impl Interruptions {
    /// Waits for the next one; the number that C gives it.
    async fn recv(&mut self) -> u8 {
        self.0.recv().await;
        2
    }
}

const EXIT_OK: u8 = 0;
const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// What mosquitto_pub exits with when the connection is lost.
const EXIT_LOST: u8 = 7;

/// What mosquitto_sub and mosquitto_rr exit with when `-W` runs out.
const EXIT_TIMEOUT: u8 = 27;
