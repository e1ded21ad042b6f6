//! From bytes to packets: what a read brought is cut, decoded by the phase of its connection, and handed on.

use std::time::Instant;

use bytes::Bytes;

use super::{
    conn::{Conn, Phase},
    reasons::EndReason,
    shard::{Handoff, Output, Shard},
    slots::ConnId,
    wire::AckKind,
};
use crate::{
    codec::{
        Connect, Cut, DecodeError, Frame, Limits, Packet, PacketId, PacketType, PublishRef, ReasonCode, Source,
        Version, frame,
    },
    router::ShardId,
};

/// Whether a packet is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handled {
    Yes,
    /// It waits for an answer from elsewhere, and its connection with it.
    Later,
}

impl Shard {
    /// Bytes came in. They may be split anywhere; what is no whole packet yet is kept.
    pub fn receive(&mut self, now: Instant, id: ConnId, bytes: &[u8]) {
        self.wire.out.stats.bytes_received += bytes.len() as u64;
        self.take_in(now, id, bytes);
    }

    /// As [`Shard::receive`], for bytes that have been counted.
    pub(super) fn take_in(&mut self, now: Instant, id: ConnId, bytes: &[u8]) {
        let Some(conn) = self.wire.conns.get(id) else { return };
        let rest = if conn.partial().is_empty() { bytes } else { self.complete(now, id, bytes) };
        let used = self.consume(now, id, rest);
        self.keep_tail(id, rest.get(used..).unwrap_or_default());
    }

    /// Where the rest of a large packet may be read to, so that its payload need not be copied when it is whole:
    /// [`Shard::fill`] is to be told how much was. `None` if what comes next is to be given to [`Shard::receive`].
    pub fn room(&mut self, id: ConnId) -> Option<&mut [u8]> {
        let conn = self.wire.conns.get(id).filter(|conn| conn.is_connected() && !conn.is_waiting())?;
        let missing = missing(conn.partial())?;
        let is_large = conn.partial().len() + missing >= OWN_BUFFER_BYTES_MIN;
        let room = is_large.then(|| self.wire.partial_room(id, missing, PARTIAL_RESERVE_BYTES_MAX));
        room.filter(|room| !room.is_empty())
    }

    /// So many bytes were read into [`Shard::room`].
    pub fn fill(&mut self, now: Instant, id: ConnId, bytes: usize) {
        self.wire.out.stats.bytes_received += bytes as u64;
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        conn.fill_partial(bytes);
        if missing(conn.partial()).is_none() {
            self.complete(now, id, &[]);
        } else {
            self.check_partial(now, id);
        }
    }

    /// Adds to a packet that has come in part what is missing of it, and handles it when it is whole. Returns what is left
    /// of `bytes`.
    fn complete<'a>(&mut self, now: Instant, id: ConnId, bytes: &'a [u8]) -> &'a [u8] {
        let is_connected = self.is_connected(id);
        let mut partial = self.wire.take_partial(id);
        let mut rest = bytes;
        if !is_connected {
            // What follows a CONNECT goes with it if that goes to another shard.
            partial.extend_from_slice(std::mem::take(&mut rest));
        }
        // Twice if the length was not known yet.
        while let Some(missing) = missing(&partial).filter(|_| !rest.is_empty()) {
            let (these, others) = rest.split_at(missing.min(rest.len()));
            partial.extend_from_slice(these);
            rest = others;
        }
        let mut left = self.consume_partial(now, id, partial);
        if left.is_empty() {
            return rest;
        }
        // It is not whole, or it waits, and what comes behind it too.
        left.extend_from_slice(rest);
        self.wire.keep_partial(id, left);
        self.check_partial(now, id);
        &[]
    }

    /// Handles a packet that has a buffer of its own; a large one becomes what its payload is shared by. Returns what is
    /// not done with: mostly all or nothing.
    fn consume_partial(&mut self, now: Instant, id: ConnId, mut partial: Vec<u8>) -> Vec<u8> {
        if partial.len() < OWN_BUFFER_BYTES_MIN || missing(&partial).is_some() {
            let used = self.consume(now, id, &partial);
            partial.drain(..used);
            return partial;
        }
        let mut whole = Bytes::from(partial);
        self.arrived = Some(whole.clone());
        let used = self.consume(now, id, &whole);
        self.arrived = None;
        Vec::from(whole.split_off(used))
    }

    /// Handles the whole packets at the start of `bytes`; returns how many bytes they took.
    fn consume(&mut self, now: Instant, id: ConnId, bytes: &[u8]) -> usize {
        let used = self.consume_packets(now, id, bytes);
        self.deliver_run(now);
        used
    }

    fn consume_packets(&mut self, now: Instant, id: ConnId, bytes: &[u8]) -> usize {
        let limits = self.shared.settings.limits;
        let heard = self.wire.epoch.moment(now);
        let (mut used, mut looked_at) = (0, 0);
        loop {
            if used >= looked_at {
                looked_at += self.look_ahead(bytes.get(used..).unwrap_or_default());
            }
            if bytes.get(used) == Some(&PUBACK) {
                used += self.handle_puback_run(now, id, bytes.get(used..).unwrap_or_default());
            }
            let Some(conn) = self.wire.conns.get_mut(id) else { return bytes.len() };
            if conn.is_closing() {
                return bytes.len();
            }
            if conn.is_waiting() {
                return used;
            }
            let rest = bytes.get(used..).unwrap_or_default();
            if rest.is_empty() {
                return used;
            }
            let packet_bytes_max = packet_bytes_max(conn, &limits);
            match frame::cut(rest, packet_bytes_max) {
                Ok(Cut::NeedMore(_)) => {
                    if let Err(error) = check_start(conn, rest) {
                        self.fault(now, id, &error);
                        return bytes.len();
                    }
                    return used;
                }
                Ok(Cut::Frame(frame, length)) => {
                    conn.heard = heard;
                    let version = conn.version;
                    let handled = if conn.is_connected() {
                        self.handle_frame(now, id, frame, version, &limits)
                    } else {
                        let unread = bytes.get(used + length..).unwrap_or_default();
                        self.handle_first_frames(now, id, frame, version, &limits, unread)
                    };
                    match handled {
                        Ok(Handled::Yes) => {}
                        // It is looked at again when the answer is there.
                        Ok(Handled::Later) => return used,
                        Err(error) => {
                            self.deliver_run(now);
                            self.fault(now, id, &error);
                        }
                    }
                    self.wire.out.stats.packets_received += 1;
                    used += length;
                }
                Err(error) => {
                    if matches!(error, DecodeError::PacketTooLarge { .. }) {
                        match announced_in_start(conn, rest) {
                            Start::Version(version) => conn.version = version,
                            Start::Unclear => {}
                            Start::TooShort => return used,
                        }
                    }
                    self.deliver_run(now);
                    self.fault(now, id, &error);
                    return bytes.len();
                }
            }
        }
    }

    /// One packet of a client that is let in.
    #[inline]
    fn handle_frame(
        &mut self,
        now: Instant,
        id: ConnId,
        frame: Frame<'_>,
        version: Version,
        limits: &Limits,
    ) -> Result<Handled, DecodeError> {
        if frame.header >> 4 == PacketType::Publish as u8 {
            let publish = PublishRef::decode(frame, version, limits)?;
            return Ok(self.handle_publish(now, id, &publish));
        }
        // What it has published comes before whatever this is.
        self.deliver_run(now);
        if let Some((kind, packet_id)) = short_ack(frame) {
            self.handle_short_ack(now, id, kind, packet_id);
            return Ok(Handled::Yes);
        }
        if is_for_clients(frame.header) {
            return Err(DecodeError::protocol("a packet that only a server sends"));
        }
        let packet = Packet::decode(frame, version, limits, &Source::Scratch)?;
        Ok(self.handle_packet(now, id, packet))
    }

    /// One packet of a client that is not let in yet, by the phase of its connection.
    #[inline(never)]
    fn handle_first_frames(
        &mut self,
        now: Instant,
        id: ConnId,
        frame: Frame<'_>,
        version: Version,
        limits: &Limits,
        unread: &[u8],
    ) -> Result<Handled, DecodeError> {
        if let Some(announced) = announced_version(frame.header, frame.body)
            && let Some(conn) = self.wire.conns.get_mut(id)
            && matches!(conn.phase, Phase::AwaitConnect)
        {
            // A CONNECT that turns out malformed is answered in the form of the version it claims.
            conn.version = announced;
        }
        let conn = self.wire.conns.get(id).ok_or(DecodeError::protocol("no connection"))?;
        match Packet::decode(frame, version, limits, &Source::Scratch)? {
            Packet::Connect(connect) if matches!(conn.phase, Phase::AwaitConnect) => {
                if let Some(home) = self.foreign_home(&connect) {
                    self.hand_off(id, home, connect, unread);
                } else {
                    self.handle_connect(now, id, connect);
                }
                Ok(Handled::Yes)
            }
            Packet::Auth(auth) if matches!(conn.phase, Phase::Authenticating(..)) => {
                self.handle_auth(now, id, &auth);
                Ok(Handled::Yes)
            }
            Packet::Disconnect(_) if matches!(conn.phase, Phase::Authenticating(..)) => {
                self.end(now, id, EndReason::ClientDisconnect);
                Ok(Handled::Yes)
            }
            _ => Err(DecodeError::protocol("a packet before CONNECT was accepted [MQTT-3.1.0-1]")),
        }
    }

    /// An acknowledgement that says no more than success.
    #[inline]
    fn handle_short_ack(&mut self, now: Instant, id: ConnId, kind: AckKind, packet_id: PacketId) {
        match kind {
            AckKind::PubAck => self.handle_puback(now, id, packet_id, ReasonCode::Success),
            AckKind::PubRec => self.handle_pubrec(now, id, packet_id, ReasonCode::Success),
            AckKind::PubRel => self.handle_pubrel(now, id, packet_id),
            AckKind::PubComp => self.handle_pubcomp(now, id, packet_id, ReasonCode::Success),
        }
    }

    /// Any packet but PUBLISH, on a connected client.
    fn handle_packet(&mut self, now: Instant, id: ConnId, packet: Packet) -> Handled {
        match packet {
            Packet::PubAck(ack) => self.handle_puback(now, id, ack.packet_id, ack.reason),
            Packet::PubRec(ack) => self.handle_pubrec(now, id, ack.packet_id, ack.reason),
            Packet::PubRel(ack) => self.handle_pubrel(now, id, ack.packet_id),
            Packet::PubComp(ack) => self.handle_pubcomp(now, id, ack.packet_id, ack.reason),
            Packet::Subscribe(subscribe) => return self.handle_subscribe(now, id, subscribe),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(now, id, unsubscribe),
            Packet::PingReq => self.wire.ping_response(id),
            Packet::Disconnect(disconnect) => self.handle_disconnect(now, id, &disconnect),
            Packet::Auth(auth) => self.handle_auth(now, id, &auth),
            Packet::Publish(_)
            | Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => {
                let what = "a second CONNECT, or a packet only a server sends [MQTT-3.1.0-2]";
                self.fault(now, id, &DecodeError::protocol(what));
            }
        }
        Handled::Yes
    }

    /// The shard a CONNECT belongs to, if it is another one.
    fn foreign_home(&self, connect: &Connect) -> Option<ShardId> {
        if connect.client_id.is_empty() {
            return None;
        }
        let home = self.shared.home(&connect.client_id);
        (home != self.id).then_some(home)
    }

    fn hand_off(&mut self, id: ConnId, to: ShardId, connect: Box<Connect>, unread: &[u8]) {
        let Some(conn) = self.wire.remove(id) else { return };
        let connect_deadline = self.wire.epoch.instant(conn.connect_deadline.unwrap_or(conn.heard));
        let handoff = Handoff { peer: conn.peer, connect, unread: unread.to_vec(), connect_deadline };
        self.outputs.push_back(Output::Handoff { conn: id, to, handoff: Box::new(handoff) });
    }

    fn keep_tail(&mut self, id: ConnId, tail: &[u8]) {
        if tail.is_empty() {
            return;
        }
        if let Some(conn) = self.wire.conns.get_mut(id)
            && !conn.is_closing()
        {
            let more = missing(tail).unwrap_or_default();
            let mut partial = Vec::with_capacity(tail.len() + more.min(PARTIAL_RESERVE_BYTES_MAX));
            partial.extend_from_slice(tail);
            self.wire.keep_partial(id, partial);
        }
    }

    /// Packets whose end does not come share half of the memory watermark; beyond, those end that make them larger.
    fn check_partial(&mut self, now: Instant, id: ConnId) {
        let bytes_max = self.shared.settings.slow_consumer.memory_watermark_bytes / 2;
        let is_large = self.wire.conns.get(id).is_some_and(|conn| conn.partial().len() > PARTIAL_RESERVE_BYTES_MAX);
        if is_large && self.wire.partial_bytes() > bytes_max {
            let what = "packets that are not complete hold too much memory; this one is given up";
            self.fault(now, id, &DecodeError::Violation { reason: ReasonCode::QuotaExceeded, what });
        }
    }
}

/// How many bytes the first packet of `start` lacks, as far as that can be told; `None` if it is whole or can never be.
fn missing(start: &[u8]) -> Option<usize> {
    match frame::cut(start, u32::MAX) {
        Ok(Cut::NeedMore(missing)) => Some(missing),
        _ => None,
    }
}

/// Whether only a server sends packets of this type, so that their content does not matter.
const fn is_for_clients(header: u8) -> bool {
    let kind = header >> 4;
    kind == PacketType::ConnAck as u8
        || kind == PacketType::SubAck as u8
        || kind == PacketType::UnsubAck as u8
        || kind == PacketType::PingResp as u8
}

/// First byte of a PUBACK.
pub(super) const PUBACK: u8 = AckKind::PubAck as u8;

/// An acknowledgement of two bytes, success in every version: one for each message there is, so not taken apart at length.
#[inline]
fn short_ack(frame: Frame<'_>) -> Option<(AckKind, PacketId)> {
    let body = <[u8; 2]>::try_from(frame.body).ok().filter(|_| !frame.overlong)?;
    Some((AckKind::from_header(frame.header)?, PacketId::new(u16::from_be_bytes(body))?))
}

/// The version a CONNECT claims, as far as that can be told: the form in which it is answered.
fn announced_version(header: u8, body: &[u8]) -> Option<Version> {
    if header >> 4 != PacketType::Connect as u8 {
        return None;
    }
    let (length, rest) = body.split_first_chunk::<2>()?;
    match rest.get(usize::from(u16::from_be_bytes(*length)))? & !BRIDGE_BIT {
        ..=3 => Some(Version::V3_1),
        4 => Some(Version::V3_1_1),
        _ => Some(Version::V5),
    }
}

/// What the first bytes tell of a CONNECT that is too large to be read.
enum Start {
    Version(Version),
    /// It is no CONNECT, or none of ours.
    Unclear,
    /// A few more bytes will tell.
    TooShort,
}

fn announced_in_start(conn: &Conn, start: &[u8]) -> Start {
    let Some((header, after)) = start.split_first() else { return Start::Unclear };
    if !matches!(conn.phase, Phase::AwaitConnect) || header >> 4 != PacketType::Connect as u8 {
        return Start::Unclear;
    }
    let length_len = after.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let body = after.get(length_len..).unwrap_or_default();
    match announced_version(*header, body) {
        Some(version) => Start::Version(version),
        None if body.len() < PROTOCOL_BYTES_MAX => Start::TooShort,
        None => Start::Unclear,
    }
}

/// The largest packet taken now: from a stranger, no more than the greatest CONNECT that makes sense.
fn packet_bytes_max(conn: &Conn, limits: &Limits) -> u32 {
    match conn.phase {
        Phase::AwaitConnect | Phase::Authenticating(..) => limits.packet_bytes_max.min(CONNECT_BYTES_MAX),
        _ => limits.packet_bytes_max,
    }
}

/// Refuses early what can never become an acceptable packet: anything but a CONNECT of sensible size as the first.
fn check_start(conn: &Conn, start: &[u8]) -> Result<(), DecodeError> {
    if !matches!(conn.phase, Phase::AwaitConnect) {
        return Ok(());
    }
    match start.first() {
        Some(first) if first >> 4 != PacketType::Connect as u8 => {
            Err(DecodeError::protocol("the first packet is no CONNECT [MQTT-3.1.0-1]"))
        }
        _ => Ok(()),
    }
}

/// Largest CONNECT or AUTH: five fields of 64 KiB, and as much again in properties.
const CONNECT_BYTES_MAX: u32 = 1 << 20;

/// Protocol name with its length, and the level after it.
const PROTOCOL_BYTES_MAX: usize = 9;

/// Some bridges mark themselves in the protocol level.
const BRIDGE_BIT: u8 = 0x80;

/// A packet of this size is read to where its payload stays: the system call that fills two buffers costs less than to copy
/// the packet twice.
const OWN_BUFFER_BYTES_MIN: usize = 16 << 10;

/// A partial packet's buffer is sized for the whole packet up to here; larger ones grow as bytes really come.
const PARTIAL_RESERVE_BYTES_MAX: usize = 64 << 10;
