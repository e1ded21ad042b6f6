//! The spool in a file: rows for publications, for how far they have come, and for received identifiers.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::spool::{Spool, SpoolListener};
use crate::{
    codec::{PacketId, QoS, Text},
    disk::{Committer, DiskError, Durability, Encode, Fields, File, Head, Key, Rows, Stage, put_bytes, put_text},
    session::client::{Change, Kept, Progress, Spooled},
};

/// A spool in a file.
///
/// A commit that fails, as on a full disk, is made again until it succeeds; meanwhile publications with QoS 1 and 2
/// are refused with the reason.
pub struct DiskSpool {
    path: PathBuf,
    spooled: Mutex<Option<Spooled>>,
    listener: Arc<Mutex<Option<Arc<SpoolListener>>>>,
    committer: Committer<(u64, Vec<Change>)>,
}

impl DiskSpool {
    /// Opens the file of a client, or makes one. Nobody else can open it before this one is closed.
    pub fn open(path: &Path, client_id: &Text, durability: Durability) -> Result<Self, DiskError> {
        let head = Head { contents: "the spool of a client", owner: client_id.to_string(), version: VERSION };
        let file = File::open(path, &head, durability)?;
        let mut spooled = Spooled::default();
        file.read(|key, value| read_row(&mut spooled, key, value))?;
        let listener = Arc::new(Mutex::new(None));
        let stage =
            Staged { rows: Rows::new(), spooled: progress_of(&spooled), last: 0, listener: Arc::clone(&listener) };
        Ok(Self {
            path: path.to_owned(),
            spooled: Mutex::new(Some(spooled)),
            listener,
            committer: Committer::start(file, stage)?,
        })
    }
}

impl fmt::Debug for DiskSpool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskSpool").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Spool for DiskSpool {
    fn load(&self) -> Result<Spooled, DiskError> {
        self.spooled.lock().take().ok_or_else(|| DiskError::Taken { path: self.path.clone() })
    }

    fn submit(&self, batch: u64, changes: Vec<Change>) {
        self.committer.submit(|| (batch, changes));
    }

    fn on_commit(&self, tell: SpoolListener) {
        *self.listener.lock() = Some(Arc::new(tell));
    }

    fn failure(&self) -> Option<DiskError> {
        self.committer.failure()
    }

    fn close(&self) {
        self.committer.close();
        *self.listener.lock() = None;
    }
}

/// The committing thread's part.
struct Staged {
    rows: Rows<Value>,
    /// How far each publication has come.
    spooled: BTreeMap<u64, Progress>,
    last: u64,
    listener: Arc<Mutex<Option<Arc<SpoolListener>>>>,
}

enum Value {
    Message(Kept),
    Progress(Progress),
    Received,
}

impl Staged {
    fn apply_one(&mut self, change: Change) {
        match change {
            Change::Accepted { id, message } => {
                self.spooled.insert(id, Progress::Queued);
                self.rows.add(row(MESSAGE, id), Value::Message(message));
            }
            Change::Sent { id, packet_id } => self.advance(id, |_| Progress::Sent(packet_id)),
            Change::PubRec { id } => self.advance(id, Progress::with_pubrec),
            Change::Unsent { id } => self.advance(id, |_| Progress::Queued),
            Change::Settled { id } => {
                if let Some(progress) = self.spooled.remove(&id) {
                    self.rows.remove(row(MESSAGE, id));
                    if progress != Progress::Queued {
                        self.rows.remove(row(PROGRESS, id));
                    }
                }
            }
            Change::Received { packet_id } => self.rows.put(received(packet_id), Value::Received),
            Change::Released { packet_id } => drop(self.rows.remove(received(packet_id))),
        }
    }

    fn advance(&mut self, id: u64, next: impl FnOnce(Progress) -> Progress) {
        let Some(progress) = self.spooled.get_mut(&id) else { return };
        let before = std::mem::replace(progress, next(*progress));
        match (before, *progress) {
            (Progress::Queued, Progress::Queued) => {}
            (_, Progress::Queued) => drop(self.rows.remove(row(PROGRESS, id))),
            (Progress::Queued, next) => self.rows.add(row(PROGRESS, id), Value::Progress(next)),
            (_, next) => self.rows.put(row(PROGRESS, id), Value::Progress(next)),
        }
    }

    fn tell(&self, result: Result<u64, DiskError>) {
        let listener = self.listener.lock().clone();
        if let Some(tell) = listener {
            tell(result);
        }
    }
}

impl Stage for Staged {
    type Batch = (u64, Vec<Change>);
    type Value = Value;

    fn apply(&mut self, (batch, changes): Self::Batch) {
        self.last = batch;
        for change in changes {
            self.apply_one(change);
        }
    }

    fn rows(&mut self) -> &mut Rows<Value> {
        &mut self.rows
    }

    fn committed(&mut self) {
        self.tell(Ok(self.last));
    }

    fn failed(&mut self, failure: &DiskError) {
        self.tell(Err(failure.clone()));
    }
}

impl Encode for Value {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Message(kept) => {
                put_text(out, &kept.topic);
                put_bytes(out, &kept.payload);
                put_bytes(out, &kept.properties);
                out.push(kept.qos as u8);
                out.push(u8::from(kept.retain));
                out.push(u8::from(kept.expires_at.is_some()));
                kept.expires_at.iter().for_each(|at| out.extend_from_slice(&at.to_le_bytes()));
            }
            Self::Progress(progress) => {
                let (kind, packet_id) = match progress {
                    Progress::Queued => (0, 0),
                    Progress::Sent(id) => (1, id.get()),
                    Progress::PubRec(id) => (2, id.get()),
                };
                out.push(kind);
                out.extend_from_slice(&u16::to_le_bytes(packet_id));
            }
            Self::Received => {}
        }
    }
}

fn progress_of(spooled: &Spooled) -> BTreeMap<u64, Progress> {
    spooled.messages.iter().map(|(id, (_, progress))| (*id, *progress)).collect()
}

fn row(kind: u8, id: u64) -> Key {
    let mut key = Key::from_slice(&[kind]);
    key.extend_from_slice(&id.to_be_bytes());
    key
}

fn received(packet_id: PacketId) -> Key {
    let [high, low] = packet_id.get().to_be_bytes();
    Key::from_slice(&[RECEIVED, high, low])
}

/// Takes one row in, or says what is wrong. A publication comes before its progress.
fn read_row(spooled: &mut Spooled, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    let mut value = Fields::new(value);
    let (read, what) = match key {
        [MESSAGE, id @ ..] => (read_message(spooled, id, &mut value), "a publication"),
        [PROGRESS, id @ ..] => (read_progress(spooled, id, &mut value), "the progress of a publication"),
        [RECEIVED, high, low] => {
            let packet_id = PacketId::new(u16::from_be_bytes([*high, *low]));
            spooled.received.extend(packet_id);
            (packet_id.map(|_| ()), "a received identifier")
        }
        _ => (None, "a row of a kind that is not known"),
    };
    read.and_then(|()| value.end()).ok_or(what)
}

fn read_message(spooled: &mut Spooled, id: &[u8], value: &mut Fields) -> Option<()> {
    let kept = Kept {
        topic: value.text()?,
        payload: value.bytes()?,
        properties: value.bytes()?,
        qos: QoS::from_bits(value.u8()?).filter(|qos| *qos > QoS::AtMostOnce)?,
        retain: value.flag()?,
        expires_at: value.option(Fields::u64)?,
    };
    spooled.messages.insert(u64::from_be_bytes(id.try_into().ok()?), (kept, Progress::Queued));
    Some(())
}

fn read_progress(spooled: &mut Spooled, id: &[u8], value: &mut Fields) -> Option<()> {
    let (kind, packet_id) = (value.u8()?, PacketId::new(value.u16()?)?);
    let (_, progress) = spooled.messages.get_mut(&u64::from_be_bytes(id.try_into().ok()?))?;
    *progress = match kind {
        1 => Progress::Sent(packet_id),
        2 => Progress::PubRec(packet_id),
        _ => return None,
    };
    Some(())
}

const MESSAGE: u8 = 1;
const PROGRESS: u8 = 2;
const RECEIVED: u8 = 3;

/// The format of the rows: raised whenever an older program could not read them.
const VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::disk::full_disks;

    fn open(path: &Path) -> DiskSpool {
        DiskSpool::open(path, &Text::from_static("c"), Durability::Process).unwrap()
    }

    fn kept(id: u64) -> Kept {
        Kept {
            topic: Text::try_from(format!("t/{id}").as_str()).unwrap(),
            payload: Bytes::from(vec![id as u8; id as usize % 50]),
            properties: Bytes::from_static(&[1, 1]),
            qos: if id.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce },
            retain: id.is_multiple_of(3),
            expires_at: id.is_multiple_of(5).then_some(id),
        }
    }

    /// A change that makes some sense, from a number.
    fn change(number: u64, last_id: &mut u64) -> Change {
        let packet_id = PacketId::new((number % 7) as u16 + 1).unwrap();
        let id = number % (*last_id + 1);
        match number % 11 {
            0..=3 => {
                *last_id += 1;
                Change::Accepted { id: *last_id, message: kept(*last_id) }
            }
            4 | 5 => Change::Sent { id, packet_id },
            6 => Change::PubRec { id },
            7 => Change::Unsent { id },
            8 => Change::Settled { id },
            9 => Change::Received { packet_id },
            _ => Change::Released { packet_id },
        }
    }

    #[test]
    fn the_file_holds_what_the_changes_mean() {
        let place = tempfile::tempdir().unwrap();
        for seed in 0..20u64 {
            let path = place.path().join(seed.to_string());
            let (mut expected, mut last_id, mut random) = (Spooled::default(), 0, seed);
            for _ in 0..12 {
                let spool = open(&path);
                assert_eq!(spool.load().unwrap(), expected, "seed {seed}");
                for batch in 1..=6 {
                    let mut changes = Vec::new();
                    for _ in 0..=random % 9 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        changes.push(change(random >> 33, &mut last_id));
                    }
                    changes.iter().cloned().for_each(|change| expected.apply(change));
                    spool.submit(batch, changes);
                }
                spool.close();
            }
        }
    }

    #[test]
    fn a_full_disk_is_told_and_what_waited_is_written_when_there_is_room() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.db");
        let spool = open(&path);
        assert!(spool.load().is_ok());
        assert!(matches!(spool.load(), Err(DiskError::Taken { .. })));
        let (tell, told) = std::sync::mpsc::sync_channel(64);
        spool.on_commit(Box::new(move |result| drop(tell.try_send(result))));
        full_disks().lock().push(path.clone());
        spool.submit(1, vec![Change::Accepted { id: 1, message: kept(1) }]);
        assert!(matches!(told.recv().unwrap(), Err(DiskError::Full { .. })));
        assert!(matches!(spool.failure(), Some(DiskError::Full { .. })));
        full_disks().lock().retain(|full| *full != path);
        assert!(std::iter::from_fn(|| told.recv().ok()).any(|result| matches!(result, Ok(1))));
        spool.close();
        assert_eq!(open(&path).load().unwrap().messages.len(), 1);
    }
}
