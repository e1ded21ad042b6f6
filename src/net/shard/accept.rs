//! How connections enter a shard: accepted, dealt out by another shard's listener, in-process, or handed over.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{Shards, count, state::State};
use crate::{
    broker::{ConnId, Peer},
    net::{inbox::Item, listener::Admission, transport::Transport},
};

impl State {
    /// Accepts a bounded number of connections.
    pub(super) fn accept(&mut self, shards: &Shards, now: Instant, index: usize) {
        for _ in 0..ACCEPTS_PER_TICK_MAX {
            let Some(acceptor) = self.acceptors.get_mut(index) else { return };
            acceptor.retry_at = None;
            match acceptor.accept(now) {
                Admission::Connection(transport, peer) => {
                    let is_dealt = acceptor.deals_out();
                    let transport = match shards.interposer() {
                        None => Some(transport),
                        Some(interposer) => transport.interpose(Arc::clone(interposer), &peer),
                    };
                    let Some(transport) = transport else { continue };
                    self.place(shards, now, transport, peer, is_dealt);
                }
                Admission::Refused => count(&shards.counters.refused),
                Admission::Failed => count(&shards.counters.failed),
                Admission::Empty => return,
                Admission::Exhausted { warn } => {
                    let total = shards.counters.postponed.fetch_add(1, Ordering::Relaxed) + 1;
                    if warn {
                        tracing::warn!(
                            listener = %acceptor.info().name, times = total,
                            "no file descriptor or memory left for another connection; clients wait in the backlog. \
                             Raise the limit on open files (ulimit -n, LimitNOFILE) or set max_connections below it"
                        );
                    }
                    return;
                }
            }
        }
        // More may wait, and no edge will say so.
        if let Some(acceptor) = self.acceptors.get_mut(index) {
            acceptor.retry_at = Some(now);
        }
    }

    /// Takes in a new connection, whose CONNECT is awaited.
    pub(super) fn open(&mut self, shards: &Shards, now: Instant, transport: Transport, peer: Peer) {
        let conn = self.shard.open(now, peer);
        if transport.is_plain() {
            self.activity += 1;
            self.conns.insert(conn, transport);
            // Most have said CONNECT by now. Read before anybody is told of readiness, it costs no event, and one who is at
            // home on another shard is registered there alone.
            self.read_turn(now, conn);
            if self.shard.outbox(conn).is_none() {
                // It moves: at once, since its place may be given to the next.
                self.handle_outputs(shards, now, false);
            }
            self.register(shards, now, conn);
        } else {
            self.adopt(shards, now, conn, transport);
        }
    }

    /// Registers the transport of a connection that the shard knows already.
    pub(super) fn adopt(&mut self, shards: &Shards, now: Instant, conn: ConnId, transport: Transport) {
        self.activity += 1;
        let is_plain = self.conns.insert(conn, transport).transport.is_plain();
        self.register(shards, now, conn);
        // What came before, for those that have no edge for it: a socket's is reported when it is registered.
        if !is_plain {
            self.make_ready(conn);
        }
    }

    /// Keeps a connection, or gives it to the next shard in turn.
    fn place(&mut self, shards: &Shards, now: Instant, transport: Transport, peer: Peer, is_dealt: bool) {
        let to = if is_dealt { self.next_deal } else { self.index };
        if is_dealt {
            self.next_deal = (self.next_deal + 1) % shards.len();
        }
        if to == self.index {
            self.open(shards, now, transport, peer);
        } else {
            shards.send(to, Item::Accepted(Box::new((transport, peer))));
        }
    }
}

/// Connections taken from a backlog before those that exist are looked after again.
const ACCEPTS_PER_TICK_MAX: usize = 64;
