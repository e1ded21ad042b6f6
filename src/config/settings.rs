//! What the sans-IO core sees of a configuration: plain values, without units, words or files.

use super::{BrokerConfig, DropPolicy, Strategy};
use crate::{
    broker::{self, Settings},
    codec,
    router::SharedStrategy,
};

impl BrokerConfig {
    /// The behaviour of the broker; listeners, shards, users and log are the shells' part.
    pub fn settings(&self) -> Settings {
        let sys_interval = self.sys.interval.as_duration();
        Settings {
            limits: self.packet_limits(),
            capabilities: self.announced(),
            session: broker::SessionLimits {
                inflight_max: self.limits.max_inflight.get(),
                queued_messages_max: self.queue.messages_max,
                queued_bytes_max: self.queue.bytes_max.as_usize(),
                drop_policy: self.queue.drop_policy.into(),
                queue_qos0_offline: self.queue.queue_qos0_offline,
                subscriptions_max: self.limits.subscriptions_max,
            },
            slow_consumer: broker::SlowConsumer {
                outbox_soft_bytes: self.slow_consumer.outbox_soft.as_usize(),
                stall_timeout: self.slow_consumer.stall_timeout.as_duration(),
                memory_watermark_bytes: self.slow_consumer.memory_watermark.as_usize(),
                staged_envelopes_max: self.slow_consumer.staged_envelopes_max,
            },
            connect_timeout: self.limits.connect_timeout.as_duration(),
            connections_max: self.limits.max_connections,
            retained_messages_max: self.limits.retained_messages_max,
            allow_anonymous: self.auth.allow_anonymous,
            check_payload_format: self.capabilities.check_payload_format,
            shared_strategy: self.shared.strategy.into(),
            sys_interval: (!sys_interval.is_zero()).then_some(sys_interval),
        }
    }

    fn packet_limits(&self) -> codec::Limits {
        codec::Limits {
            packet_bytes_max: u32::try_from(self.capabilities.maximum_packet_size.0).unwrap_or(u32::MAX),
            topic_levels_max: self.limits.topic_levels_max.get(),
            topic_bytes_max: u16::try_from(self.limits.topic_bytes_max.0).unwrap_or(u16::MAX),
            filters_max: self.limits.filters_max.get(),
            user_properties_max: self.limits.user_properties_max,
        }
    }

    fn announced(&self) -> broker::Capabilities {
        let own = &self.capabilities;
        broker::Capabilities {
            maximum_qos: own.maximum_qos.0,
            retain_available: own.retain_available,
            wildcard_subscription_available: own.wildcard_subscription_available,
            subscription_identifier_available: own.subscription_identifier_available,
            shared_subscription_available: own.shared_subscription_available,
            receive_maximum: own.receive_maximum.get(),
            topic_alias_maximum: own.topic_alias_maximum,
            topic_alias_outgoing_max: own.topic_alias_outgoing_max,
            session_expiry_max: own.session_expiry_max.0,
            keep_alive_max: u16::try_from(own.keep_alive_max.0).unwrap_or(u16::MAX),
            response_information: (!own.response_information.is_empty()).then(|| own.response_information.clone()),
        }
    }
}

/// Pairs each word with the core's value, both ways.
macro_rules! pairs {
    ($words:ident, $core:path { $($variant:ident),+ }) => {
        impl From<$words> for $core {
            fn from(word: $words) -> Self {
                match word { $($words::$variant => Self::$variant,)+ }
            }
        }

        impl From<$core> for $words {
            fn from(value: $core) -> Self {
                match value { $(<$core>::$variant => Self::$variant,)+ }
            }
        }
    };
}

pairs!(DropPolicy, broker::DropPolicy { New, Oldest });
pairs!(Strategy, SharedStrategy { RoundRobin, Random, Sticky, HashClientId, HashTopic, LeastInFlight });
