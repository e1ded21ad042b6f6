//! Reading: one buffer for all connections of a shard, one read for each turn of a connection.

use std::{io, ops::Range, time::Instant};

use smallvec::SmallVec;

use super::{Shards, conns::Slot, state::State};
use crate::{
    broker::{ConnId, Shard, TransportEnd},
    net::transport::{Got, end_of},
    router::ShardId,
};

impl State {
    /// Puts a connection on the list of those to read.
    pub(super) fn make_ready(&mut self, conn: ConnId) {
        if let Some(slot) = self.conns.get_mut(conn)
            && !slot.is_ready
        {
            slot.is_ready = true;
            self.ready.push_back(conn);
        }
    }

    /// Gives each ready connection one turn, until it has been enough for one tick. What there is for it waits for
    /// the end of the tick, when most is together; but where a crowd is ready each is answered at once, while what the kernel
    /// and we know of it is in the processor's caches. What has come from it was read, so its answers are complete.
    pub(super) fn read_ready(&mut self, shards: &Shards, now: Instant) {
        let is_crowd = self.ready.len() >= CROWD;
        let mut bytes = 0;
        for _ in 0..self.ready.len() {
            if bytes >= TICK_READ_BYTES_MAX || self.is_backlogged() {
                return;
            }
            let Some(conn) = self.ready.pop_front() else { return };
            bytes += self.read_turn(now, conn);
            if self.shard.has_staged() {
                self.hand_over(shards);
            }
            if is_crowd {
                self.flush_conn(now, conn);
            }
        }
    }

    /// Brings what a read has for shards of the same thread there at once, while it is in the processor's caches. For those
    /// of other threads it waits for the end of the tick.
    fn hand_over(&mut self, shards: &Shards) {
        let beside: SmallVec<[ShardId; 4]> =
            self.shard.staged_for().filter(|to| shards.is_beside(self.index, usize::from(to.0))).collect();
        for shard in beside {
            let to = usize::from(shard.0);
            // What waits already goes first.
            if self.backlog[to].is_empty() {
                let mut batch = std::mem::take(&mut self.handed);
                self.shard.take_staged(shard, &mut batch);
                if !shards.visit(to, &mut batch) && !batch.is_empty() {
                    self.send_envelopes(shards, to, std::mem::take(&mut batch), false);
                }
                self.handed = batch;
            }
        }
    }

    /// Reads once; returns how many bytes.
    pub(super) fn read_turn(&mut self, now: Instant, conn: ConnId) -> usize {
        let Some(slot) = self.conns.get_mut(conn) else { return 0 };
        slot.is_ready = false;
        // What has been refused comes back with `Output::Resume`.
        if !slot.is_closing && !self.shard.wants_read(conn) {
            return 0;
        }
        let (result, room_len) = slot.read(&mut self.shard, &mut self.scratch);
        let got = match result {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // A handshake's next words.
                if slot.transport.has_reply() {
                    self.flush.push(conn);
                }
                return 0;
            }
            Err(error) => {
                self.ended(now, conn, end_of(&error));
                return 0;
            }
        };
        if got.len == 0 {
            self.end_of_stream(now, conn);
            return 0;
        }
        let comes_again = got.more || slot.is_ending;
        if !slot.is_closing {
            let in_room = got.len.min(room_len);
            let (payload, end) = slot.transport.unwrap(&mut self.scratch[..got.len - in_room]);
            let replies = slot.transport.has_reply();
            if in_room > 0 {
                self.activity += 1;
                self.shard.fill(now, conn, in_room);
                self.flush_if_over_budget(now);
            }
            self.feed(now, conn, payload);
            if let Some(end) = end {
                // What is due to the peer, the close frame with it, goes as far as it can go at once.
                self.flush_conn(now, conn);
                self.ended(now, conn, end);
                return got.len;
            }
            if replies {
                self.flush.push(conn);
            }
        }
        if comes_again {
            self.make_ready(conn);
        }
        got.len
    }

    /// Reads what has come from a connection by now, at once.
    pub(super) fn hear_out(&mut self, now: Instant, conn: ConnId) {
        let mut bytes = 0;
        while bytes < HEAR_OUT_BYTES_MAX {
            match self.read_turn(now, conn) {
                0 => return,
                read => bytes += read,
            }
        }
    }

    /// The peer has finished: it sends nothing more, and by MQTT's rules that ends the connection.
    fn end_of_stream(&mut self, now: Instant, conn: ConnId) {
        let Some(slot) = self.conns.get_mut(conn) else { return };
        // One that is being closed may still read what is on its way to it.
        if !slot.is_closing {
            self.ended(now, conn, TransportEnd::Closed);
        }
    }

    /// Gives the core what was read, in pieces after each of which the flush budget is looked at.
    fn feed(&mut self, now: Instant, conn: ConnId, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.activity += 1;
        let Range { mut start, end } = range;
        while start < end {
            // What follows a CONNECT may have to go to another shard with it, and must be in one piece for that.
            let is_split = self.shard.is_connected(conn);
            let stop = if is_split { end.min(start + self.feed_bytes) } else { end };
            let before = self.shard.staged_bytes();
            self.shard.receive(now, conn, &self.scratch[start..stop]);
            let made = self.shard.staged_bytes().saturating_sub(before);
            self.adapt_feed(stop - start, made);
            self.flush_if_over_budget(now);
            start = stop;
        }
    }

    /// A read that fans out to many would stage far more than the budget before it is looked at. So the pieces shrink
    /// while each byte read makes many to send, and grow again when it does not.
    fn adapt_feed(&mut self, fed: usize, made: usize) {
        let amplification = made / fed.max(1);
        let fitting = FEED_STAGED_BYTES / amplification.max(1);
        self.feed_bytes = fitting.clamp(FEED_BYTES_MIN, self.scratch.len());
    }
}

impl Slot {
    /// Reads once: into the rest of a large packet, if one has come in part, and else into `scratch`. Returns also how much
    /// of what was read is in the packet: as much as that at most.
    fn read(&mut self, shard: &mut Shard, scratch: &mut [u8]) -> (io::Result<Got>, usize) {
        let was_large = std::mem::take(&mut self.is_large);
        let may_stay = !self.is_closing && self.transport.is_unframed();
        if let Some(room) = may_stay.then(|| shard.room(self.conn)).flatten() {
            self.is_large = true;
            let room_len = room.len();
            return (self.transport.read_rest(room, &mut scratch[..NEXT_BYTES]), room_len);
        }
        // Just enough to see how large the next one is.
        let wanted = if was_large { NEXT_BYTES } else { scratch.len() };
        (self.transport.read(&mut scratch[..wanted]), 0)
    }
}

/// Bytes read in one tick before other sources of work have their turn.
const TICK_READ_BYTES_MAX: usize = 1 << 20;

/// When so many have been read, the first of them have left a processor's second cache: they take 8 KiB each, the kernel's
/// included. Fewer are the faster for what comes together.
const CROWD: usize = 128;

/// Bytes read of a connection before another takes its place: more than a kernel keeps for a socket by default (6 MiB), so
/// what had come when the other did is among them, and one who goes on sending does not hold it up.
const HEAR_OUT_BYTES_MAX: usize = 8 << 20;

/// Bytes read behind a large packet: they are copied if they are the start of another one.
const NEXT_BYTES: usize = 4 << 10;

/// What one piece fed to the core should stage at most: a fraction of the largest flush budget.
const FEED_STAGED_BYTES: usize = 1 << 20;

/// The smallest piece: dozens of small packets, so that the few that are cut in two do not matter.
const FEED_BYTES_MIN: usize = 4 << 10;
