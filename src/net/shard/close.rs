//! How connections leave a shard.
//!
//! A TCP socket that is closed while the peer still sends answers with a reset, which can destroy the DISCONNECT that
//! the peer has not read yet. So a connection that we end first says that nothing more will come, and then throws away
//! what arrives until the peer has closed too, or a moment has passed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    conns::Slot,
    state::{LINGERERS, State},
};
use crate::{
    broker::{ConnId, TransportEnd},
    net::transport::{Got, Transport},
};

impl State {
    /// The core wants it closed once its last bytes are out.
    pub(super) fn begin_close(&mut self, now: Instant, conn: ConnId) {
        let Some(slot) = self.conns.get_mut(conn) else { return };
        if slot.is_closing {
            return;
        }
        slot.is_closing = true;
        slot.transport.begin_close();
        self.closing.push_back((now + CLOSE_TIMEOUT, conn));
        self.flush_conn(now, conn);
        if self.conns.get_mut(conn).is_some() {
            // A peer that waits for room to send before it reads would never take our last bytes.
            self.make_ready(conn);
        }
    }

    /// The transport is gone, or of no use any more.
    pub(super) fn ended(&mut self, now: Instant, conn: ConnId, end: TransportEnd) {
        self.shard.closed(now, conn, end);
        self.activity += 1;
        if let Some(slot) = self.conns.remove(conn)
            && end == TransportEnd::WebSocket
        {
            self.linger(now, slot);
        }
    }

    /// Everything is flushed: the peer may read the end.
    pub(super) fn finish_close(&mut self, now: Instant, conn: ConnId) {
        self.shard.closed(now, conn, TransportEnd::Closed);
        self.activity += 1;
        if let Some(slot) = self.conns.remove(conn) {
            self.linger(now, slot);
        }
    }

    /// Gives up on last bytes that the peer does not take.
    pub(super) fn close_overdue(&mut self, now: Instant) {
        while let Some((due, conn)) = self.closing.front().copied()
            && due <= now
        {
            self.closing.pop_front();
            if self.conns.get_mut(conn).is_some() {
                self.ended(now, conn, TransportEnd::Error);
            }
        }
        // Most are closed at once; their entries must not pile up for the whole time-out.
        while let Some((_, conn)) = self.closing.front().copied()
            && self.conns.get_mut(conn).is_none()
        {
            self.closing.pop_front();
        }
    }

    fn linger(&mut self, now: Instant, mut slot: Slot) {
        if slot.transport.finish().is_err() || !slot.transport.must_linger() {
            return;
        }
        // A client that has said DISCONNECT has usually closed by now.
        let has_ended = matches!(slot.transport.read(&mut self.scratch), Ok(Got { len: 0, .. }));
        if !has_ended && slot.unwatch(&self.sources).is_ok() {
            self.lingering.add(now, slot.transport, &self.sources.own);
        }
    }
}

/// Closed connections whose peers have not closed yet.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    entries: Vec<Option<Lingerer>>,
    free: Vec<usize>,
    /// By deadline, which is the order of arrival.
    queue: VecDeque<(Instant, usize)>,
}

#[derive(Debug)]
struct Lingerer {
    transport: Transport,
    deadline: Instant,
}

impl Lingering {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.len() == self.free.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| *due)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn add(&mut self, now: Instant, mut transport: Transport, registry: &mio::Registry) {
        if self.entries.len() - self.free.len() >= LINGERERS_MAX {
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        if transport.register_end(registry, mio::Token(LINGERERS + index)).is_err() {
            self.free.push(index);
            return;
        }
        let deadline = now + LINGER_TIMEOUT;
        self.entries[index] = Some(Lingerer { transport, deadline });
        self.queue.push_back((deadline, index));
    }

    /// Something arrived, or the end did.
    pub(super) fn discard(&mut self, index: usize, scratch: &mut [u8]) {
        let Some(Some(lingerer)) = self.entries.get_mut(index) else { return };
        for _ in 0..DISCARDS_PER_EVENT_MAX {
            match lingerer.transport.read(scratch) {
                Ok(Got { len: 0, .. }) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.remove(index);
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((due, index)) = self.queue.front().copied() {
            let is_current = matches!(self.entries.get(index), Some(Some(lingerer)) if lingerer.deadline == due);
            if is_current && due > now {
                return;
            }
            self.queue.pop_front();
            if is_current {
                self.remove(index);
            }
        }
    }

    fn remove(&mut self, index: usize) {
        if self.entries.get_mut(index).and_then(Option::take).is_some() {
            self.free.push(index);
        }
    }
}

/// How long last bytes (a CONNACK that refuses, a DISCONNECT) may take to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a peer may take to close its end: a few round trips.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// More than this are closed without lingering, so that a flood holds no descriptors.
const LINGERERS_MAX: usize = 1024;

/// A peer that keeps sending this much after the end does not listen.
const DISCARDS_PER_EVENT_MAX: usize = 16;
