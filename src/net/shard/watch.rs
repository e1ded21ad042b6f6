//! Where a connection's readiness is told: to whoever runs its shard.
//!
//! A shard that lodges has its connections registered with the host's readiness source, so that one look at that tells of all
//! that have something. When the shard goes to its own thread, or lodges again, they are not moved at once: a moment for
//! each of a hundred thousand would be a long one. Each is moved when something comes for it where it should not any more.
//! Registered anew, it is told of anew, so that nothing is lost on the way.

use std::{io, sync::atomic::Ordering, time::Instant};

use mio::{Registry, Token};

use super::{
    Shards,
    conns::Slot,
    count,
    state::{LINGERERS, State},
};
use crate::{
    broker::{ConnId, TransportEnd},
    net::transport::Place,
    router::SHARDS_MAX,
};

/// Where the events of a connection arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    Nowhere,
    /// At its shard's own source.
    Here,
    /// At that of the host.
    AtHost,
}

/// The readiness sources at which a shard's connections are registered.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) own: Registry,
    /// Its own again, if this is the host's.
    pub(super) host: Registry,
}

impl Shards {
    /// Whether the host runs this shard for another thread.
    pub(super) fn lodges(&self, shard: usize) -> bool {
        self.cells[shard].lodges.load(Ordering::Relaxed)
    }

    /// Where connections of a shard are to be registered.
    fn watched(&self, shard: usize) -> Watched {
        if self.lodges(shard) { Watched::AtHost } else { Watched::Here }
    }

    /// Something came to the host for a connection whose shard it does not run.
    pub(super) fn stray(&self, token: Token) {
        let (shard, index) = of_token(token);
        if let Some(cell) = self.cells.get(shard) {
            cell.inbox.push_stray(index);
            self.note_sent(cell);
        }
    }
}

impl State {
    /// Has the events of a new connection arrive, unless it is over already or about to move.
    pub(super) fn register(&mut self, shards: &Shards, now: Instant, conn: ConnId) {
        if self.shard.outbox(conn).is_none() {
            return;
        }
        self.watch(shards, now, conn);
        if self.is_closing() {
            self.shard.shutdown(now);
        }
    }

    /// Registers a connection where it is to be told of now; anew, if it is there.
    pub(super) fn watch(&mut self, shards: &Shards, now: Instant, conn: ConnId) {
        let Some(slot) = self.conns.get_mut(conn) else { return };
        let (at, registry) = match shards.watched(self.index) {
            Watched::AtHost if slot.transport.is_socket() => (Watched::AtHost, &self.sources.host),
            _ => (Watched::Here, &self.sources.own),
        };
        let place = Place { registry, token: token(self.index, conn.index()), shards: &self.shards, shard: self.index };
        let registered = slot.unwatch(&self.sources).and_then(|()| slot.transport.register(&place, conn));
        match registered {
            Ok(()) => slot.watched = at,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be registered and was closed");
                count(&shards.counters.failed);
                self.ended(now, conn, TransportEnd::Error);
            }
        }
    }

    /// Something has come for a connection, told to the host, which did not run this shard then.
    pub(super) fn take_stray(&mut self, shards: &Shards, now: Instant, index: usize) {
        let stray = self.conns.at_mut(index).filter(|slot| slot.watched == Watched::AtHost);
        if let Some(conn) = stray.map(|slot| slot.conn) {
            // What has come is told with the next look: until then this is not a shard at rest.
            self.activity += 1;
            self.watch(shards, now, conn);
        }
    }

    /// The host has ended, and nobody looks at its source any more.
    pub(super) fn take_all_strays(&mut self, shards: &Shards, now: Instant) {
        self.activity += 1;
        let strays = self.conns.iter().filter(|slot| slot.watched == Watched::AtHost);
        for conn in strays.map(|slot| slot.conn).collect::<Vec<_>>() {
            self.watch(shards, now, conn);
        }
    }
}

impl Slot {
    /// Has events arrive nowhere.
    pub(super) fn unwatch(&mut self, sources: &Sources) -> io::Result<()> {
        match std::mem::replace(&mut self.watched, Watched::Nowhere) {
            Watched::Nowhere => Ok(()),
            Watched::Here => self.transport.deregister(&sources.own),
            Watched::AtHost => self.transport.deregister(&sources.host),
        }
    }
}

/// The token of a connection: which shard's it is, and its index there.
pub(super) const fn token(shard: usize, index: usize) -> Token {
    Token((shard << SHARD_SHIFT) | index)
}

/// The shard and the index of a connection, by its token.
pub(super) const fn of_token(Token(token): Token) -> (usize, usize) {
    (token >> SHARD_SHIFT, token & ((1 << SHARD_SHIFT) - 1))
}

/// Shards take six bits (there are at most 64), below those that tell connections from all else.
const SHARD_SHIFT: u32 = usize::BITS - 9;

const _: () = assert!(SHARDS_MAX <= 64 && token(SHARDS_MAX - 1, 0).0 < LINGERERS);
