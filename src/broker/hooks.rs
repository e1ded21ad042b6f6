//! What a broker asks others: who may connect, who may publish, who listens to events.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;

use super::reasons::{DropReason, EndReason};
use crate::{
    auth::{
        Access, Authenticator, Authorizer, ConnectInfo, EnhancedAuthenticator, Exchange, ExchangeStep, Permit, Verdict,
    },
    codec::{ReasonCode, SubscriptionOptions, Version},
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

/// A hook that panics takes neither its shard nor other clients along: it is logged, and who was to be judged is refused.
impl Hooks {
    /// Tells the listener, if there is one, what `event` makes.
    pub(super) fn tell<'a>(&self, event: impl FnOnce() -> Event<'a>) {
        if let Some(events) = &self.events {
            guarded("events", (), || events.event(&event()));
        }
    }

    /// Whether one of them is to learn who connects.
    pub(super) fn want_to_know(&self) -> bool {
        self.authenticator.is_some() || self.enhanced.is_some() || self.authorizer.is_some() || self.events.is_some()
    }

    /// What the authenticator says, if there is one.
    pub(super) fn authenticate(&self, info: &ConnectInfo) -> Option<Verdict> {
        let refused = Verdict::Refuse { reason: ReasonCode::UnspecifiedError, message: None };
        self.authenticator.as_ref().map(|hook| guarded("authenticator", refused, || hook.authenticate(info)))
    }

    /// Whether a client may do this. Without an authorizer everybody may do everything.
    pub(super) fn authorize(&self, info: Option<&ConnectInfo>, access: Access<'_>) -> Permit {
        let Some(authorizer) = &self.authorizer else { return Permit::Allow };
        let ask = |info| guarded("authorizer", Permit::Refuse, || authorizer.authorize(info, access));
        info.map_or(Permit::Refuse, ask)
    }

    /// An exchange of AUTH packets, if the method is known.
    pub(super) fn start_exchange(&self, method: &str, info: &ConnectInfo) -> Option<Box<dyn Exchange>> {
        self.enhanced.as_ref().and_then(|hook| guarded("enhanced", None, || hook.start(method, info)))
    }
}

/// One step of an exchange of AUTH packets.
pub(super) fn step(exchange: &mut dyn Exchange, data: Option<&Bytes>) -> ExchangeStep {
    guarded("exchange", ExchangeStep::Refuse(ReasonCode::UnspecifiedError), || exchange.step(data))
}

fn guarded<T>(hook: &str, otherwise: T, call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        tracing::error!(hook, "a hook panicked");
        otherwise
    })
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
