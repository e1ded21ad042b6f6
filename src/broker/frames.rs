//! Encode once per fan-out: one encoding for each (MQTT 3 | MQTT 5, without | with packet identifier).
//!
//! The flags of the first byte and the packet identifier differ by subscriber and are patched into the copy. What
//! MQTT 5 adds for one subscriber alone (subscription identifiers, topic alias) makes an encoding of its own.

use std::time::Instant;

use super::message::{AsSent, Parcel};
use crate::codec::{
    PacketId, QoS, Version,
    publish::{self, PublishHead},
};

/// The encodings of the message being delivered; buffers are reused from message to message.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    templates: [Template; 4],
}

/// One encoding.
#[derive(Debug, Default)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    packet_id_at: Option<usize>,
    is_filled: bool,
    /// The format holds no such packet.
    is_too_long: bool,
}

/// What differs from subscriber to subscriber in every version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HopFlags {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) packet_id: Option<PacketId>,
}

impl Frames {
    /// Forgets the last message.
    #[inline]
    pub(crate) fn clear(&mut self) {
        for template in &mut self.templates {
            template.is_filled = false;
        }
    }

    /// The encoding for this version and class of QoS. A payload that is shared is not in it.
    #[inline]
    pub(crate) fn template(&mut self, parcel: &Parcel<'_>, version: Version, acked: bool, now: Instant) -> &Template {
        let at = usize::from(version.is_v5()) * 2 + usize::from(acked);
        let template = self.templates.get_mut(at).expect("two versions by two classes");
        if !template.is_filled {
            template.fill(parcel, version, acked, now);
        }
        template
    }
}

impl Template {
    /// Bytes of the whole packet.
    pub(crate) fn packet_bytes(&self, parcel: &Parcel<'_>) -> usize {
        if self.is_too_long {
            return usize::MAX;
        }
        self.bytes.len() + if parcel.is_shared() { parcel.payload.len() } else { 0 }
    }

    /// The bytes to copy.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes what is the subscriber's own into a copy of the encoding.
    #[inline]
    pub(crate) fn patch(&self, copy: &mut [u8], flags: HopFlags) {
        patch(copy, self.packet_id_at, flags);
    }

    fn fill(&mut self, parcel: &Parcel<'_>, version: Version, acked: bool, now: Instant) {
        self.bytes.clear();
        let copied = if parcel.is_shared() { &[] } else { parcel.payload };
        let is_same = |sent: &AsSent<'_>| sent.is_v5 == version.is_v5() && sent.is_acked == acked;
        let encoded = if let Some(AsSent { body, .. }) = parcel.as_sent.filter(is_same) {
            let start = body.get(..body.len() - (parcel.payload.len() - copied.len())).unwrap_or_default();
            let encoded = publish::put_body_start(start, body.len(), parcel.topic.len(), &mut self.bytes);
            encoded.map(|at| acked.then_some(at))
        } else {
            let qos = if acked { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            let encoded = head(parcel, now, qos).encode(version, parcel.payload.len(), &mut self.bytes);
            self.bytes.extend_from_slice(copied);
            encoded
        };
        self.is_too_long = encoded.is_err();
        self.packet_id_at = encoded.unwrap_or_default();
        self.is_filled = true;
    }
}

/// What a PUBLISH of this parcel starts with, before aliases and subscription identifiers.
pub(crate) fn head<'a>(parcel: &Parcel<'a>, now: Instant, qos: QoS) -> PublishHead<'a> {
    PublishHead {
        topic: parcel.topic,
        qos,
        properties: parcel.properties,
        message_expiry: parcel.expiry_left(now),
        ..PublishHead::default()
    }
}

/// Sets the flags of the first byte, and the packet identifier.
#[inline]
pub(crate) fn patch(packet: &mut [u8], packet_id_at: Option<usize>, flags: HopFlags) {
    if let Some(first) = packet.first_mut() {
        *first = 0x30 | u8::from(flags.dup) << 3 | (flags.qos as u8) << 1 | u8::from(flags.retain);
    }
    if let (Some(at), Some(id)) = (packet_id_at, flags.packet_id)
        && let Some(place) = packet.get_mut(at..at + 2)
    {
        place.copy_from_slice(&id.get().to_be_bytes());
    }
}

/// From here on a payload is shared by all subscribers instead of copied to each: what a hundred of them cost is the same
/// both ways at 2 KiB (a quarter less copied at 1 KiB, a third more at 4 KiB).
pub(crate) const SHARE_ABOVE_BYTES: usize = 2 << 10;

/// As much is copied to the only subscriber: to share takes allocations and a write of several pieces, which he pays for
/// alone (a quarter more at 4 KiB; the same at 8 KiB).
pub(crate) const SHARE_WITH_ONE_ABOVE_BYTES: usize = 8 << 10;
