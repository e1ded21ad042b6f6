//! A client's session on its home shard: the session machine plus what the server keeps beside it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{message::Message, slots::ConnId, timers::Armed};
use crate::{
    auth::ConnectInfo,
    codec::{QoS, SubscriptionOptions, Text, Version},
    router::{Member, ScanCursor},
    session::{Session, Stored},
};

/// How the shard hashes what strangers choose: by a seed it was given.
pub(crate) type HashState = foldhash::fast::SeedableRandomState;

/// The session of one client identifier.
#[derive(Debug)]
pub(crate) struct ClientSession {
    pub(crate) client_id: Text,
    pub(crate) client_hash: u64,
    pub(crate) conn: Option<ConnId>,
    pub(crate) version: Version,
    pub(crate) state: Session<Delivery>,
    pub(crate) subscriptions: HashMap<Text, Subscribed, HashState>,
    /// Retained messages that new subscriptions are yet to receive.
    pub(crate) retained: VecDeque<RetainedScan>,
    /// A timer will take the scans up again.
    pub(crate) is_scan_armed: bool,
    /// Seconds the session outlives its connection; 0xFFFFFFFF for ever.
    pub(crate) expiry_interval: u32,
    pub(crate) expires_at: Option<Instant>,
    /// When its connection was lost.
    pub(crate) lost_at: Option<Instant>,
    /// Whether a store keeps it.
    pub(crate) is_stored: bool,
    pub(crate) will: Option<Box<Will>>,
    pub(crate) will_at: Option<Instant>,
    /// Who the will is published for, when an authorizer is asked.
    pub(crate) will_info: Option<Arc<ConnectInfo>>,
    pub(crate) armed: Armed,
}

/// One subscription.
#[derive(Debug)]
pub(crate) struct Subscribed {
    pub(crate) options: SubscriptionOptions,
    pub(crate) id: Option<u32>,
    /// The membership, if it is shared.
    pub(crate) member: Option<Arc<Member>>,
}

/// A message on its way to one session.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Absent only in flight to a session that ends with its connection: nothing will ever be sent again.
    pub(crate) message: Option<Arc<Message>>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Subscription identifiers, for MQTT 5.
    pub(crate) ids: Option<Box<[u32]>>,
    /// The shared subscription it came by: it goes to another member if this one leaves.
    pub(crate) member: Option<Arc<Member>>,
    /// Its name in the store.
    pub(crate) stored: Option<crate::store::Id>,
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
    pub(crate) is_finished: bool,
}

/// The message to publish when the client is lost.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) message: Message,
    /// Seconds.
    pub(crate) delay: u32,
    /// Message expiry interval, seconds; counts from when the will is published.
    pub(crate) expiry: Option<u32>,
}

impl ClientSession {
    pub(crate) fn new(client_id: Text, client_hash: u64, version: Version, state: HashState) -> Self {
        Self {
            client_id,
            client_hash,
            conn: None,
            version,
            state: Session::new(),
            subscriptions: HashMap::with_hasher(state),
            retained: VecDeque::new(),
            is_scan_armed: false,
            expiry_interval: 0,
            expires_at: None,
            lost_at: None,
            is_stored: false,
            will: None,
            will_at: None,
            will_info: None,
            armed: Armed::default(),
        }
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
        [self.expires_at, self.will_at].into_iter().flatten().min()
    }
}

impl Stored for Delivery {
    fn qos(&self) -> QoS {
        self.qos
    }

    fn bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.bytes())
    }

    fn expires_at(&self) -> Option<Instant> {
        self.message.as_ref().and_then(|message| message.expires_at)
    }
}
