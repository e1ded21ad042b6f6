//! The sending side of a shard: connections, their outboxes, and how packets get into them.

use std::time::{Duration, Instant};

use super::{
    conn::{Conn, Phase},
    frames::{self, Frames, HopFlags},
    message::Parcel,
    moment::Epoch,
    outbox::BlockPool,
    slots::{ConnId, Slots},
    stats::Stats,
    timers::{Timer, Timers},
};
use crate::{
    codec::{Ack, Packet, PacketId, Properties, QoS, ReasonCode, Version},
    session::alias::Naming,
};

/// Connections and what it takes to write to them.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) conns: Slots<ConnId, Conn>,
    pub(crate) out: Outgoing,
    pub(crate) timers: Timers,
    /// Where a packet other than PUBLISH is encoded.
    scratch: Vec<u8>,
    partial_bytes: usize,
    stall_timeout_ms: u64,
    pub(crate) epoch: Epoch,
}

/// What all connections share on the way out.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) frames: Frames,
    pub(crate) stats: Stats,
    pool: BlockPool,
    dirty: Vec<ConnId>,
    staged_bytes: usize,
    unsent_bytes: usize,
}

/// What became of a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is in the outbox.
    Yes,
    /// It exceeds the client's maximum packet size and must be treated as delivered [MQTT-3.1.2-25].
    TooLarge,
    /// The connection is gone.
    Gone,
}

impl Wire {
    pub(crate) fn new(epoch: Epoch, stall_timeout: Duration) -> Self {
        Self {
            conns: Slots::new(),
            out: Outgoing::default(),
            timers: Timers::new(epoch),
            scratch: Vec::new(),
            partial_bytes: 0,
            stall_timeout_ms: stall_timeout.as_millis().try_into().unwrap_or(u64::MAX),
            epoch,
        }
    }

    /// The way to a connection: looked up once for all that one message takes.
    #[inline]
    pub(crate) fn line(&mut self, id: ConnId) -> Option<Line<'_>> {
        let conn = self.conns.get_mut(id)?;
        Some(Line { id, conn, out: &mut self.out })
    }

    /// Appends any other packet. One that exceeds the client's maximum packet size loses its reason string and user
    /// properties first [MQTT-3.2.2-19] [MQTT-3.4.2-2], and is not sent if it still does. Whether it was.
    pub(crate) fn packet(&mut self, id: ConnId, mut packet: Packet) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let sent = self.encode_packet(id, &mut packet, &mut scratch);
        if let Some(mut line) = self.line(id).filter(|_| sent) {
            line.push(&scratch);
        }
        self.scratch = scratch;
        sent
    }

    fn encode_packet(&self, id: ConnId, packet: &mut Packet, scratch: &mut Vec<u8>) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        let version = conn.version;
        if !conn.problem_information {
            strip(packet, false);
        }
        let fits = |scratch: &[u8]| scratch.len() <= conn.maximum_packet_size as usize;
        if packet.encode(version, scratch).is_ok() && fits(scratch) {
            return true;
        }
        scratch.clear();
        strip(packet, true);
        if let Err(error) = packet.encode(version, scratch) {
            tracing::debug!(%error, packet = ?packet.packet_type(), "packet cannot be encoded");
            return false;
        }
        fits(scratch)
    }

    /// Appends PINGRESP: what a connection at rest is mostly about, so without detours. It fits every maximum packet size.
    pub(crate) fn ping_response(&mut self, id: ConnId) {
        if let Some(mut line) = self.line(id) {
            line.push(&[0xD0, 0]);
        }
    }

    /// Whether [`Self::packet`] would send it.
    pub(crate) fn can_send(&self, id: ConnId, packet: &Packet) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        if conn.maximum_packet_size == u32::MAX {
            return true;
        }
        let (mut bare, mut scratch) = (packet.clone(), Vec::new());
        strip(&mut bare, true);
        bare.encode(conn.version, &mut scratch).is_ok() && scratch.len() <= conn.maximum_packet_size as usize
    }

    /// Appends PUBACK, PUBREC, PUBREL or PUBCOMP; the short form, without detours, when it is a plain success.
    #[inline]
    pub(crate) fn ack(&mut self, id: ConnId, kind: AckKind, packet_id: PacketId, reason: ReasonCode) {
        if let Some(mut line) = self.line(id) {
            line.ack(kind, packet_id, reason);
        }
    }

    /// An acknowledgement with a reason string, where the client wants one.
    pub(crate) fn ack_because(
        &mut self,
        id: ConnId,
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
        why: &'static str,
    ) {
        let mut ack = Ack::new(packet_id, reason);
        ack.properties.push(crate::codec::Property::ReasonString(crate::codec::Text::from_static(why)));
        self.packet(id, kind.packet(ack));
    }

    /// The next connection with unsent bytes.
    pub(crate) fn next_dirty(&mut self) -> Option<ConnId> {
        while let Some(id) = self.out.dirty.pop() {
            if let Some(conn) = self.conns.get_mut(id) {
                conn.is_dirty = false;
                if !conn.outbox.is_empty() {
                    return Some(id);
                }
            }
        }
        self.out.staged_bytes = 0;
        None
    }

    /// The shell wrote `bytes` and has advanced the outbox.
    pub(crate) fn flushed(&mut self, now: Instant, id: ConnId, bytes: usize) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        self.out.unsent_bytes = self.out.unsent_bytes.saturating_sub(bytes);
        self.out.stats.bytes_sent += bytes as u64;
        if conn.outbox.is_empty() {
            conn.outbox.reclaim(&mut self.out.pool);
            conn.stalled_since = None;
        } else {
            if bytes > 0 || conn.stalled_since.is_none() {
                conn.stalled_since = Some(self.epoch.moment(now));
            }
            let deadline = conn.deadline(self.stall_timeout_ms);
            conn.armed.ensure(&mut self.timers, deadline, Timer::Conn(id));
        }
    }

    /// A connection is gone: its unsent bytes with it.
    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        let mut conn = self.conns.remove(id)?;
        self.out.unsent_bytes = self.out.unsent_bytes.saturating_sub(conn.outbox.len());
        self.partial_bytes -= conn.partial_capacity();
        let left = conn.outbox.len();
        conn.outbox.advance(left);
        conn.outbox.reclaim(&mut self.out.pool);
        Some(conn)
    }

    /// Starts over the deadline of a connection.
    pub(crate) fn arm(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            let deadline = conn.deadline(self.stall_timeout_ms);
            conn.armed.ensure(&mut self.timers, deadline, Timer::Conn(id));
        }
    }

    /// Nothing more is read from or written to the connection but what its outbox holds.
    pub(crate) fn close(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return false };
        if conn.is_closing() {
            return false;
        }
        conn.phase = Phase::Closing;
        self.partial_bytes -= conn.take_partial().capacity();
        conn.connect_deadline = None;
        true
    }

    /// Gives back memory that was not needed lately.
    pub(crate) fn rest(&mut self) {
        self.out.pool.trim();
    }

    /// How long unsent bytes may make no progress, milliseconds.
    pub(crate) fn stall_timeout_ms(&self) -> u64 {
        self.stall_timeout_ms
    }

    /// Bytes appended since the last round of flushing.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.out.staged_bytes
    }

    /// Takes the start of a packet out of a connection.
    #[inline]
    pub(crate) fn take_partial(&mut self, id: ConnId) -> Vec<u8> {
        let partial = self.conns.get_mut(id).map(Conn::take_partial).unwrap_or_default();
        self.partial_bytes -= partial.capacity();
        partial
    }

    /// Keeps the start of a packet for a connection that has none.
    pub(crate) fn keep_partial(&mut self, id: ConnId, partial: Vec<u8>) {
        if let Some(conn) = self.conns.get_mut(id)
            && !conn.is_closing()
        {
            self.partial_bytes += partial.capacity();
            conn.set_partial(partial);
        }
    }

    /// Where up to `missing` more bytes of it may be read to.
    pub(crate) fn partial_room(&mut self, id: ConnId, missing: usize, reserve_bytes_max: usize) -> &mut [u8] {
        let Some(conn) = self.conns.get_mut(id) else { return &mut [] };
        self.partial_bytes -= conn.partial_capacity();
        conn.partial_room(missing, reserve_bytes_max);
        self.partial_bytes += conn.partial_capacity();
        conn.partial_room(missing, reserve_bytes_max)
    }

    /// Bytes of packets whose end has not arrived.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// Bytes in all outboxes.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.out.unsent_bytes
    }
}

/// One connection, and what of the wire it takes to write to it.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    id: ConnId,
    pub(crate) conn: &'a mut Conn,
    out: &'a mut Outgoing,
}

impl Line<'_> {
    /// Whether a PUBLISH of this parcel may be written to the connection at all.
    #[inline]
    pub(crate) fn fits(&mut self, now: Instant, parcel: &Parcel<'_>, qos: QoS, ids: &[u32]) -> bool {
        let conn = &self.conn;
        let is_small = parcel.payload.len() < PAYLOAD_BYTES_SAFE && parcel.properties.len() < PAYLOAD_BYTES_SAFE;
        (conn.maximum_packet_size == u32::MAX && is_small) || self.fits_in_bytes(now, parcel, qos, ids)
    }

    #[inline(never)]
    fn fits_in_bytes(&mut self, now: Instant, parcel: &Parcel<'_>, qos: QoS, ids: &[u32]) -> bool {
        let conn = &self.conn;
        let bytes = if ids.is_empty() {
            let template = self.out.frames.template(parcel, conn.version, qos != QoS::AtMostOnce, now);
            template.packet_bytes(parcel)
        } else {
            let mut head = frames::head(parcel, now, qos);
            head.subscription_ids = if conn.version.is_v5() { ids } else { &[] };
            head.packet_len(conn.version, parcel.payload.len())
        };
        // A packet may fit the format as it came in and not as it goes out: versions, aliases and identifiers differ.
        bytes <= conn.maximum_packet_size.min(PACKET_BYTES_MAX) as usize
    }

    /// Appends a PUBLISH that [`Self::fits`].
    #[inline]
    pub(crate) fn publish(&mut self, now: Instant, parcel: &mut Parcel<'_>, flags: HopFlags, ids: &[u32]) {
        let conn = &mut *self.conn;
        let own_head = conn.version.is_v5() && (!ids.is_empty() || conn.sends_aliases());
        let added = if own_head {
            write_own(conn, &mut self.out.pool, now, parcel, flags, ids)
        } else {
            let template = self.out.frames.template(parcel, conn.version, flags.qos != QoS::AtMostOnce, now);
            conn.outbox.push_with(&mut self.out.pool, |block| {
                let start = block.len();
                block.extend_from_slice(template.bytes());
                template.patch(block.get_mut(start..).unwrap_or_default(), flags);
            })
        };
        let shared = if parcel.is_shared() {
            conn.outbox.push_shared(parcel.keep().payload_bytes());
            parcel.payload.len()
        } else {
            0
        };
        self.out.stats.publish_sent += 1;
        self.out.stats.publish_bytes_sent += parcel.payload.len() as u64;
        self.count_sent(added + shared);
    }

    /// Whether so many bytes of small packets may be written without a look at each.
    #[inline]
    pub(crate) fn takes_plain(&self, bytes: usize, soft_bytes: usize) -> bool {
        let conn = &self.conn;
        conn.is_connected()
            && conn.outbox.len() + bytes <= soft_bytes
            && conn.maximum_packet_size == u32::MAX
            && !conn.sends_aliases()
    }

    /// Appends `count` PUBLISH packets that are encoded; `patch` writes what is the subscriber's own into the copy.
    pub(crate) fn publish_run(
        &mut self,
        packets: &[u8],
        count: usize,
        payload_bytes: usize,
        patch: impl FnOnce(&mut [u8]),
    ) {
        self.conn.outbox.push_with(&mut self.out.pool, |block| {
            let start = block.len();
            block.extend_from_slice(packets);
            patch(block.get_mut(start..).unwrap_or_default());
        });
        self.out.stats.publish_sent += count as u64;
        self.out.stats.publish_bytes_sent += payload_bytes as u64;
        self.count_sent(packets.len());
        self.out.stats.packets_sent += count as u64 - 1;
    }

    /// Appends an acknowledgement; the short form, without detours, when it is a plain success.
    #[inline]
    pub(crate) fn ack(&mut self, kind: AckKind, packet_id: PacketId, reason: ReasonCode) {
        let [high, low] = packet_id.get().to_be_bytes();
        if reason == ReasonCode::Success || !self.conn.version.is_v5() {
            self.push(&[kind as u8, 2, high, low]);
        } else {
            self.push(&[kind as u8, 3, high, low, reason.as_u8()]);
        }
    }

    /// Appends a packet that is encoded.
    #[inline]
    fn push(&mut self, packet: &[u8]) {
        self.conn.outbox.push_copy(&mut self.out.pool, packet);
        self.count_sent(packet.len());
    }

    #[inline]
    fn count_sent(&mut self, bytes: usize) {
        self.out.staged_bytes += bytes;
        self.out.unsent_bytes += bytes;
        self.out.stats.packets_sent += 1;
        if !self.conn.is_dirty {
            self.conn.is_dirty = true;
            self.out.dirty.push(self.id);
        }
    }
}

/// The four acknowledgements of PUBLISH; the value is the first byte of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)] // the specification's names
pub(crate) enum AckKind {
    PubAck = 0x40,
    PubRec = 0x50,
    PubRel = 0x62,
    PubComp = 0x70,
}

impl AckKind {
    /// Which acknowledgement a first byte stands for.
    #[inline]
    pub(crate) const fn from_header(header: u8) -> Option<Self> {
        match header {
            0x40 => Some(Self::PubAck),
            0x50 => Some(Self::PubRec),
            0x62 => Some(Self::PubRel),
            0x70 => Some(Self::PubComp),
            _ => None,
        }
    }

    fn packet(self, ack: Ack) -> Packet {
        match self {
            Self::PubAck => Packet::PubAck(ack),
            Self::PubRec => Packet::PubRec(ack),
            Self::PubRel => Packet::PubRel(ack),
            Self::PubComp => Packet::PubComp(ack),
        }
    }
}

/// Encodes a PUBLISH head with what belongs to this subscriber alone.
fn write_own(
    conn: &mut Conn,
    pool: &mut BlockPool,
    now: Instant,
    parcel: &Parcel<'_>,
    flags: HopFlags,
    ids: &[u32],
) -> usize {
    let mut head = frames::head(parcel, now, flags.qos);
    head.subscription_ids = ids;
    let payload = parcel.payload.len();
    // An alias adds bytes the first time; a packet that would then be too large goes without.
    let with_alias = head.packet_len(Version::V5, payload) + ALIAS_BYTES_MAX;
    if conn.sends_aliases() && with_alias <= conn.maximum_packet_size.min(PACKET_BYTES_MAX) as usize {
        match conn.extras_mut().outgoing_aliases.name(parcel.topic) {
            Naming::Topic => {}
            Naming::Both(alias) => head.topic_alias = Some(alias),
            Naming::Alias(alias) => {
                head.topic_alias = Some(alias);
                head.alias_only = true;
            }
        }
    }
    conn.outbox.push_with(pool, |block| {
        let start = block.len();
        // It fits, as was found before: within the maximum packet size, and within what the format can hold.
        let packet_id_at = head.encode(Version::V5, payload, block).unwrap_or_default();
        if !parcel.is_shared() {
            block.extend_from_slice(parcel.payload);
        }
        frames::patch(block.get_mut(start..).unwrap_or_default(), packet_id_at, flags);
    })
}

/// Takes reason string and user properties out of a packet that may not carry them. CONNACK and DISCONNECT may even
/// when the client asked for no problem information [MQTT-3.1.2-29], unless it is a matter of size.
fn strip(packet: &mut Packet, because_of_size: bool) {
    let properties: &mut Properties = match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => &mut ack.properties,
        Packet::SubAck(ack) => &mut ack.properties,
        Packet::UnsubAck(ack) => &mut ack.properties,
        Packet::Auth(auth) => &mut auth.properties,
        Packet::ConnAck(ack) if because_of_size => &mut ack.properties,
        Packet::Disconnect(disconnect) if because_of_size => &mut disconnect.properties,
        _ => return,
    };
    properties.retain(|property| {
        !matches!(property, crate::codec::Property::ReasonString(_) | crate::codec::Property::UserProperty(_))
    });
}

/// Identifier and value of a topic alias, and a longer property length.
const ALIAS_BYTES_MAX: usize = 5;

/// The largest packet the format can hold: the fixed header and 268,435,455 bytes.
const PACKET_BYTES_MAX: u32 = 5 + 268_435_455;

/// Below this, payload and properties fit into a packet together with the longest topic and all identifiers.
const PAYLOAD_BYTES_SAFE: usize = 64 << 20;
