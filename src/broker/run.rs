//! Runs: publications of one client to one topic that came in one read, brought to each subscriber at once.
//!
//! Who publishes much publishes many times to one topic, and a read brings dozens of messages. Taken one by one, each
//! visits every subscriber: its session, its connection, its outbox, all of which have left the processor's caches by the
//! next. So plain ones (QoS 0 or 1, small, not retained, without properties) are gathered, encoded one behind the other,
//! and copied to a subscriber in one piece. Whatever else happens comes after them: see [`Shard::deliver_run`].

use std::{ops::Range, sync::Arc, time::Instant};

use smallvec::SmallVec;

use super::{
    frames::SHARE_ABOVE_BYTES,
    message::{AsSent, Parcel, Publisher},
    route::{Reach, RecentRoute, Target},
    session::Delivery,
    shard::{Envelope, Shard},
};
use crate::{
    codec::{
        PublishRef, QoS, Version,
        publish::{self, PublishHead},
    },
    router::{GroupHandle, ShardId},
};

/// Messages of one publisher to one topic, in their order; all of one QoS, 0 or 1.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone, Default)]
struct Encoded {
    bytes: Vec<u8>,
    /// Where the packet identifiers stand, above QoS 0.
    ids_at: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Part {
    body: Range<u32>,
    payload_at: u32,
}

/// The run that is being gathered, and its encodings for subscribers of another version or QoS.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    run: Option<Box<Run>>,
    others: [Encoded; 4],
}

/// Who takes the messages of a run one by one.
struct Others<'a> {
    targets: SmallVec<[&'a Target; 8]>,
    shards: SmallVec<[ShardId; 4]>,
    /// Each message goes to another member.
    groups: &'a mut [GroupHandle],
    /// Of the topic.
    hash: u64,
}

impl Run {
    /// How many messages.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// What it takes in memory, bytes.
    pub fn bytes(&self) -> usize {
        let parts = self.parts.capacity() * size_of::<Part>() + self.frames.ids_at.capacity() * size_of::<u32>();
        size_of::<Self>() + self.topic.len() + self.frames.bytes.capacity() + parts
    }

    /// The topic of all of them.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    fn new() -> Self {
        let by = Publisher::nobody();
        let (frames, parts) = (Encoded::default(), Vec::new());
        Self { topic: String::new(), by, qos: QoS::AtMostOnce, is_v5: false, frames, parts, payload_bytes: 0 }
    }

    fn begin(&mut self, topic: &str, by: Publisher, qos: QoS, is_v5: bool) {
        debug_assert!(self.parts.is_empty(), "the last one was delivered");
        self.topic.clear();
        self.topic.push_str(topic);
        (self.by, self.qos, self.is_v5) = (by, qos, is_v5);
    }

    fn push(&mut self, publish: &PublishRef<'_>) {
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

    fn clear(&mut self) {
        self.frames.clear();
        self.parts.clear();
        self.payload_bytes = 0;
    }

    fn part(&self, range: Range<u32>) -> &[u8] {
        self.frames.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| self.part(part.payload_at..part.body.end))
    }

    /// One by one, as if each had come by itself.
    fn parcels(&self) -> impl Iterator<Item = Parcel<'_>> {
        self.parts.iter().map(|part| {
            let is_acked = self.qos != QoS::AtMostOnce;
            let as_sent = AsSent { body: self.part(part.body.clone()), is_v5: self.is_v5, is_acked };
            Parcel::plain(&self.topic, self.part(part.payload_at..part.body.end), self.qos, self.by, as_sent)
        })
    }
}

impl Encoded {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ids_at.clear();
    }

    /// The same messages for another version or QoS.
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

impl Gathering {
    fn is_empty(&self) -> bool {
        self.run.as_ref().is_none_or(|run| run.parts.is_empty())
    }
}

impl Shard {
    /// Gathers a publication, if it is a plain one that somebody wants.
    pub(super) fn gather(&mut self, now: Instant, by: Publisher, is_v5: bool, publish: &PublishRef<'_>) -> bool {
        if self.journal.is_some() || !is_plain(publish) {
            return false;
        }
        if !self.goes_on(by, publish) {
            self.deliver_run(now);
            let recent = self.take_route(publish.topic, Reach::Everywhere);
            // What a client publishes to itself goes out before its acknowledgement, so not at the end of a run.
            let is_own =
                publish.qos != QoS::AtMostOnce && recent.route.local.iter().any(|target| target.session == by.session);
            let is_run = !recent.route.is_empty() && !is_own;
            self.recent = Some(recent);
            if !is_run {
                return false;
            }
            let run = self.gathering.run.get_or_insert_with(|| Box::new(Run::new()));
            run.begin(publish.topic, by, publish.qos, is_v5);
        }
        if let Some(run) = &mut self.gathering.run {
            run.push(publish);
        }
        true
    }

    /// Whether a publication belongs to the run that is being gathered.
    fn goes_on(&mut self, by: Publisher, publish: &PublishRef<'_>) -> bool {
        let belongs = self.gathering.run.as_ref().is_some_and(|run| {
            !run.parts.is_empty()
                && run.by == by
                && run.qos == publish.qos
                && run.frames.bytes.len() + publish.body.len() <= RUN_BYTES_MAX
                && run.topic == publish.topic
        });
        let mut recent = self.recent.take();
        let stands = belongs && recent.as_mut().is_some_and(|recent| self.still_stands(recent));
        self.recent = recent;
        stands
    }

    /// Brings what was gathered to everybody who wants it. Before anything that could tell the difference: another
    /// publication, another packet of the client, the end of what was read.
    #[inline]
    pub(super) fn deliver_run(&mut self, now: Instant) {
        if !self.gathering.is_empty()
            && let Some(run) = self.gathering.run.take()
            && let Some(recent) = self.recent.take()
        {
            self.bring_run(now, run, recent);
        }
    }

    #[inline(never)]
    fn bring_run(&mut self, now: Instant, mut run: Box<Run>, mut recent: Box<RecentRoute>) {
        debug_assert!(recent.is_of(&run.topic), "no other topic is looked up before the run is delivered");
        let is_long = run.len() >= FORWARDED_MIN;
        let remote: SmallVec<[ShardId; 4]> = recent.route.remote.iter().collect();
        if is_long && !remote.is_empty() {
            let run = Arc::new((*run).clone());
            for shard in &remote {
                self.stage(*shard, Envelope::Run(Arc::clone(&run)));
            }
        }
        let hash = recent.hash();
        let others = Others {
            targets: self.bring_whole(&run, &recent.route.local),
            shards: if is_long { SmallVec::new() } else { remote },
            groups: &mut recent.groups,
            hash,
        };
        self.bring_singly(now, &run, others);
        run.clear();
        self.gathering.run = Some(run);
        self.recent = Some(recent);
    }

    /// Brings what another shard has gathered to the sessions of this one.
    pub(super) fn take_run(&mut self, now: Instant, run: &Run) {
        let recent = self.take_route(&run.topic, Reach::Here);
        let targets = self.bring_whole(run, &recent.route.local);
        self.bring_singly(now, run, Others { targets, shards: SmallVec::new(), groups: &mut [], hash: recent.hash() });
        self.recent = Some(recent);
    }

    /// Brings all messages at once to those who can have them so; returns the others.
    fn bring_whole<'a>(&mut self, run: &Run, targets: &'a [Target]) -> SmallVec<[&'a Target; 8]> {
        self.gathering.others.iter_mut().for_each(Encoded::clear);
        targets.iter().filter(|target| !self.hand_over_run(target, run)).collect()
    }

    /// Brings the messages one by one to those who cannot have them all at once.
    fn bring_singly(&mut self, now: Instant, run: &Run, others: Others<'_>) {
        let Others { targets, shards, groups, hash } = others;
        if targets.is_empty() && shards.is_empty() && groups.is_empty() {
            return;
        }
        for mut parcel in run.parcels() {
            self.wire.out.frames.clear();
            for target in &targets {
                self.deliver(now, target, &mut parcel);
            }
            for shard in &shards {
                self.forward(*shard, None, &mut parcel);
            }
            for group in &mut *groups {
                self.deliver_shared(now, group, hash, &mut parcel);
            }
        }
    }

    /// Writes the messages to a subscriber's connection, if nothing of him or of them is out of the ordinary and there is
    /// room for all of them; else it does nothing.
    fn hand_over_run(&mut self, target: &Target, run: &Run) -> bool {
        let Some(session) = self.sessions.get_mut(target.session).filter(|_| target.special.is_none()) else {
            return false;
        };
        let qos = target.qos.min(run.qos);
        let is_acked = qos != QoS::AtMostOnce;
        let is_next = if is_acked {
            !session.is_persistent() && session.state.may_send_all(run.len())
        } else {
            !session.state.has_queued_once()
        };
        let Some(mut line) = session.conn.filter(|_| is_next).and_then(|conn| self.wire.line(conn)) else {
            return false;
        };
        let version = line.conn.version;
        let is_as_it_came = version.is_v5() == run.is_v5 && qos == run.qos;
        let encoded = if is_as_it_came {
            &run.frames
        } else {
            let other = &mut self.gathering.others[usize::from(version.is_v5()) * 2 + usize::from(is_acked)];
            if other.bytes.is_empty() {
                other.fill(run, version, qos);
            }
            other
        };
        let soft_bytes = self.shared.settings.slow_consumer.outbox_soft_bytes;
        if !line.takes_plain(encoded.bytes.len(), soft_bytes) {
            return false;
        }
        let delivery = || Delivery { message: None, qos, retain: false, ids: None, member: None, stored: None };
        line.publish_run(&encoded.bytes, run.len(), run.payload_bytes, |copy| {
            for at in &encoded.ids_at {
                let id = session.state.sent(delivery());
                if let Some(place) = copy.get_mut(*at as usize..*at as usize + 2) {
                    place.copy_from_slice(&id.get().to_be_bytes());
                }
            }
        });
        true
    }
}

/// Whether all that a publication says is its topic, its QoS and a small payload.
fn is_plain(publish: &PublishRef<'_>) -> bool {
    publish.qos != QoS::ExactlyOnce
        && !publish.retain
        && publish.is_forwardable()
        && publish.properties.is_empty()
        && publish.payload.len() < SHARE_ABOVE_BYTES
}

/// A run is no longer: as much as a few large publications.
const RUN_BYTES_MAX: usize = 4 << 10;

/// Shorter ones go to other shards message by message: a message is one allocation, a run is five.
const FORWARDED_MIN: usize = 5;
