//! Acknowledgements the application makes, kept in the order in which the messages came.
//!
//! PUBACK and PUBREC must leave in the order of their PUBLISH [MQTT-4.6.0-2] [MQTT-4.6.0-3], whatever the order in
//! which the application finishes. One that is made early waits for those before it.

use std::collections::VecDeque;

use super::AckHandle;
use crate::codec::{PacketId, ReasonCode};

/// Messages handed out and not acknowledged to the server, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct AckOrder {
    slots: VecDeque<Slot>,
    /// Sequence number of `slots[0]`.
    first: u64,
    /// QoS 2 messages handed out on an earlier connection and still with the application.
    held: Vec<AckHandle>,
}

#[derive(Debug)]
struct Slot {
    handle: AckHandle,
    reason: Option<ReasonCode>,
}

impl AckOrder {
    /// A new message, about to be handed out.
    pub(super) fn push(&mut self, packet_id: PacketId, exactly_once: bool) -> AckHandle {
        let handle = AckHandle { sequence: self.first + self.slots.len() as u64, packet_id, exactly_once };
        self.slots.push_back(Slot { handle, reason: None });
        handle
    }

    /// A QoS 2 message the server sent again. It is not handed out twice; its PUBREC is due when the application has
    /// acknowledged it, which may have been on an earlier connection.
    pub(super) fn repeat(&mut self, packet_id: PacketId) {
        let waits = self.slots.iter().any(|slot| slot.handle.exactly_once && slot.handle.packet_id == packet_id);
        if waits {
            return;
        }
        let held = self.held.iter().position(|handle| handle.packet_id == packet_id);
        let slot = match held.map(|at| self.held.swap_remove(at)) {
            Some(handle) => Slot { handle, reason: None },
            None => Slot {
                handle: AckHandle { sequence: u64::MAX, packet_id, exactly_once: true },
                reason: Some(ReasonCode::Success),
            },
        };
        self.slots.push_back(slot);
    }

    /// The application is done with a message; whether the acknowledgement still matters.
    pub(super) fn acknowledge(&mut self, handle: AckHandle, reason: ReasonCode) -> bool {
        if let Some(slot) = self.slot(handle) {
            slot.reason.get_or_insert(reason);
            return true;
        }
        let held = self.held.iter().position(|known| *known == handle);
        held.map(|at| self.held.swap_remove(at)).is_some()
    }

    /// Next acknowledgement that may be sent.
    pub(super) fn next(&mut self) -> Option<(AckHandle, ReasonCode)> {
        let reason = self.slots.front()?.reason?;
        let slot = self.slots.pop_front()?;
        self.first += 1;
        Some((slot.handle, reason))
    }

    /// The connection is gone. The server sends everything again; what the application still holds of it with QoS 2
    /// must not be handed out a second time.
    pub(super) fn connection_lost(&mut self) {
        self.first += self.slots.len() as u64;
        let unfinished = self.slots.drain(..).filter(|slot| slot.reason.is_none() && slot.handle.exactly_once);
        self.held.extend(unfinished.map(|slot| slot.handle));
    }

    /// The session is gone: nothing that was handed out can be acknowledged any more.
    pub(super) fn session_lost(&mut self) {
        self.connection_lost();
        self.held.clear();
    }

    /// Messages with the application.
    pub(super) fn len(&self) -> usize {
        self.slots.len() + self.held.len()
    }

    fn slot(&mut self, handle: AckHandle) -> Option<&mut Slot> {
        let at = handle.sequence.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let direct = at.filter(|at| self.slots.get(*at).is_some_and(|slot| slot.handle == handle));
        match direct {
            Some(at) => self.slots.get_mut(at),
            // A message of an earlier connection that was repeated on this one.
            None => self.slots.iter_mut().find(|slot| slot.handle == handle),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    fn id(n: u16) -> PacketId {
        NonZeroU16::new(n).unwrap()
    }

    fn sent(acks: &mut AckOrder) -> Vec<u16> {
        std::iter::from_fn(|| acks.next()).map(|(handle, _)| handle.packet_id.get()).collect()
    }

    #[test]
    fn acknowledgements_leave_in_the_order_of_arrival() {
        let mut acks = AckOrder::default();
        let handles: Vec<_> = (1..=3).map(|n| acks.push(id(n), false)).collect();
        assert!(acks.acknowledge(handles[2], ReasonCode::Success));
        assert!(acks.acknowledge(handles[1], ReasonCode::Success));
        assert!(sent(&mut acks).is_empty());
        assert!(acks.acknowledge(handles[0], ReasonCode::Success));
        assert_eq!(sent(&mut acks), [1, 2, 3]);
        assert!(!acks.acknowledge(handles[0], ReasonCode::Success));
    }

    #[test]
    fn a_qos2_message_held_across_connections_is_acknowledged_when_it_is_repeated() {
        let mut acks = AckOrder::default();
        let held = acks.push(id(7), true);
        let lost = acks.push(id(8), false);
        acks.connection_lost();
        assert!(!acks.acknowledge(lost, ReasonCode::Success));
        acks.push(id(9), false);
        acks.repeat(id(7));
        assert!(sent(&mut acks).is_empty());
        assert!(acks.acknowledge(held, ReasonCode::Success));
        assert_eq!(acks.len(), 2);
    }

    #[test]
    fn a_repetition_of_a_message_acknowledged_meanwhile_is_due_at_once() {
        let mut acks = AckOrder::default();
        let held = acks.push(id(7), true);
        acks.connection_lost();
        assert!(acks.acknowledge(held, ReasonCode::Success));
        acks.repeat(id(7));
        assert_eq!(sent(&mut acks), [7]);
        assert_eq!(acks.len(), 0);
    }
}
