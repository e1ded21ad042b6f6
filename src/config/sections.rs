//! The tables of `broker.toml`. Each key's documentation is also the comment that `to_toml` prints above it.

use std::{collections::BTreeMap, fmt, num::NonZeroU16};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::units::{ByteSize, Period, Seconds};
use crate::{broker::Settings, codec::QoS, disk::Durability};

/// Defines one table: a struct with `Default` from the broker's own defaults, strict keys, and its keys' comments.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident in $table:literal, defaults from $defaults:ident {
            $($(#[doc = $doc:literal])+ $(#[serde($check:meta)])? $key:ident: $type:ty = $default:expr,)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[doc = $doc])+ $(#[serde($check)])? pub $key: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                let $defaults = Settings::default();
                let _ = &$defaults;
                Self { $($key: $default,)+ }
            }
        }

        impl $name {
            /// The table's name and its keys.
            pub(super) const TABLE: (&'static str, &'static [&'static str]) = ($table, &[$(stringify!($key),)+]);

            /// Appends the table with all keys, each under its comment.
            pub(super) fn print(&self, page: &mut super::print::Page) {
                page.table($table, &[$($about),+]);
                $(page.key(stringify!($key), &[$($doc),+], &self.$key);)+
            }
        }
    };
}

section! {
    /// What is accepted from peers. Everything over a limit is refused before memory is spent on it.
    Limits in "limits", defaults from settings {
        /// Connections of all listeners at one time; over it, CONNACK says server busy. 0 is no limit.
        max_connections: usize = settings.connections_max,
        /// Time from accepting a connection to its complete CONNECT and authentication.
        #[serde(deserialize_with = "positive_period")]
        connect_timeout: Period = settings.connect_timeout.into(),
        /// Levels of a topic name or filter.
        topic_levels_max: NonZeroU16 = nonzero(settings.limits.topic_levels_max),
        /// Bytes of a topic name or filter, at most 65535.
        #[serde(deserialize_with = "topic_size")]
        topic_bytes_max: ByteSize = ByteSize(settings.limits.topic_bytes_max.into()),
        /// Filters in one SUBSCRIBE or UNSUBSCRIBE.
        filters_max: NonZeroU16 = nonzero(settings.limits.filters_max),
        /// User properties in one packet.
        user_properties_max: u16 = settings.limits.user_properties_max,
        /// Subscriptions of one session; more are refused with quota exceeded.
        subscriptions_max: usize = settings.session.subscriptions_max,
        /// Retained messages in all; more topics are refused with quota exceeded.
        retained_messages_max: usize = settings.retained_messages_max,
        /// QoS 1 and 2 messages in flight to one client, whatever its receive maximum.
        max_inflight: NonZeroU16 = nonzero(settings.session.inflight_max),
    }
}

section! {
    /// What CONNACK announces and the broker enforces.
    Capabilities in "capabilities", defaults from settings {
        /// Greatest QoS in PUBLISH, wills and subscriptions: 0, 1 or 2.
        maximum_qos: MaximumQos = MaximumQos(settings.capabilities.maximum_qos),
        /// Whether retained messages are kept.
        retain_available: bool = settings.capabilities.retain_available,
        /// Whether wildcard subscriptions are accepted.
        wildcard_subscription_available: bool = settings.capabilities.wildcard_subscription_available,
        /// Whether subscription identifiers are accepted.
        subscription_identifier_available: bool = settings.capabilities.subscription_identifier_available,
        /// Whether shared subscriptions are accepted.
        shared_subscription_available: bool = settings.capabilities.shared_subscription_available,
        /// QoS 1 and 2 publications that a client may have unacknowledged.
        receive_maximum: NonZeroU16 = nonzero(settings.capabilities.receive_maximum),
        /// Largest packet accepted, header included; from 128 B.
        #[serde(deserialize_with = "packet_size")]
        maximum_packet_size: ByteSize = ByteSize(settings.limits.packet_bytes_max.into()),
        /// Topic aliases that a client may use.
        topic_alias_maximum: u16 = settings.capabilities.topic_alias_maximum,
        /// Topic aliases that the broker uses towards a client that allows them.
        topic_alias_outgoing_max: u16 = settings.capabilities.topic_alias_outgoing_max,
        /// Longest session expiry granted, for MQTT 3 sessions too. "never" keeps sessions until they are taken up.
        session_expiry_max: Seconds = Seconds(settings.capabilities.session_expiry_max),
        /// Longest keep-alive granted, at most 65535 s; a longer one, or none, is replaced. 0 grants any.
        #[serde(deserialize_with = "keep_alive")]
        keep_alive_max: Seconds = Seconds(settings.capabilities.keep_alive_max.into()),
        /// Prefix of the response information for clients that ask; the client identifier follows. "" gives none.
        response_information: String = settings.capabilities.response_information.unwrap_or_default(),
        /// Whether payloads that are marked as UTF-8 and are not are refused.
        check_payload_format: bool = settings.check_payload_format,
    }
}

section! {
    /// What waits for a client that is away, slow, or has its receive maximum in flight.
    Queue in "queue", defaults from settings {
        /// Messages in one session's queue, at least 1.
        #[serde(deserialize_with = "positive_count")]
        messages_max: usize = settings.session.queued_messages_max,
        /// Payload and topic bytes in one session's queue.
        bytes_max: ByteSize = settings.session.queued_bytes_max.into(),
        /// Which message a full queue drops: "new" or "oldest".
        drop_policy: DropPolicy = settings.session.drop_policy.into(),
        /// Whether QoS 0 messages are queued for clients that are away.
        queue_qos0_offline: bool = settings.session.queue_qos0_offline,
    }
}

section! {
    /// The ladder for consumers that do not keep up: QoS 0 is dropped, the rest queued, then they are disconnected.
    SlowConsumer in "slow_consumer", defaults from settings {
        /// Unsent bytes of a connection above which QoS 0 is dropped and QoS 1 and 2 wait in the session.
        outbox_soft: ByteSize = settings.slow_consumer.outbox_soft_bytes.into(),
        /// Disconnected when nothing could be written for this long.
        #[serde(deserialize_with = "positive_period")]
        stall_timeout: Period = settings.slow_consumer.stall_timeout.into(),
        /// Bytes of a shard's queues above which publishers are paused, and above twice which CONNECT is refused.
        memory_watermark: ByteSize = settings.slow_consumer.memory_watermark_bytes.into(),
        /// Messages staged for another shard above which this shard's publishers are paused.
        staged_envelopes_max: usize = settings.slow_consumer.staged_envelopes_max,
    }
}

section! {
    /// Shared subscriptions ($share/group/filter).
    Shared in "shared", defaults from settings {
        /// How a member is picked: "round-robin", "random", "sticky", "hash-client-id", "hash-topic" or
        /// "least-in-flight".
        strategy: Strategy = settings.shared_strategy.into(),
    }
}

section! {
    /// The broker's own topics ($SYS/broker/...).
    Sys in "sys", defaults from settings {
        /// How often they are published; 0 switches them off.
        interval: Period = settings.sys_interval.unwrap_or_default().into(),
    }
}

section! {
    /// Who may connect.
    Auth in "auth", defaults from settings {
        /// Whether a client may connect without user name.
        allow_anonymous: bool = settings.allow_anonymous,
        /// User names and their plain passwords, for development. The passwords are not shown.
        users: BTreeMap<String, Secret> = BTreeMap::new(),
    }
}

section! {
    /// What is written to standard error.
    Log in "log", defaults from settings {
        /// "off", "error", "warn", "info", "debug" or "trace".
        level: LogLevel = LogLevel::Info,
        /// "text" or "json".
        format: LogFormat = LogFormat::Text,
    }
}

/// Defines the words that a key may have, each for one value of the broker's own type or for itself.
macro_rules! words {
    ($(#[$attribute:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All the words, for a command line's help.
            pub const WORDS: &'static [&'static str] = &[$($word,)+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word,)+ })
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("{word:?} is none of {}", Self::WORDS.join(", "))),
                }
            }
        }
    };
}

words! {
    /// Which message a full queue drops.
    DropPolicy {
        /// The one that arrives.
        New = "new",
        /// The one that has waited longest.
        Oldest = "oldest",
    }
}

words! {
    /// How a shared subscription picks a member.
    Strategy {
        /// One after the other.
        RoundRobin = "round-robin",
        /// Any.
        Random = "random",
        /// One member until it leaves.
        Sticky = "sticky",
        /// The same member for the same publisher.
        HashClientId = "hash-client-id",
        /// The same member for the same topic.
        HashTopic = "hash-topic",
        /// The member with the fewest unacknowledged messages.
        LeastInFlight = "least-in-flight",
    }
}

words! {
    /// How much is logged.
    LogLevel {
        /// Nothing.
        Off = "off",
        /// What went wrong here.
        Error = "error",
        /// What may go wrong.
        Warn = "warn",
        /// What an operator wants to know.
        Info = "info",
        /// Each decision.
        Debug = "debug",
        /// Each message.
        Trace = "trace",
    }
}

words! {
    /// How it is logged.
    LogFormat {
        /// For people.
        Text = "text",
        /// For machines: one object a line.
        Json = "json",
    }
}

words! {
    /// What an acknowledgement outlasts.
    StoreDurability {
        /// The machine: every commit is synced to the disk.
        Fsync = "fsync",
        /// The process: the system writes in its own time.
        Process = "process",
    }
}

impl From<StoreDurability> for Durability {
    fn from(durability: StoreDurability) -> Self {
        match durability {
            StoreDurability::Fsync => Self::Fsync,
            StoreDurability::Process => Self::Process,
        }
    }
}

/// A QoS, written as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaximumQos(pub QoS);

impl<'de> Deserialize<'de> for MaximumQos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        let qos = QoS::from_bits(number).ok_or_else(|| de::Error::custom(format!("there is no QoS {number}")))?;
        Ok(Self(qos))
    }
}

impl Serialize for MaximumQos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0 as u8)
    }
}

/// A password: neither `Debug` nor `to_toml` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == HIDDEN {
            return Err(de::Error::custom("this is what hides a password, not one: write the password itself"));
        }
        Ok(Self(text))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

fn nonzero(default: u16) -> NonZeroU16 {
    NonZeroU16::new(default).expect("the broker's defaults for counts that cannot be 0 are not")
}

fn positive_period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Period, D::Error> {
    let period = Period::deserialize(deserializer)?;
    if period.as_duration().is_zero() { Err(de::Error::custom("must be more than 0")) } else { Ok(period) }
}

fn keep_alive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Seconds, D::Error> {
    let seconds = Seconds::deserialize(deserializer)?;
    let max = Seconds(u16::MAX.into());
    if seconds > max { Err(de::Error::custom(format!("{seconds} is too much; at most {max}"))) } else { Ok(seconds) }
}

fn topic_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    bytes_between(1, u16::MAX.into(), deserializer)
}

fn packet_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    bytes_between(PACKET_BYTES_LOW, super::PACKET_BYTES_MAX.into(), deserializer)
}

fn bytes_between<'de, D: Deserializer<'de>>(min: u64, max: u64, deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if (min..=max).contains(&size.0) {
        Ok(size)
    } else {
        Err(de::Error::custom(format!("{size} is out of range; from {} to {}", ByteSize(min), ByteSize(max))))
    }
}

fn positive_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let count = usize::deserialize(deserializer)?;
    if count == 0 { Err(de::Error::custom("must be more than 0")) } else { Ok(count) }
}

/// What `to_toml` shows of a password.
pub(super) const HIDDEN: &str = "********";

/// A broker that takes less can hardly be connected to.
const PACKET_BYTES_LOW: u64 = 128;
