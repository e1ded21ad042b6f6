//! `ferromq pub`: messages from arguments, a file, or standard input.

use std::{
    io::{self, BufRead, Read},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;

use super::{
    EXIT_OK, Failure, Outcome,
    connection::{Command, Connection, qos, seconds},
};
use crate::{
    client::{Client, DisconnectOptions, PublishRequest},
    codec::{QoS, TopicName},
};

/// Arguments of `ferromq pub`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("payload").required(true))]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Topic to publish to.
    #[arg(short, long, required_unless_present = "url")]
    topic: Option<String>,
    /// The payload.
    #[arg(short, long, group = "payload", allow_hyphen_values = true)]
    message: Option<String>,
    /// The payload is the content of this file.
    #[arg(short, long, group = "payload")]
    file: Option<PathBuf>,
    /// Every line of standard input is a message.
    #[arg(short = 'l', long = "stdin-line", group = "payload")]
    lines: bool,
    /// The payload is all of standard input.
    #[arg(short = 's', long = "stdin-file", group = "payload")]
    stdin: bool,
    /// The payload is empty; with -r this clears what is retained.
    #[arg(short = 'n', long = "null-message", group = "payload")]
    null: bool,
    /// Quality of service.
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Ask the broker to retain the message.
    #[arg(short, long)]
    retain: bool,
    /// Publish so many times (not with -l or -s).
    #[arg(long, default_value_t = 1, conflicts_with_all = ["lines", "stdin"])]
    repeat: u64,
    /// Seconds between repetitions.
    #[arg(long, default_value = "0", value_parser = seconds)]
    repeat_delay: Duration,
    /// Print nothing about failures.
    #[arg(long)]
    quiet: bool,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let template = arguments.template()?;
    let payload = arguments.payload()?;
    let client = arguments.connection.open(None).await?;
    let result = match payload {
        Some(payload) => arguments.publish_repeatedly(&client, &template, payload).await,
        None => publish_lines(&client, &template).await,
    };
    let ended = client.disconnect(DisconnectOptions::default()).await;
    match result.and_then(|()| Ok(ended?)) {
        Err(failure) if arguments.quiet => Ok(failure.code),
        other => other.map(|()| EXIT_OK),
    }
}

impl Arguments {
    /// The message without its payload.
    fn template(&self) -> Result<PublishRequest, Failure> {
        let from_url = self.connection.url_topic();
        let topic = self.topic.clone().or(from_url).ok_or_else(|| Failure::usage("no topic: name one with -t"))?;
        TopicName::new(&topic).map_err(|error| Failure::usage(format!("-t {topic}: {error}")))?;
        let properties = self.connection.properties(Command::Publish)?;
        let request = PublishRequest::new(topic, Bytes::new()).qos(self.qos).properties(properties);
        Ok(if self.retain { request.retain() } else { request })
    }

    /// The payload, unless it is to be read line by line.
    fn payload(&self) -> Result<Option<Bytes>, Failure> {
        if let Some(message) = &self.message {
            return Ok(Some(message.clone().into_bytes().into()));
        }
        if let Some(path) = &self.file {
            let read = std::fs::read(path);
            let read = read.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
            return Ok(Some(read.into()));
        }
        if self.stdin {
            let mut payload = Vec::new();
            io::stdin().lock().read_to_end(&mut payload)?;
            return Ok(Some(payload.into()));
        }
        Ok((!self.lines).then(Bytes::new))
    }

    async fn publish_repeatedly(
        &self,
        client: &Client,
        template: &PublishRequest,
        payload: Bytes,
    ) -> Result<(), Failure> {
        for round in 0..self.repeat {
            if round > 0 && !self.repeat_delay.is_zero() {
                tokio::time::sleep(self.repeat_delay).await;
            }
            client.publish(PublishRequest { payload: payload.clone(), ..template.clone() }).await?;
        }
        Ok(())
    }
}

/// Publishes every line of standard input as it comes. A thread reads, since standard input can only be waited for by
/// blocking.
async fn publish_lines(client: &Client, template: &PublishRequest) -> Result<(), Failure> {
    let (sender, mut lines) = tokio::sync::mpsc::channel::<io::Result<Vec<u8>>>(LINES_READ_AHEAD_MAX);
    std::thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n') {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        let mut line = line?;
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        client.publish(PublishRequest { payload: line.into(), ..template.clone() }).await?;
    }
    Ok(())
}

/// Lines of standard input that wait to be published.
const LINES_READ_AHEAD_MAX: usize = 64;
