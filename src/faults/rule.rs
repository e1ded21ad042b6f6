//! Rules: which packets, and what becomes of them. Pure: packet, time and random numbers in, strokes out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::packet::Facts;
use crate::codec::{PacketType, ReasonCode, TopicFilter};

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client.
    ToBroker,
    /// From the broker.
    ToClient,
}

/// Which packets a rule is about; everything that is `None` or empty selects all.
#[derive(Debug, Clone, Default)]
pub struct Select {
    /// Types of packets. Bytes that are not looked into (WebSocket) have none.
    pub packets: Vec<PacketType>,
    /// Client identifier.
    pub client: Option<String>,
    /// Topic of the message that a packet is or belongs to, or of one of the filters it is about.
    pub topic: Option<TopicFilter>,
    /// Which way.
    pub direction: Option<Direction>,
    /// Only the n-th that matches; the first is 1.
    pub nth: Option<u64>,
    /// At most so many.
    pub count: Option<u64>,
    /// For so long.
    pub lasts: Option<Duration>,
    /// With this probability, 0 to 1; `None` is always.
    pub probability: Option<f64>,
}

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// They vanish.
    Drop,
    /// They, and what is behind them, come later.
    Delay {
        /// How much.
        by: Duration,
        /// And at random up to so much.
        jitter: Duration,
    },
    /// They come more than once.
    Duplicate {
        /// How often besides.
        copies: u32,
    },
    /// Others overtake them.
    Reorder {
        /// How many.
        by: u32,
        /// They come after this time if there are not as many.
        within: Duration,
    },
    /// Bits of them are turned, behind the fixed header.
    Corrupt {
        /// How many.
        bits: u32,
    },
    /// The connection is closed when so many bytes of them have passed.
    Cut {
        /// How many, of each connection.
        after_bytes: u64,
    },
    /// They say something else.
    FakeReason(ReasonCode),
    /// They pass at a limited rate, for each connection and direction.
    Throttle {
        /// Bytes a second.
        rate: f64,
    },
    /// Nothing passes, either way, until the rule ends; what was on its way passes then.
    Partition,
    /// New connections are reset, or their CONNECT answered with a reason.
    Refuse(Option<ReasonCode>),
    /// The connections that exist when the rule is made are dead: nothing passes any more, not even their end.
    HalfOpen,
}

impl Select {
    /// How often a rule strikes at most.
    pub(super) const fn hits_max(&self) -> Option<u64> {
        if self.nth.is_some() { Some(1) } else { self.count }
    }
}

impl Action {
    /// Its name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Delay { .. } => "delay",
            Self::Duplicate { .. } => "duplicate",
            Self::Reorder { .. } => "reorder",
            Self::Corrupt { .. } => "corrupt",
            Self::Cut { .. } => "cut",
            Self::FakeReason(_) => "fake_reason",
            Self::Throttle { .. } => "throttle",
            Self::Partition => "partition",
            Self::Refuse(_) => "refuse",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What others may know of a rule.
#[derive(Debug, Default)]
pub(super) struct RuleState {
    pub(super) hits: AtomicU64,
    /// It was removed, or can strike no more.
    pub(super) is_over: AtomicBool,
    /// It was removed.
    pub(super) is_removed: AtomicBool,
    /// Connections that died of it.
    pub(super) dead: Mutex<Vec<u64>>,
    /// It has struck.
    pub(super) struck: Notify,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: u64,
    pub(super) select: Select,
    pub(super) action: Action,
    pub(super) state: Arc<RuleState>,
    until: Option<Instant>,
    matched: u64,
}

/// All rules, in the order in which they were made.
#[derive(Debug)]
pub(super) struct RuleBook {
    rules: Vec<Rule>,
    next_id: u64,
    random: u64,
}

/// A rule that strikes a packet.
#[derive(Debug, Clone)]
pub(super) struct Stroke {
    pub(super) rule: u64,
    pub(super) action: Action,
    count_max: Option<u64>,
    state: Arc<RuleState>,
}

/// How a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Reset,
    /// CONNECT is answered.
    Answer(ReasonCode),
}

/// More rules than there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {RULES_MAX} fault rules already; remove those that are done with")]
pub struct TooManyRules;

impl Rule {
    fn is_active(&self, now: Instant) -> bool {
        !self.state.is_over.load(Ordering::Acquire) && self.until.is_none_or(|until| now < until)
    }

    fn is_about(&self, client: Option<&str>) -> bool {
        self.select.client.is_none() || self.select.client.as_deref() == client
    }

    fn selects(&self, direction: Direction, client: Option<&str>, facts: &Facts) -> bool {
        let Select { packets, topic, direction: way, .. } = &self.select;
        let is_type = packets.is_empty() || facts.packet.is_some_and(|packet| packets.contains(&packet));
        is_type
            && way.is_none_or(|way| way == direction)
            && self.is_about(client)
            && topic.as_ref().is_none_or(|filter| is_on(filter, facts))
    }
}

fn is_on(filter: &TopicFilter, facts: &Facts) -> bool {
    let of_message = facts.topic.as_deref().is_some_and(|topic| filter.matches(topic));
    let about = |other: &String| other == filter.as_str() || filter.matches(other);
    of_message || facts.filters.as_deref().is_some_and(|filters| filters.iter().any(about))
}

impl RuleBook {
    pub(super) fn new(seed: u64) -> Self {
        Self { rules: Vec::new(), next_id: 1, random: seed }
    }

    pub(super) fn add(
        &mut self,
        now: Instant,
        select: Select,
        action: Action,
    ) -> Result<(u64, Arc<RuleState>), TooManyRules> {
        self.rules.retain(|rule| rule.is_active(now));
        if self.rules.len() >= RULES_MAX {
            return Err(TooManyRules);
        }
        let (id, state) = (self.next_id, Arc::<RuleState>::default());
        self.next_id += 1;
        let until = select.lasts.and_then(|lasts| now.checked_add(lasts));
        self.rules.push(Rule { id, select, action, state: Arc::clone(&state), until, matched: 0 });
        Ok((id, state))
    }

    /// The rules that can still strike.
    pub(super) fn active(&self, now: Instant) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.is_active(now))
    }

    /// What strikes a packet. Whether it did, the caller notes with [`Stroke::hit`].
    pub(super) fn strokes(
        &mut self,
        now: Instant,
        direction: Direction,
        client: Option<&str>,
        facts: &Facts,
    ) -> Vec<Stroke> {
        let mut strokes = Vec::new();
        for at in 0..self.rules.len() {
            let random = self.unit();
            let rule = &mut self.rules[at];
            let is_of_packets = !matches!(rule.action, Action::Partition | Action::HalfOpen | Action::Refuse(_));
            if !is_of_packets || !rule.is_active(now) || !rule.selects(direction, client, facts) {
                continue;
            }
            rule.matched += 1;
            let is_turn = rule.select.nth.is_none_or(|nth| nth == rule.matched);
            if rule.select.nth.is_some_and(|nth| rule.matched >= nth) {
                rule.state.is_over.store(true, Ordering::Release);
            }
            if is_turn && rule.select.probability.is_none_or(|probability| random < probability) {
                let (count_max, state) = (rule.select.count, Arc::clone(&rule.state));
                strokes.push(Stroke { rule: rule.id, action: rule.action, count_max, state });
            }
        }
        strokes
    }

    /// Whether nothing may pass to or from this client now.
    pub(super) fn is_partitioned(&self, now: Instant, client: Option<&str>) -> bool {
        self.active(now).any(|rule| rule.action == Action::Partition && rule.is_about(client))
    }

    /// When a partition ends by itself.
    pub(super) fn next_end(&self, now: Instant) -> Option<Instant> {
        self.active(now).filter(|rule| rule.action == Action::Partition).filter_map(|rule| rule.until).min()
    }

    /// How a connection of this client is refused, if it is; with `None`, of whichever client before it has said anything.
    pub(super) fn refusal(&mut self, now: Instant, client: Option<&str>) -> Option<Refusal> {
        let refuses = |rule: &&Rule| match (rule.action, client) {
            (Action::Refuse(None), None) => rule.select.client.is_none(),
            (Action::Refuse(_), Some(_)) => rule.is_about(client),
            _ => false,
        };
        let rule = self.active(now).find(refuses)?;
        let Action::Refuse(reason) = rule.action else { return None };
        rule.state.hit(rule.select.count);
        Some(reason.map_or(Refusal::Reset, Refusal::Answer))
    }

    /// Takes all rules out.
    pub(super) fn take_all(&mut self) -> Vec<Rule> {
        std::mem::take(&mut self.rules)
    }

    /// A random number from 0 to 1, 1 excluded (SplitMix64).
    pub(super) fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A random number.
    pub(super) fn number(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

impl Stroke {
    /// It has struck.
    pub(super) fn hit(&self) {
        self.state.hit(self.count_max);
    }
}

impl RuleState {
    /// It strikes no more, and nobody need wait for it.
    pub(super) fn remove(&self) {
        self.is_over.store(true, Ordering::Release);
        self.is_removed.store(true, Ordering::Release);
        self.struck.notify_waiters();
    }

    fn hit(&self, count_max: Option<u64>) {
        let hits = self.hits.fetch_add(1, Ordering::AcqRel) + 1;
        if count_max.is_some_and(|count| hits >= count) {
            self.is_over.store(true, Ordering::Release);
        }
        self.struck.notify_waiters();
    }
}

/// Rules that can strike at one time: each packet is compared with all of them.
const RULES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn puback() -> Facts {
        Facts { packet: Some(PacketType::PubAck), topic: Some("plant/1/temp".into()), filters: None }
    }

    fn strikes(book: &mut RuleBook, now: Instant, client: &str, facts: &Facts) -> usize {
        let strokes = book.strokes(now, Direction::ToClient, Some(client), facts);
        strokes.iter().for_each(Stroke::hit);
        strokes.len()
    }

    fn rule(select: Select) -> (RuleBook, Arc<RuleState>, Instant) {
        let (mut book, now) = (RuleBook::new(1), Instant::now());
        let (_, state) = book.add(now, select, Action::Drop).unwrap();
        (book, state, now)
    }

    #[test]
    fn the_nth_match_is_struck_and_the_rule_is_over() {
        let (mut book, state, now) = rule(Select { nth: Some(3), ..Select::default() });
        let struck: Vec<_> = (0..5).map(|_| strikes(&mut book, now, "c", &puback())).collect();
        assert_eq!((struck, state.hits.load(Ordering::Relaxed)), (vec![0, 0, 1, 0, 0], 1));
        assert_eq!(book.active(now).count(), 0);
    }

    #[test]
    fn a_rule_ends_by_count_and_by_time() {
        let (mut book, _, now) = rule(Select { count: Some(2), ..Select::default() });
        let struck: Vec<_> = (0..4).map(|_| strikes(&mut book, now, "c", &puback())).collect();
        assert_eq!(struck, [1, 1, 0, 0]);
        let (mut book, _, now) = rule(Select { lasts: Some(Duration::from_secs(5)), ..Select::default() });
        assert_eq!(strikes(&mut book, now + Duration::from_secs(4), "c", &puback()), 1);
        assert_eq!(strikes(&mut book, now + Duration::from_secs(5), "c", &puback()), 0);
    }

    #[test]
    fn every_selector_selects() {
        let filter = |filter| Some(TopicFilter::new(filter).unwrap());
        let rows = [
            (Select { packets: vec![PacketType::PubAck], ..Select::default() }, true),
            (Select { packets: vec![PacketType::PubRec], ..Select::default() }, false),
            (Select { client: Some("c".into()), ..Select::default() }, true),
            (Select { client: Some("d".into()), ..Select::default() }, false),
            (Select { topic: filter("plant/+/temp"), ..Select::default() }, true),
            (Select { topic: filter("plant/+/load"), ..Select::default() }, false),
            (Select { direction: Some(Direction::ToClient), ..Select::default() }, true),
            (Select { direction: Some(Direction::ToBroker), ..Select::default() }, false),
            (Select { probability: Some(1.0), ..Select::default() }, true),
            (Select { probability: Some(0.0), ..Select::default() }, false),
        ];
        for (select, expected) in rows {
            let text = format!("{select:?}");
            let (mut book, _, now) = rule(select);
            assert_eq!(strikes(&mut book, now, "c", &puback()) == 1, expected, "{text}");
        }
    }

    #[test]
    fn probability_is_seeded() {
        let strokes = |seed| {
            let (mut book, now) = (RuleBook::new(seed), Instant::now());
            let select = Select { probability: Some(0.3), ..Select::default() };
            book.add(now, select, Action::Drop).unwrap();
            (0..200).map(|_| strikes(&mut book, now, "c", &puback())).collect::<Vec<_>>()
        };
        assert_eq!(strokes(7), strokes(7));
        assert_ne!(strokes(7), strokes(8));
        assert!((30..=90).contains(&strokes(7).iter().sum::<usize>()));
    }

    #[test]
    fn rules_are_bounded_and_those_that_are_over_make_room() {
        let (mut book, now) = (RuleBook::new(1), Instant::now());
        for _ in 0..RULES_MAX {
            book.add(now, Select { nth: Some(1), ..Select::default() }, Action::Drop).unwrap();
        }
        assert!(book.add(now, Select::default(), Action::Drop).is_err());
        strikes(&mut book, now, "c", &puback());
        assert!(book.add(now, Select::default(), Action::Drop).is_ok());
    }
}
