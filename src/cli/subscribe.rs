//! `ferromq sub`: subscribes and prints.

use std::{pin::pin, time::Duration};

use clap::Args;

use super::{
    EXIT_OK, EXIT_TIMEOUT, Failure, Outcome,
    connection::{Command, Connection, qos, seconds},
    format::{Prepared, Printer},
    unless_interrupted,
};
use crate::{
    client::{Client, DisconnectOptions, MailboxOptions, Message, SubscribeRequest, Subscription as Mailbox},
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
    let mut opened = Opened::default();
    let work = unless_interrupted(arguments.receive(&mut opened));
    let outcome = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.unwrap_or(Ok(EXIT_TIMEOUT)),
        None => work.await,
    };
    match opened.mailbox {
        // The session goes on collecting messages for the next run.
        Some(mailbox) if arguments.connection.keep_session => mailbox.leave(),
        mailbox => drop(mailbox),
    }
    if let (Ok(_), Some(client)) = (&outcome, opened.client) {
        client.disconnect(DisconnectOptions::default()).await?;
    }
    outcome
}

/// What is to be closed in an orderly way, however receiving ends.
#[derive(Default)]
struct Opened {
    client: Option<Client>,
    mailbox: Option<Mailbox>,
}

impl Arguments {
    /// Connects, subscribes and prints, until there is enough.
    async fn receive(&self, opened: &mut Opened) -> Outcome {
        let mut output = Output {
            printer: self.printer.prepare()?,
            hidden: self.hidden()?,
            left: self.count,
            no_retained: self.no_retained,
        };
        let request = self.request()?;
        let unmatched = self.connection.keep_session.then(MailboxOptions::default);
        let client = opened.client.insert(self.connection.open(unmatched).await?).clone();
        let mailbox = opened.mailbox.insert(subscribe(&client, request, &mut output).await?);
        if self.exit_after_subscribe {
            return Ok(EXIT_OK);
        }
        while output.wants_more() {
            let Some(message) = mailbox.recv().await else { return Err(why_it_ended(mailbox)) };
            output.print(&message)?;
        }
        Ok(EXIT_OK)
    }

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

/// Subscribes; meanwhile prints what a resumed session sends ahead of SUBACK, which could else fill its mailbox and keep
/// SUBACK from being read.
async fn subscribe(client: &Client, request: SubscribeRequest, output: &mut Output) -> Result<Mailbox, Failure> {
    let Some(mut resumed) = client.take_unmatched() else {
        return Ok(client.subscribe(request, MailboxOptions::default()).await?);
    };
    let mut subscribing = pin!(client.subscribe(request, MailboxOptions::default()));
    let subscribed = loop {
        tokio::select! {
            biased;
            Some(message) = resumed.recv() => output.print(&message)?,
            subscribed = &mut subscribing => break subscribed?,
        }
    };
    while let Some(message) = resumed.try_recv() {
        output.print(&message)?;
    }
    Ok(subscribed)
}

/// Prints messages and counts them.
struct Output {
    printer: Prepared,
    hidden: Vec<TopicFilter>,
    left: Option<u64>,
    no_retained: bool,
}

impl Output {
    fn wants_more(&self) -> bool {
        self.left != Some(0)
    }

    fn print(&mut self, message: &Message) -> Result<(), Failure> {
        let is_hidden = self.hidden.iter().any(|filter| filter.matches(message.topic()));
        if is_hidden || (self.no_retained && message.retain()) || !self.wants_more() {
            return Ok(());
        }
        self.printer.print(message)?;
        self.left = self.left.map(|left| left - 1);
        Ok(())
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
