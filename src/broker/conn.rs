//! One connection: what a shard knows of it besides its session.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{outbox::Outbox, permit::Deferral, timers::Armed};
use crate::{
    auth::{ConnectInfo, Exchange},
    codec::{Connect, Version},
    router::SessionKey,
    session::{IncomingAliases, KeepAlive, OutgoingAliases},
};

/// Where a connection comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Address of the peer as text.
    pub address: Arc<str>,
    /// Listener it came in on, as its URL.
    pub listener: Arc<str>,
}

/// How a transport ended, as the shell saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportEnd {
    /// The peer closed it.
    Closed,
    /// It failed.
    Error,
    /// The WebSocket layer was violated.
    WebSocket,
    /// TLS failed: in its handshake, or by bytes that nobody has encrypted.
    Tls,
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) peer: Peer,
    pub(crate) phase: Phase,
    pub(crate) version: Version,
    pub(crate) session: Option<SessionKey>,
    pub(crate) info: Option<Arc<ConnectInfo>>,
    /// Start of a packet whose end has not arrived.
    pub(crate) partial: Vec<u8>,
    pub(crate) outbox: Outbox,
    pub(crate) keep_alive: KeepAlive,
    /// CONNECT and authentication must be done by then.
    pub(crate) connect_deadline: Option<Instant>,
    /// Since when unsent bytes have made no progress.
    pub(crate) stalled_since: Option<Instant>,
    pub(crate) armed: Armed,
    /// Largest packet the client takes, bytes.
    pub(crate) maximum_packet_size: u32,
    /// Whether reason strings and user properties may be sent in any packet [MQTT-3.1.2-29].
    pub(crate) problem_information: bool,
    pub(crate) incoming_aliases: IncomingAliases,
    pub(crate) outgoing_aliases: OutgoingAliases,
    /// The exchange of a client that authenticates itself, or does so again.
    pub(crate) exchange: Option<Box<dyn Exchange>>,
    pub(crate) authentication_method: Option<crate::codec::Text>,
    /// A packet that waits for an authorizer.
    pub(crate) deferral: Option<Deferral>,
    /// Topics this connection may publish to, as the authorizer said; bounded.
    pub(crate) allowed_topics: Vec<Box<str>>,
    /// In the list of connections to flush.
    pub(crate) is_dirty: bool,
    /// Publishes, so that it is paused when the shard is over its bounds.
    pub(crate) is_publisher: bool,
    /// Reading was refused and must be resumed.
    pub(crate) is_paused: bool,
    /// The same, until its own outbox is smaller.
    pub(crate) is_choked: bool,
}

/// How far a connection has come.
#[derive(Debug)]
pub(crate) enum Phase {
    /// No CONNECT yet.
    AwaitConnect,
    /// CONNECT is being judged: by AUTH packets, or elsewhere under this ticket.
    Authenticating(Box<Connect>, Option<u64>),
    /// CONNACK with success was sent.
    Connected,
    /// To be closed once its outbox is flushed; nothing is read.
    Closing,
}

impl Conn {
    pub(crate) fn new(peer: Peer, now: Instant, connect_timeout: Duration) -> Self {
        Self {
            peer,
            phase: Phase::AwaitConnect,
            version: Version::V3_1_1,
            session: None,
            info: None,
            partial: Vec::new(),
            outbox: Outbox::default(),
            keep_alive: KeepAlive::server(0, now),
            connect_deadline: Some(now + connect_timeout),
            stalled_since: None,
            armed: Armed::default(),
            maximum_packet_size: u32::MAX,
            problem_information: true,
            incoming_aliases: IncomingAliases::new(0),
            outgoing_aliases: OutgoingAliases::new(0),
            exchange: None,
            authentication_method: None,
            deferral: None,
            allowed_topics: Vec::new(),
            is_dirty: false,
            is_publisher: false,
            is_paused: false,
            is_choked: false,
        }
    }

    /// When something is due that only time brings about.
    pub(crate) fn deadline(&self, stall_timeout: Duration) -> Option<Instant> {
        let stall = self.stalled_since.map(|since| since + stall_timeout);
        let keep_alive = if self.is_connected() { self.keep_alive.deadline() } else { None };
        [self.connect_deadline, keep_alive, stall].into_iter().flatten().min()
    }

    /// Whether a new message may be written to it, with an outbox of no more than `soft_bytes`.
    #[inline]
    pub(crate) fn has_room(&self, soft_bytes: usize) -> bool {
        self.is_connected() && self.outbox.len() <= soft_bytes
    }

    #[inline]
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected)
    }

    /// Whether nothing may be handled until something that was asked elsewhere is answered.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Authenticating(_, Some(_))) || matches!(self.deferral, Some(Deferral::Asked(..)))
    }

    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing)
    }
}
