//! The transports of a shard, by connection.

use crate::{broker::ConnId, net::transport::Transport};

/// One connection's transport, and what is known of its readiness.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) conn: ConnId,
    pub(super) transport: Transport,
    /// In the list of those to read.
    pub(super) is_ready: bool,
    /// The peer has finished or failed: to be read until the end, even after a short read.
    pub(super) is_ending: bool,
    /// The transport took less than it was given; to be flushed when there is room.
    pub(super) is_full: bool,
    /// To be closed when its outbox is flushed; what arrives is thrown away.
    pub(super) is_closing: bool,
}

/// A slab beside the shard's own: a connection has the same index in both.
#[derive(Debug, Default)]
pub(super) struct Conns {
    slots: Vec<Option<Slot>>,
    len: usize,
}

impl Conns {
    pub(super) fn insert(&mut self, conn: ConnId, transport: Transport) -> &mut Slot {
        let index = conn.index();
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let slot = &mut self.slots[index];
        debug_assert!(slot.is_none(), "the shard reuses an index only after `closed`");
        self.len += usize::from(slot.is_none());
        slot.insert(Slot { conn, transport, is_ready: false, is_ending: false, is_full: false, is_closing: false })
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Slot> {
        self.at_mut(conn.index()).filter(|slot| slot.conn == conn)
    }

    /// The connection at an index, as events name it. One meant for a predecessor does no harm: the attempt to read or
    /// write that it leads to finds nothing.
    pub(super) fn at_mut(&mut self, index: usize) -> Option<&mut Slot> {
        self.slots.get_mut(index)?.as_mut()
    }

    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Slot> {
        let place = self.slots.get_mut(conn.index())?;
        if place.as_ref()?.conn != conn {
            return None;
        }
        self.len -= 1;
        place.take()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
