//! `ferromq sub`: subscribes and prints.

use std::{pin::pin, time::Duration};

use clap::Args;

use super::{
    EXIT_OK, Failure, Outcome,
    connection::{Command, Connection, positive_seconds, qos},
    format::{Prepared, Printer},
    timed_out, unless_interrupted,
};
use crate::{
    client::{AckPolicy, Client, MailboxOptions, Message, Reconnect, SubscribeRequest, Subscription as Mailbox},
    codec::{QoS, ReasonCode, RetainHandling, Subscription, SubscriptionOptions, TopicFilter},
};

/// Arguments of `ferromq sub`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// Filter to subscribe to; may be repeated.
    #[arg(short, long, required_unless_present = "url", allow_hyphen_values = true)]
    topic: Vec<String>,
    /// Filter whose messages are not printed; may be repeated.
    #[arg(short = 'T', long, allow_hyphen_values = true)]
    filter_out: Vec<String>,
    /// Greatest quality of service.
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// End after so many messages.
    #[arg(short = 'C', long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds, with exit code 27.
    #[arg(short = 'W', long, value_parser = positive_seconds)]
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
    let work = unless_interrupted(arguments.receive(&mut opened), |_| EXIT_OK);
    let outcome = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| timed_out()),
        None => work.await,
    };
    let Some(client) = opened.client else { return outcome };
    // The mailboxes are still there: what is in them stays unacknowledged, and the session keeps it for the next run. A
    // session that is not kept ends with the connection, so nobody need unsubscribe.
    let ended = client.disconnect(arguments.connection.disconnection()?).await;
    opened.mailbox.into_iter().chain(opened.resumed).for_each(Mailbox::leave);
    outcome.and_then(|code| Ok(ended.map(|()| code)?))
}

/// What is to be closed in an orderly way, however receiving ends.
#[derive(Default)]
struct Opened {
    client: Option<Client>,
    /// What the session's other filters match, those of earlier runs.
    resumed: Option<Mailbox>,
    mailbox: Option<Mailbox>,
}

impl Arguments {
    /// Connects, subscribes and prints, until there is enough.
    async fn receive(&self, opened: &mut Opened) -> Outcome {
        let mut output = Output {
            connection: &self.connection,
            printer: self.printer.prepare()?,
            hidden: self.hidden()?,
            left: self.count,
            no_retained: self.no_retained,
        };
        let request = self.request()?;
        self.connection.disconnection()?;
        // What a session keeps is acknowledged when it has been printed, and not before: the rest is for the next run.
        let keeps_session = self.connection.keeps_session()?;
        let ack = if keeps_session { AckPolicy::Manual } else { AckPolicy::Auto };
        let mailbox_options = MailboxOptions { ack, ..MailboxOptions::default() };
        let unmatched = keeps_session.then_some(mailbox_options);
        let client = self.connection.open(unmatched, Some(Reconnect::default())).await?;
        opened.client = Some(client.clone());
        opened.resumed = client.take_unmatched();
        let subscribed = self.subscribe(&client, request, mailbox_options, &mut opened.resumed, &mut output).await?;
        let mailbox = opened.mailbox.insert(subscribed);
        if self.exit_after_subscribe {
            return Ok(EXIT_OK);
        }
        while output.wants_more() {
            let message = tokio::select! {
                biased;
                Some(message) = next(&mut opened.resumed) => Some(message),
                message = mailbox.recv() => message,
            };
            let Some(message) = message else { return Err(why_it_ended(mailbox)) };
            output.print(&message, mailbox)?;
        }
        Ok(EXIT_OK)
    }

    /// Subscribes; meanwhile prints what a resumed session sends ahead of SUBACK, which could else fill its mailbox and
    /// keep SUBACK from being read.
    async fn subscribe(
        &self,
        client: &Client,
        request: SubscribeRequest,
        options: MailboxOptions,
        resumed: &mut Option<Mailbox>,
        output: &mut Output<'_>,
    ) -> Result<Mailbox, Failure> {
        let filters: Vec<_> = request.subscriptions.iter().map(|part| part.filter.clone()).collect();
        let mut subscribing = pin!(client.subscribe(request, options));
        let mailbox = loop {
            tokio::select! {
                biased;
                Some(message) = next(resumed), if output.wants_more() => {
                    if let Some(resumed) = resumed {
                        output.print(&message, resumed)?;
                    }
                }
                subscribed = &mut subscribing => break subscribed?,
            }
        };
        for (filter, reason) in filters.iter().zip(mailbox.reasons()) {
            if reason.is_error() {
                self.connection
                    .warn(&format!("the server refused the subscription to {:?}: {reason}", filter.as_str()));
            }
        }
        Ok(mailbox)
    }

    fn request(&self) -> Result<SubscribeRequest, Failure> {
        let options = SubscriptionOptions {
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: RetainHandling::Send,
        };
        let filters = self.topic.iter().cloned().chain(self.connection.url_topic()?);
        let subscriptions = filters
            .map(|filter| Ok(Subscription { filter: filter_of("-t", &filter)?, options }))
            .collect::<Result<Vec<_>, Failure>>()?;
        if subscriptions.is_empty() {
            return Err(Failure::usage("no topic: name one with -t"));
        }
        let properties = self.connection.properties(Command::Subscribe)?;
        let identifier = properties.subscription_identifiers().next();
        let user_properties = properties.user_properties().map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(SubscribeRequest { subscriptions, identifier, user_properties })
    }

    fn hidden(&self) -> Result<Vec<TopicFilter>, Failure> {
        self.filter_out.iter().map(|filter| filter_of("-T", filter)).collect()
    }
}

/// The next message, or `None` if there is no mailbox or it has ended.
async fn next(mailbox: &mut Option<Mailbox>) -> Option<Message> {
    mailbox.as_mut()?.recv().await
}

/// Prints messages and counts them.
struct Output<'a> {
    connection: &'a Connection,
    printer: Prepared,
    hidden: Vec<TopicFilter>,
    left: Option<u64>,
    no_retained: bool,
}

impl Output<'_> {
    fn wants_more(&self) -> bool {
        self.left != Some(0)
    }

    /// Prints a message, unless it is one to be left out; then it is done. One beyond the count is not: it stays with the
    /// session.
    fn print(&mut self, message: &Message, mailbox: &Mailbox) -> Result<(), Failure> {
        if !self.wants_more() {
            return Ok(());
        }
        let is_filtered_out = || self.hidden.iter().any(|filter| filter.matches(message.topic()));
        let is_hidden = (self.no_retained && message.retain()) || is_filtered_out();
        if !is_hidden {
            // As with mosquitto_sub, what the format cannot print counts.
            self.printer.print(message, |fault| self.connection.warn(fault))?;
            self.left = self.left.map(|left| left - 1);
        }
        if mailbox.options().ack == AckPolicy::Manual {
            mailbox.acknowledge(message, ReasonCode::Success);
        }
        Ok(())
    }
}

fn filter_of(option: &str, text: &str) -> Result<TopicFilter, Failure> {
    TopicFilter::new(text).map_err(|error| Failure::usage(format!("{option} {text}: {error}")))
}

/// Why a mailbox gives no more messages.
pub(super) fn why_it_ended(mailbox: &Mailbox) -> Failure {
    match mailbox.failure() {
        Some(error) => error.into(),
        None => Failure::new("the subscription has ended", super::EXIT_FAILED),
    }
}
