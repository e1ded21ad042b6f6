//! The will: when it is published, when it is not (sections 3.1.2.5 and 3.1.3.2.2).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    message::{Message, Parcel, Publisher, expiry},
    reasons::DropReason,
    session::{ClientSession, Will},
    shard::Shard,
};
use crate::{
    auth::{Access, ConnectInfo, Permit},
    codec::{self, Publish},
    router::SessionKey,
};

/// What the loss of a connection means for the will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WillDecision {
    /// It is published at once.
    Now,
    /// Nothing yet: there is none, or its delay runs.
    Later,
}

impl Will {
    /// The will of a CONNECT. Its expiry starts when it is published.
    pub(crate) fn from_connect(will: &codec::Will, info: Option<Arc<ConnectInfo>>) -> Self {
        let publish = Publish {
            dup: false,
            qos: will.qos,
            retain: will.retain,
            topic: will.topic.clone(),
            packet_id: None,
            properties: will.properties.clone(),
            payload: will.payload.clone(),
        };
        Self {
            message: Message::without_expiry(&publish),
            delay: will.properties.will_delay_interval().unwrap_or(0),
            expiry: will.properties.message_expiry_interval(),
            at: None,
            info,
        }
    }
}

impl ClientSession {
    /// The connection is lost: the will goes now, or after its delay, unless the session ends first
    /// [MQTT-3.1.2-8] [MQTT-3.1.3-9].
    pub(crate) fn on_connection_lost(&mut self, now: Instant) -> WillDecision {
        if self.will_is_due_at_loss() {
            return WillDecision::Now;
        }
        if let Some(will) = &mut self.will {
            will.at = Some(now + Duration::from_secs(will.delay.into()));
        }
        WillDecision::Later
    }

    /// Whether there is a will, and nothing that could delay it.
    pub(crate) fn will_is_due_at_loss(&self) -> bool {
        self.will.as_ref().is_some_and(|will| will.delay == 0) || (self.will.is_some() && !self.is_persistent())
    }
}

impl Shard {
    /// Publishes the will of a session, if it still has one [MQTT-3.1.2-10].
    pub(super) fn publish_will(&mut self, now: Instant, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(will) = session.will.take() else { return };
        let (shard, client_hash) = (self.id, session.client_hash);
        self.record_session(key);
        let mut message = will.message;
        message.expires_at = will.expiry.map(|seconds| expiry(now, seconds));
        message.publisher = Some(Publisher { shard, session: key, client_hash });
        let access = Access::Publish {
            topic: message.topic(),
            qos: message.qos,
            retain: message.retain,
            payload: message.payload(),
        };
        // One that has to wait was asked when the client was let in.
        if self.shared.hooks.authorize(will.info.as_deref(), access) == Permit::Refuse {
            return self.count_drop_for(key, message.topic(), DropReason::NotAuthorized);
        }
        tracing::debug!(client = self.client_id(key), topic = message.topic(), "will published");
        let message = Arc::new(message);
        let mut parcel = Parcel::from_message(&message);
        if message.retain && !self.retain(&mut parcel) {
            self.count_drop_for(key, message.topic(), DropReason::RetainedFull);
        }
        self.route(now, &mut parcel);
    }
}
