//! What was published, what came out, and what must hold between the two.

use std::collections::{BTreeMap, HashMap};

use ferromq::codec::{QoS, topic};

/// Order of all that happens in a run: one number an event.
pub(crate) type Tick = u64;

/// Everything the invariants need to know.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) published: Vec<Published>,
    /// By client.
    pub(crate) received: Vec<Vec<Received>>,
    /// Wills by their payload.
    pub(crate) wills: BTreeMap<String, Will>,
}

/// A message that a client was asked to publish. Its index is its number, and its payload begins with it.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) client: usize,
    /// Which life of the client.
    pub(crate) life: u32,
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) payload_bytes: usize,
    pub(crate) expires: bool,
    pub(crate) at: Tick,
    /// Acknowledged without an error.
    pub(crate) acked: bool,
    /// Given up by the client, with an error, or lost with its memory.
    pub(crate) given_up: bool,
    /// Connections on which it may have been sent.
    pub(crate) attempts: u32,
}

/// A message that a client has handed out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) number: usize,
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// Which life of the client: one that has lost its memory cannot tell repetitions.
    pub(crate) life: u32,
    /// The client was subscribed when it was published.
    pub(crate) is_promised: bool,
}

/// One will and what became of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Will {
    /// Connections that ended without DISCONNECT.
    pub(crate) broken: u32,
    /// Whether it has no delay.
    pub(crate) is_prompt: bool,
    pub(crate) seen: u32,
}

/// A subscription as its client knows it.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    /// The least QoS granted since it holds.
    pub(crate) qos: QoS,
    /// Since when the client knows that the server knows it.
    pub(crate) since: Option<Tick>,
    /// QoS to ask for when it is made again.
    pub(crate) asked: QoS,
    /// The request whose answer counts.
    pub(crate) token: u64,
}

/// The subscriptions of a client at the end of a run, and which messages are too large for it.
pub(crate) struct Claims<'a> {
    pub(crate) client: usize,
    pub(crate) subscriptions: &'a HashMap<String, Subscription>,
    pub(crate) packet_bytes_max: u32,
}

impl Ledger {
    /// Messages that a client was promised and has not got.
    pub(crate) fn missing(&self, claims: &Claims<'_>) -> Vec<usize> {
        let got: std::collections::HashSet<usize> =
            self.received[claims.client].iter().map(|received| received.number).collect();
        let promised = |number: &usize| is_promised(claims, &self.published[*number]);
        (0..self.published.len()).filter(promised).filter(|number| !got.contains(number)).collect()
    }

    /// How many messages a client was promised.
    pub(crate) fn promises(&self, claims: &Claims<'_>) -> usize {
        self.published.iter().filter(|message| is_promised(claims, message)).count()
    }

    /// No QoS 2 message is handed out twice, and no other one without DUP more often than it was published.
    pub(crate) fn check_repetitions(&self, client: usize, shares: &[String]) -> Result<(), String> {
        let mut plain: HashMap<usize, u32> = HashMap::new();
        let mut exactly: HashMap<(usize, u32), u32> = HashMap::new();
        for received in self.received[client].iter().filter(|received| !received.retain) {
            let message = &self.published[received.number];
            let shared = shares.iter().filter(|filter| topic::matches(inner(filter), &message.topic)).count() as u32;
            if received.qos == QoS::ExactlyOnce {
                let count = exactly.entry((received.number, received.life)).or_default();
                *count += 1;
                if *count > 1 + shared {
                    return Err(format!("client {client} got QoS 2 message {} {count} times", received.number));
                }
            }
            if !received.dup && shared == 0 {
                let count = plain.entry(received.number).or_default();
                *count += 1;
                let allowed = if message.qos == QoS::AtLeastOnce { message.attempts } else { 1 };
                if *count > allowed {
                    return Err(format!(
                        "client {client} got message {} {count} times without DUP, it was sent {allowed} times",
                        received.number
                    ));
                }
            }
        }
        Ok(())
    }

    /// Messages of one publisher, topic and QoS come in the order of publication, repetitions apart.
    /// One that was sent twice may come late: the first was dropped, or came before the subscription, a newer one not.
    pub(crate) fn check_order(&self, client: usize, shares: &[String], is_lossy: bool) -> Result<(), String> {
        let mut last: HashMap<(usize, u32, &str, QoS, QoS), usize> = HashMap::new();
        let mut seen = std::collections::HashSet::new();
        for received in self.received[client].iter().filter(|received| !received.retain) {
            let message = &self.published[received.number];
            let is_shared = shares.iter().any(|filter| topic::matches(inner(filter), &message.topic));
            let may_miss = is_lossy || received.qos == QoS::AtMostOnce || !received.is_promised;
            let is_late = may_miss && message.attempts > 1;
            if is_shared || is_late || !seen.insert(received.number) {
                continue;
            }
            let stream = (message.client, message.life, message.topic.as_str(), message.qos, received.qos);
            if let Some(before) = last.insert(stream, received.number).filter(|before| *before > received.number) {
                return Err(format!("client {client} got message {} after {before}: {stream:?}", received.number));
            }
        }
        Ok(())
    }

    /// What a topic's retained message may be at the end: the last acknowledged one, or one published after it whose
    /// fate is unknown. `None` in the list: none may be there.
    pub(crate) fn retained(&self, wanted: &str) -> Vec<Option<usize>> {
        let mut possible = vec![None];
        for (number, message) in self.published.iter().enumerate() {
            if message.topic != wanted || !message.retain {
                continue;
            }
            let stored = (message.payload_bytes > 0).then_some(number);
            if message.acked {
                possible = vec![stored];
            } else {
                possible.push(stored);
            }
        }
        possible
    }

    /// Each will is published at most once for a broken connection, and a prompt one exactly once.
    pub(crate) fn check_wills(&self) -> Result<(), String> {
        for (name, will) in &self.wills {
            if will.seen > will.broken {
                return Err(format!("{name} was published {} times for {} broken connections", will.seen, will.broken));
            }
            if will.is_prompt && will.seen < will.broken {
                return Err(format!("{name} was published {} times, {} connections broke", will.seen, will.broken));
            }
        }
        Ok(())
    }
}

/// Whether a client was promised a message: acknowledged, and published while a subscription was known to hold.
fn is_promised(claims: &Claims<'_>, message: &Published) -> bool {
    let fits = message.payload_bytes + OVERHEAD_BYTES <= claims.packet_bytes_max as usize;
    message.acked
        && !message.expires
        && fits
        && claims.subscriptions.iter().any(|(filter, subscription)| {
            !filter.starts_with("$share/")
                && subscription.since.is_some_and(|since| since <= message.at)
                && subscription.qos.min(message.qos) > QoS::AtMostOnce
                && topic::matches(filter, &message.topic)
        })
}

/// The filter that a group shares.
pub(crate) fn inner(filter: &str) -> &str {
    filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, inner)| inner)
}

/// More than the header, topic, identifiers and properties of any PUBLISH in these runs.
const OVERHEAD_BYTES: usize = 80;
