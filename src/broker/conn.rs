//! One connection: what a shard knows of it besides its session.

use std::{num::NonZeroU64, sync::Arc};

use super::{moment::Moment, outbox::Outbox, peer::Peer, permit::Deferral, timers::Armed};
use crate::{
    auth::{ConnectInfo, Exchange},
    codec::{Connect, Text, Version},
    router::SessionKey,
    session::{IncomingAliases, OutgoingAliases},
};

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

/// The connection. There may be a million of them that say nothing, so what few of them need is in [`Extras`].
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) peer: Peer,
    pub(crate) phase: Phase,
    pub(crate) session: Option<SessionKey>,
    /// Start of a packet whose end has not arrived; a word in every connection, for what few have.
    partial: Option<Box<Partial>>,
    pub(crate) outbox: Outbox,
    extras: Option<Box<Extras>>,
    /// When the last packet came. Activity only writes this; the timer looks at it when it fires.
    pub(crate) heard: Moment,
    /// CONNECT and authentication must be done by then.
    pub(crate) connect_deadline: Option<Moment>,
    /// Since when unsent bytes have made no progress.
    pub(crate) stalled_since: Option<Moment>,
    pub(crate) armed: Armed,
    /// Largest packet the client takes, bytes.
    pub(crate) maximum_packet_size: u32,
    /// How long the client may be silent, milliseconds; 0: for ever.
    silence_max_ms: u32,
    pub(crate) version: Version,
    /// Whether reason strings and user properties may be sent in any packet [MQTT-3.1.2-29].
    pub(crate) problem_information: bool,
    /// In the list of connections to flush.
    pub(crate) is_dirty: bool,
    /// Publishes, so that it is paused when the shard is over its bounds.
    pub(crate) is_publisher: bool,
    /// Reading was refused and must be resumed.
    pub(crate) is_paused: bool,
    /// The same, until its own outbox is smaller.
    pub(crate) is_choked: bool,
    /// What it has sent goes on in the shard's next turn.
    pub(crate) awaits_turn: bool,
}

/// Start of a packet, and room that is ready for more of it.
#[derive(Debug)]
struct Partial {
    bytes: Vec<u8>,
    /// How many have arrived; behind them are zeros, to be read into.
    received: usize,
}

/// What most connections never need.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// Who asked to connect, as long as somebody may want to know: a hook, or whoever lists clients with user names.
    pub(crate) info: Option<Arc<ConnectInfo>>,
    pub(crate) incoming_aliases: IncomingAliases,
    pub(crate) outgoing_aliases: OutgoingAliases,
    /// The exchange of a client that authenticates itself, or does so again.
    pub(crate) exchange: Option<Box<dyn Exchange>>,
    pub(crate) authentication_method: Option<Text>,
    /// A packet that waits for an authorizer.
    pub(crate) deferral: Option<Deferral>,
    /// Topics this connection may publish to, as the authorizer said; bounded.
    pub(crate) allowed_topics: Vec<Box<str>>,
}

/// How far a connection has come.
#[derive(Debug)]
pub(crate) enum Phase {
    /// No CONNECT yet.
    AwaitConnect,
    /// CONNECT is being judged by AUTH packets, or waits for what this ticket is about: an answer from elsewhere, or the
    /// last words of a connection with its client identifier.
    Authenticating(Box<Connect>, Option<NonZeroU64>),
    /// CONNACK with success was sent.
    Connected,
    /// To be closed once its outbox is flushed; nothing is read.
    Closing,
}

impl Extras {
    /// Whether it says no more than none would. Aliases for topics that come in are made with the first.
    fn is_unused(&self) -> bool {
        self.info.is_none()
            && !self.outgoing_aliases.is_enabled()
            && self.exchange.is_none()
            && self.authentication_method.is_none()
            && self.deferral.is_none()
            && self.allowed_topics.is_empty()
    }
}

impl Conn {
    pub(crate) fn new(peer: Peer, now: Moment, connect_deadline: Moment) -> Self {
        Self {
            peer,
            phase: Phase::AwaitConnect,
            session: None,
            partial: None,
            outbox: Outbox::default(),
            extras: None,
            heard: now,
            connect_deadline: Some(connect_deadline),
            stalled_since: None,
            armed: Armed::default(),
            maximum_packet_size: u32::MAX,
            silence_max_ms: 0,
            version: Version::V3_1_1,
            problem_information: true,
            is_dirty: false,
            is_publisher: false,
            is_paused: false,
            is_choked: false,
            awaits_turn: false,
        }
    }

    /// What few connections have, if this one does.
    #[inline]
    pub(crate) fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// Whether topics may be replaced by numbers.
    #[inline]
    pub(crate) fn sends_aliases(&self) -> bool {
        self.extras().is_some_and(|extras| extras.outgoing_aliases.is_enabled())
    }

    /// Who asked to connect, if that is kept.
    pub(crate) fn info(&self) -> Option<&Arc<ConnectInfo>> {
        self.extras()?.info.as_ref()
    }

    /// Gives memory back that only the beginning of the connection needed.
    pub(crate) fn drop_info(&mut self) {
        if let Some(extras) = &mut self.extras {
            extras.info = None;
        }
        self.extras.take_if(|extras| extras.is_unused());
    }

    /// The same as [`Self::extras`], made when there is none.
    pub(crate) fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// A client is given up after 1.5 times its keep-alive without a packet [MQTT-3.1.2-22]. 0: never.
    pub(crate) fn set_keep_alive(&mut self, seconds: u16, now: Moment) {
        self.silence_max_ms = u32::from(seconds) * 1500;
        self.heard = now;
    }

    /// When the client has been silent for too long.
    pub(crate) fn keep_alive_deadline(&self) -> Option<Moment> {
        (self.silence_max_ms > 0 && self.is_connected()).then(|| self.heard.after(self.silence_max_ms.into()))
    }

    /// When something is due that only time brings about.
    pub(crate) fn deadline(&self, stall_timeout_ms: u64) -> Option<Moment> {
        let stall = self.stalled_since.map(|since| since.after(stall_timeout_ms));
        [self.connect_deadline, self.keep_alive_deadline(), stall].into_iter().flatten().min()
    }

    /// The start of a packet whose end has not arrived.
    #[inline]
    pub(crate) fn partial(&self) -> &[u8] {
        self.partial.as_ref().and_then(|partial| partial.bytes.get(..partial.received)).unwrap_or_default()
    }

    /// Takes it out.
    pub(super) fn take_partial(&mut self) -> Vec<u8> {
        let Some(partial) = self.partial.take() else { return Vec::new() };
        let Partial { mut bytes, received } = *partial;
        bytes.truncate(received);
        bytes
    }

    /// Keeps it; there must be none.
    pub(super) fn set_partial(&mut self, bytes: Vec<u8>) {
        let received = bytes.len();
        self.partial = (received > 0).then(|| Box::new(Partial { bytes, received }));
    }

    /// Bytes of memory held for it.
    pub(super) fn partial_capacity(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.bytes.capacity())
    }

    /// Where up to `missing` more bytes of it may be read to. Room is made for no more than have come, or
    /// `reserve_bytes_max`, so that who announces much and sends little holds little.
    pub(super) fn partial_room(&mut self, missing: usize, reserve_bytes_max: usize) -> &mut [u8] {
        let Some(Partial { bytes, received }) = self.partial.as_deref_mut() else { return &mut [] };
        if bytes.len() == *received {
            let added = missing.min(reserve_bytes_max.max(*received));
            bytes.reserve_exact(added);
            bytes.resize(*received + added, 0);
        }
        bytes.get_mut(*received..).unwrap_or_default()
    }

    /// So many bytes were read into [`Self::partial_room`].
    pub(super) fn fill_partial(&mut self, count: usize) {
        if let Some(partial) = self.partial.as_deref_mut() {
            partial.received = partial.bytes.len().min(partial.received + count);
        }
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

    /// Whether nothing may be handled until its next turn, or until something that was asked elsewhere is answered.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.awaits_turn
            || matches!(self.phase, Phase::Authenticating(_, Some(_)))
            || self.extras().is_some_and(|extras| matches!(extras.deferral, Some(Deferral::Asked(..))))
    }

    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{super::moment::Epoch, *};

    #[test]
    fn a_client_may_be_silent_for_one_and_a_half_times_its_keep_alive() {
        let start = Instant::now();
        let epoch = Epoch::new(start);
        let at = |ms| epoch.moment(start + Duration::from_millis(ms));
        let peer = Peer { address: "test".into(), listener: "test".into() };
        let mut conn = Conn::new(peer, at(0), at(10_000));
        conn.set_keep_alive(10, at(0));
        assert_eq!(conn.deadline(1), Some(at(10_000)), "until CONNECT is accepted");
        (conn.phase, conn.connect_deadline) = (Phase::Connected, None);
        assert_eq!(conn.deadline(1), Some(at(15_000)));
        conn.heard = at(15_000);
        assert_eq!(conn.deadline(1), Some(at(30_000)));
        conn.set_keep_alive(0, at(0));
        assert_eq!(conn.deadline(1), None);
    }

    /// What a million idle connections cost; `make bench-idle` has the whole.
    #[test]
    fn a_connection_stays_small() {
        assert!(size_of::<Conn>() <= 136, "{}", size_of::<Conn>());
    }
}
