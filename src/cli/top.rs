//! `ferromq top`: what goes through a broker, as a table that is drawn anew every second: topics by rate, and what the
//! broker tells of itself below `$SYS`.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap::{Args, ValueEnum};

use super::{
    EXIT_OK, Failure, Outcome,
    connection::{Connection, positive_seconds},
    subscribe::why_it_ended,
    unless_interrupted,
};
use crate::{
    client::{MailboxOptions, Message, Overflow, Reconnect, SubscribeRequest},
    codec::{QoS, RetainHandling, Subscription, SubscriptionOptions, TopicFilter},
};

/// Arguments of `ferromq top`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// Filter of the topics to show; may be repeated.
    #[arg(short, long, default_value = "#", allow_hyphen_values = true)]
    topic: Vec<String>,
    /// Topics to show.
    #[arg(short = 'n', long, default_value_t = 20)]
    rows: usize,
    /// What the topics are ordered by.
    #[arg(short, long, value_enum, default_value_t = Order::Rate)]
    sort: Order,
    /// Seconds between two tables.
    #[arg(long, default_value = "1", value_parser = positive_seconds)]
    interval: Duration,
    /// End after so many tables.
    #[arg(short = 'C', long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// What topics are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Messages since the last table.
    Rate,
    /// Messages since the start.
    Messages,
    /// Payload bytes since the start.
    Bytes,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    unless_interrupted(watch(&arguments), |_| EXIT_OK).await
}

async fn watch(arguments: &Arguments) -> Outcome {
    let options =
        SubscriptionOptions { retain_handling: RetainHandling::Send, ..SubscriptionOptions::new(QoS::AtMostOnce) };
    let filters = arguments.topic.iter().map(String::as_str).chain([SYS_FILTER]);
    let subscriptions = filters
        .map(|filter| match TopicFilter::new(filter) {
            Ok(filter) => Ok(Subscription { filter, options }),
            Err(error) => Err(Failure::usage(format!("-t {filter}: {error}"))),
        })
        .collect::<Result<_, Failure>>()?;
    let request = SubscribeRequest { subscriptions, identifier: None, user_properties: Vec::new() };
    let client = arguments.connection.open(None, Some(Reconnect::default())).await?;
    // Who looks on is not to slow anybody down: what is not counted in time is not counted.
    let mailbox = MailboxOptions { overflow: Overflow::DropOldest, ..MailboxOptions::default() };
    let mut mailbox = client.subscribe(request, mailbox).await?;
    let mut board = Board::default();
    let mut ticks = tokio::time::interval(arguments.interval);
    ticks.tick().await;
    let mut left = arguments.count;
    while left != Some(0) {
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                let table = board.table(arguments, mailbox.dropped());
                let mut out = io::stdout().lock();
                if out.is_terminal() {
                    // To the first column of the first line, and nothing below.
                    out.write_all(b"\x1b[H\x1b[2J")?;
                }
                out.write_all(table.as_bytes())?;
                out.flush()?;
                left = left.map(|left| left - 1);
            }
            message = mailbox.recv() => match message {
                Some(message) => board.count(&message),
                None => return Err(why_it_ended(&mailbox)),
            },
        }
    }
    client.disconnect(arguments.connection.disconnection()?).await?;
    Ok(EXIT_OK)
}

/// What has been seen.
#[derive(Debug, Default)]
struct Board {
    topics: HashMap<Box<str>, Seen>,
    /// Of topics for which there was no room.
    others: Seen,
    /// What the broker tells of itself, by the rest of the topic.
    sys: HashMap<Box<str>, String>,
    all: Seen,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    messages: u64,
    bytes: u64,
    /// Messages at the last table.
    before: u64,
    last: String,
}

impl Seen {
    fn add(&mut self, message: &Message) {
        self.messages += 1;
        self.bytes += message.payload().len() as u64;
    }
}

impl Board {
    fn count(&mut self, message: &Message) {
        if let Some(name) = message.topic().strip_prefix(SYS) {
            if self.sys.len() < SYS_MAX || self.sys.contains_key(name) {
                self.sys.insert(name.into(), preview(message.payload()));
            }
            return;
        }
        self.all.add(message);
        let topic = message.topic();
        let has_room = self.topics.len() < TOPICS_MAX;
        let seen = if has_room && !self.topics.contains_key(topic) {
            self.topics.entry(topic.into()).or_default()
        } else {
            self.topics.get_mut(topic).unwrap_or(&mut self.others)
        };
        seen.add(message);
        seen.last = preview(message.payload());
    }

    /// The table, and the start of the next interval.
    fn table(&mut self, arguments: &Arguments, missed: u64) -> String {
        let seconds = arguments.interval.as_secs_f64();
        let rate = |seen: &Seen| (seen.messages - seen.before) as f64 / seconds;
        let mut table = String::new();
        for (title, names) in SYS_LINES {
            let told = names.iter().filter_map(|(name, label)| Some(format!("{label} {}", self.sys.get(*name)?)));
            let told: Vec<_> = told.collect();
            if !told.is_empty() {
                line(&mut table, format_args!("{title:<10} {}", told.join(", ")));
            }
        }
        let holders: Vec<_> =
            HOLDERS.iter().filter_map(|name| self.sys.get(*name)).filter_map(|told| held(told)).collect();
        if !holders.is_empty() {
            line(&mut table, format_args!("{:<10} {}", "held for", holders.join(", ")));
        }
        let all = &self.all;
        line(
            &mut table,
            format_args!(
                "{:<10} {:.0} messages/s, {} messages of {} bytes on {} topics{}",
                "seen",
                rate(all),
                all.messages,
                all.bytes,
                self.topics.len(),
                if missed > 0 { format!(", {missed} missed") } else { String::new() }
            ),
        );
        line(&mut table, format_args!("{:>10} {:>12} {:>14}  topic = last payload", "per s", "messages", "bytes"));
        let mut rows: Vec<(&str, &Seen)> = self.topics.iter().map(|(topic, seen)| (&**topic, seen)).collect();
        rows.sort_by_key(|(topic, seen)| {
            let key = match arguments.sort {
                Order::Rate => seen.messages - seen.before,
                Order::Messages => seen.messages,
                Order::Bytes => seen.bytes,
            };
            (std::cmp::Reverse(key), *topic)
        });
        let others = Some(("(more topics)", &self.others)).filter(|(_, seen)| seen.messages > 0);
        for (topic, seen) in rows.into_iter().take(arguments.rows).chain(others) {
            let Seen { messages, bytes, last, .. } = seen;
            line(&mut table, format_args!("{:>10.1} {messages:>12} {bytes:>14}  {topic} = {last}", rate(seen)));
        }
        let seen = self.topics.values_mut().chain([&mut self.others, &mut self.all]);
        seen.for_each(|seen| seen.before = seen.messages);
        table.push('\n');
        table
    }
}

fn line(table: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(table, "{line}").expect("a String takes all that is written");
}

/// "client bytes" of "bytes client"; `None` for a place that nobody has any more.
fn held(told: &str) -> Option<String> {
    let (bytes, client) = told.split_once(' ')?;
    Some(format!("{client} {bytes} B"))
}

/// The start of a payload on one line, nothing in it that a terminal would obey.
fn preview(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(&payload[..payload.len().min(PREVIEW_BYTES_MAX)]);
    let shown = text.chars().map(|character| if character.is_control() { '\u{b7}' } else { character });
    let more = if payload.len() > PREVIEW_BYTES_MAX { "..." } else { "" };
    shown.chain(more.chars()).collect()
}

const SYS: &str = "$SYS/broker/";
const SYS_FILTER: &str = "$SYS/broker/#";

/// What of `$SYS` is shown, line by line, under which names.
const SYS_LINES: [(&str, &[(&str, &str)]); 4] = [
    ("broker", &[("version", ""), ("uptime", "up")]),
    (
        "clients",
        &[
            ("clients/connected", "connected"),
            ("clients/disconnected", "away"),
            ("subscriptions/count", "subscriptions"),
            ("shared_subscriptions/count", "shared"),
        ],
    ),
    (
        "messages",
        &[
            ("messages/received", "received"),
            ("messages/sent", "sent"),
            ("publish/messages/dropped", "dropped"),
            ("messages/inflight", "in flight"),
        ],
    ),
    (
        "memory",
        &[
            ("heap/current", "heap"),
            ("store/messages/bytes", "stored bytes"),
            ("store/messages/count", "stored"),
            ("retained messages/count", "retained"),
        ],
    ),
];

/// The clients for which the broker holds most.
const HOLDERS: [&str; 8] = [
    "clients/memory/1",
    "clients/memory/2",
    "clients/memory/3",
    "clients/memory/4",
    "clients/memory/5",
    "clients/memory/6",
    "clients/memory/7",
    "clients/memory/8",
];

/// Topics that are told apart, and names below `$SYS`.
const TOPICS_MAX: usize = 100_000;
const SYS_MAX: usize = 1_000;

const PREVIEW_BYTES_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_told_by_name() {
        assert_eq!(held("2048 device 7").as_deref(), Some("device 7 2048 B"));
        assert_eq!(held(""), None);
    }

    #[test]
    fn a_preview_is_one_harmless_line() {
        assert_eq!(preview(b"21.5"), "21.5");
        assert_eq!(preview(b"a\x1b[2J\nb"), "a\u{b7}[2J\u{b7}b");
        assert_eq!(preview(&[b'x'; 100]), format!("{}...", "x".repeat(60)));
        assert_eq!(preview(b"\xFF"), "\u{fffd}");
    }
}
