//! `ferromq rr`: a request, and its responses.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;

use super::{
    EXIT_OK, EXIT_TIMEOUT, Failure, Outcome,
    connection::{Command, Connection, qos, seconds},
    format::Printer,
    subscribe::why_it_ended,
};
use crate::{
    client::{DisconnectOptions, MailboxOptions, PublishRequest, SubscribeRequest},
    codec::{Property, QoS, Subscription, SubscriptionOptions, Text, TopicFilter, TopicName},
};

/// Arguments of `ferromq rr`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("payload").required(true))]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Topic of the request.
    #[arg(short, long, required_unless_present = "url")]
    topic: Option<String>,
    /// Topic of the responses; one that nobody else uses if it is left out.
    #[arg(short = 'e', long = "response-topic")]
    response_topic: Option<String>,
    /// The payload.
    #[arg(short, long, group = "payload", allow_hyphen_values = true)]
    message: Option<String>,
    /// The payload is the content of this file.
    #[arg(short, long, group = "payload")]
    file: Option<std::path::PathBuf>,
    /// The payload is all of standard input.
    #[arg(short = 's', long = "stdin-file", group = "payload")]
    stdin: bool,
    /// The payload is empty.
    #[arg(short = 'n', long = "null-message", group = "payload")]
    null: bool,
    /// Quality of service of the request and of the subscription.
    #[arg(short, long, default_value = "1", value_parser = qos)]
    qos: QoS,
    /// Responses to wait for.
    #[arg(short = 'C', long, default_value_t = 1)]
    count: u64,
    /// Give up after so many seconds, with exit code 27.
    #[arg(short = 'W', long, value_parser = seconds)]
    timeout: Option<Duration>,
    /// Prints how long each response took, milliseconds, on standard error.
    #[arg(long)]
    latency: bool,
    #[command(flatten)]
    printer: Printer,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let deadline = arguments.timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, exchange(&arguments)).await.unwrap_or(Ok(EXIT_TIMEOUT)),
        None => exchange(&arguments).await,
    }
}

async fn exchange(arguments: &Arguments) -> Outcome {
    let payload = arguments.payload()?;
    let printer = arguments.printer.prepare()?;
    let client = arguments.connection.open(None).await?;
    let response_topic = match &arguments.response_topic {
        Some(topic) => topic.clone(),
        None => format!("response/{}/rr", client.client_id()),
    };
    let options = SubscriptionOptions { qos: arguments.qos, ..SubscriptionOptions::default() };
    let subscriptions = vec![Subscription { filter: TopicFilter::new(&response_topic)?, options }];
    let request = SubscribeRequest { subscriptions, identifier: None, user_properties: Vec::new() };
    let mut mailbox = client.subscribe(request, MailboxOptions::default()).await?;
    let started = tokio::time::Instant::now();
    client.publish(arguments.request(&response_topic, payload)?).await?;
    for _ in 0..arguments.count {
        let Some(message) = mailbox.recv().await else { return Err(why_it_ended(&mailbox)) };
        if arguments.latency {
            eprintln!("{:.3}", started.elapsed().as_secs_f64() * 1e3);
        }
        printer.print(&message)?;
    }
    drop(mailbox);
    client.disconnect(DisconnectOptions::default()).await?;
    Ok(EXIT_OK)
}

impl Arguments {
    fn request(&self, response_topic: &str, payload: Bytes) -> Result<PublishRequest, Failure> {
        let from_url = self.connection.url_topic();
        let topic = self.topic.clone().or(from_url).ok_or_else(|| Failure::usage("no topic: name one with -t"))?;
        TopicName::new(&topic).map_err(|error| Failure::usage(format!("-t {topic}: {error}")))?;
        let mut properties = self.connection.properties(Command::Publish)?;
        if self.connection.version.is_v5() {
            if properties.response_topic().is_none() {
                properties.push(Property::ResponseTopic(Text::try_from(response_topic)?));
            }
        } else if self.response_topic.is_none() {
            return Err(Failure::usage(
                "before MQTT 5 the responder cannot be told a response topic: name one with -e",
            ));
        }
        Ok(PublishRequest::new(topic, payload).qos(self.qos).properties(properties))
    }

    fn payload(&self) -> Result<Bytes, Failure> {
        if let Some(message) = &self.message {
            return Ok(message.clone().into_bytes().into());
        }
        if let Some(path) = &self.file {
            let read = std::fs::read(path);
            return Ok(read.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?.into());
        }
        let mut payload = Vec::new();
        if self.stdin {
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut payload)?;
        }
        Ok(payload.into())
    }
}
