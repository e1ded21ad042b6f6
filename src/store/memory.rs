//! The memory engine: what it is told is committed at once and lasts as long as the value. A broker that is started anew
//! in the same process, over the same `Arc<MemoryStore>`, goes on where the last one stopped.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Contents, LogId, Record, Store, StoreError, Ticket};

/// Keeps [`Contents`] in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    contents: Contents,
    tickets: BTreeMap<LogId, Ticket>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that holds this already, as after a restart.
    pub fn with_contents(contents: Contents) -> Self {
        Self(Mutex::new(Inner { contents, tickets: BTreeMap::new() }))
    }
}

impl Store for MemoryStore {
    fn submit(&self, log: LogId, batch: Vec<Record>) -> Ticket {
        let mut inner = self.0.lock();
        for record in batch {
            inner.contents.apply(log, record);
        }
        let ticket = inner.tickets.entry(log).or_default();
        ticket.0 += 1;
        *ticket
    }

    fn committed(&self, log: LogId) -> Ticket {
        self.0.lock().tickets.get(&log).copied().unwrap_or_default()
    }

    fn load(&self) -> Result<Contents, StoreError> {
        Ok(self.0.lock().contents.clone())
    }
}
