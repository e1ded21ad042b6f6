//! `ferromq pub`: messages from arguments, a file, or standard input.

use std::{
    io::{self, BufRead},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;

use super::{
    EXIT_OK, Failure, Outcome,
    connection::{Command, Connection, qos, seconds},
    payload::Payload,
};
use crate::{
    client::{Client, ClientEvent, PublishRequest},
    codec::QoS,
};

/// Arguments of `ferromq pub`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("payload").required(true))]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// Topic to publish to.
    #[arg(short, long, required_unless_present = "url", allow_hyphen_values = true)]
    topic: Option<String>,
    #[command(flatten)]
    payload: Payload,
    /// Every line of standard input is a message.
    #[arg(short = 'l', long = "stdin-line", group = "payload")]
    lines: bool,
    /// Quality of service.
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Ask the broker to retain the message.
    #[arg(short, long)]
    retain: bool,
    /// Publish so many times (not with -l).
    #[arg(long, default_value_t = 1, conflicts_with = "lines", value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    /// Seconds between repetitions.
    #[arg(long, default_value = "0", value_parser = seconds)]
    repeat_delay: Duration,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let connection = &arguments.connection;
    let template = arguments.template()?;
    connection.check()?;
    let payload = if arguments.lines { None } else { Some(arguments.payload.read().await?) };
    // A lost connection is told to whoever called; what was under way may or may not have arrived.
    let client = connection.open(None, None).await?;
    let result = match payload {
        Some(payload) => arguments.publish_repeatedly(&client, &template, payload).await,
        None => publish_lines(&client, &template).await,
    };
    let ended = client.disconnect(connection.disconnection()?).await;
    result.and_then(|()| Ok(ended?)).map(|()| EXIT_OK)
}

impl Arguments {
    /// The message without its payload.
    fn template(&self) -> Result<PublishRequest, Failure> {
        let topic = self.connection.topic(self.topic.as_deref())?;
        let properties = self.connection.properties(Command::Publish)?;
        let request = PublishRequest::new(topic, Bytes::new()).qos(self.qos).properties(properties);
        Ok(if self.retain { request.retain() } else { request })
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
            publish(client, PublishRequest { payload: payload.clone(), ..template.clone() }).await?;
        }
        Ok(())
    }
}

/// Publishes every line of standard input as it comes. A thread reads, since standard input can only be waited for by
/// blocking.
async fn publish_lines(client: &Client, template: &PublishRequest) -> Result<(), Failure> {
    let (sender, mut lines) = tokio::sync::mpsc::channel::<io::Result<Vec<u8>>>(LINES_READ_AHEAD_MAX);
    std::thread::Builder::new().spawn(move || {
        for line in io::stdin().lock().split(b'\n') {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    })?;
    let mut lost = pin!(lost(client));
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            failure = &mut lost => return Err(failure),
        };
        let Some(line) = line else { return Ok(()) };
        let mut line = line?;
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        publish(client, PublishRequest { payload: line.into(), ..template.clone() }).await?;
    }
}

/// Waits for the connection to be lost for good: the next line may be long in coming.
async fn lost(client: &Client) -> Failure {
    let mut events = client.events();
    if let Some(error) = client.failure() {
        return error.into();
    }
    while let Some(event) = events.recv().await {
        if let ClientEvent::Disconnected { reason: Some(error), retry_in: None } = event {
            return error.into();
        }
    }
    std::future::pending().await
}

/// Publishes; if that fails because the client has ended, what ended it is the failure.
pub(super) async fn publish(client: &Client, request: PublishRequest) -> Result<(), Failure> {
    match client.publish(request).await {
        Ok(_) => Ok(()),
        Err(error) => Err(client.failure().unwrap_or(error).into()),
    }
}

/// Lines of standard input that wait to be published.
const LINES_READ_AHEAD_MAX: usize = 64;
