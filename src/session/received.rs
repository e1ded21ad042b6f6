//! The receive side: which QoS 2 identifiers are known, and whether the sender keeps to the receive maximum.

use crate::codec::{PacketId, QoS};

/// Identifiers of publications received and not finished.
#[derive(Debug, Default)]
pub struct ReceivedIds {
    /// QoS 2 identifiers between PUBLISH and PUBREL, sorted.
    exactly_once: Vec<PacketId>,
    /// QoS 1 publications whose PUBACK is yet to be sent.
    unacknowledged: u16,
    /// Unfinished publications the sender may have on this connection.
    receive_maximum: u16,
}

/// What a received QoS 1 or 2 PUBLISH is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// To be delivered.
    New,
    /// A QoS 2 message that was delivered before: only PUBREC is due [MQTT-4.3.3-10].
    Duplicate,
    /// A QoS 2 identifier that is in use, in a PUBLISH that does not claim to be sent again (0x91).
    InUse,
    /// More unfinished publications than the receive maximum (0x93) [MQTT-3.3.4-7].
    OverMaximum,
}

impl ReceivedIds {
    /// Identifiers that a store has kept.
    pub fn restore(ids: impl IntoIterator<Item = PacketId>) -> Self {
        let mut exactly_once: Vec<_> = ids.into_iter().collect();
        exactly_once.sort_unstable();
        exactly_once.dedup();
        Self { exactly_once, unacknowledged: 0, receive_maximum: 0 }
    }

    /// A connection begins.
    pub fn connected(&mut self, receive_maximum: u16) {
        self.receive_maximum = receive_maximum;
        self.unacknowledged = 0;
    }

    /// Judges a PUBLISH.
    pub fn handle_publish(&mut self, id: PacketId, qos: QoS, dup: bool) -> Received {
        if let Err(at) = self.exactly_once.binary_search(&id) {
            if self.exactly_once.len() + usize::from(self.unacknowledged) >= usize::from(self.receive_maximum) {
                return Received::OverMaximum;
            }
            match qos {
                QoS::ExactlyOnce => self.exactly_once.insert(at, id),
                _ => self.unacknowledged += 1,
            }
            return Received::New;
        }
        if dup && qos == QoS::ExactlyOnce { Received::Duplicate } else { Received::InUse }
    }

    /// Judges a QoS 1 PUBLISH whose PUBACK is sent before anything else is received: so it need not be remembered.
    #[inline]
    pub fn judge_publish(&self, id: PacketId) -> Received {
        if self.contains(id) {
            return Received::InUse;
        }
        let unfinished = self.exactly_once.len() + usize::from(self.unacknowledged);
        if unfinished < usize::from(self.receive_maximum) { Received::New } else { Received::OverMaximum }
    }

    /// PUBACK, or a failing PUBREC, was sent.
    pub fn acknowledged(&mut self, id: PacketId, qos: QoS) {
        match qos {
            QoS::ExactlyOnce => {
                self.handle_pubrel(id);
            }
            _ => self.unacknowledged = self.unacknowledged.saturating_sub(1),
        }
    }

    /// PUBREL: whether the identifier was known; it is free again.
    pub fn handle_pubrel(&mut self, id: PacketId) -> bool {
        let found = self.exactly_once.binary_search(&id);
        if let Ok(at) = found {
            self.exactly_once.remove(at);
            if self.exactly_once.is_empty() {
                self.exactly_once = Vec::new();
            }
        }
        found.is_ok()
    }

    /// Whether a QoS 2 message holds the identifier.
    pub fn contains(&self, id: PacketId) -> bool {
        self.exactly_once.binary_search(&id).is_ok()
    }

    /// QoS 2 messages not yet released.
    pub fn len(&self) -> usize {
        self.exactly_once.len()
    }

    /// Whether nothing is unfinished.
    pub fn is_empty(&self) -> bool {
        self.exactly_once.is_empty() && self.unacknowledged == 0
    }

    /// The QoS 2 identifiers, for a snapshot.
    pub fn ids(&self) -> &[PacketId] {
        &self.exactly_once
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    fn id(n: u16) -> PacketId {
        NonZeroU16::new(n).unwrap()
    }

    #[test]
    fn a_qos2_message_is_new_once_until_its_pubrel() {
        let mut received = ReceivedIds::default();
        received.connected(10);
        assert_eq!(received.handle_publish(id(1), QoS::ExactlyOnce, false), Received::New);
        assert_eq!(received.handle_publish(id(1), QoS::ExactlyOnce, true), Received::Duplicate);
        assert_eq!(received.handle_publish(id(1), QoS::ExactlyOnce, false), Received::InUse);
        assert!(received.handle_pubrel(id(1)));
        assert!(!received.handle_pubrel(id(1)));
        assert_eq!(received.handle_publish(id(1), QoS::ExactlyOnce, true), Received::New);
    }

    #[test]
    fn the_receive_maximum_counts_both_qualities() {
        let mut received = ReceivedIds::default();
        received.connected(2);
        assert_eq!(received.handle_publish(id(1), QoS::ExactlyOnce, false), Received::New);
        assert_eq!(received.handle_publish(id(2), QoS::AtLeastOnce, false), Received::New);
        assert_eq!(received.handle_publish(id(3), QoS::AtLeastOnce, false), Received::OverMaximum);
        assert_eq!(received.judge_publish(id(3)), Received::OverMaximum);
        assert_eq!(received.judge_publish(id(1)), Received::InUse);
        received.acknowledged(id(2), QoS::AtLeastOnce);
        assert_eq!([4, 5].map(|n| received.judge_publish(id(n))), [Received::New; 2]);
        assert_eq!(received.handle_publish(id(3), QoS::AtLeastOnce, false), Received::New);
    }
}
