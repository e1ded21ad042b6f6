//! What of a client's session must survive the process: every change of it, and what may leave only once its change is
//! committed.
//!
//! The session records what happens to its QoS 1 and 2 publications and to the QoS 2 identifiers it has received; the
//! shell takes the changes in batches, puts them where they last, and says when they do. What the server is going to rely
//! on across our crash waits for that: a QoS 2 PUBLISH and its PUBREL, or the server might get the message again under
//! another identifier; PUBREC, or a message could come again that the application has had; PUBCOMP, or the identifier's
//! next message would be taken for the last one. They wait *in line*: output behind the first of them waits, too, so the
//! order of packets is what it always is. QoS 1 waits for nothing: whoever asks for it accepts repetitions.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{ClientSession, OutMessage};
use crate::{
    codec::{PacketId, QoS, Text},
    session::{Session, Stored},
};

/// One change of what must survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A publication was accepted.
    Accepted {
        /// Its number: they grow in the order in which publications are sent.
        id: u64,
        /// The publication.
        message: Kept,
    },
    /// It is about to be sent for the first time, under this identifier.
    Sent {
        /// Its number.
        id: u64,
        /// Its packet identifier from now on.
        packet_id: PacketId,
    },
    /// PUBREC has come: only PUBREL is due.
    PubRec {
        /// Its number.
        id: u64,
    },
    /// The server has forgotten the session: it is to be published anew.
    Unsent {
        /// Its number.
        id: u64,
    },
    /// It is done, or given up.
    Settled {
        /// Its number.
        id: u64,
    },
    /// PUBREC is due for a QoS 2 message that the application has.
    Received {
        /// Its packet identifier.
        packet_id: PacketId,
    },
    /// The server has released it: the identifier is free.
    Released {
        /// The identifier.
        packet_id: PacketId,
    },
}

/// A publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Topic name.
    pub topic: Text,
    /// Payload.
    pub payload: Bytes,
    /// MQTT 5 properties, encoded, without their length and the message expiry interval.
    pub properties: Bytes,
    /// Quality of service: 1 or 2.
    pub qos: QoS,
    /// Ask the server to retain it.
    pub retain: bool,
    /// When it expires, milliseconds of Unix time.
    pub expires_at: Option<u64>,
}

/// The meaning of the changes: what is there after them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spooled {
    /// Publications that are not done, by number, each with how far it has come.
    pub messages: BTreeMap<u64, (Kept, Progress)>,
    /// QoS 2 identifiers received and not released.
    pub received: BTreeSet<PacketId>,
}

/// How far a publication has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Never sent.
    Queued,
    /// Sent under this identifier, perhaps.
    Sent(PacketId),
    /// PUBREC has come.
    PubRec(PacketId),
}

impl Spooled {
    /// Applies one change. A batch must be applied whole.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Accepted { id, message } => drop(self.messages.insert(id, (message, Progress::Queued))),
            Change::Sent { id, packet_id } => self.set(id, |_| Progress::Sent(packet_id)),
            Change::PubRec { id } => self.set(id, Progress::with_pubrec),
            Change::Unsent { id } => self.set(id, |_| Progress::Queued),
            Change::Settled { id } => drop(self.messages.remove(&id)),
            Change::Received { packet_id } => drop(self.received.insert(packet_id)),
            Change::Released { packet_id } => drop(self.received.remove(&packet_id)),
        }
    }

    fn set(&mut self, id: u64, next: impl FnOnce(Progress) -> Progress) {
        if let Some((_, progress)) = self.messages.get_mut(&id) {
            *progress = next(*progress);
        }
    }
}

impl Progress {
    /// The same after PUBREC.
    #[must_use]
    pub fn with_pubrec(self) -> Self {
        match self {
            Self::Sent(packet_id) => Self::PubRec(packet_id),
            other => other,
        }
    }
}

/// The journal of a session whose changes are kept.
#[derive(Debug)]
pub(super) struct Journal {
    /// A moment and its Unix time.
    clock: (Instant, Duration),
    changes: Vec<Change>,
    /// The number given last.
    last_id: u64,
    /// The batch that `changes` will be.
    batch: u64,
    committed: u64,
    /// Bytes of the output that may go before what follows them has waited for a batch.
    barriers: VecDeque<(usize, u64)>,
    /// Publications that are not done, and their bytes.
    messages: usize,
    bytes: usize,
    bytes_max: usize,
}

impl ClientSession {
    /// Has a machine that was never connected go on where another one stopped, whose changes came to `kept`, and records
    /// its own. Publications that are not done take `bytes_max` at most, more are refused. `now` is `unix` in Unix time.
    #[must_use]
    pub fn with_journal(mut self, kept: Spooled, bytes_max: usize, now: Instant, unix: Duration) -> Self {
        let clock = (now, unix);
        let last_id = kept.messages.last_key_value().map_or(0, |(id, _)| *id);
        let (mut inflight, mut pending) = (Vec::new(), Vec::new());
        let (messages, mut bytes) = (kept.messages.len(), 0);
        for (id, (message, progress)) in kept.messages {
            let message = OutMessage::restore(message, id, clock);
            bytes += message.bytes();
            match progress {
                Progress::Queued => pending.push(message),
                Progress::Sent(packet_id) => inflight.push((packet_id, false, message)),
                Progress::PubRec(packet_id) => inflight.push((packet_id, true, message)),
            }
        }
        self.session = Session::restore(inflight, pending, kept.received);
        self.established = true;
        let (changes, barriers) = (Vec::new(), VecDeque::new());
        let journal = Journal { clock, changes, last_id, batch: 1, committed: 0, barriers, messages, bytes, bytes_max };
        self.journal = Some(Box::new(journal));
        self
    }

    /// The changes since the last call, and the number of the batch that they are; they count from 1.
    pub fn take_changes(&mut self) -> Option<(u64, Vec<Change>)> {
        let journal = self.journal.as_mut().filter(|journal| !journal.changes.is_empty())?;
        journal.batch += 1;
        Some((journal.batch - 1, std::mem::take(&mut journal.changes)))
    }

    /// The batches up to this one last: what waited for them may be taken.
    pub fn committed(&mut self, batch: u64) {
        let Some(journal) = &mut self.journal else { return };
        journal.committed = journal.committed.max(batch);
        while journal.barriers.front().is_some_and(|(_, batch)| *batch <= journal.committed) {
            journal.barriers.pop_front();
        }
    }

    /// The batch with which everything that has happened is committed, if that is still to be.
    pub fn uncommitted(&self) -> Option<u64> {
        let journal = self.journal.as_ref()?;
        Some(journal.current()).filter(|batch| *batch > journal.committed)
    }

    /// Publications with QoS 1 and 2 that are kept until they are done.
    pub fn spooled(&self) -> usize {
        self.journal.as_ref().map_or(0, |journal| journal.messages)
    }

    /// Whether there is output that waits for nothing.
    #[inline]
    pub fn has_output(&self) -> bool {
        self.free_output_bytes() > 0
    }

    /// Bytes of output that wait for nothing.
    #[inline]
    pub(super) fn free_output_bytes(&self) -> usize {
        match &self.journal {
            None => self.out.len(),
            Some(journal) => journal.barriers.front().map_or(self.out.len(), |(bytes, _)| *bytes),
        }
    }

    /// That many bytes of the output were taken.
    pub(super) fn output_taken(&mut self, bytes: usize) {
        if let Some(journal) = &mut self.journal {
            journal.barriers.iter_mut().for_each(|(at, _)| *at -= bytes);
        }
    }

    /// What is written next waits until everything recorded so far is committed.
    pub(super) fn wait_for_commit(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.bar(self.out.len());
        }
    }

    /// The output is thrown away.
    pub(super) fn forget_output(&mut self) {
        self.out.clear();
        if let Some(journal) = &mut self.journal {
            journal.barriers.clear();
        }
    }

    /// Whether the spool has room for a publication of that many bytes.
    pub fn has_spool_room(&self, bytes: usize) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.bytes.saturating_add(bytes) <= journal.bytes_max)
    }

    /// Whether at least a quarter of the spool is free.
    pub(super) fn has_much_spool_room(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.bytes <= journal.bytes_max / 4 * 3)
    }

    /// Bytes of the publications in the spool.
    pub(super) fn spooled_bytes(&self) -> usize {
        self.journal.as_ref().map_or(0, |journal| journal.bytes)
    }

    /// A publication is accepted.
    pub(super) fn record_accepted(&mut self, message: &mut OutMessage) {
        let Some(journal) = &mut self.journal else { return };
        if message.qos() == QoS::AtMostOnce {
            return;
        }
        journal.last_id += 1;
        journal.messages += 1;
        journal.bytes += message.bytes();
        message.spooled = journal.last_id;
        let change = Change::Accepted { id: message.spooled, message: message.to_kept(journal.clock) };
        journal.changes.push(change);
    }

    /// PUBREC has come.
    pub(super) fn record_pubrec(&mut self, packet_id: PacketId) {
        if let Some(id) = self.session.message(packet_id).map(|message| message.spooled) {
            self.record(id, |id| Change::PubRec { id });
        }
        self.wait_for_commit();
    }

    /// A publication in flight is queued again.
    pub(super) fn record_unsent(&mut self, message: &OutMessage) {
        self.record(message.spooled, |id| Change::Unsent { id });
    }

    /// A publication is done or given up.
    pub(super) fn record_settled(&mut self, message: &OutMessage) {
        if let Some(journal) = self.journal.as_mut().filter(|_| message.spooled > 0) {
            journal.settled(message);
        }
    }

    /// PUBREC is about to be written for a QoS 2 message.
    pub(super) fn record_received(&mut self, packet_id: PacketId) {
        if let Some(journal) = &mut self.journal {
            journal.changes.push(Change::Received { packet_id });
            self.wait_for_commit();
        }
    }

    /// PUBCOMP is about to be written, or the session is gone.
    pub(super) fn record_released(&mut self, packet_id: PacketId) {
        if let Some(journal) = &mut self.journal {
            journal.changes.push(Change::Released { packet_id });
            self.wait_for_commit();
        }
    }

    fn record(&mut self, id: u64, change: impl FnOnce(u64) -> Change) {
        if let Some(journal) = self.journal.as_mut().filter(|_| id > 0) {
            journal.changes.push(change(id));
        }
    }
}

impl Journal {
    /// A publication is about to be written, at `at` of the output. One with QoS 2 waits until its identifier is known.
    pub(super) fn sending(&mut self, message: &OutMessage, packet_id: PacketId, is_again: bool, at: usize) {
        if !is_again && message.spooled > 0 {
            self.changes.push(Change::Sent { id: message.spooled, packet_id });
        }
        if message.qos() == QoS::ExactlyOnce {
            self.bar(at);
        }
    }

    /// What is written at `at` waits until everything recorded so far is committed.
    fn bar(&mut self, at: usize) {
        let batch = self.current();
        let is_known = self.barriers.back().is_some_and(|(_, last)| *last >= batch);
        if batch > self.committed && !is_known {
            self.barriers.push_back((at, batch));
        }
    }

    fn settled(&mut self, message: &OutMessage) {
        self.messages -= 1;
        self.bytes -= message.bytes();
        self.changes.push(Change::Settled { id: message.spooled });
    }

    /// The batch with which everything recorded so far is committed.
    fn current(&self) -> u64 {
        if self.changes.is_empty() { self.batch - 1 } else { self.batch }
    }
}

/// Unix time in milliseconds of a moment, given that of another.
pub(super) fn unix_ms((base, unix): (Instant, Duration), at: Instant) -> u64 {
    let unix = unix + at.saturating_duration_since(base);
    u64::try_from(unix.saturating_sub(base.saturating_duration_since(at)).as_millis()).unwrap_or(u64::MAX)
}

/// The moment of a Unix time in milliseconds; what is past is now.
pub(super) fn instant((base, unix): (Instant, Duration), unix_ms: u64) -> Instant {
    let later = Duration::from_millis(unix_ms).saturating_sub(unix);
    base.checked_add(later).unwrap_or(base + FAR)
}

/// Further ahead than any interval of the protocol reaches.
const FAR: Duration = Duration::from_hours(200 * 365 * 24);
