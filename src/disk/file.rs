//! One file: opened under its lock, judged by its head, read once, written by transactions.

use std::{
    fmt, fs,
    io::{self, Read},
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    BackendError, Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    backends::FileBackend,
};

use super::{
    DiskError, Durability, Encode, Fields, Rows, put_text,
    rows::{Change, Key},
};

/// What a file is, and whose.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Such as "the store of a broker".
    pub(crate) contents: &'static str,
    /// The client it belongs to; empty for a broker.
    pub(crate) owner: String,
    /// The newest format that can be read, and the one that is written.
    pub(crate) version: u16,
}

/// An open file.
pub(crate) struct File {
    path: PathBuf,
    durability: Durability,
    /// None after a failure, until it is opened again.
    database: Option<Database>,
    scratch: Vec<u8>,
}

impl File {
    /// Opens the file at `path`, or makes one.
    pub(crate) fn open(path: &Path, head: &Head, durability: Durability) -> Result<Self, DiskError> {
        let mut file = Self { path: path.to_owned(), durability, database: None, scratch: Vec::new() };
        file.database = Some(file.open_database()?);
        file.check(head)?;
        Ok(file)
    }

    /// Gives every row but the head to `row`, which says what is wrong with it if it makes no sense.
    pub(crate) fn read(&self, mut row: impl FnMut(&[u8], &[u8]) -> Result<(), &'static str>) -> Result<(), DiskError> {
        let mut read = || -> Result<Result<(), &'static str>, redb::Error> {
            let table = self.database()?.begin_read()?.open_table(ROWS)?;
            for entry in table.iter()? {
                let (key, value) = entry?;
                if key.value() != HEAD
                    && let Err(what) = row(key.value(), value.value())
                {
                    return Ok(Err(what));
                }
            }
            Ok(Ok(()))
        };
        match self.guarded(|| read().map_err(|error| self.explain(error)))? {
            Ok(()) => Ok(()),
            Err(what) => Err(DiskError::Damaged { path: self.path.clone(), what: what.to_owned() }),
        }
    }

    /// Writes all changes in one transaction; whole, or not at all. Opens the file again after a failure.
    pub(crate) fn write<V: Encode>(&mut self, rows: &Rows<V>) -> Result<(), DiskError> {
        if self.database.is_none() {
            self.database = Some(self.open_database()?);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let written = self.transact(rows, &mut scratch);
        scratch.shrink_to(SCRATCH_BYTES);
        self.scratch = scratch;
        written.map_err(|error| {
            // After a failure nothing more can be written through the same handle.
            self.database = None;
            self.explain(error)
        })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn transact<V: Encode>(&self, rows: &Rows<V>, scratch: &mut Vec<u8>) -> Result<(), redb::Error> {
        let transaction = self.database()?.begin_write()?;
        {
            let mut table = transaction.open_table(ROWS)?;
            for prefix in rows.prefixes() {
                let end = end_of(prefix);
                let end = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()));
                let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(prefix.as_slice()), end);
                table.retain_in::<&[u8], _>(range, |_, _| false)?;
            }
            for (key, change) in rows.changes() {
                match change {
                    Change::New(value) | Change::Put(value) => {
                        scratch.clear();
                        value.encode(scratch);
                        table.insert(key.as_slice(), scratch.as_slice())?;
                    }
                    Change::Remove => drop(table.remove(key.as_slice())?),
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn open_database(&self) -> Result<Database, DiskError> {
        let io = |error| self.explain(redb::Error::Io(error));
        let file =
            fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path).map_err(io)?;
        discard_unfinished(&file).map_err(io)?;
        let is_new = file.metadata().map_err(io)?.len() == 0;
        let backend = FileBackend::new(file).map_err(|error| self.explain(error.into()))?;
        let backend = Backend { file: backend, path: self.path.clone(), syncs: self.durability == Durability::Fsync };
        let mut builder = Builder::new();
        // All of it is read anyway, and what is damaged must not be taken for what was meant.
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let open = || builder.create_with_backend(backend);
        let database = self.guarded(|| open().map_err(|error: DatabaseError| self.explain(error.into())))?;
        if is_new && self.durability == Durability::Fsync {
            sync_directory(&self.path).map_err(io)?;
        }
        Ok(database)
    }

    /// Writes the head of a new file, and judges that of another.
    fn check(&mut self, head: &Head) -> Result<(), DiskError> {
        match self.guarded(|| self.head().map_err(|error| self.explain(error)))? {
            Found::Head(found) => return self.judge(head, &found),
            Found::Something => {
                let found = "the database of another program".to_owned();
                return Err(DiskError::OtherContents { path: self.path.clone(), found, wanted: head.contents });
            }
            Found::Nothing => {}
        }
        let mut rows = Rows::new();
        rows.add(Key::from_slice(HEAD), head.clone());
        self.write(&rows)
    }

    fn head(&self) -> Result<Found, redb::Error> {
        let transaction = self.database()?.begin_read()?;
        let has_tables = transaction.list_tables()?.next().is_some();
        match transaction.open_table(ROWS) {
            Ok(table) => Ok(table.get(HEAD)?.map_or(Found::Something, |head| Found::Head(head.value().to_vec()))),
            Err(redb::TableError::TableDoesNotExist(_)) if !has_tables => Ok(Found::Nothing),
            Err(redb::TableError::Storage(error)) => Err(error.into()),
            Err(_) => Ok(Found::Something),
        }
    }

    fn judge(&self, wanted: &Head, found: &[u8]) -> Result<(), DiskError> {
        let path = self.path.clone();
        let mut fields = Fields::new(found);
        let head = (|| Some((fields.u16()?, fields.text()?, fields.text()?)))();
        let Some((version, contents, owner)) = head else {
            return Err(DiskError::Damaged { path, what: "its head makes no sense".to_owned() });
        };
        if contents.as_str() != wanted.contents {
            let found = contents.as_str().to_owned();
            return Err(DiskError::OtherContents { path, found, wanted: wanted.contents });
        }
        if version > wanted.version {
            return Err(DiskError::Newer { path, found: version, known: wanted.version });
        }
        if owner.as_str() != wanted.owner {
            let (found, wanted) = (owner.as_str().to_owned(), wanted.owner.clone());
            return Err(DiskError::OtherOwner { path, found, wanted });
        }
        Ok(())
    }

    /// Debug builds of redb panic over some damage, and files come from anywhere.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
        let damaged =
            || DiskError::Damaged { path: self.path.clone(), what: "its structure makes no sense".to_owned() };
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(damaged()))
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    fn explain(&self, error: redb::Error) -> DiskError {
        let path = self.path.clone();
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => DiskError::Locked { path },
            redb::Error::Io(source) if is_full(&source) => DiskError::Full { path },
            redb::Error::Io(source) if source.kind() == io::ErrorKind::WouldBlock => DiskError::Locked { path },
            // What redb says of a file that it cannot read.
            redb::Error::Io(source)
                if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                DiskError::Damaged { path, what: source.to_string() }
            }
            redb::Error::Io(source) => DiskError::Io { path, source: Arc::new(source) },
            other => DiskError::Damaged { path, what: other.to_string() },
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).field("durability", &self.durability).finish_non_exhaustive()
    }
}

impl Encode for Head {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.version.to_le_bytes());
        put_text(out, self.contents);
        put_text(out, &self.owner);
    }
}

/// What a file has in the place of a head.
enum Found {
    Nothing,
    Something,
    Head(Vec<u8>),
}

/// A file that need not sync, and that tests can have fail.
#[derive(Debug)]
struct Backend {
    file: FileBackend,
    path: PathBuf,
    syncs: bool,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        fault(&self.path)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        fault(&self.path)?;
        if self.syncs { self.file.sync_data() } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        fault(&self.path)?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// What tests want to go wrong.
#[cfg(test)]
fn fault(path: &Path) -> io::Result<()> {
    let is_full = tests::FULL.lock().iter().any(|full| full == path);
    if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

#[cfg(not(test))]
#[allow(clippy::unnecessary_wraps)] // the other one does go wrong
const fn fault(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// A database is begun with zeros, and its mark is written last: zeros are all that a crash in between leaves.
fn discard_unfinished(file: &fs::File) -> io::Result<()> {
    let mut start = Vec::new();
    file.take(MARK_BYTES).read_to_end(&mut start)?;
    let is_unfinished = !start.is_empty() && start.iter().all(|byte| *byte == 0);
    if is_unfinished && file.try_lock().is_ok() {
        file.set_len(0)?;
        file.unlock()?;
    }
    Ok(())
}

/// A new file is only there for good once its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// The first key behind all that begin so.
fn end_of(prefix: &Key) -> Option<Key> {
    let mut end = prefix.clone();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// The key of the head: before all others.
const HEAD: &[u8] = &[0];

/// Of what was written or read lately; sessions themselves are in memory.
const CACHE_BYTES: usize = 16 << 20;

/// Memory kept for encoding one value.
const SCRATCH_BYTES: usize = 64 << 10;

/// The mark at the start of a database.
const MARK_BYTES: u64 = 9;

#[cfg(test)]
pub(crate) mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Files whose disk is full.
    pub(crate) static FULL: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

    fn head(owner: &str, version: u16) -> Head {
        Head { contents: "the spool of a client", owner: owner.to_owned(), version }
    }

    fn open(path: &Path, head: &Head) -> Result<File, DiskError> {
        File::open(path, head, Durability::Process)
    }

    struct Number(u32);

    impl Encode for Number {
        fn encode(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.0.to_le_bytes());
        }
    }

    fn keys(file: &File) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        file.read(|key, _| {
            keys.push(key.to_vec());
            Ok(())
        })
        .unwrap();
        keys
    }

    #[test]
    fn rows_are_there_after_reopening_and_go_by_key_and_prefix() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.db");
        let mut file = File::open(&path, &head("a", 1), Durability::Fsync).unwrap();
        let mut rows = Rows::new();
        for key in [&[1, 1][..], &[1, 255], &[2, 0], &[255, 255]] {
            rows.add(Key::from_slice(key), Number(7));
        }
        file.write(&rows).unwrap();
        drop(file);
        let mut file = open(&path, &head("a", 1)).unwrap();
        assert_eq!(keys(&file), [vec![1, 1], vec![1, 255], vec![2, 0], vec![255, 255]]);
        let mut rows = Rows::<Number>::new();
        rows.remove(Key::from_slice(&[2, 0]));
        rows.remove_all(Key::from_slice(&[1]), true);
        rows.remove_all(Key::from_slice(&[255]), true);
        rows.add(Key::from_slice(&[1, 7]), Number(1));
        file.write(&rows).unwrap();
        assert_eq!(keys(&file), [vec![1, 7]]);
    }

    #[test]
    fn a_file_is_judged_by_its_head() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.db");
        let file = open(&path, &head("a", 2)).unwrap();
        assert!(matches!(open(&path, &head("a", 2)), Err(DiskError::Locked { .. })));
        drop(file);
        let refused = open(&path, &head("b", 2)).unwrap_err();
        assert!(refused.to_string().contains("belongs to the client \"a\", not to \"b\""), "{refused}");
        let refused = open(&path, &head("a", 1)).unwrap_err();
        assert!(matches!(refused, DiskError::Newer { found: 2, known: 1, .. }), "{refused}");
        let other = Head { contents: "the store of a broker", ..head("a", 2) };
        assert!(matches!(open(&path, &other), Err(DiskError::OtherContents { .. })));
        assert!(open(&path, &head("a", 3)).is_ok());
    }

    #[test]
    fn what_is_no_database_is_damaged_and_stays_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.db");
        for contents in [&b"short"[..], &[7; 5000]] {
            fs::write(&path, contents).unwrap();
            let refused = open(&path, &head("a", 1)).unwrap_err();
            assert!(matches!(refused, DiskError::Damaged { .. }), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), contents);
        }
    }

    #[test]
    fn a_file_whose_making_was_interrupted_is_made_anew() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.db");
        for len in [1, 4096, 100_000] {
            fs::write(&path, vec![0; len]).unwrap();
            assert!(keys(&open(&path, &head("a", 1)).unwrap()).is_empty());
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn flipped_bytes_are_refused_or_harmless() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.db");
        let mut file = open(&path, &head("a", 1)).unwrap();
        let mut rows = Rows::new();
        (0..200u8).for_each(|n| rows.add(Key::from_slice(&[1, n]), Number(n.into())));
        file.write(&rows).unwrap();
        drop(file);
        let sound = fs::read(&path).unwrap();
        let used: Vec<_> = (0..sound.len()).filter(|at| sound[*at] != 0).collect();
        let mut refused = 0;
        for at in used.into_iter().step_by(37) {
            let mut damaged = sound.clone();
            damaged[at] ^= 0xFF;
            fs::write(&path, &damaged).unwrap();
            let mut found = Vec::new();
            let read = |file: File| {
                file.read(|key, value| {
                    found.push((key[1], value.to_vec()));
                    Ok(())
                })
            };
            match open(&path, &head("a", 1)).and_then(read) {
                Ok(()) => {
                    let expected: Vec<_> = (0..200u8).map(|n| (n, u32::from(n).to_le_bytes().to_vec())).collect();
                    assert!(found == expected || found.is_empty(), "byte {at}: {} rows", found.len());
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn a_write_on_a_full_disk_fails_whole_and_succeeds_later() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.db");
        let mut file = open(&path, &head("a", 1)).unwrap();
        let mut rows = Rows::new();
        rows.add(Key::from_slice(&[1]), Number(1));
        FULL.lock().push(path.clone());
        for _ in 0..3 {
            let failure = file.write(&rows).unwrap_err();
            assert!(matches!(failure, DiskError::Full { .. }), "{failure}");
        }
        FULL.lock().retain(|full| *full != path);
        file.write(&rows).unwrap();
        assert_eq!(keys(&file), [vec![1]]);
    }
}
