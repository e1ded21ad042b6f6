//! The session: one sans-IO machine for broker and client.
//!
//! [`Session`] keeps what the protocol calls session state for one peer: messages sent and not acknowledged, messages
//! waiting for room in the window, and the QoS 2 messages received and not released. It decides; who calls it encodes
//! and sends. `M` is what the role stores for a message.

pub mod alias;
pub mod client;
pub mod inflight;
pub mod keepalive;
pub mod queue;
pub mod received;

use std::time::Instant;

pub use alias::{IncomingAliases, OutgoingAliases};
pub use inflight::{AckError, Inflight, Resend};
pub use keepalive::KeepAlive;
pub use queue::{Full, Queue, QueueLimits};
pub use received::{Received, ReceivedIds};

use crate::codec::{PacketId, QoS};

/// A message as a session stores it.
pub trait Stored {
    /// Quality of service it is delivered with.
    fn qos(&self) -> QoS;
    /// What it is charged with in the queue, bytes.
    fn bytes(&self) -> usize;
    /// When it expires, if it does.
    fn expires_at(&self) -> Option<Instant>;
}

/// Session state towards one peer.
#[derive(Debug)]
pub struct Session<M> {
    inflight: Inflight<M>,
    pending: Queue<M>,
    received: ReceivedIds,
}

/// Something to send, from [`Session::poll_send`].
#[derive(Debug)]
pub enum Send<'a, M> {
    /// A PUBLISH with this identifier.
    Publish {
        /// Its packet identifier.
        packet_id: PacketId,
        /// Whether it was sent before, on an earlier connection.
        dup: bool,
        /// The message.
        message: &'a M,
    },
    /// A PUBREL.
    PubRel(PacketId),
    /// A queued message with QoS 0, or one that needs no identifier.
    Once(M),
    /// A queued message whose time ran out: to be counted, not sent.
    Expired(M),
}

impl<M: Stored> Session<M> {
    /// A session with nothing in it.
    pub fn new() -> Self {
        Self { inflight: Inflight::new(), pending: Queue::new(), received: ReceivedIds::default() }
    }

    /// A session that a store has kept: messages in flight in the order in which they were sent (true where only
    /// PUBCOMP is missing), messages waiting, and the QoS 2 identifiers received.
    pub fn restore(
        inflight: impl IntoIterator<Item = (PacketId, bool, M)>,
        pending: impl IntoIterator<Item = M>,
        received: impl IntoIterator<Item = PacketId>,
    ) -> Self {
        Self {
            inflight: Inflight::restore(inflight, |message| message.qos() == QoS::ExactlyOnce),
            pending: Queue::restore(pending),
            received: ReceivedIds::restore(received),
        }
    }

    /// A connection begins: the send window opens anew with the peer's receive maximum (at most `window`), and what
    /// was sent on an earlier connection is to be sent again, in its order [MQTT-4.4.0-1] [MQTT-4.6.0-1].
    pub fn connected(&mut self, window: u16, receive_maximum: u16) {
        self.inflight.connected(window);
        self.received.connected(receive_maximum);
    }

    /// Whether a new QoS 1 or 2 message may go out at once: the window is open and nothing waits before it.
    #[inline]
    pub fn may_send(&self) -> bool {
        self.pending.is_empty() && self.inflight.may_send()
    }

    /// Whether messages of QoS 0 wait, behind which a new one belongs [MQTT-4.6.0-5].
    #[inline]
    pub fn has_queued_once(&self) -> bool {
        self.pending.has_once()
    }

    /// Records a QoS 1 or 2 message as sent now and gives its packet identifier; only while [`Self::may_send`].
    #[inline]
    pub fn sent(&mut self, message: M) -> PacketId {
        let exactly_once = message.qos() == QoS::ExactlyOnce;
        self.inflight.push(message, exactly_once)
    }

    /// Queues a message for later. On `Err` the queue was full: what is returned was dropped, by the policy.
    pub fn enqueue(&mut self, message: M, limits: &QueueLimits) -> Result<(), Full<M>> {
        self.pending.push(message, limits)
    }

    /// Next thing to send on this connection: re-sent messages first, then queued ones while the window is open.
    pub fn poll_send(&mut self, now: Instant) -> Option<Send<'_, M>> {
        if self.inflight.has_resend() {
            return self.inflight.next_resend().map(|resend| match resend {
                Resend::Publish(packet_id, message) => Send::Publish { packet_id, dup: true, message },
                Resend::PubRel(packet_id) => Send::PubRel(packet_id),
            });
        }
        let next = self.pending.front()?;
        if next.expires_at().is_some_and(|at| at <= now) {
            return self.pending.pop().map(Send::Expired);
        }
        if next.qos() == QoS::AtMostOnce {
            return self.pending.pop().map(Send::Once);
        }
        if !self.inflight.may_send() {
            return None;
        }
        let message = self.pending.pop()?;
        let exactly_once = message.qos() == QoS::ExactlyOnce;
        let packet_id = self.inflight.push(message, exactly_once);
        self.inflight.get(packet_id).map(|message| Send::Publish { packet_id, dup: false, message })
    }

    /// PUBACK: the message is done. The window opens by one.
    pub fn handle_puback(&mut self, packet_id: PacketId) -> Result<M, AckError> {
        self.inflight.handle_puback(packet_id)
    }

    /// PUBREC: to be answered with PUBREL, or, if `failed` (reason 0x80 or above), the message is done and returned.
    pub fn handle_pubrec(&mut self, packet_id: PacketId, failed: bool) -> Result<Option<M>, AckError> {
        self.inflight.handle_pubrec(packet_id, failed)
    }

    /// PUBCOMP: the message is done. The window opens by one.
    pub fn handle_pubcomp(&mut self, packet_id: PacketId) -> Result<M, AckError> {
        self.inflight.handle_pubcomp(packet_id)
    }

    /// A message in flight, by its identifier.
    pub fn message(&self, packet_id: PacketId) -> Option<&M> {
        self.inflight.get(packet_id)
    }

    /// An identifier for a SUBSCRIBE or UNSUBSCRIBE, until [`Self::release`].
    pub fn reserve(&mut self) -> Option<PacketId> {
        self.inflight.reserve()
    }

    /// The SUBSCRIBE or UNSUBSCRIBE is answered or given up; whether the identifier was taken by one.
    pub fn release(&mut self, packet_id: PacketId) -> bool {
        self.inflight.release(packet_id)
    }

    /// A QoS 1 or 2 PUBLISH came in: is it new, and is it allowed? For `New` at QoS 1 and refused QoS 2 messages
    /// [`Self::acknowledged`] must follow when PUBACK, or PUBREC with an error, is sent.
    pub fn handle_publish(&mut self, packet_id: PacketId, qos: QoS, dup: bool) -> Received {
        self.received.handle_publish(packet_id, qos, dup)
    }

    /// The PUBACK, or PUBREC with a failure, for a received message was sent.
    pub fn acknowledged(&mut self, packet_id: PacketId, qos: QoS) {
        self.received.acknowledged(packet_id, qos);
    }

    /// Gives up a message in flight, whatever it awaits: it could not be sent. The window opens by one.
    pub fn discard(&mut self, packet_id: PacketId) -> Option<M> {
        self.inflight.discard(packet_id)
    }

    /// Whether messages of an earlier connection are yet to be sent again.
    pub fn has_resend(&self) -> bool {
        self.inflight.has_resend()
    }

    /// PUBREL came in: whether its identifier was known. To be answered with PUBCOMP either way.
    pub fn handle_pubrel(&mut self, packet_id: PacketId) -> bool {
        self.received.handle_pubrel(packet_id)
    }

    /// Whether a received QoS 2 message holds this identifier.
    pub fn is_received(&self, packet_id: PacketId) -> bool {
        self.received.contains(packet_id)
    }

    /// The identifiers of QoS 2 messages received and not released.
    pub fn received(&self) -> &[PacketId] {
        self.received.ids()
    }

    /// Messages sent and not acknowledged.
    pub fn inflight(&self) -> usize {
        self.inflight.len()
    }

    /// Messages waiting for room in the window.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of the messages waiting.
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes()
    }

    /// QoS 2 messages received and not released.
    pub fn unreleased(&self) -> usize {
        self.received.len()
    }

    /// Whether nothing is queued or in flight in either direction.
    pub fn is_idle(&self) -> bool {
        self.inflight.is_empty() && self.pending.is_empty() && self.received.is_empty()
    }

    /// Takes out, for another receiver, the queued messages that `take` picks and, if `unacknowledged` says so, the QoS 1
    /// messages sent and not acknowledged. That is for a peer that is away: to one that is connected, what was started
    /// is completed [MQTT-3.10.4-3], and its acknowledgement gives the window back. QoS 2 messages that were sent stay:
    /// their delivery must end here [MQTT-4.8.2-4].
    pub fn withdraw(&mut self, unacknowledged: bool, mut take: impl FnMut(&M) -> bool) -> Vec<M> {
        let mut taken = if unacknowledged { self.inflight.withdraw(&mut take) } else { Vec::new() };
        self.pending.withdraw(&mut take, &mut taken);
        taken
    }

    /// Removes queued messages that have expired, giving each to `dropped`.
    pub fn sweep(&mut self, now: Instant, dropped: impl FnMut(M)) {
        self.pending.sweep(now, dropped);
    }

    /// Ends the session: every message that was not acknowledged, unsent ones last.
    pub fn into_messages(self) -> impl Iterator<Item = M> {
        self.inflight.into_messages().chain(self.pending.into_messages())
    }

    /// Messages in flight (with whether only PUBCOMP is missing) in their order, for a snapshot.
    pub fn inflight_messages(&self) -> impl Iterator<Item = (PacketId, bool, &M)> {
        self.inflight.iter()
    }

    /// Messages waiting, in their order, for a snapshot.
    pub fn pending_messages(&self) -> impl Iterator<Item = &M> {
        self.pending.iter()
    }
}

impl<M: Stored> Default for Session<M> {
    fn default() -> Self {
        Self::new()
    }
}
