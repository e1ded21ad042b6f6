//! `ferromq replay`: recorded messages, published again.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    EXIT_OK, Outcome,
    connection::{Connection, qos},
    record::{bar, failed, usage},
};
use crate::{
    client::Reconnect,
    codec::QoS,
    telemetry::{Filter, Replay, ReplayOptions, TelemetryError},
};

/// Arguments of `ferromq replay`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// Files as `ferromq record` writes them, in any order.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How many times as fast as it was; "max" is as fast as the server takes it.
    #[arg(short, long, default_value = "1", value_parser = speed, allow_negative_numbers = true)]
    speed: Speed,
    /// Which rows, as SQL says it: "line = 'L1' and value > 20"
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// What comes in front of all topics.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    prefix: String,
    /// Quality of service [default: that they came with, as far as the files tell]
    #[arg(short, long, value_parser = qos)]
    qos: Option<QoS>,
    /// Publish all as retained messages [default: those that were]
    #[arg(short, long)]
    retain: bool,
    /// Publish none as retained messages.
    #[arg(long, conflicts_with = "retain")]
    no_retain: bool,
}

/// How many times as fast; `None` is without waiting.
#[derive(Debug, Clone, Copy)]
struct Speed(Option<f64>);

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let filter = arguments.condition.as_deref().map(Filter::parse).transpose().map_err(usage)?;
    let mut replay = Replay::open(ReplayOptions {
        files: arguments.files.clone(),
        filter,
        speed: arguments.speed.0,
        qos: arguments.qos,
        retain: (arguments.retain || arguments.no_retain).then_some(arguments.retain),
    })
    .map_err(failed)?;
    arguments.connection.disconnection()?;
    let client = arguments.connection.open(None, Some(Reconnect::default())).await?;
    let bar = bar(Some(replay.rows()), arguments.connection.quiet);
    let mut map = |topic: &str| Ok::<_, TelemetryError>(Some(format!("{}{topic}", arguments.prefix)));
    let mut done = 0;
    while replay.load(&mut map).map_err(failed)? {
        done += replay.step(&client, TICK).await.map_err(failed)?;
        bar.set_position(done as u64);
        bar.set_message(format!("{done} messages"));
    }
    bar.finish_and_clear();
    client.disconnect(arguments.connection.disconnection()?).await?;
    arguments.connection.warn(&format!("{done} messages"));
    Ok(EXIT_OK)
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed(None));
    }
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(Speed(Some(speed))),
        _ => Err("a number above 0, or \"max\"".to_owned()),
    }
}

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);
