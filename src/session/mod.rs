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

    /// How many messages it stands for. Several may wait as one, of one QoS and without expiry; what is sent is one.
    fn count(&self) -> usize {
        1
    }

    /// Takes out the first `count` messages of more than that; `None` if there are no more.
    fn split(&mut self, count: usize) -> Option<Self>
    where
        Self: Sized,
    {
        let _ = count;
        None
    }
}

/// Session state towards one peer. One that has nothing to remember is two words.
#[derive(Debug)]
pub struct Session<M> {
    active: Option<Box<Active<M>>>,
    /// Messages the peer accepts unacknowledged on this connection.
    window: u16,
    /// Messages it may have unacknowledged itself.
    receive_maximum: u16,
    /// The packet identifier to begin with.
    first_id: u16,
}

/// A session in which something was sent, queued or received since it was last at rest.
#[derive(Debug)]
struct Active<M> {
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
        Self { active: None, window: 0, receive_maximum: 0, first_id: 1 }
    }

    /// A session that a store has kept: messages in flight in the order in which they were sent (true where only
    /// PUBCOMP is missing), messages waiting, and the QoS 2 identifiers received.
    pub fn restore(
        inflight: impl IntoIterator<Item = (PacketId, bool, M)>,
        pending: impl IntoIterator<Item = M>,
        received: impl IntoIterator<Item = PacketId>,
    ) -> Self {
        let active = Active {
            inflight: Inflight::restore(inflight, |message| message.qos() == QoS::ExactlyOnce),
            pending: Queue::restore(pending),
            received: ReceivedIds::restore(received),
        };
        let mut session = Self { active: Some(Box::new(active)), ..Self::new() };
        session.rest();
        session
    }

    /// A connection begins: the send window opens anew with the peer's receive maximum (at most `window`), and what
    /// was sent on an earlier connection is to be sent again, in its order [MQTT-4.4.0-1] [MQTT-4.6.0-1].
    pub fn connected(&mut self, window: u16, receive_maximum: u16) {
        (self.window, self.receive_maximum) = (window, receive_maximum);
        if let Some(active) = &mut self.active {
            active.inflight.connected(window);
            active.received.connected(receive_maximum);
        }
    }

    /// Whether [`Self::rest`] has found nothing to remember, and nothing has come since.
    #[inline]
    pub fn is_at_rest(&self) -> bool {
        self.active.is_none()
    }

    /// Gives memory back if nothing is to be remembered. Not done by itself when the last message is acknowledged, since
    /// the next may come at once.
    pub fn rest(&mut self) {
        if let Some(active) = &self.active
            && active.inflight.is_at_rest()
            && active.pending.is_empty()
            && active.received.is_empty()
        {
            self.first_id = active.inflight.first_id();
            self.active = None;
        }
    }

    /// Whether a new QoS 1 or 2 message may go out at once: the window is open and nothing waits before it.
    #[inline]
    pub fn may_send(&self) -> bool {
        match &self.active {
            Some(active) => active.pending.is_empty() && active.inflight.may_send(),
            None => self.window > 0,
        }
    }

    /// Whether so many may.
    #[inline]
    pub fn may_send_all(&self, count: usize) -> bool {
        match &self.active {
            Some(active) => active.pending.is_empty() && active.inflight.room() >= count,
            None => usize::from(self.window) >= count,
        }
    }

    /// Whether messages of QoS 0 wait, behind which a new one belongs [MQTT-4.6.0-5].
    #[inline]
    pub fn has_queued_once(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.pending.has_once())
    }

    /// Records a QoS 1 or 2 message as sent now and gives its packet identifier; only while [`Self::may_send`].
    #[inline]
    pub fn sent(&mut self, message: M) -> PacketId {
        let exactly_once = message.qos() == QoS::ExactlyOnce;
        self.active_mut().inflight.push(message, exactly_once)
    }

    /// Whether so many messages of so many bytes in all may be queued without dropping any.
    pub fn may_enqueue(&self, count: usize, bytes: usize, limits: &QueueLimits) -> bool {
        let (waiting, held) = (self.pending(), self.pending_bytes());
        waiting.saturating_add(count) <= limits.messages_max && held.saturating_add(bytes) <= limits.bytes_max
    }

    /// What waits first, if that are several messages as one, and how many of them may be sent now:
    /// [`Self::take_several`] takes so many at most.
    #[inline]
    pub fn next_several(&self) -> Option<(&M, usize)> {
        let active = self.active.as_ref()?;
        let next = active.pending.front().filter(|next| next.count() > 1)?;
        let room = active.inflight.room().min(next.count());
        (room > 0).then_some((next, room))
    }

    /// Takes out `count` of the messages that wait first as one, to be sent now: each is then recorded by
    /// [`Self::sent`].
    pub fn take_several(&mut self, count: usize) -> Option<M> {
        self.active.as_mut()?.pending.pop_several(count)
    }

    /// Queues a message for later. On `Err` the queue was full: what is returned was dropped, by the policy.
    pub fn enqueue(&mut self, message: M, limits: &QueueLimits) -> Result<(), Full<M>> {
        self.active_mut().pending.push(message, limits)
    }

    /// Next thing to send on this connection: re-sent messages first, then queued ones while the window is open.
    pub fn poll_send(&mut self, now: Instant) -> Option<Send<'_, M>> {
        let Active { inflight, pending, .. } = &mut **self.active.as_mut()?;
        if inflight.has_resend() {
            return inflight.next_resend().map(|resend| match resend {
                Resend::Publish(packet_id, message) => Send::Publish { packet_id, dup: true, message },
                Resend::PubRel(packet_id) => Send::PubRel(packet_id),
            });
        }
        let next = pending.front()?;
        if next.expires_at().is_some_and(|at| at <= now) {
            return pending.pop().map(Send::Expired);
        }
        if next.qos() == QoS::AtMostOnce {
            return pending.pop().map(Send::Once);
        }
        if !inflight.may_send() {
            return None;
        }
        let message = pending.pop()?;
        let exactly_once = message.qos() == QoS::ExactlyOnce;
        let packet_id = inflight.push(message, exactly_once);
        inflight.get(packet_id).map(|message| Send::Publish { packet_id, dup: false, message })
    }

    /// PUBACK: the message is done. The window opens by one.
    #[inline]
    pub fn handle_puback(&mut self, packet_id: PacketId) -> Result<M, AckError> {
        self.active.as_mut().ok_or(AckError::Unknown)?.inflight.handle_puback(packet_id)
    }

    /// PUBREC: to be answered with PUBREL, or, if `failed` (reason 0x80 or above), the message is done and returned.
    pub fn handle_pubrec(&mut self, packet_id: PacketId, failed: bool) -> Result<Option<M>, AckError> {
        self.active.as_mut().ok_or(AckError::Unknown)?.inflight.handle_pubrec(packet_id, failed)
    }

    /// PUBCOMP: the message is done. The window opens by one.
    pub fn handle_pubcomp(&mut self, packet_id: PacketId) -> Result<M, AckError> {
        self.active.as_mut().ok_or(AckError::Unknown)?.inflight.handle_pubcomp(packet_id)
    }

    /// A message in flight, by its identifier.
    pub fn message(&self, packet_id: PacketId) -> Option<&M> {
        self.active.as_ref()?.inflight.get(packet_id)
    }

    /// An identifier for a SUBSCRIBE or UNSUBSCRIBE, until [`Self::release`].
    pub fn reserve(&mut self) -> Option<PacketId> {
        self.active_mut().inflight.reserve()
    }

    /// The SUBSCRIBE or UNSUBSCRIBE is answered or given up; whether the identifier was taken by one.
    pub fn release(&mut self, packet_id: PacketId) -> bool {
        self.active.as_mut().is_some_and(|active| active.inflight.release(packet_id))
    }

    /// A QoS 1 or 2 PUBLISH came in: is it new, and is it allowed? For `New` at QoS 1 and refused QoS 2 messages
    /// [`Self::acknowledged`] must follow when PUBACK, or PUBREC with an error, is sent.
    pub fn handle_publish(&mut self, packet_id: PacketId, qos: QoS, dup: bool) -> Received {
        self.active_mut().received.handle_publish(packet_id, qos, dup)
    }

    /// As [`Self::handle_publish`] for a QoS 1 PUBLISH whose PUBACK is sent before anything else is received: nothing is
    /// remembered of it, and [`Self::acknowledged`] is not called.
    #[inline]
    pub fn judge_publish(&self, packet_id: PacketId) -> Received {
        match &self.active {
            Some(active) => active.received.judge_publish(packet_id),
            None if self.receive_maximum > 0 => Received::New,
            None => Received::OverMaximum,
        }
    }

    /// The PUBACK, or PUBREC with a failure, for a received message was sent.
    pub fn acknowledged(&mut self, packet_id: PacketId, qos: QoS) {
        if let Some(active) = &mut self.active {
            active.received.acknowledged(packet_id, qos);
        }
    }

    /// Gives up a message in flight, whatever it awaits: it could not be sent. The window opens by one.
    pub fn discard(&mut self, packet_id: PacketId) -> Option<M> {
        self.active.as_mut()?.inflight.discard(packet_id)
    }

    /// Whether messages of an earlier connection are yet to be sent again.
    pub fn has_resend(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.inflight.has_resend())
    }

    /// PUBREL came in: whether its identifier was known. To be answered with PUBCOMP either way.
    pub fn handle_pubrel(&mut self, packet_id: PacketId) -> bool {
        self.active.as_mut().is_some_and(|active| active.received.handle_pubrel(packet_id))
    }

    /// Whether a received QoS 2 message holds this identifier.
    pub fn is_received(&self, packet_id: PacketId) -> bool {
        self.active.as_ref().is_some_and(|active| active.received.contains(packet_id))
    }

    /// The identifiers of QoS 2 messages received and not released.
    pub fn received(&self) -> &[PacketId] {
        self.active.as_ref().map_or(&[], |active| active.received.ids())
    }

    /// Messages sent and not acknowledged.
    pub fn inflight(&self) -> usize {
        self.active.as_ref().map_or(0, |active| active.inflight.len())
    }

    /// Messages waiting for room in the window.
    pub fn pending(&self) -> usize {
        self.active.as_ref().map_or(0, |active| active.pending.len())
    }

    /// Bytes of the messages waiting.
    pub fn pending_bytes(&self) -> usize {
        self.active.as_ref().map_or(0, |active| active.pending.bytes())
    }

    /// QoS 2 messages received and not released.
    pub fn unreleased(&self) -> usize {
        self.active.as_ref().map_or(0, |active| active.received.len())
    }

    /// Whether nothing is queued or in flight in either direction.
    pub fn is_idle(&self) -> bool {
        let is_idle =
            |active: &Active<M>| active.inflight.is_empty() && active.pending.is_empty() && active.received.is_empty();
        self.active.as_deref().is_none_or(is_idle)
    }

    /// Takes out, for another receiver, the queued messages that `take` picks and, if `unacknowledged` says so, the QoS 1
    /// messages sent and not acknowledged. That is for a peer that is away: to one that is connected, what was started
    /// is completed [MQTT-3.10.4-3], and its acknowledgement gives the window back. QoS 2 messages that were sent stay:
    /// their delivery must end here [MQTT-4.8.2-4]. Several that wait as one are picked, and returned, as one.
    pub fn withdraw(&mut self, unacknowledged: bool, mut take: impl FnMut(&M) -> bool) -> Vec<M> {
        let Some(active) = &mut self.active else { return Vec::new() };
        let mut taken = if unacknowledged { active.inflight.withdraw(&mut take) } else { Vec::new() };
        active.pending.withdraw(&mut take, &mut taken);
        taken
    }

    /// Removes queued messages that have expired, giving each to `dropped`.
    pub fn sweep(&mut self, now: Instant, dropped: impl FnMut(M)) {
        if let Some(active) = &mut self.active {
            active.pending.sweep(now, dropped);
        }
    }

    /// Ends the session: every message that was not acknowledged, unsent ones last, also several as one.
    pub fn into_messages(self) -> impl Iterator<Item = M> {
        let all = |active: Active<M>| active.inflight.into_messages().chain(active.pending.into_messages());
        self.active.map(|active| all(*active)).into_iter().flatten()
    }

    /// Messages in flight (with whether only PUBCOMP is missing) in their order, for a snapshot.
    pub fn inflight_messages(&self) -> impl Iterator<Item = (PacketId, bool, &M)> {
        self.active.iter().flat_map(|active| active.inflight.iter())
    }

    /// Messages waiting, in their order, for a snapshot.
    pub fn pending_messages(&self) -> impl Iterator<Item = &M> {
        self.active.iter().flat_map(|active| active.pending.iter())
    }

    #[inline]
    fn active_mut(&mut self) -> &mut Active<M> {
        self.active.get_or_insert_with(|| {
            let mut active = Active {
                inflight: Inflight::starting_at(self.first_id),
                pending: Queue::new(),
                received: ReceivedIds::default(),
            };
            active.inflight.connected(self.window);
            active.received.connected(self.receive_maximum);
            Box::new(active)
        })
    }
}

impl<M: Stored> Default for Session<M> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Message(QoS);

    impl Stored for Message {
        fn qos(&self) -> QoS {
            self.0
        }
        fn bytes(&self) -> usize {
            1
        }
        fn expires_at(&self) -> Option<Instant> {
            None
        }
    }

    /// So many messages of QoS 1 as one.
    #[derive(Debug, PartialEq, Eq)]
    struct Several(usize);

    impl Stored for Several {
        fn qos(&self) -> QoS {
            QoS::AtLeastOnce
        }
        fn bytes(&self) -> usize {
            self.0
        }
        fn expires_at(&self) -> Option<Instant> {
            None
        }
        fn count(&self) -> usize {
            self.0
        }
        fn split(&mut self, count: usize) -> Option<Self> {
            (count < self.0).then(|| {
                self.0 -= count;
                Self(count)
            })
        }
    }

    #[test]
    fn several_that_wait_as_one_are_sent_as_the_window_opens() {
        let limits = QueueLimits { messages_max: 10, bytes_max: 10, drop_oldest: false };
        let mut session = Session::new();
        session.connected(3, 1);
        assert!(session.may_enqueue(10, 10, &limits) && !session.may_enqueue(11, 10, &limits));
        session.enqueue(Several(5), &limits).unwrap();
        assert!(session.may_enqueue(5, 5, &limits) && !session.may_enqueue(5, 6, &limits));
        assert!(!session.may_send(), "what comes now waits behind them");
        assert_eq!(session.next_several(), Some((&Several(5), 3)));
        assert_eq!(session.take_several(3), Some(Several(3)));
        let ids: Vec<_> = (0..3).map(|_| session.sent(Several(1))).collect();
        assert_eq!((session.pending(), session.next_several()), (2, None), "the window is closed");
        session.handle_puback(ids[0]).unwrap();
        assert_eq!(session.next_several(), Some((&Several(2), 1)));
        // One by one is as good.
        assert!(matches!(session.poll_send(Instant::now()), Some(Send::Publish { message: Several(1), .. })));
        assert_eq!((session.pending(), session.next_several()), (1, None), "the last is a message like any other");
        session.connected(3, 1);
        assert_eq!(session.next_several(), None, "what was sent before is sent again first");
    }

    #[test]
    fn a_session_at_rest_holds_no_memory_and_goes_on_with_its_identifiers() {
        let mut session = Session::new();
        assert!(!session.may_send(), "closed until there is a connection");
        session.connected(2, 1);
        let first = session.sent(Message(QoS::AtLeastOnce));
        session.rest();
        assert_eq!(session.inflight(), 1, "not at rest");
        assert_eq!(session.handle_puback(first), Ok(Message(QoS::AtLeastOnce)));
        session.rest();
        assert!(session.active.is_none() && session.may_send() && session.is_idle());
        assert_eq!(session.handle_puback(first), Err(AckError::Unknown));
        let second = session.sent(Message(QoS::ExactlyOnce));
        assert_eq!(second.get(), first.get() + 1);
        session.sent(Message(QoS::AtLeastOnce));
        assert!(!session.may_send(), "the window is that of the connection");
        assert_eq!(session.judge_publish(first), Received::New);
        assert_eq!(session.handle_publish(first, QoS::AtLeastOnce, false), Received::New);
        assert_eq!(session.judge_publish(second), Received::OverMaximum);
        assert_eq!(session.handle_publish(second, QoS::AtLeastOnce, false), Received::OverMaximum);
        assert!(size_of::<Session<Message>>() <= 16);
    }
}
