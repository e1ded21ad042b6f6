//! What a seed decides before a run: the broker's settings, the clients and their habits.

use ferromq::{
    broker::{DropPolicy, Settings},
    codec::{QoS, Version},
    router::SharedStrategy,
};

use crate::rng::Rng;

/// How a run is shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Default settings.
    Plain,
    /// Receive maximum of 1 to 3, small packets, small outboxes: everything waits for everything.
    Narrow,
    /// Queues of a few messages: drops happen and must be counted.
    Lossy,
}

/// A run to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) shards: usize,
    pub(crate) clients: Vec<Habits>,
    /// Longest delay of a chunk, an envelope or a hand-off, microseconds.
    pub(crate) delay_us_max: u64,
    /// Largest piece of a byte stream that travels at once.
    pub(crate) chunk_bytes_max: usize,
    /// Chance that a client's step breaks its connection, percent.
    pub(crate) cut_percent: u64,
    /// Steps of each client before the run is calmed.
    pub(crate) steps: usize,
    /// The broker has a store, which commits late.
    pub(crate) stores: bool,
    /// At the end the broker shuts down, instead of everybody leaving.
    pub(crate) shuts_down: bool,
}

/// What a client is like.
#[derive(Debug, Clone)]
pub(crate) struct Habits {
    pub(crate) version: Version,
    /// The session outlives the connection.
    pub(crate) is_persistent: bool,
    /// Seconds the session outlives the connection, if it does.
    pub(crate) expiry_s: u32,
    /// It takes part in shared subscriptions.
    pub(crate) shares: bool,
    /// Subscriptions it begins with.
    pub(crate) filters: usize,
    /// Greatest QoS it publishes with; `None` publishes nothing.
    pub(crate) publishes: Option<QoS>,
    /// Greatest QoS it subscribes with, shared subscriptions apart.
    pub(crate) subscribes: QoS,
    pub(crate) receive_maximum: u16,
    pub(crate) topic_aliases: u16,
    pub(crate) packet_bytes_max: u32,
    /// Will delay in seconds, if there is a will.
    pub(crate) will_delay_s: Option<u32>,
    /// Chance that it publishes many messages to one topic at once, when it publishes, percent.
    pub(crate) burst_percent: u64,
    /// Chance of a restart without memory at each step, percent.
    pub(crate) restart_percent: u64,
    /// Chance of a change of its subscriptions at each step, percent.
    pub(crate) resubscribe_percent: u64,
    pub(crate) keep_alive_s: u16,
    /// It sees all wills and is left in peace.
    pub(crate) is_watcher: bool,
}

impl Plan {
    pub(crate) fn new(profile: Profile, rng: &mut Rng) -> Self {
        let shards = rng.between(1, 4) as usize;
        let clients = rng.between(3, 7);
        Self {
            settings: settings(profile, rng),
            shards,
            clients: (0..clients).map(|_| Habits::new(profile, rng)).chain([Habits::watcher()]).collect(),
            delay_us_max: *rng.pick(&[0, 500, 5_000, 50_000]),
            chunk_bytes_max: *rng.pick(&[1, 3, 17, 300, 10_000]),
            cut_percent: *rng.pick(&[0, 2, 8, 20]),
            steps: rng.between(10, 40) as usize,
            stores: rng.chance(30),
            shuts_down: rng.chance(40),
        }
    }
}

fn settings(profile: Profile, rng: &mut Rng) -> Settings {
    let mut settings = Settings { sys_interval: None, ..Settings::default() };
    settings.capabilities.receive_maximum = *rng.pick(&[10, 1024]);
    settings.shared_strategy = *rng.pick(&STRATEGIES);
    settings.session.queue_qos0_offline = rng.chance(30);
    match profile {
        Profile::Plain => {}
        Profile::Narrow => {
            settings.capabilities.receive_maximum = rng.between(1, 3) as u16;
            settings.capabilities.topic_alias_maximum = rng.between(0, 2) as u16;
            settings.session.inflight_max = rng.between(1, 3) as u16;
            settings.slow_consumer.outbox_soft_bytes = rng.between(50, 400) as usize;
            settings.slow_consumer.staged_envelopes_max = rng.between(1, 5) as usize;
            settings.slow_consumer.memory_watermark_bytes = *rng.pick(&[2_000, 10_000, 256 << 20]);
        }
        Profile::Lossy => {
            settings.session.queued_messages_max = rng.between(1, 10) as usize;
            settings.session.queued_bytes_max = rng.between(200, 5_000) as usize;
            settings.session.drop_policy = *rng.pick(&[DropPolicy::New, DropPolicy::Oldest]);
            settings.session.inflight_max = rng.between(1, 5) as u16;
            settings.slow_consumer.outbox_soft_bytes = rng.between(50, 4_000) as usize;
        }
    }
    settings
}

impl Habits {
    fn new(profile: Profile, rng: &mut Rng) -> Self {
        let version = *rng.pick(&[Version::V5, Version::V5, Version::V3_1_1]);
        let narrow = profile == Profile::Narrow;
        let restart_percent = *rng.pick(&[0, 0, 3]);
        Self {
            version,
            is_persistent: rng.chance(70),
            // Before MQTT 5 a session lasts as long as the server likes: for ever, by default.
            expiry_s: if version.is_v5() { *rng.pick(&[5, 60, 100_000]) } else { u32::MAX },
            shares: rng.chance(40),
            filters: rng.below(4),
            publishes: rng.chance(80).then(|| any_qos(rng)),
            subscribes: any_qos(rng),
            receive_maximum: if narrow { rng.between(1, 3) as u16 } else { *rng.pick(&[2, 20, 1024]) },
            topic_aliases: *rng.pick(&[0, 1, 8]),
            packet_bytes_max: if narrow && version.is_v5() { rng.between(120, 400) as u32 } else { 268_435_460 },
            will_delay_s: rng.chance(40).then(|| *rng.pick(&[0, 0, 3, 50])),
            burst_percent: *rng.pick(&[0, 0, 15, 40]),
            restart_percent,
            resubscribe_percent: *rng.pick(&[0, 5, 20]),
            keep_alive_s: *rng.pick(&[0, 4, 60]),
            is_watcher: false,
        }
    }

    /// A client that never breaks and sees every will.
    pub(crate) fn watcher() -> Self {
        Self {
            version: Version::V5,
            is_persistent: true,
            expiry_s: 100_000,
            shares: false,
            filters: 0,
            publishes: None,
            subscribes: QoS::ExactlyOnce,
            receive_maximum: 1024,
            topic_aliases: 0,
            packet_bytes_max: 268_435_460,
            will_delay_s: None,
            burst_percent: 0,
            restart_percent: 0,
            resubscribe_percent: 0,
            keep_alive_s: 0,
            is_watcher: true,
        }
    }

    /// A filter to subscribe to, with the QoS to ask for.
    pub(crate) fn filter(&self, rng: &mut Rng) -> (String, QoS) {
        let filter = *rng.pick(if self.shares { &SHARER_FILTERS } else { &FILTERS });
        let qos = any_qos(rng).min(self.subscribes);
        // A member with QoS 0 may lose what the group was promised.
        let qos = if filter.starts_with("$share/") { qos.max(QoS::AtLeastOnce) } else { qos };
        (filter.into(), qos)
    }

    /// Whether a life without memory may resume the session: with QoS 2 it could not tell repetitions.
    pub(crate) fn may_forget(&self) -> bool {
        self.is_persistent && self.subscribes < QoS::ExactlyOnce && self.publishes < Some(QoS::ExactlyOnce)
    }
}

fn any_qos(rng: &mut Rng) -> QoS {
    *rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce])
}

const STRATEGIES: [SharedStrategy; 6] = [
    SharedStrategy::RoundRobin,
    SharedStrategy::Random,
    SharedStrategy::Sticky,
    SharedStrategy::HashClientId,
    SharedStrategy::HashTopic,
    SharedStrategy::LeastInFlight,
];

/// Topics that are published to.
pub(crate) const TOPICS: [&str; 8] = ["t/0", "t/1", "t/1/deep", "u/0", "u/1", "v", "s/0", "s/1"];

/// Filters that are subscribed to, overlapping ones among them.
const FILTERS: [&str; 8] = ["t/0", "t/1", "t/#", "t/+", "#", "+/1", "u/#", "v"];

/// Filters of clients that share. Only shared ones match `s/...`, so that it is known why a message came.
pub(crate) const SHARER_FILTERS: [&str; 8] =
    ["t/0", "t/#", "u/+", "v", "$share/g/s/#", "$share/g/s/#", "$share/h/s/0", "$share/h/s/#"];
