//! The engines that the suite runs against: a new one is a line in [`ENGINES`].

use std::{path::Path, sync::Arc, sync::mpsc, time::Duration};

use ferromq::store::{LogId, MemoryStore, Record, Store, Ticket};
#[cfg(feature = "durable")]
use ferromq::{disk::Durability, store::DiskStore};

/// Name, and how to open the store that lives at a path; after a restart the one that was closed is given, which only
/// an engine without a disk has a use for.
pub(crate) type Engine = (&'static str, fn(&Path, Option<Arc<dyn Store>>) -> Arc<dyn Store>);

pub(crate) const ENGINES: &[Engine] = &[
    ("memory", |_, closed| closed.unwrap_or_else(|| Arc::new(MemoryStore::new()))),
    #[cfg(feature = "durable")]
    ("disk", |place, closed| {
        // Only now is the file free.
        drop(closed);
        Arc::new(DiskStore::open(place, Durability::Process).unwrap())
    }),
];

/// A store that commits in its own time, and the means to wait for that.
pub(crate) struct Bench {
    pub(crate) store: Arc<dyn Store>,
    engine: Engine,
    place: tempfile::TempDir,
    told: mpsc::Receiver<()>,
}

impl Bench {
    pub(crate) fn new(engine: Engine) -> Self {
        let place = tempfile::tempdir().unwrap();
        let store = (engine.1)(place.path(), None);
        let told = listen(&*store);
        Self { store, engine, place, told }
    }

    /// Submits, and waits until it is committed.
    pub(crate) fn commit(&self, log: LogId, batch: Vec<Record>) -> Ticket {
        let ticket = self.store.submit(log, batch);
        while self.store.committed(log) < ticket {
            self.told.recv_timeout(LONG).expect("the engine tells of every commit it did not make at once");
        }
        ticket
    }

    /// Closes the store and opens it again.
    pub(crate) fn reopen(&mut self) {
        let nothing: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let closed = std::mem::replace(&mut self.store, nothing);
        self.store = (self.engine.1)(self.place.path(), Some(closed));
        self.told = listen(&*self.store);
    }
}

fn listen(store: &dyn Store) -> mpsc::Receiver<()> {
    let (tell, told) = mpsc::sync_channel(1);
    store.on_commit(Box::new(move |_, _| {
        // A full channel has told already.
        let _ = tell.try_send(());
    }));
    told
}

/// Longer than any commit takes.
const LONG: Duration = Duration::from_mins(1);
