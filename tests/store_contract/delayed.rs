//! A store that commits when it is told to, batch by batch, and forgets the rest in a crash.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use ferromq::store::{Contents, LogId, Record, Store, StoreError, Ticket};

use crate::rng::Rng;

#[derive(Debug, Default)]
pub(crate) struct Delayed(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    committed: Contents,
    logs: BTreeMap<LogId, Log>,
}

#[derive(Debug, Default)]
struct Log {
    waiting: VecDeque<Vec<Record>>,
    submitted: u64,
    committed: u64,
}

impl Delayed {
    /// A new store with what this one has committed.
    pub(crate) fn crash(&self) -> Arc<Self> {
        let committed = self.0.lock().unwrap().committed.clone();
        Arc::new(Self(Mutex::new(Inner { committed, logs: BTreeMap::new() })))
    }

    /// Commits everything.
    pub(crate) fn commit_all(&self) {
        let logs: Vec<_> = self.0.lock().unwrap().logs.keys().copied().collect();
        for log in logs {
            while self.commit(log) {}
        }
    }

    /// Commits one batch of some log; whether there was one.
    pub(crate) fn commit_one(&self, rng: &mut Rng) -> bool {
        let waiting: Vec<_> = {
            let inner = self.0.lock().unwrap();
            inner.logs.iter().filter(|(_, log)| !log.waiting.is_empty()).map(|(id, _)| *id).collect()
        };
        !waiting.is_empty() && self.commit(waiting[rng.below(waiting.len())])
    }

    /// Commits the next batch of a log; whether there was one.
    pub(crate) fn commit(&self, log: LogId) -> bool {
        let mut inner = self.0.lock().unwrap();
        let Inner { committed, logs } = &mut *inner;
        let Some(state) = logs.get_mut(&log) else { return false };
        let Some(batch) = state.waiting.pop_front() else { return false };
        state.committed += 1;
        for record in batch {
            committed.apply(log, record);
        }
        true
    }
}

impl Store for Delayed {
    fn submit(&self, log: LogId, batch: Vec<Record>) -> Ticket {
        assert!(!batch.is_empty(), "no empty batches");
        let mut inner = self.0.lock().unwrap();
        let log = inner.logs.entry(log).or_default();
        log.waiting.push_back(batch);
        log.submitted += 1;
        Ticket(log.submitted)
    }

    fn committed(&self, log: LogId) -> Ticket {
        Ticket(self.0.lock().unwrap().logs.get(&log).map_or(0, |log| log.committed))
    }

    fn load(&self) -> Result<Contents, StoreError> {
        Ok(self.0.lock().unwrap().committed.clone())
    }
}
