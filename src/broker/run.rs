//! A run: publications of one client to one topic that came behind each other, as packets that are encoded.
//!
//! Who publishes much publishes many times to one topic, and a read brings dozens of messages. As a run they are
//! encoded, copied, kept and queued together: see `gathering`.

use std::{ops::Range, sync::Arc};

use super::message::{AsSent, Message, Parcel, Publisher};
use crate::codec::{
    PublishRef, QoS, Version,
    publish::{self, PublishHead},
};

/// Messages of one publisher to one topic, in their order; all of one QoS, 0 or 1.
#[derive(Debug)]
pub struct Run {
    topic: String,
    by: Publisher,
    qos: QoS,
    is_v5: bool,
    /// As they came.
    frames: Encoded,
    /// Where in `frames` the bodies and the payloads are.
    parts: Vec<Part>,
    payload_bytes: usize,
}

/// Packets one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    /// Where the packet identifiers stand, above QoS 0.
    ids_at: Vec<u32>,
}

/// Some of the packets, to be copied to a subscriber.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packets<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) payload_bytes: usize,
    ids_at: &'a [u32],
    /// From where `ids_at` counts, before `bytes`.
    start: u32,
}

#[derive(Debug, Clone)]
struct Part {
    body: Range<u32>,
    payload_at: u32,
}

/// A run on its way through one shard. What it takes to keep it is made at most once, and only if somebody needs it.
#[derive(Debug)]
pub(crate) struct RunParcel<'a> {
    pub(crate) run: &'a Run,
    kept: Option<Arc<Run>>,
}

impl Run {
    pub(crate) fn new() -> Self {
        let by = Publisher::nobody();
        let (frames, parts) = (Encoded::default(), Vec::new());
        Self { topic: String::new(), by, qos: QoS::AtMostOnce, is_v5: false, frames, parts, payload_bytes: 0 }
    }

    /// How many messages.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// What it takes in memory, bytes.
    pub fn bytes(&self) -> usize {
        let parts = self.parts.capacity() * size_of::<Part>() + self.frames.ids_at.capacity() * size_of::<u32>();
        size_of::<Self>() + self.topic.capacity() + self.frames.bytes.capacity() + parts
    }

    /// What the messages in `range` are charged with, bytes: as much as if each were kept by itself.
    pub(crate) fn charge(&self, range: Range<usize>) -> usize {
        let each = self.topic.len() + size_of::<Message>();
        range.len() * each + self.payload_bytes(range)
    }

    fn payload_bytes(&self, range: Range<usize>) -> usize {
        if range == (0..self.len()) {
            return self.payload_bytes;
        }
        let parts = self.parts.get(range).unwrap_or_default();
        parts.iter().map(|part| (part.body.end - part.payload_at) as usize).sum()
    }

    /// The topic of all of them.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) const fn qos(&self) -> QoS {
        self.qos
    }

    /// Who published all of them.
    pub(crate) const fn by(&self) -> Publisher {
        self.by
    }

    /// Whether it takes less memory, and work, than to keep each message by itself.
    pub(crate) fn is_worth_keeping(&self) -> bool {
        self.len() >= KEPT_MIN
    }

    pub(crate) fn begin(&mut self, topic: &str, by: Publisher, qos: QoS, is_v5: bool) {
        debug_assert!(self.parts.is_empty(), "the last one was delivered");
        self.topic.clear();
        self.topic.push_str(topic);
        (self.by, self.qos, self.is_v5) = (by, qos, is_v5);
    }

    /// Whether a publication by `by` goes on with what came before, and there is room for it.
    pub(crate) fn takes(&self, by: Publisher, publish: &PublishRef<'_>) -> bool {
        !self.parts.is_empty()
            && self.by == by
            && self.qos == publish.qos
            && self.frames.bytes.len() + publish.body.len() <= RUN_BYTES_MAX
            && self.topic == publish.topic
    }

    pub(crate) fn push(&mut self, publish: &PublishRef<'_>) {
        let Encoded { bytes, ids_at } = &mut self.frames;
        let (start, body_len) = (bytes.len(), publish.body.len());
        // It came in a packet, so it fits one.
        let Ok(id_at) = publish::put_body_start(publish.body, body_len, self.topic.len(), bytes) else { return };
        if let Some(first) = bytes.get_mut(start) {
            *first |= (self.qos as u8) << 1;
        }
        if self.qos != QoS::AtMostOnce {
            ids_at.push((start + id_at) as u32);
        }
        let end = bytes.len();
        let body = (end - body_len) as u32..end as u32;
        self.parts.push(Part { body, payload_at: (end - publish.payload.len()) as u32 });
        self.payload_bytes += publish.payload.len();
    }

    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.parts.clear();
        self.payload_bytes = 0;
    }

    /// The messages in `range` by themselves, in no more memory than that takes.
    fn copy(&self, range: Range<usize>) -> Self {
        let packets = self.packets(range.clone());
        let ids_at = packets.ids_at.iter().map(|at| at - packets.start).collect();
        let moved = |part: &Part| Part {
            body: part.body.start - packets.start..part.body.end - packets.start,
            payload_at: part.payload_at - packets.start,
        };
        Self {
            topic: self.topic.clone(),
            by: self.by,
            qos: self.qos,
            is_v5: self.is_v5,
            frames: Encoded { bytes: packets.bytes.to_vec(), ids_at },
            parts: self.parts.get(range).unwrap_or_default().iter().map(moved).collect(),
            payload_bytes: packets.payload_bytes,
        }
    }

    /// The packets of the messages in `range`, as they came.
    pub(crate) fn packets(&self, range: Range<usize>) -> Packets<'_> {
        let end_of =
            |count: usize| count.checked_sub(1).and_then(|at| self.parts.get(at)).map_or(0, |part| part.body.end);
        let (start, end) = (end_of(range.start), end_of(range.end));
        let payload_bytes = self.payload_bytes(range.clone());
        let ids_at = self.frames.ids_at.get(range).unwrap_or_default();
        Packets { bytes: self.part(start..end), payload_bytes, ids_at, start }
    }

    /// Whether they go to a subscriber of this version and QoS as they came.
    pub(crate) fn is_as_it_came(&self, version: Version, qos: QoS) -> bool {
        version.is_v5() == self.is_v5 && qos == self.qos
    }

    fn part(&self, range: Range<u32>) -> &[u8] {
        self.frames.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| self.part(part.payload_at..part.body.end))
    }

    /// One of the messages, as if it had come by itself.
    pub(crate) fn parcel(&self, at: usize) -> Option<Parcel<'_>> {
        let part = self.parts.get(at)?;
        let is_acked = self.qos != QoS::AtMostOnce;
        let as_sent = AsSent { body: self.part(part.body.clone()), is_v5: self.is_v5, is_acked };
        Some(Parcel::plain(&self.topic, self.part(part.payload_at..part.body.end), self.qos, self.by, as_sent))
    }

    /// One by one, as if each had come by itself.
    pub(crate) fn parcels(&self) -> impl Iterator<Item = Parcel<'_>> {
        (0..self.len()).filter_map(|at| self.parcel(at))
    }
}

impl Encoded {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ids_at.clear();
    }

    /// The messages of a run for another version or QoS; encoded the first time.
    pub(crate) fn packets(&mut self, run: &Run, version: Version, qos: QoS) -> Packets<'_> {
        if self.bytes.is_empty() {
            self.fill(run, version, qos);
        }
        Packets { bytes: &self.bytes, payload_bytes: run.payload_bytes, ids_at: &self.ids_at, start: 0 }
    }

    fn fill(&mut self, run: &Run, version: Version, qos: QoS) {
        let head = PublishHead { topic: &run.topic, qos, ..PublishHead::default() };
        for payload in run.payloads() {
            let start = self.bytes.len();
            // Less than a few KiB, so it fits a packet.
            let id_at = head.encode(version, payload.len(), &mut self.bytes).unwrap_or_default();
            self.bytes.extend_from_slice(payload);
            self.ids_at.extend(id_at.map(|at| (start + at) as u32));
        }
    }
}

impl Packets<'_> {
    /// Writes packet identifiers into a copy of the packets, one for each from `next`.
    #[inline]
    pub(crate) fn put_ids(&self, copy: &mut [u8], mut next: impl FnMut() -> crate::codec::PacketId) {
        for at in self.ids_at {
            let (id, at) = (next(), (at - self.start) as usize);
            if let Some(place) = copy.get_mut(at..at + 2) {
                place.copy_from_slice(&id.get().to_be_bytes());
            }
        }
    }
}

impl<'a> RunParcel<'a> {
    /// A run that is not kept yet.
    pub(crate) const fn new(run: &'a Run) -> Self {
        Self { run, kept: None }
    }

    /// One that is.
    pub(crate) fn from_kept(run: &'a Arc<Run>) -> Self {
        Self { run, kept: Some(Arc::clone(run)) }
    }

    /// The run to keep.
    pub(crate) fn keep(&mut self) -> &Arc<Run> {
        self.kept.get_or_insert_with(|| Arc::new(self.run.copy(0..self.run.len())))
    }

    /// Some of its messages to keep; `None` if that would not pay.
    pub(crate) fn piece(&mut self, range: Range<usize>) -> Option<Arc<Run>> {
        if range.len() < KEPT_MIN {
            return None;
        }
        let is_all = range == (0..self.run.len());
        Some(if is_all { Arc::clone(self.keep()) } else { Arc::new(self.run.copy(range)) })
    }
}

/// A run is no longer: as much as a few large publications.
const RUN_BYTES_MAX: usize = 4 << 10;

/// Shorter ones are kept message by message: a message is one allocation, a run is five.
const KEPT_MIN: usize = 5;
