//! Who may connect, and what they may do: the traits that backends implement.
//!
//! Calls are made on a shard's thread and must not block. A backend that has to wait (a database, Python) answers
//! [`Verdict::Defer`] or [`Permit::Defer`]; the shell then asks again on a thread that may block and brings the answer
//! back. Read access is decided once, at SUBSCRIBE; write access is remembered per connection and
//! topic, so that authorisation stays off the delivery path.

mod acl;
mod users;

use std::{fmt, sync::Arc};

use bytes::Bytes;

pub use acl::{Acl, AclRule, Permission};
pub use users::Users;

use crate::codec::{QoS, ReasonCode, Text, Version};

/// What is known of a client that asks to connect.
#[derive(Clone)]
pub struct ConnectInfo {
    /// Client identifier, the assigned one if it came without.
    pub client_id: Text,
    /// User name, if any.
    pub username: Option<Text>,
    /// Password, if any.
    pub password: Option<Bytes>,
    /// Protocol version.
    pub version: Version,
    /// Address of the peer as text (`127.0.0.1:53412`, `unix`, `memory`).
    pub peer: Arc<str>,
    /// Listener the connection came in on, as its URL.
    pub listener: Arc<str>,
}

/// The password stays out of logs.
impl fmt::Debug for ConnectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectInfo")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("has_password", &self.password.is_some())
            .field("version", &self.version)
            .field("peer", &self.peer)
            .field("listener", &self.listener)
            .finish()
    }
}

/// The answer to a CONNECT.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Let in.
    Accept,
    /// Refused; 0x86 and 0x87 are the usual codes.
    Refuse {
        /// CONNACK reason code, 0x80 or above.
        reason: ReasonCode,
        /// Reason string for MQTT 5 clients that want one.
        message: Option<String>,
    },
    /// Ask again with `authenticate_blocking`, off the shard.
    Defer,
}

/// Decides who may connect.
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// Judges user name and password; must not block.
    fn authenticate(&self, info: &ConnectInfo) -> Verdict;

    /// Judges after [`Verdict::Defer`], on a thread that may block. Must not return `Defer`.
    fn authenticate_blocking(&self, info: &ConnectInfo) -> Verdict {
        self.authenticate(info)
    }
}

/// Enhanced authentication (section 4.12): makes an exchange for a method it knows.
pub trait EnhancedAuthenticator: Send + Sync + fmt::Debug {
    /// Starts an exchange, or `None` for an unknown method (0x8C).
    fn start(&self, method: &str, info: &ConnectInfo) -> Option<Box<dyn Exchange>>;
}

/// One running exchange of AUTH packets.
pub trait Exchange: Send + fmt::Debug {
    /// Takes the client's data (from CONNECT, then from each AUTH) and answers.
    fn step(&mut self, data: Option<&Bytes>) -> ExchangeStep;
}

/// What follows a step of an exchange.
#[derive(Debug, Clone)]
pub enum ExchangeStep {
    /// Send AUTH 0x18 with this data and wait for the next.
    Continue(Bytes),
    /// Authenticated; the data goes into CONNACK, or into AUTH 0x00 when re-authenticating.
    Accept(Option<Bytes>),
    /// Refused.
    Refuse(ReasonCode),
}

/// One thing a client wants to do.
#[derive(Debug, Clone, Copy)]
pub enum Access<'a> {
    /// Publish to a topic.
    Publish {
        /// Topic name.
        topic: &'a str,
        /// QoS of the publication.
        qos: QoS,
        /// RETAIN of the publication.
        retain: bool,
        /// What is published.
        payload: &'a [u8],
    },
    /// Subscribe with a filter (the inner one of a shared filter).
    Subscribe {
        /// Topic filter.
        filter: &'a str,
        /// QoS asked for.
        qos: QoS,
    },
}

/// The same, to be taken to another thread.
#[derive(Debug, Clone)]
pub enum OwnedAccess {
    /// Publish to a topic.
    Publish {
        /// Topic name.
        topic: String,
        /// QoS of the publication.
        qos: QoS,
        /// RETAIN of the publication.
        retain: bool,
        /// What is published.
        payload: Bytes,
    },
    /// Subscribe with a filter.
    Subscribe {
        /// Topic filter.
        filter: String,
        /// QoS asked for.
        qos: QoS,
    },
}

impl Access<'_> {
    /// A copy.
    pub fn owned(self) -> OwnedAccess {
        match self {
            Self::Publish { topic, qos, retain, payload } => {
                OwnedAccess::Publish { topic: topic.into(), qos, retain, payload: Bytes::copy_from_slice(payload) }
            }
            Self::Subscribe { filter, qos } => OwnedAccess::Subscribe { filter: filter.into(), qos },
        }
    }
}

impl OwnedAccess {
    /// What it is a copy of.
    pub fn as_access(&self) -> Access<'_> {
        match self {
            Self::Publish { topic, qos, retain, payload } => {
                Access::Publish { topic, qos: *qos, retain: *retain, payload }
            }
            Self::Subscribe { filter, qos } => Access::Subscribe { filter, qos: *qos },
        }
    }
}

/// The answer of an [`Authorizer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// The client may.
    Allow,
    /// The client may not: 0x87.
    Refuse,
    /// Ask again with `authorize_blocking`, off the shard.
    Defer,
}

impl From<bool> for Permit {
    fn from(is_allowed: bool) -> Self {
        if is_allowed { Self::Allow } else { Self::Refuse }
    }
}

/// Decides what a connected client may do: publish, its will included, and subscribe.
pub trait Authorizer: Send + Sync + fmt::Debug {
    /// Whether `client` may; must not block.
    fn authorize(&self, client: &ConnectInfo, access: Access<'_>) -> Permit;

    /// Judges after [`Permit::Defer`], on a thread that may block; the connection stands still meanwhile. `Defer` is no
    /// answer here, and refuses.
    fn authorize_blocking(&self, client: &ConnectInfo, access: Access<'_>) -> Permit {
        self.authorize(client, access)
    }

    /// Judge every single publication instead of remembering the answer for each topic of a connection.
    fn per_message(&self) -> bool {
        false
    }
}
