//! A store that commits later than it is asked to: what vouches for a batch has to wait for it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use ferromq::store::{Contents, LogId, Record, Store, StoreError, Ticket};

use crate::world::{Event, World};

/// It forgets what it is given: what becomes of that after a crash is the subject of `tests/store_contract`.
#[derive(Debug, Default)]
pub(crate) struct LateStore(Mutex<BTreeMap<LogId, Log>>);

#[derive(Debug, Default, Clone, Copy)]
struct Log {
    submitted: u64,
    /// Up to here a commit is under way.
    scheduled: u64,
    committed: u64,
    last_us: u64,
}

impl LateStore {
    fn logs(&self) -> MutexGuard<'_, BTreeMap<LogId, Log>> {
        self.0.lock().expect("one thread")
    }
}

impl Store for LateStore {
    fn submit(&self, log: LogId, _: Vec<Record>) -> Ticket {
        let mut logs = self.logs();
        let log = logs.entry(log).or_default();
        log.submitted += 1;
        Ticket(log.submitted)
    }

    fn committed(&self, log: LogId) -> Ticket {
        Ticket(self.logs().get(&log).map_or(0, |log| log.committed))
    }

    fn load(&self) -> Result<Contents, StoreError> {
        Ok(Contents::default())
    }
}

impl World {
    /// Has what was submitted since committed after a while.
    pub(crate) fn schedule_commits(&mut self) {
        let Some(store) = self.store.clone() else { return };
        for (id, log) in store.logs().iter_mut().filter(|(_, log)| log.submitted > log.scheduled) {
            let delay = self.rng.between(0, self.plan.delay_us_max);
            log.last_us = log.last_us.max(self.now_us + delay);
            log.scheduled = log.submitted;
            self.schedule_at(log.last_us, Event::Commit { log: *id, ticket: log.submitted });
        }
    }

    pub(crate) fn commit(&mut self, log: LogId, ticket: u64) {
        let Some(store) = self.store.clone() else { return };
        store.logs().entry(log).or_default().committed = ticket;
        let now = self.now();
        for shard in 0..self.shards.len() {
            if log == LogId::SHARED || usize::from(log.0) == shard {
                self.shards[shard].handle_committed(now);
                self.wake(shard);
            }
        }
    }
}
