//! What a broker asks others: who may connect, who may publish, who listens to events.

use std::{fmt, sync::Arc};

use super::reasons::{DropReason, EndReason};
use crate::{
    auth::{Authenticator, Authorizer, ConnectInfo, EnhancedAuthenticator},
    codec::{SubscriptionOptions, Version},
    store::Store,
};

/// The hooks of a broker; absent ones cost nothing.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Judges CONNECT.
    pub authenticator: Option<Arc<dyn Authenticator>>,
    /// Runs AUTH exchanges.
    pub enhanced: Option<Arc<dyn EnhancedAuthenticator>>,
    /// Judges PUBLISH and SUBSCRIBE.
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// Is told what happens.
    pub events: Option<Arc<dyn EventSink>>,
    /// Keeps sessions and retained messages; needs [`Shared::with_store`](super::Shared::with_store).
    pub store: Option<Arc<dyn Store>>,
}

/// Is told what happens; called on the shard's thread, so it must not block.
pub trait EventSink: Send + Sync + fmt::Debug {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// What can happen.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A client has connected.
    Connected {
        /// Who.
        info: &'a ConnectInfo,
        /// With which version.
        version: Version,
        /// Whether a session was resumed.
        session_present: bool,
    },
    /// A connection ended; `client_id` is empty if there was no CONNECT.
    Disconnected {
        /// Whose.
        client_id: &'a str,
        /// Address of the peer.
        peer: &'a str,
        /// Why.
        reason: EndReason,
    },
    /// A session was removed.
    SessionEnded {
        /// Whose.
        client_id: &'a str,
    },
    /// A subscription was made or replaced.
    Subscribed {
        /// By whom.
        client_id: &'a str,
        /// What.
        filter: &'a str,
        /// How.
        options: SubscriptionOptions,
    },
    /// A subscription ended.
    Unsubscribed {
        /// Whose.
        client_id: &'a str,
        /// What.
        filter: &'a str,
    },
    /// A message was dropped.
    Dropped {
        /// The subscriber that misses it, or the publisher if it was not accepted.
        client_id: &'a str,
        /// Its topic.
        topic: &'a str,
        /// Why.
        reason: DropReason,
    },
}
