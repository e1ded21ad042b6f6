//! The transports of a shard, by connection.

use super::watch::Watched;
use crate::{broker::ConnId, net::transport::Transport};

/// One connection's transport, and what is known of its readiness.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) conn: ConnId,
    pub(super) transport: Transport,
    /// Where its events arrive.
    pub(super) watched: Watched,
    /// In the list of those to read.
    pub(super) is_ready: bool,
    /// The peer has finished or failed: to be read until the end, even after a short read.
    pub(super) is_ending: bool,
    /// The transport took less than it was given; to be flushed when there is room.
    pub(super) is_full: bool,
    /// The last read was for the rest of a large packet: so the next packet is probably large, too.
    pub(super) is_large: bool,
    /// To be closed when its outbox is flushed; what arrives is thrown away.
    pub(super) is_closing: bool,
}

/// A slab beside the shard's own: a connection has the same index in both. In chunks, as that one is, so that it grows
/// without moving anything and gives back what a burst has left.
#[derive(Debug, Default)]
pub(super) struct Conns {
    chunks: Vec<Chunk>,
    len: usize,
}

/// [`CHUNK`] places, or none.
#[derive(Debug, Default)]
struct Chunk {
    slots: Box<[Option<Slot>]>,
    len: usize,
}

impl Conns {
    pub(super) fn insert(&mut self, conn: ConnId, transport: Transport) -> &mut Slot {
        let index = conn.index();
        if index / CHUNK >= self.chunks.len() {
            self.chunks.resize_with(index / CHUNK + 1, Chunk::default);
        }
        let chunk = &mut self.chunks[index / CHUNK];
        if chunk.slots.is_empty() {
            chunk.slots = (0..CHUNK).map(|_| None).collect();
        }
        let slot = &mut chunk.slots[index % CHUNK];
        debug_assert!(slot.is_none(), "the shard reuses an index only after `closed`");
        let added = usize::from(slot.is_none());
        chunk.len += added;
        self.len += added;
        slot.insert(Slot {
            conn,
            transport,
            watched: Watched::Nowhere,
            is_ready: false,
            is_ending: false,
            is_full: false,
            is_large: false,
            is_closing: false,
        })
    }

    #[inline]
    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Slot> {
        self.at_mut(conn.index()).filter(|slot| slot.conn == conn)
    }

    /// The connection at an index, as events name it. One meant for a predecessor does no harm: the attempt to read or
    /// write that it leads to finds nothing.
    #[inline]
    pub(super) fn at_mut(&mut self, index: usize) -> Option<&mut Slot> {
        self.chunks.get_mut(index / CHUNK)?.slots.get_mut(index % CHUNK)?.as_mut()
    }

    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Slot> {
        let at = conn.index() / CHUNK;
        let chunk = self.chunks.get_mut(at)?;
        let place = chunk.slots.get_mut(conn.index() % CHUNK)?;
        if place.as_ref()?.conn != conn {
            return None;
        }
        let slot = place.take();
        chunk.len -= 1;
        self.len -= 1;
        // The first stays, so that one client that comes and goes does not make and drop it each time.
        if chunk.len == 0 && at > 0 {
            chunk.slots = Box::default();
        }
        if self.len == 0 {
            self.chunks.truncate(1);
            self.chunks.shrink_to_fit();
        }
        slot
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.chunks.iter().flat_map(|chunk| chunk.slots.iter().flatten())
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Places that are allocated together: a few KiB.
const CHUNK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a million idle connections cost; `make bench-idle` has the whole.
    #[test]
    fn a_slot_stays_small() {
        // mio keeps a number more in each socket while it debugs.
        let bytes_max = if cfg!(debug_assertions) { 56 } else { 48 };
        assert!(size_of::<Option<Slot>>() <= bytes_max, "{}", size_of::<Option<Slot>>());
    }
}
