//! What the core wants done, and the end of every tick.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use super::{Shards, state::State};
use crate::{
    auth::{ConnectInfo, OwnedAccess, Permit, Verdict},
    broker::{ConnId, Envelope, Handoff, Output},
    codec::ReasonCode,
    net::inbox::Item,
};

impl State {
    /// Does what the core wants and flushes, until there is nothing left or it has been enough for one tick.
    pub(super) fn complete(&mut self, shards: &Shards, now: Instant, may_enter: bool) {
        for _ in 0..ROUNDS_MAX {
            let outputs = self.handle_outputs(shards, now, may_enter);
            let flushed = self.flush_round(now);
            if outputs + flushed == 0 {
                self.is_unfinished = false;
                return;
            }
        }
        self.is_unfinished = true;
    }

    /// Sends what did not fit into another shard's inbox before.
    pub(super) fn retry_backlog(&mut self, shards: &Shards) {
        if !self.is_backlogged() {
            return;
        }
        for to in 0..self.backlog.len() {
            while let Some(batch) = self.backlog[to].pop_front() {
                if let Err(batch) = shards.deliver(self.index, to, batch, false) {
                    self.backlog[to].push_front(batch);
                    break;
                }
                self.backlog_batches -= 1;
            }
        }
    }

    pub(super) fn handle_outputs(&mut self, shards: &Shards, now: Instant, may_enter: bool) -> usize {
        let mut count = 0;
        while let Some(output) = self.shard.poll_output() {
            count += 1;
            match output {
                Output::Envelopes { to, batch } => self.send_envelopes(shards, usize::from(to.0), batch, may_enter),
                Output::Handoff { conn, to, handoff } => self.hand_off(shards, conn, usize::from(to.0), *handoff),
                Output::Close { conn } => self.begin_close(now, conn),
                Output::Authenticate { ticket, info } => self.authenticate(shards, ticket, info),
                Output::Authorize { ticket, info, asked } => self.authorize(shards, ticket, info, asked),
                Output::HearOut { conn, ticket } => {
                    self.hear_out(now, conn);
                    self.shard.handle_heard_out(now, conn, ticket);
                }
                Output::Resume { conns } => conns.into_iter().for_each(|conn| self.make_ready(conn)),
            }
        }
        count
    }

    pub(super) fn send_envelopes(&mut self, shards: &Shards, to: usize, batch: Vec<Envelope>, may_enter: bool) {
        self.activity += 1;
        if shards.has_stopped(to) {
            return self.shard.undeliverable(batch);
        }
        let queue = &mut self.backlog[to];
        // What waits already goes first.
        let refused = if queue.is_empty() { shards.deliver(self.index, to, batch, may_enter) } else { Err(batch) };
        if let Err(batch) = refused {
            self.backlog[to].push_back(batch);
            self.backlog_batches += 1;
        }
    }

    /// Moves a connection to its home shard. Nothing of it is lost on the way: the kernel keeps what arrives, and tells
    /// the new shard of it when the descriptor is registered there.
    fn hand_off(&mut self, shards: &Shards, conn: ConnId, to: usize, handoff: Handoff) {
        self.activity += 1;
        let Some(mut slot) = self.conns.remove(conn) else { return };
        if let Err(error) = slot.unwatch(&self.sources) {
            tracing::warn!(%error, "a connection could not be deregistered and was closed");
            return;
        }
        shards.send(to, Item::Handoff(Box::new((slot.transport, handoff))));
    }

    /// Has an authenticator that waits judge elsewhere.
    fn authenticate(&mut self, shards: &Shards, ticket: u64, info: Arc<ConnectInfo>) {
        let busy = || Verdict::Refuse { reason: ReasonCode::ServerBusy, message: None };
        let home = self.index;
        let Some((authenticator, owner)) = shards.authenticator.clone().zip(self.shards.upgrade()) else {
            // Nobody but an authenticator defers.
            shards.send(home, Item::Verdict(ticket, busy()));
            return;
        };
        let job = Box::new(move || {
            let judged = catch_unwind(AssertUnwindSafe(|| authenticator.authenticate_blocking(&info)));
            let verdict = judged.unwrap_or_else(|_| {
                tracing::error!(client = %info.client_id, "the authenticator panicked; the client is refused");
                Verdict::Refuse { reason: ReasonCode::UnspecifiedError, message: None }
            });
            owner.send(home, Item::Verdict(ticket, verdict));
        });
        if shards.pool.run(job).is_err() {
            shards.send(home, Item::Verdict(ticket, busy()));
        }
    }

    /// Has an authorizer that waits judge elsewhere.
    fn authorize(&mut self, shards: &Shards, ticket: u64, info: Arc<ConnectInfo>, asked: Vec<OwnedAccess>) {
        let home = self.index;
        let none = vec![false; asked.len()];
        let Some((authorizer, owner)) = shards.authorizer.clone().zip(self.shards.upgrade()) else {
            // Nobody but an authorizer defers.
            shards.send(home, Item::Permits(ticket, none));
            return;
        };
        let job = Box::new(move || {
            let judge = |access: &OwnedAccess| {
                let ask = || authorizer.authorize_blocking(&info, access.as_access()) == Permit::Allow;
                catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|_| {
                    tracing::error!(client = %info.client_id, "the authorizer panicked; this is refused");
                    false
                })
            };
            owner.send(home, Item::Permits(ticket, asked.iter().map(judge).collect()));
        });
        if shards.pool.run(job).is_err() {
            shards.send(home, Item::Permits(ticket, none));
        }
    }
}

/// Rounds of outputs and flushing in one tick: what one causes is small in the next.
const ROUNDS_MAX: usize = 8;
