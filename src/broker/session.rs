//! A client's session on its home shard: the session machine plus what the server keeps beside it.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{delivery::Delivery, message::Message, slots::ConnId, subscriptions::Subscriptions, timers::Armed};
use crate::{
    auth::ConnectInfo,
    codec::{QoS, Text, Version},
    router::ScanCursor,
    session::Session,
};

/// How the shard hashes what strangers choose: by a seed it was given.
pub(crate) type HashState = foldhash::fast::SeedableRandomState;

/// The session of one client identifier. There may be a million of them at rest, so what is rare is boxed.
#[derive(Debug)]
pub(crate) struct ClientSession {
    pub(crate) client_id: Box<str>,
    pub(crate) client_hash: u64,
    pub(crate) conn: Option<ConnId>,
    pub(crate) state: Session<Delivery>,
    pub(crate) subscriptions: Subscriptions,
    /// Retained messages that new subscriptions are yet to receive.
    pub(crate) retained: Scans,
    pub(crate) will: Option<Box<Will>>,
    /// What is known of the loss of its connection, while it has none.
    pub(crate) away: Option<Box<Away>>,
    pub(crate) armed: Armed,
    /// Seconds the session outlives its connection; 0xFFFFFFFF for ever.
    pub(crate) expiry_interval: u32,
    pub(crate) version: Version,
    /// A timer will take the scans up again.
    pub(crate) is_scan_armed: bool,
    /// Whether a store keeps it.
    pub(crate) is_stored: bool,
}

/// A session without a connection.
#[derive(Debug)]
pub(crate) struct Away {
    /// When its connection was lost.
    pub(crate) lost_at: Instant,
    pub(crate) expires_at: Option<Instant>,
}

/// A wildcard scan of the retained store, taken up again when there is room.
#[derive(Debug)]
pub(crate) struct RetainedScan {
    pub(crate) filter: Text,
    pub(crate) cursor: Option<ScanCursor>,
    pub(crate) qos: QoS,
    pub(crate) id: Option<u32>,
    /// Scanned and not yet sent.
    pub(crate) ready: VecDeque<Arc<Message>>,
    /// What the store's count of changes was when they were scanned.
    pub(crate) changes: u64,
    pub(crate) is_finished: bool,
}

/// The scans of a session, oldest first; no heap while there is none.
#[allow(clippy::box_collection)] // a word in every session, for what few have
#[derive(Debug, Default)]
pub(crate) struct Scans(Option<Box<VecDeque<RetainedScan>>>);

impl Scans {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut RetainedScan> {
        self.0.as_mut()?.front_mut()
    }

    pub(crate) fn pop_front(&mut self) {
        if let Some(scans) = &mut self.0 {
            scans.pop_front();
        }
        self.forget_if_empty();
    }

    pub(crate) fn extend(&mut self, scans: Vec<RetainedScan>) {
        if !scans.is_empty() {
            self.0.get_or_insert_default().extend(scans);
        }
    }

    /// The scan for a filter is not wanted any more.
    pub(crate) fn cancel(&mut self, filter: &str) {
        if let Some(scans) = &mut self.0 {
            scans.retain(|scan| *scan.filter != *filter);
        }
        self.forget_if_empty();
    }

    fn forget_if_empty(&mut self) {
        self.0.take_if(|scans| scans.is_empty());
    }
}

/// The message to publish when the client is lost.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) message: Message,
    /// Seconds.
    pub(crate) delay: u32,
    /// Message expiry interval, seconds; counts from when the will is published.
    pub(crate) expiry: Option<u32>,
    /// When it is to be published, once its delay runs.
    pub(crate) at: Option<Instant>,
    /// Who it is published for, when an authorizer is asked.
    pub(crate) info: Option<Arc<ConnectInfo>>,
}

impl ClientSession {
    pub(crate) fn new(client_id: &str, client_hash: u64, version: Version) -> Self {
        Self {
            client_id: client_id.into(),
            client_hash,
            conn: None,
            state: Session::new(),
            subscriptions: Subscriptions::default(),
            retained: Scans::default(),
            will: None,
            away: None,
            armed: Armed::default(),
            expiry_interval: 0,
            version,
            is_scan_armed: false,
            is_stored: false,
        }
    }

    /// The client identifier to be kept elsewhere.
    pub(crate) fn client_text(&self) -> Text {
        text_of(&self.client_id)
    }

    /// Whether it outlives its connection.
    #[inline]
    pub(crate) fn is_persistent(&self) -> bool {
        self.expiry_interval > 0
    }

    /// Whether anything waits for room in the window or the outbox.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.state.pending() > 0 || self.state.has_resend() || !self.retained.is_empty()
    }

    /// When something is due that only time brings about.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let expires_at = self.away.as_ref().and_then(|away| away.expires_at);
        let will_at = self.will.as_ref().and_then(|will| will.at);
        [expires_at, will_at].into_iter().flatten().min()
    }
}

/// A client identifier to be kept elsewhere.
pub(crate) fn text_of(client_id: &str) -> Text {
    Text::try_from(client_id).expect("client identifiers are made from such texts")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a million sessions at rest cost; `make bench-idle` has the whole.
    #[test]
    fn a_session_stays_small() {
        assert!(size_of::<ClientSession>() <= 112, "{}", size_of::<ClientSession>());
    }
}
