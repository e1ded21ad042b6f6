//! `$SYS/broker/...`: the broker's counters as retained messages, under the names that mosquitto gives them.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    message::Message,
    shard::Shard,
    stats::{HOLDERS_MAX, Stats},
    timers::Timer,
};
use crate::codec::{Text, TopicName};

/// What is kept between two publications.
#[derive(Debug, Default)]
pub(crate) struct Sys {
    last: Option<(Instant, Stats)>,
    loads: [[f64; LOADS.len()]; 3],
}

impl Shard {
    /// Publishes the topics, on shard 0; the others only hand in their counters.
    pub(super) fn publish_sys(&mut self, now: Instant) {
        let Some(interval) = self.shared.settings.sys_interval else { return };
        self.wire.timers.arm(now + interval, Timer::Sys);
        let sum = self.shared.exchange_stats(self.id, self.stats());
        if self.id.0 != 0 {
            return;
        }
        let uptime = now.saturating_duration_since(self.shared.started).as_secs();
        let mut topics = counters(&sum, uptime);
        holders(&sum, &mut topics);
        self.sys.loads(now, &sum, &mut topics);
        self.sys.last = Some((now, sum));
        for (name, value) in topics {
            let topic = Text::try_from(format!("$SYS/broker/{name}").as_str()).expect("topics are short ASCII");
            // An empty one takes back what was said, if anything was.
            let known = self.shared.retained.read().get(&topic).map(std::sync::Arc::clone);
            if known.as_ref().map(|known| known.payload()).unwrap_or_default() != value.as_bytes() {
                let message = Message::new(TopicName::from_checked(topic), Bytes::from(value)).retain(true);
                self.publish(now, message);
            }
        }
    }
}

impl Sys {
    /// Moving averages per minute over 1, 5 and 15 minutes.
    fn loads(&mut self, now: Instant, sum: &Stats, topics: &mut Vec<(String, String)>) {
        let Some((then, last)) = &self.last else { return };
        let elapsed = now.saturating_duration_since(*then);
        if elapsed.is_zero() {
            return;
        }
        for (minutes, loads) in [1u32, 5, 15].into_iter().zip(&mut self.loads) {
            let weight = (-elapsed.as_secs_f64() / f64::from(minutes * 60)).exp();
            for ((name, read), load) in LOADS.iter().zip(loads) {
                let rate = per_minute(read(sum).saturating_sub(read(last)), elapsed);
                *load = rate + weight * (*load - rate);
                topics.push((format!("load/{name}/{minutes}min"), format!("{load:.2}")));
            }
        }
    }
}

/// Counters and gauges by name.
fn counters(sum: &Stats, uptime_seconds: u64) -> Vec<(String, String)> {
    let clients = sum.clients_connected + sum.clients_disconnected;
    let gauges = [
        ("clients/total", clients),
        ("clients/connected", sum.clients_connected),
        ("clients/active", sum.clients_connected),
        ("clients/disconnected", sum.clients_disconnected),
        ("clients/inactive", sum.clients_disconnected),
        ("clients/maximum", sum.clients_maximum),
        ("clients/expired", sum.sessions_expired),
        ("messages/received", sum.packets_received),
        ("messages/sent", sum.packets_sent),
        ("messages/inflight", sum.messages_inflight),
        ("messages/stored", sum.messages_queued + sum.retained_messages),
        ("store/messages/count", sum.messages_queued + sum.retained_messages),
        ("store/messages/bytes", sum.bytes_held),
        ("publish/messages/received", sum.publish_received),
        ("publish/messages/sent", sum.publish_sent),
        ("publish/messages/dropped", sum.dropped_total()),
        ("publish/bytes/received", sum.publish_bytes_received),
        ("publish/bytes/sent", sum.publish_bytes_sent),
        ("bytes/received", sum.bytes_received),
        ("bytes/sent", sum.bytes_sent),
        ("retained messages/count", sum.retained_messages),
        ("subscriptions/count", sum.subscriptions),
        ("shared_subscriptions/count", sum.shared_subscriptions),
    ];
    let mut topics: Vec<_> = gauges.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect();
    topics.push(("version".into(), concat!("ferromq version ", env!("CARGO_PKG_VERSION")).into()));
    topics.push(("uptime".into(), format!("{uptime_seconds} seconds")));
    topics
}

/// Bytes and client, for each place among those for which most is held; nothing where nobody is any more.
fn holders(sum: &Stats, topics: &mut Vec<(String, String)>) {
    for place in 0..HOLDERS_MAX {
        let told = sum.holders.get(place).map(|holder| format!("{} {}", holder.bytes, holder.client_id));
        topics.push((format!("clients/memory/{}", place + 1), told.unwrap_or_default()));
    }
}

fn per_minute(count: u64, elapsed: Duration) -> f64 {
    count as f64 * 60.0 / elapsed.as_secs_f64()
}

/// A counter whose rate is averaged.
type Read = fn(&Stats) -> u64;

/// The rates by name.
const LOADS: [(&str, Read); 8] = [
    ("messages/received", |stats| stats.packets_received),
    ("messages/sent", |stats| stats.packets_sent),
    ("publish/received", |stats| stats.publish_received),
    ("publish/sent", |stats| stats.publish_sent),
    ("publish/dropped", Stats::dropped_total),
    ("bytes/received", |stats| stats.bytes_received),
    ("bytes/sent", |stats| stats.bytes_sent),
    ("connections", |stats| stats.connections_opened),
];
