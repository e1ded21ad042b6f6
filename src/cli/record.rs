//! `ferromq record`: messages into Parquet files.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Handle;

use super::{
    EXIT_OK, Failure, Outcome,
    connection::{Connection, positive_seconds, qos},
    interrupted,
};
use crate::{
    client::{MailboxOptions, Reconnect, SubscribeRequest},
    codec::{QoS, RetainHandling, Subscription, SubscriptionOptions},
    config::{ByteSize, Period},
    telemetry::{
        Capture, CaptureOptions, CaptureTarget, Decoder, OnError, Pattern, Progress, RecordOptions, Recorder, Rows,
        RowsOptions, TelemetryError,
    },
};

/// Arguments of `ferromq record`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// The Parquet file; with --rotate or --rotate-size its name gets a number.
    file: PathBuf,
    /// Filter to record; may be repeated. Each {name} in it is a column.
    #[arg(short, long, required_unless_present = "url", allow_hyphen_values = true)]
    topic: Vec<String>,
    /// Greatest quality of service.
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// What payloads are: json, cbor, msgpack, number, text, sparkplug or a packed struct such as "<ffI"; their fields
    /// become columns. By default payloads are kept as they are.
    #[arg(long, default_value = "raw")]
    decode: String,
    /// Begin another file after this time, such as 1h.
    #[arg(long, value_name = "TIME", value_parser = time)]
    rotate: Option<Duration>,
    /// Begin another file at this size, such as 100MiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    rotate_size: Option<u64>,
    /// Level of zstd from 1 to 22; 0 does not compress.
    #[arg(long, value_name = "LEVEL", default_value_t = 3)]
    zstd: i32,
    /// Replace a file that is there.
    #[arg(long)]
    overwrite: bool,
    /// End after so many rows.
    #[arg(short = 'C', long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(short = 'W', long, value_parser = positive_seconds)]
    timeout: Option<Duration>,
    /// Do not record what is retained.
    #[arg(short = 'R', long)]
    no_retained: bool,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let (rows, recorder, patterns) = arguments.prepare()?;
    arguments.connection.disconnection()?;
    // Listened for before the file is begun, so that it is completed however early the signal comes.
    let mut interruptions = interrupted()?;
    let client = arguments.connection.open(None, Some(Reconnect::default())).await?;
    let subscribed = client.subscribe(arguments.request(&patterns), MailboxOptions::default()).await?;
    let options = CaptureOptions { rows_max: arguments.count, target: CaptureTarget::Files(Box::new(recorder)) };
    let capture = Capture::start(Handle::current(), subscribed, rows, options);
    let bar = bar(arguments.count.or(arguments.timeout.map(|timeout| timeout.as_secs())), arguments.connection.quiet);
    let begun = tokio::time::Instant::now();
    let deadline = arguments.timeout.map(|timeout| begun + timeout);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = interruptions.recv() => break,
            () = until(deadline) => break,
            _ = ticks.tick() => {}
        }
        let progress = capture.progress();
        show(&bar, &progress, arguments.count.map_or(begun.elapsed().as_secs(), |_| progress.counts.rows));
        if progress.is_done {
            break;
        }
    }
    let stopped = tokio::task::spawn_blocking(move || {
        capture.stop();
        capture
    });
    let capture = stopped.await?;
    bar.finish_and_clear();
    let ended = client.disconnect(arguments.connection.disconnection()?).await;
    if let Some(failure) = capture.take_failure() {
        return Err(failed(failure));
    }
    let Progress { counts, .. } = capture.progress();
    if let Some(error) = &counts.first_error {
        arguments.connection.warn(&format!("{} messages could not be decoded; {error}", counts.errors));
    }
    for file in capture.files() {
        arguments.connection.warn(&format!("{} is complete", file.display()));
    }
    arguments.connection.warn(&format!("{} rows", counts.rows));
    Ok(ended.map(|()| EXIT_OK)?)
}

impl Arguments {
    /// Finds what is wrong with the arguments before anything is connected.
    fn prepare(&self) -> Result<(Rows, Recorder, Vec<Pattern>), Failure> {
        let filters = self.topic.iter().cloned().chain(self.connection.url_topic()?);
        let patterns = filters.map(|filter| Pattern::parse(&filter)).collect::<Result<Vec<_>, _>>();
        let patterns = patterns.map_err(usage)?;
        if patterns.is_empty() {
            return Err(Failure::usage("no topic: name one with -t"));
        }
        let mut options = RowsOptions::new(patterns.clone(), Decoder::parse(&self.decode).map_err(usage)?);
        options.keeps_delivery = matches!(options.decoder, Decoder::Raw);
        options.on_error = if options.keeps_delivery { OnError::Null } else { OnError::Raw };
        let files = RecordOptions {
            path: self.file.clone(),
            rotate_after: self.rotate,
            rotate_bytes: self.rotate_size,
            zstd_level: Some(self.zstd).filter(|level| *level != 0),
            overwrite: self.overwrite,
        };
        Ok((Rows::new(options), Recorder::new(files).map_err(usage)?, patterns))
    }

    fn request(&self, patterns: &[Pattern]) -> SubscribeRequest {
        let retain_handling = if self.no_retained { RetainHandling::DoNotSend } else { RetainHandling::Send };
        // So that the file tells what was published to be retained.
        let retain_as_published = true;
        let options = SubscriptionOptions { qos: self.qos, no_local: false, retain_as_published, retain_handling };
        let subscription = |pattern: &Pattern| Subscription { filter: pattern.filter().clone(), options };
        SubscribeRequest { subscriptions: patterns.iter().map(subscription).collect(), ..SubscribeRequest::default() }
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A bar on standard error if that is a terminal, and none otherwise.
pub(super) fn bar(total: Option<u64>, is_quiet: bool) -> ProgressBar {
    if is_quiet {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{bar:40} {elapsed} {msg}"),
        None => (ProgressBar::no_length(), "{spinner} {elapsed} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is right"))
}

fn show(bar: &ProgressBar, progress: &Progress, position: u64) {
    bar.set_position(position);
    let lag = progress.lag.as_millis();
    bar.set_message(format!("{} rows, {} bytes written, lag {lag} ms", progress.counts.rows, progress.file_bytes));
}

pub(super) fn usage(error: TelemetryError) -> Failure {
    Failure::usage(error.to_string())
}

/// A failure on the way; the client's have exit codes of their own.
pub(super) fn failed(error: TelemetryError) -> Failure {
    match error {
        TelemetryError::Client(error) => error.into(),
        other => other.into(),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    text.parse::<Period>().map(Period::as_duration).map_err(|error| error.to_string())
}

fn size(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>().map(|size| size.0).map_err(|error| error.to_string())
}

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);
