//! `ferromq sub`: subscribes and prints.

use std::time::Duration;

use clap::Args;

use super::{
    EXIT_OK, EXIT_TIMEOUT, Failure, Outcome,
    connection::{Command, Connection, qos, seconds},
    format::Printer,
};
use crate::{
    client::{DisconnectOptions, MailboxOptions, SubscribeRequest, Subscription as Mailbox},
    codec::{QoS, RetainHandling, Subscription, SubscriptionOptions, TopicFilter},
};

/// Arguments of `ferromq sub`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Filter to subscribe to; may be repeated.
    #[arg(short, long, required_unless_present = "url")]
    topic: Vec<String>,
    /// Filter whose messages are not printed; may be repeated.
    #[arg(short = 'T', long)]
    filter_out: Vec<String>,
    /// Greatest quality of service.
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// End after so many messages.
    #[arg(short = 'C', long)]
    count: Option<u64>,
    /// End after so many seconds, with exit code 27.
    #[arg(short = 'W', long, value_parser = seconds)]
    timeout: Option<Duration>,
    /// End as soon as the subscriptions are acknowledged.
    #[arg(short = 'E', long)]
    exit_after_subscribe: bool,
    /// Do not print retained messages.
    #[arg(short = 'R', long)]
    no_retained: bool,
    /// Keep the RETAIN flag as it was published (MQTT 5).
    #[arg(long)]
    retain_as_published: bool,
    /// Do not receive what this client publishes itself (MQTT 5).
    #[arg(long)]
    no_local: bool,
    #[command(flatten)]
    printer: Printer,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let deadline = arguments.timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    let hidden = arguments.hidden()?;
    let request = arguments.request()?;
    let printer = arguments.printer.prepare()?;
    let client = arguments.connection.open().await?;
    let mut mailbox = client.subscribe(request, MailboxOptions::default()).await?;
    let work = async {
        if arguments.exit_after_subscribe {
            return Ok(EXIT_OK);
        }
        let mut left = arguments.count.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(message) = mailbox.recv().await else { return Err(why_it_ended(&mailbox)) };
            let is_hidden = hidden.iter().any(|filter| filter.matches(message.topic()));
            if is_hidden || (arguments.no_retained && message.retain()) {
                continue;
            }
            printer.print(&message)?;
            left -= 1;
        }
        Ok(EXIT_OK)
    };
    let outcome = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.unwrap_or(Ok(EXIT_TIMEOUT)),
        None => work.await,
    };
    drop(mailbox);
    if outcome.is_ok() {
        client.disconnect(DisconnectOptions::default()).await?;
    }
    outcome
}

impl Arguments {
    fn request(&self) -> Result<SubscribeRequest, Failure> {
        let options = SubscriptionOptions {
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: RetainHandling::Send,
        };
        let filters = self.topic.iter().cloned().chain(self.connection.url_topic());
        let subscriptions = filters
            .map(|filter| Ok(Subscription { filter: filter_of(&filter)?, options }))
            .collect::<Result<Vec<_>, Failure>>()?;
        let properties = self.connection.properties(Command::Subscribe)?;
        let identifier = properties.subscription_identifiers().next();
        let user_properties = properties.user_properties().map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(SubscribeRequest { subscriptions, identifier, user_properties })
    }

    fn hidden(&self) -> Result<Vec<TopicFilter>, Failure> {
        self.filter_out.iter().map(|filter| filter_of(filter)).collect()
    }
}

fn filter_of(text: &str) -> Result<TopicFilter, Failure> {
    TopicFilter::new(text).map_err(|error| Failure::usage(format!("-t {text}: {error}")))
}

/// Why a mailbox gives no more messages.
pub(super) fn why_it_ended(mailbox: &Mailbox) -> Failure {
    match mailbox.failure() {
        Some(error) => error.into(),
        None => Failure { message: "the subscription has ended".into(), code: super::EXIT_FAILED },
    }
}
