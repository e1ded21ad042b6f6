//! The send window: packet identifiers, what awaits which acknowledgement, and what to send again.
//!
//! Identifiers are handed out in sequence, so the entries form one contiguous run of identifiers: an acknowledgement
//! finds its entry by subtraction, and the order of the deque is the order of sending that a resend must keep. An
//! entry acknowledged out of turn stays as an empty place until those before it are done; the run, empty places
//! included, never exceeds the 65,535 identifiers there are.

use std::{collections::VecDeque, num::NonZeroU16};

use crate::codec::PacketId;

/// Messages sent and not yet acknowledged.
#[derive(Debug)]
pub struct Inflight<M> {
    entries: VecDeque<Entry<M>>,
    /// Identifier of `entries[0]`, or the next to be given when there is none.
    first_id: u16,
    /// Entries that are not empty places.
    live: u16,
    /// Messages sent on this connection and not finished: PUBREL sent again counts, so that its PUBCOMP never opens
    /// the window wider than the peer's receive maximum (section 4.9).
    outstanding: u16,
    /// How many of them the peer accepts.
    window: u16,
    /// Entries from here on have been sent on this connection; those before it are to be sent again.
    resend_at: u16,
    /// Entries that were in the deque when the connection began.
    resend_end: u16,
}

#[derive(Debug)]
struct Entry<M> {
    message: Option<M>,
    awaits: Awaits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    PubAck,
    PubRec,
    PubComp,
    /// The identifier is taken by a SUBSCRIBE or UNSUBSCRIBE.
    Reply,
    Nothing,
}

/// Why an acknowledgement fits no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// No message with this identifier is in flight.
    #[error("no message with this packet identifier is in flight")]
    Unknown,
    /// A message is, but it awaits another packet.
    #[error("the message with this packet identifier awaits another acknowledgement")]
    Unexpected,
}

/// One packet to be sent again.
#[derive(Debug, PartialEq, Eq)]
pub enum Resend<'a, M> {
    /// The PUBLISH, with DUP set.
    Publish(PacketId, &'a M),
    /// The PUBREL.
    PubRel(PacketId),
}

impl<M> Inflight<M> {
    /// Nothing in flight; closed until [`Self::connected`].
    pub const fn new() -> Self {
        Self { entries: VecDeque::new(), first_id: 1, live: 0, outstanding: 0, window: 0, resend_at: 0, resend_end: 0 }
    }

    /// Nothing in flight, and the next identifier is to be `first_id`.
    pub fn starting_at(first_id: u16) -> Self {
        Self { first_id, ..Self::new() }
    }

    /// The identifier of the oldest message, or the next to be given when there is none.
    pub const fn first_id(&self) -> u16 {
        self.first_id
    }

    /// Whether nothing is to be remembered but the next identifier.
    pub fn is_at_rest(&self) -> bool {
        self.entries.is_empty() && self.outstanding == 0
    }

    /// Messages that a store has kept, in the order in which they were sent; true where only PUBCOMP is missing. One
    /// whose identifier does not come after those before it is left out.
    pub fn restore(messages: impl IntoIterator<Item = (PacketId, bool, M)>, exactly_once: impl Fn(&M) -> bool) -> Self {
        let mut inflight = Self::new();
        for (id, is_received, message) in messages {
            if inflight.entries.is_empty() {
                inflight.first_id = id.get();
            }
            let at = (u32::from(id.get()) + IDS - u32::from(inflight.first_id)) % IDS;
            if (at as usize) < inflight.entries.len() {
                continue;
            }
            let awaits = match (is_received, exactly_once(&message)) {
                (true, _) => Awaits::PubComp,
                (false, true) => Awaits::PubRec,
                (false, false) => Awaits::PubAck,
            };
            inflight.entries.resize_with(at as usize, || Entry { message: None, awaits: Awaits::Nothing });
            inflight.entries.push_back(Entry { message: Some(message), awaits });
            inflight.live += 1;
        }
        inflight
    }

    /// A connection begins with this send window.
    pub fn connected(&mut self, window: u16) {
        self.window = window;
        self.outstanding = 0;
        self.resend_at = 0;
        self.resend_end = self.entries.len() as u16;
    }

    /// Whether a new message may be sent now.
    #[inline]
    pub fn may_send(&self) -> bool {
        self.outstanding < self.window && self.resend_at >= self.resend_end && self.entries.len() < IDS as usize
    }

    /// How many new messages may be.
    #[inline]
    pub fn room(&self) -> usize {
        let ids = IDS as usize - self.entries.len();
        if self.has_resend() { 0 } else { usize::from(self.window.saturating_sub(self.outstanding)).min(ids) }
    }

    /// Records a message as sent.
    #[inline]
    pub fn push(&mut self, message: M, exactly_once: bool) -> PacketId {
        debug_assert!(self.may_send(), "the caller asks may_send first");
        let id = self.id_at(self.entries.len());
        let awaits = if exactly_once { Awaits::PubRec } else { Awaits::PubAck };
        self.entries.push_back(Entry { message: Some(message), awaits });
        self.live += 1;
        self.outstanding += 1;
        id
    }

    /// Takes an identifier for a SUBSCRIBE or UNSUBSCRIBE: one space serves all three packets [MQTT-2.2.1-3], the
    /// window only PUBLISH. `None` when all are in use.
    pub fn reserve(&mut self) -> Option<PacketId> {
        if self.entries.len() >= IDS as usize {
            return None;
        }
        let id = self.id_at(self.entries.len());
        self.entries.push_back(Entry { message: None, awaits: Awaits::Reply });
        Some(id)
    }

    /// Gives back an identifier of [`Self::reserve`]; whether it was one.
    pub fn release(&mut self, id: PacketId) -> bool {
        let Some(entry) = self.index(id).and_then(|at| self.entries.get_mut(at)) else { return false };
        if entry.awaits != Awaits::Reply {
            return false;
        }
        entry.awaits = Awaits::Nothing;
        self.trim();
        true
    }

    /// The message in flight with this identifier.
    pub fn get(&self, id: PacketId) -> Option<&M> {
        self.entries.get(self.index(id)?)?.message.as_ref()
    }

    /// Whether something is left to be sent again on this connection.
    #[inline]
    pub fn has_resend(&self) -> bool {
        self.resend_at < self.resend_end
    }

    /// Next packet to send again, while the window allows.
    pub fn next_resend(&mut self) -> Option<Resend<'_, M>> {
        while self.resend_at < self.resend_end {
            let at = usize::from(self.resend_at);
            match self.entries.get(at)?.awaits {
                Awaits::Nothing | Awaits::Reply => self.resend_at += 1,
                Awaits::PubComp => {
                    self.resend_at += 1;
                    self.outstanding += 1;
                    return Some(Resend::PubRel(self.id_at(at)));
                }
                Awaits::PubAck | Awaits::PubRec if self.outstanding >= self.window => return None,
                Awaits::PubAck | Awaits::PubRec => {
                    self.resend_at += 1;
                    self.outstanding += 1;
                    let id = self.id_at(at);
                    let message = self.entries.get(at)?.message.as_ref()?;
                    return Some(Resend::Publish(id, message));
                }
            }
        }
        None
    }

    /// PUBACK.
    #[inline]
    pub fn handle_puback(&mut self, id: PacketId) -> Result<M, AckError> {
        self.finish(id, Awaits::PubAck)
    }

    /// PUBREC; the message is returned if the peer refused it.
    pub fn handle_pubrec(&mut self, id: PacketId, failed: bool) -> Result<Option<M>, AckError> {
        if failed {
            return self.finish(id, Awaits::PubRec).map(Some);
        }
        let at = self.index(id).ok_or(AckError::Unknown)?;
        let entry = self.entries.get_mut(at).ok_or(AckError::Unknown)?;
        match entry.awaits {
            Awaits::PubRec => entry.awaits = Awaits::PubComp,
            Awaits::PubComp => {}
            Awaits::Nothing => return Err(AckError::Unknown),
            Awaits::PubAck | Awaits::Reply => return Err(AckError::Unexpected),
        }
        Ok(None)
    }

    /// PUBCOMP.
    pub fn handle_pubcomp(&mut self, id: PacketId) -> Result<M, AckError> {
        self.finish(id, Awaits::PubComp)
    }

    /// Takes out the unacknowledged QoS 1 messages that `take` picks.
    pub fn withdraw(&mut self, take: &mut impl FnMut(&M) -> bool) -> Vec<M> {
        let mut taken = Vec::new();
        for entry in &mut self.entries {
            if entry.awaits == Awaits::PubAck && entry.message.as_ref().is_some_and(&mut *take) {
                entry.awaits = Awaits::Nothing;
                self.live -= 1;
                taken.extend(entry.message.take());
            }
        }
        self.trim();
        taken
    }

    /// Messages in flight, in their order; true where only PUBCOMP is missing.
    pub fn iter(&self) -> impl Iterator<Item = (PacketId, bool, &M)> {
        self.entries.iter().enumerate().filter_map(|(at, entry)| {
            entry.message.as_ref().map(|message| (self.id_at(at), entry.awaits == Awaits::PubComp, message))
        })
    }

    /// The messages alone.
    pub fn into_messages(self) -> impl Iterator<Item = M> {
        self.entries.into_iter().filter_map(|entry| entry.message)
    }

    /// How many are in flight.
    pub fn len(&self) -> usize {
        usize::from(self.live)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Gives up a message, whatever it awaits.
    pub fn discard(&mut self, id: PacketId) -> Option<M> {
        let awaits = self.entries.get(self.index(id)?)?.awaits;
        self.finish(id, awaits).ok()
    }

    #[inline]
    fn finish(&mut self, id: PacketId, awaited: Awaits) -> Result<M, AckError> {
        let at = self.index(id).ok_or(AckError::Unknown)?;
        let entry = self.entries.get_mut(at).ok_or(AckError::Unknown)?;
        match entry.awaits {
            Awaits::Nothing => return Err(AckError::Unknown),
            awaits if awaits != awaited => return Err(AckError::Unexpected),
            _ => {}
        }
        entry.awaits = Awaits::Nothing;
        let message = entry.message.take().ok_or(AckError::Unknown)?;
        self.live -= 1;
        let sent_on_this_connection = at < usize::from(self.resend_at) || at >= usize::from(self.resend_end);
        if sent_on_this_connection {
            self.outstanding = self.outstanding.saturating_sub(1);
        }
        // Acknowledgements come in the order of sending, so it is mostly the first.
        if at == 0 {
            self.trim();
        }
        Ok(message)
    }

    /// Drops the empty places at the front, and gives memory back when nothing is left.
    fn trim(&mut self) {
        let mut count = 0;
        while self.entries.front().is_some_and(|entry| entry.awaits == Awaits::Nothing) {
            self.entries.pop_front();
            count += 1;
        }
        // There are no more places than identifiers.
        self.first_id = wrap(u32::from(self.first_id) + u32::from(count));
        self.resend_at = self.resend_at.saturating_sub(count);
        self.resend_end = self.resend_end.saturating_sub(count);
        if self.entries.is_empty() && self.entries.capacity() > KEEP_CAPACITY {
            self.entries.shrink_to(0);
        }
    }

    #[inline]
    fn index(&self, id: PacketId) -> Option<usize> {
        let (id, first_id) = (u32::from(id.get()), u32::from(self.first_id));
        let at = (if id < first_id { id + IDS - first_id } else { id - first_id }) as usize;
        (at < self.entries.len()).then_some(at)
    }

    #[inline]
    fn id_at(&self, at: usize) -> PacketId {
        NonZeroU16::new(wrap(u32::from(self.first_id) + at as u32)).expect("wrap never gives zero")
    }
}

impl<M> Default for Inflight<M> {
    fn default() -> Self {
        Self::new()
    }
}

/// `n` as an identifier: 65,535 is followed by 1.
#[inline]
const fn wrap(n: u32) -> u16 {
    debug_assert!(0 < n && n <= 2 * IDS, "an identifier, and no more than all of them behind it");
    (if n > IDS { n - IDS } else { n }) as u16
}

/// How many identifiers there are: 1 to 65,535.
const IDS: u32 = 65_535;

/// Places kept when the window runs empty; a busier session gives its memory back.
const KEEP_CAPACITY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> PacketId {
        NonZeroU16::new(n).unwrap()
    }

    fn open(window: u16) -> Inflight<u32> {
        let mut inflight = Inflight::new();
        inflight.connected(window);
        inflight
    }

    #[test]
    fn identifiers_run_in_sequence_and_wrap_past_65535_to_1() {
        let mut inflight = open(10);
        for n in 0..65_535u32 {
            let given = inflight.push(n, false);
            assert_eq!(u32::from(given.get()), n + 1);
            assert_eq!(inflight.handle_puback(given), Ok(n));
        }
        assert_eq!(inflight.push(7, false), id(1));
    }

    #[test]
    fn acknowledgements_out_of_order_free_the_window_and_keep_the_order() {
        let mut inflight = open(3);
        let ids: Vec<_> = (0..3).map(|n| inflight.push(n, false)).collect();
        assert!(!inflight.may_send());
        assert_eq!(inflight.handle_puback(ids[1]), Ok(1));
        assert!(inflight.may_send());
        assert_eq!(inflight.handle_puback(ids[1]), Err(AckError::Unknown));
        assert_eq!(inflight.push(3, false), id(4));
        inflight.connected(10);
        let mut again = Vec::new();
        while let Some(Resend::Publish(id, message)) = inflight.next_resend() {
            again.push((id.get(), *message));
        }
        assert_eq!(again, [(1, 0), (3, 2), (4, 3)]);
    }

    #[test]
    fn a_pubrec_is_resent_as_pubrel_and_a_second_one_changes_nothing() {
        let mut inflight = open(2);
        let first = inflight.push(1, true);
        assert_eq!(inflight.handle_puback(first), Err(AckError::Unexpected));
        assert_eq!(inflight.handle_pubrec(first, false), Ok(None));
        assert_eq!(inflight.handle_pubrec(first, false), Ok(None));
        inflight.connected(2);
        assert_eq!(inflight.next_resend(), Some(Resend::PubRel(first)));
        assert_eq!(inflight.next_resend(), None);
        assert_eq!(inflight.handle_pubcomp(first), Ok(1));
        assert!(inflight.is_empty());
    }

    #[test]
    fn resends_wait_for_the_window_and_new_messages_wait_for_resends() {
        let mut inflight = open(4);
        for n in 0..4 {
            inflight.push(n, false);
        }
        inflight.connected(1);
        assert!(matches!(inflight.next_resend(), Some(Resend::Publish(_, 0))));
        assert_eq!(inflight.next_resend(), None);
        assert!(!inflight.may_send());
        inflight.handle_puback(id(1)).unwrap();
        assert!(!inflight.may_send());
        assert!(matches!(inflight.next_resend(), Some(Resend::Publish(_, 1))));
    }

    #[test]
    fn a_pubrel_sent_again_keeps_its_place_in_the_window_until_pubcomp() {
        let mut inflight = open(2);
        let first = inflight.push(1, true);
        inflight.handle_pubrec(first, false).unwrap();
        inflight.connected(2);
        assert_eq!(inflight.next_resend(), Some(Resend::PubRel(first)));
        inflight.push(2, false);
        assert!(!inflight.may_send());
        inflight.handle_pubcomp(first).unwrap();
        inflight.push(3, false);
        assert!(!inflight.may_send());
    }

    #[test]
    fn reserved_identifiers_take_no_room_in_the_window_and_are_not_sent_again() {
        let mut inflight = open(2);
        assert_eq!(inflight.reserve(), Some(id(1)));
        assert_eq!(inflight.push(7, false), id(2));
        assert!(inflight.may_send());
        assert_eq!(inflight.handle_puback(id(1)), Err(AckError::Unexpected));
        assert!(inflight.release(id(1)));
        assert!(!inflight.release(id(1)));
        assert!(!inflight.release(id(2)));
        assert_eq!(inflight.reserve(), Some(id(3)));
        inflight.connected(2);
        assert_eq!(inflight.next_resend(), Some(Resend::Publish(id(2), &7)));
        assert_eq!(inflight.next_resend(), None);
    }

    #[test]
    fn restored_messages_keep_their_identifiers_across_gaps_and_the_wrap() {
        let kept = [(65_534, false, 1), (65_535, true, 2), (2, false, 3)].map(|(n, rec, m)| (id(n), rec, m));
        let mut inflight = Inflight::restore(kept, |message| *message != 3);
        inflight.connected(10);
        assert_eq!(inflight.next_resend(), Some(Resend::Publish(id(65_534), &1)));
        assert_eq!(inflight.next_resend(), Some(Resend::PubRel(id(65_535))));
        assert_eq!(inflight.next_resend(), Some(Resend::Publish(id(2), &3)));
        assert_eq!(inflight.next_resend(), None);
        assert_eq!(inflight.push(4, false), id(3));
        assert_eq!(inflight.handle_puback(id(2)), Ok(3));
        assert_eq!(inflight.handle_puback(id(1)), Err(AckError::Unknown));
        assert_eq!(inflight.len(), 3);
    }

    #[test]
    fn withdrawing_takes_unacknowledged_qos1_only() {
        let mut inflight = open(4);
        inflight.push(1, false);
        inflight.push(2, true);
        inflight.push(3, false);
        assert_eq!(inflight.withdraw(&mut |_| true), [1, 3]);
        assert_eq!(inflight.len(), 1);
        assert_eq!(inflight.get(id(2)), Some(&2));
    }
}
