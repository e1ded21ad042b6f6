//! The engine on a disk: one file in a directory, and one thread that commits what all shards have submitted meanwhile
//! in one transaction.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    CommitListener, Contents, LogId, Record, Store, StoreError, Ticket,
    stage::{Index, Value},
};
use crate::disk::{Committer, DiskError, Durability, File, Head, Rows, Stage};

/// Keeps contents in a directory. Opening it takes as long as reading all of it.
///
/// A commit that fails, as on a full disk, is made again until it succeeds; meanwhile nothing is vouched for, so that
/// publishers wait. [`DiskStore::failure`] tells of it.
#[derive(Debug)]
pub struct DiskStore {
    path: PathBuf,
    /// What was there, until it is loaded.
    contents: Mutex<Option<Contents>>,
    shared: Arc<Shared>,
    committer: Committer<Batch>,
}

#[derive(Debug)]
struct Batch {
    log: LogId,
    ticket: Ticket,
    records: Vec<Record>,
}

struct Shared {
    /// By log: the last ticket given, and the last one that is committed with all before it.
    tickets: Vec<(AtomicU64, AtomicU64)>,
    listener: Mutex<Option<Arc<CommitListener>>>,
}

impl DiskStore {
    /// Opens the store in a directory, which is made if need be. Nobody else can open it before this one is closed.
    pub fn open(directory: &Path, durability: Durability) -> Result<Self, StoreError> {
        let io = |source| DiskError::Io { path: directory.to_owned(), source: Arc::new(source) };
        fs::create_dir_all(directory).map_err(io)?;
        let path = directory.join(FILE_NAME);
        let head = Head { contents: CONTENTS, owner: String::new(), version: VERSION };
        let file = File::open(&path, &head, durability)?;
        let (contents, index) = Index::read(&file)?;
        let tickets = (0..=u8::MAX).map(|_| (AtomicU64::new(0), AtomicU64::new(0))).collect();
        let shared = Arc::new(Shared { tickets, listener: Mutex::new(None) });
        let committing = Committing { index, pending: Vec::new(), shared: Arc::clone(&shared) };
        let committer = Committer::start(file, committing)?;
        tracing::debug!(path = %path.display(), sessions = contents.sessions.len(), retained = contents.retained.len(), "opened");
        Ok(Self { path, contents: Mutex::new(Some(contents)), shared, committer })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why nothing can be committed at present, if so.
    pub fn failure(&self) -> Option<DiskError> {
        self.committer.failure()
    }
}

impl Store for DiskStore {
    fn submit(&self, log: LogId, records: Vec<Record>) -> Ticket {
        let mut ticket = Ticket::default();
        self.committer.submit(|| {
            ticket = Ticket(self.shared.tickets(log).0.fetch_add(1, Ordering::Relaxed) + 1);
            Batch { log, ticket, records }
        });
        ticket
    }

    fn committed(&self, log: LogId) -> Ticket {
        Ticket(self.shared.tickets(log).1.load(Ordering::Acquire))
    }

    fn on_commit(&self, tell: CommitListener) {
        *self.shared.listener.lock() = Some(Arc::new(tell));
    }

    fn load(&self) -> Result<Contents, StoreError> {
        let contents = self.contents.lock().take();
        contents.ok_or_else(|| DiskError::Taken { path: self.path.clone() }.into())
    }

    fn close(&self) {
        self.committer.close();
        *self.shared.listener.lock() = None;
    }
}

impl Shared {
    fn tickets(&self, log: LogId) -> &(AtomicU64, AtomicU64) {
        self.tickets.get(usize::from(log.0)).expect("there are as many as logs")
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// The committing thread's part.
struct Committing {
    index: Index,
    /// The last ticket of each log that was taken in since the last commit.
    pending: Vec<(LogId, Ticket)>,
    shared: Arc<Shared>,
}

impl Stage for Committing {
    type Batch = Batch;
    type Value = Value;

    fn apply(&mut self, batch: Batch) {
        match self.pending.iter_mut().find(|(log, _)| *log == batch.log) {
            Some((_, ticket)) => *ticket = batch.ticket,
            None => self.pending.push((batch.log, batch.ticket)),
        }
        for record in batch.records {
            self.index.apply(batch.log, record);
        }
        self.index.finish_batch();
    }

    fn rows(&mut self) -> &mut Rows<Value> {
        &mut self.index.rows
    }

    fn committed(&mut self) {
        let listener = self.shared.listener.lock().clone();
        for (log, ticket) in self.pending.drain(..) {
            self.shared.tickets(log).1.store(ticket.0, Ordering::Release);
            if let Some(tell) = &listener {
                tell(log, ticket);
            }
        }
    }
}

/// The file in the directory.
const FILE_NAME: &str = "broker.redb";

const CONTENTS: &str = "the store of a broker";

/// The format of the rows: raised whenever an older program could not read them.
const VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;
    use crate::{codec::Text, disk::full_disks};

    fn removed() -> Vec<Record> {
        vec![Record::RetainedRemoved { topic: Text::from_static("t") }]
    }

    #[test]
    fn nothing_is_committed_on_a_full_disk_and_all_of_it_once_there_is_room() {
        let place = tempfile::tempdir().unwrap();
        let store = DiskStore::open(place.path(), Durability::Process).unwrap();
        let (tell, told) = mpsc::sync_channel(8);
        store.on_commit(Box::new(move |log, ticket| tell.send((log, ticket)).unwrap()));
        full_disks().lock().push(store.path().to_owned());
        let ticket = store.submit(LogId(1), removed());
        while store.failure().is_none() {
            std::thread::yield_now();
        }
        assert!(matches!(store.failure(), Some(DiskError::Full { .. })));
        assert_eq!(store.committed(LogId(1)), Ticket::default());
        full_disks().lock().retain(|full| full != store.path());
        assert_eq!(told.recv_timeout(Duration::from_mins(1)), Ok((LogId(1), ticket)));
        assert!(store.committed(LogId(1)) == ticket && store.failure().is_none());
    }

    #[test]
    fn it_can_be_opened_again_once_it_is_closed_and_not_before() {
        let place = tempfile::tempdir().unwrap();
        let store = DiskStore::open(place.path(), Durability::Fsync).unwrap();
        let refused = DiskStore::open(place.path(), Durability::Fsync).unwrap_err();
        assert!(matches!(refused, StoreError::Disk(DiskError::Locked { .. })), "{refused}");
        let ticket = store.submit(LogId::SHARED, removed());
        store.close();
        assert_eq!(store.committed(LogId::SHARED), ticket);
        assert!(DiskStore::open(place.path(), Durability::Fsync).is_ok());
    }
}
