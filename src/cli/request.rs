//! `ferromq rr`: a request, and its responses.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;

use super::{
    EXIT_OK, Failure, Outcome,
    connection::{Command, Connection, positive_seconds, qos, text},
    format::Printer,
    payload::Payload,
    publish::publish,
    subscribe::why_it_ended,
    timed_out,
};
use crate::{
    client::{MailboxOptions, PublishRequest, SubscribeRequest},
    codec::{Property, QoS, Subscription, SubscriptionOptions, TopicFilter, TopicName},
};

/// Arguments of `ferromq rr`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("payload").required(true))]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// Topic of the request.
    #[arg(short, long, required_unless_present = "url", allow_hyphen_values = true)]
    topic: Option<String>,
    /// Topic of the responses; one that nobody else uses if it is left out.
    #[arg(short = 'e', long = "response-topic", allow_hyphen_values = true)]
    response_topic: Option<String>,
    #[command(flatten)]
    payload: Payload,
    /// Quality of service of the request and of the subscription.
    #[arg(short, long, default_value = "1", value_parser = qos)]
    qos: QoS,
    /// Responses to wait for.
    #[arg(short = 'C', long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Give up after so many seconds, with exit code 27.
    #[arg(short = 'W', long, value_parser = positive_seconds)]
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
        Some(deadline) => tokio::time::timeout_at(deadline, exchange(&arguments)).await.unwrap_or_else(|_| timed_out()),
        None => exchange(&arguments).await,
    }
}

async fn exchange(arguments: &Arguments) -> Outcome {
    let connection = &arguments.connection;
    let printer = arguments.printer.prepare()?;
    let template = arguments.request()?;
    connection.check()?;
    let payload = arguments.payload.read().await?;
    // Nobody would repeat a request that a lost connection took along: the loss is the outcome.
    let client = connection.open(None, None).await?;
    let response_topic = match &arguments.response_topic {
        Some(topic) => topic.clone(),
        None => format!("response/{}/rr", client.client_id()),
    };
    let options = SubscriptionOptions { qos: arguments.qos, ..SubscriptionOptions::default() };
    let subscriptions = vec![Subscription { filter: TopicFilter::new(&response_topic)?, options }];
    let request = SubscribeRequest { subscriptions, identifier: None, user_properties: Vec::new() };
    let mut mailbox = client.subscribe(request, MailboxOptions::default()).await?;
    let mut request = PublishRequest { payload, ..template };
    if connection.version.is_v5() && request.properties.response_topic().is_none() {
        request.properties.push(Property::ResponseTopic(text("-e", &response_topic)?));
    }
    let started = tokio::time::Instant::now();
    publish(&client, request).await?;
    for _ in 0..arguments.count {
        let Some(message) = mailbox.recv().await else { return Err(why_it_ended(&mailbox)) };
        if arguments.latency {
            eprintln!("{:.3}", started.elapsed().as_secs_f64() * 1e3);
        }
        printer.print(&message, |fault| connection.warn(fault))?;
    }
    drop(mailbox);
    client.disconnect(connection.disconnection()?).await?;
    Ok(EXIT_OK)
}

impl Arguments {
    /// The request without its payload and, if none is given, its response topic.
    fn request(&self) -> Result<PublishRequest, Failure> {
        let topic = self.connection.topic(self.topic.as_deref())?;
        match &self.response_topic {
            Some(topic) => {
                TopicName::new(topic).map_err(|error| Failure::usage(format!("-e {topic}: {error}")))?;
            }
            None if !self.connection.version.is_v5() => {
                return Err(Failure::usage(
                    "before MQTT 5 the responder cannot be told a response topic: name one with -e",
                ));
            }
            None => {}
        }
        let properties = self.connection.properties(Command::Publish)?;
        Ok(PublishRequest::new(topic, Bytes::new()).qos(self.qos).properties(properties))
    }
}
