//! Gathering: what one client publishes to one topic in one read becomes a run, and goes to each subscriber at once.
//!
//! Taken one by one, each message visits every subscriber: its session, its connection, its outbox, all of which have
//! left the processor's caches by the next. So plain ones (QoS 0 or 1, small, not retained, without properties) are
//! gathered, encoded one behind the other, and copied to a subscriber in one piece; who has no room for all of them now
//! has them queued in one piece. Whatever else happens comes after them: see [`Shard::deliver_run`].

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Instant};

use smallvec::{SmallVec, smallvec};

use super::{
    deliver::MemberOptions,
    delivery::{Content, Delivery},
    frames::SHARE_ABOVE_BYTES,
    message::{Parcel, Publisher},
    route::{Reach, RecentRoute, Target},
    run::{Encoded, Packets, Run, RunParcel},
    session::ClientSession,
    shard::{Envelope, Shard},
    slots::ConnId,
    wire::{Line, Wire},
};
use crate::{
    codec::{PublishRef, QoS},
    router::{GroupHandle, Member, SessionKey, ShardId},
    session::Session,
};

/// The run that is being gathered, and its encodings for subscribers of another version or QoS.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    run: Option<Box<Run>>,
    others: [Encoded; 4],
    /// Runs that went to other shards, the latest last: whichever they are done with is used again.
    shared: VecDeque<Arc<Run>>,
}

/// Who does not take a run in one piece.
struct Others<'a> {
    /// One by one.
    targets: SmallVec<[&'a Target; 8]>,
    /// One by one.
    shards: SmallVec<[ShardId; 4]>,
    /// Each message goes to one member, several to the same if the group says so.
    groups: &'a mut [GroupHandle],
    /// Of the topic.
    hash: u64,
}

/// A session that is to have a run, or a piece of one.
#[derive(Clone, Copy)]
struct Recipient<'a> {
    session: SessionKey,
    qos: QoS,
    /// The member of a shared group it comes to.
    member: Option<&'a Arc<Member>>,
}

impl Gathering {
    fn is_empty(&self) -> bool {
        self.run.as_ref().is_none_or(|run| run.is_empty())
    }

    /// Makes a run one that other shards may have as well, and leaves an empty one in its place. Nothing if they have so many
    /// that another one would have to be allocated.
    fn share(&mut self, run: &mut Run) -> Option<Arc<Run>> {
        // On one thread they are done with the last one, on several with the first, if with any.
        let is_free = |run: Option<&mut Arc<Run>>| run.is_some_and(|run| Arc::get_mut(run).is_some());
        let mut shared = if is_free(self.shared.back_mut()) {
            self.shared.pop_back()
        } else if is_free(self.shared.front_mut()) {
            self.shared.pop_front()
        } else {
            (self.shared.len() < SHARED_MAX).then(|| Arc::new(Run::new()))
        }?;
        let spare = Arc::get_mut(&mut shared)?;
        spare.clear();
        std::mem::swap(spare, run);
        if shared.bytes() <= SHARED_BYTES_MAX {
            self.shared.push_back(Arc::clone(&shared));
        }
        Some(shared)
    }

    /// Gives back what is kept only so as to be used again.
    pub(super) fn rest(&mut self) {
        self.shared.clear();
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
        let belongs = self.gathering.run.as_ref().is_some_and(|run| run.takes(by, publish));
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
        debug_assert!(recent.is_of(run.topic()), "no other topic is looked up before the run is delivered");
        let mut shards: SmallVec<[ShardId; 4]> = recent.route.remote.iter().collect();
        let shared = if shards.is_empty() { None } else { self.gathering.share(&mut run) };
        let mut parcel = RunParcel::new(shared.as_deref().unwrap_or(&run));
        if shared.is_some() || run.is_worth_keeping() {
            for shard in shards.drain(..) {
                let run = shared.as_ref().unwrap_or_else(|| parcel.keep());
                self.stage(shard, Envelope::Run(Arc::clone(run)));
            }
        }
        let targets = self.bring_whole(now, &mut parcel, &recent.route.local);
        let hash = recent.hash();
        let others = Others { targets, shards, groups: &mut recent.groups, hash };
        self.bring_singly(now, &mut parcel, others);
        run.clear();
        self.gathering.run = Some(run);
        self.recent = Some(recent);
    }

    /// Brings what another shard has gathered to the sessions of this one.
    pub(super) fn take_run(&mut self, now: Instant, run: &Arc<Run>) {
        let recent = self.take_route(run.topic(), Reach::Here);
        let mut parcel = RunParcel::new(run);
        let targets = self.bring_whole(now, &mut parcel, &recent.route.local);
        let others = Others { targets, shards: SmallVec::new(), groups: &mut [], hash: recent.hash() };
        self.bring_singly(now, &mut parcel, others);
        self.recent = Some(recent);
    }

    /// Brings all messages at once to those who can have them so; returns the others.
    fn bring_whole<'a>(
        &mut self,
        now: Instant,
        parcel: &mut RunParcel<'_>,
        targets: &'a [Target],
    ) -> SmallVec<[&'a Target; 8]> {
        self.gathering.others.iter_mut().for_each(Encoded::clear);
        let mut takes = |target: &Target| {
            let to = Recipient { session: target.session, qos: target.qos, member: None };
            target.special.is_none() && self.hand_over_run(now, to, parcel)
        };
        targets.iter().filter(|target| !takes(target)).collect()
    }

    /// Brings the messages to those who cannot have them all at once.
    fn bring_singly(&mut self, now: Instant, run: &mut RunParcel<'_>, others: Others<'_>) {
        let Others { targets, shards, groups, hash } = others;
        let is_each_wanted = !targets.is_empty() || !shards.is_empty();
        if !is_each_wanted && groups.is_empty() {
            return;
        }
        // The first message that each group has not dealt out yet.
        let mut undealt: SmallVec<[usize; 2]> = smallvec![0; groups.len()];
        let mut at = 0;
        while let Some(mut parcel) = run.run.parcel(at) {
            self.wire.out.frames.clear();
            for target in &targets {
                self.deliver(now, target, &mut parcel);
            }
            for shard in &shards {
                self.forward(*shard, None, &mut parcel);
            }
            for (group, undealt) in groups.iter_mut().zip(&mut undealt).filter(|(_, undealt)| **undealt == at) {
                *undealt += self.deal(now, group, hash, run, (at, &mut parcel));
            }
            let next_undealt = undealt.iter().min().copied();
            at = if is_each_wanted { at + 1 } else { next_undealt.unwrap_or(run.run.len()) };
        }
    }

    /// Gives the message at a place of a run, and as many behind it as the group says, to a member of the group. Returns
    /// how many that were.
    fn deal(
        &mut self,
        now: Instant,
        group: &mut GroupHandle,
        topic: u64,
        run: &mut RunParcel<'_>,
        (at, first): (usize, &mut Parcel<'_>),
    ) -> usize {
        let left = run.run.len() - at;
        let choice = self.choice(now, run.run.by().client_hash, topic);
        let Some((member, count)) = group.choose_for(&choice, left) else { return left };
        member.deliveries_started(count as u32);
        if count == 1 {
            self.give(now, member, first);
            return 1;
        }
        if let Some(piece) = run.piece(at..at + count) {
            if member.shard() == self.id {
                self.take_piece(now, member, &piece);
            } else {
                self.stage(member.shard(), Envelope::SharedRun { run: piece, member: Arc::clone(member) });
            }
        } else {
            for mut parcel in (at..at + count).filter_map(|at| run.run.parcel(at)) {
                self.wire.out.frames.clear();
                self.give(now, member, &mut parcel);
            }
        }
        // There is the encoding of another message by now.
        self.wire.out.frames.clear();
        count
    }

    /// Brings a run, or a piece of one, to the member of a shared group on this shard that it was given to.
    pub(super) fn take_piece(&mut self, now: Instant, member: &Arc<Member>, run: &Arc<Run>) {
        self.gathering.others.iter_mut().for_each(Encoded::clear);
        let options = MemberOptions::unpack(member.options()).filter(|options| options.id.is_none());
        let is_taken = options.is_some_and(|options| {
            let to = Recipient { session: member.session(), qos: options.qos, member: Some(member) };
            self.hand_over_run(now, to, &mut RunParcel::from_kept(run))
        });
        if !is_taken {
            for mut parcel in run.parcels() {
                self.wire.out.frames.clear();
                self.deliver_to_member(now, member, &mut parcel);
            }
        }
    }

    /// Writes the messages to a session's connection or queues them, in one piece, if nothing of it or of them is out of
    /// the ordinary; else it does nothing. What becomes of them is what would become of each by itself.
    fn hand_over_run(&mut self, now: Instant, to: Recipient<'_>, parcel: &mut RunParcel<'_>) -> bool {
        let Some(session) = self.sessions.get_mut(to.session) else { return false };
        let (run, qos) = (parcel.run, to.qos.min(parcel.run.qos()));
        let is_acked = qos != QoS::AtMostOnce;
        if to.member.is_some() && !is_acked {
            return false;
        }
        let soft_bytes = self.shared.settings.slow_consumer.outbox_soft_bytes;
        let is_next = if is_acked { session.state.may_send() } else { !session.state.has_queued_once() };
        let line = session.conn.filter(|_| is_next).and_then(|conn| self.wire.line(conn));
        let Some(mut line) = line.filter(|line| line.conn.has_room(soft_bytes)) else {
            return is_acked && self.queue_run(to, parcel);
        };
        let version = line.conn.version;
        let packets = if run.is_as_it_came(version, qos) {
            run.packets(0..run.len())
        } else {
            let other = usize::from(version.is_v5()) * 2 + usize::from(is_acked);
            self.gathering.others[other].packets(run, version, qos)
        };
        if !line.takes_plain(packets.bytes.len(), soft_bytes) {
            return false;
        }
        if is_acked && !session.state.may_send_all(run.len()) {
            let is_queued = self.queue_run(to, parcel);
            if is_queued {
                self.pump(now, to.session);
            }
            return is_queued;
        }
        let is_kept = is_acked && (session.is_persistent() || to.member.is_some());
        if is_kept && !run.is_worth_keeping() {
            return false;
        }
        let left = Left { qos, kept: is_kept.then(|| parcel.keep()), member: to.member };
        write_several(&mut line, &mut session.state, packets, 0..run.len(), left);
        true
    }

    /// Queues the messages as one; nothing if not all of them fit, or if that would not pay.
    fn queue_run(&mut self, to: Recipient<'_>, parcel: &mut RunParcel<'_>) -> bool {
        let run = parcel.run;
        let Some(session) = self.sessions.get_mut(to.session).filter(|_| run.is_worth_keeping()) else { return false };
        let bytes = run.charge(0..run.len());
        if !session.state.may_enqueue(run.len(), bytes, &self.queue_limits) {
            return false;
        }
        let content = Content::part(parcel.keep(), 0..run.len());
        let delivery = Delivery::plain(content, to.qos.min(run.qos()), to.member.cloned());
        let result = session.state.enqueue(delivery, &self.queue_limits);
        debug_assert!(result.is_ok(), "there is room for all of them");
        self.queued_bytes += bytes;
        true
    }
}

/// Sends in one piece what waits first in a session as one, as much of it as the window has room for. Nothing if that is
/// a single message, or is to be encoded anew for the client, or does not fit the outbox.
pub(super) fn send_several(session: &mut ClientSession, wire: &mut Wire, conn: ConnId, soft_bytes: usize) -> bool {
    let Some((first, count)) = session.state.next_several() else { return false };
    let Content::Part { run, from, .. } = &first.content else { return false };
    let (run, from, qos) = (Arc::clone(run), usize::from(*from), first.qos);
    let packets = run.packets(from..from + count);
    let Some(mut line) = wire
        .line(conn)
        .filter(|line| run.is_as_it_came(line.conn.version, qos) && line.takes_plain(packets.bytes.len(), soft_bytes))
    else {
        return false;
    };
    let Some(several) = session.state.take_several(count) else { return false };
    let is_kept = session.is_persistent() || several.member.is_some();
    let left = Left { qos, kept: is_kept.then_some(&run), member: several.member.as_ref() };
    write_several(&mut line, &mut session.state, packets, from..from + count, left);
    true
}

/// What a message of a run leaves in the window when it is sent.
#[derive(Clone, Copy)]
struct Left<'a> {
    qos: QoS,
    /// The run, if the message may have to be sent again.
    kept: Option<&'a Arc<Run>>,
    member: Option<&'a Arc<Member>>,
}

impl Left<'_> {
    /// The `at`th message of the run.
    fn delivery(&self, at: usize) -> Delivery {
        let content = self.kept.map_or(Content::Gone, |run| Content::part(run, at..at + 1));
        Delivery::plain(content, self.qos, self.member.cloned())
    }
}

/// Appends the packets of the messages in `range` to an outbox, each under the next packet identifier.
fn write_several(
    line: &mut Line<'_>,
    state: &mut Session<Delivery>,
    packets: Packets<'_>,
    range: Range<usize>,
    left: Left<'_>,
) {
    let mut at = range.start;
    line.publish_run(packets.bytes, range.len(), packets.payload_bytes, |copy| {
        packets.put_ids(copy, || {
            at += 1;
            state.sent(left.delivery(at - 1))
        });
    });
}

/// Whether all that a publication says is its topic, its QoS and a small payload.
fn is_plain(publish: &PublishRef<'_>) -> bool {
    publish.qos != QoS::ExactlyOnce
        && !publish.retain
        && publish.is_forwardable()
        && publish.properties.is_empty()
        && publish.payload.len() < SHARE_ABOVE_BYTES
}

/// So many runs that other shards have, or had, are remembered: as many as a read of small messages brings.
const SHARED_MAX: usize = 64;

/// None of them is larger, with all that it has room for. One is, if its topic or its buffers' growth is out of the ordinary.
const SHARED_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Frame, Limits, Version};

    fn run(payload: &str) -> Run {
        let mut run = Run::new();
        run.begin("a", Publisher::nobody(), QoS::AtMostOnce, false);
        let body = [b"\0\x01a", payload.as_bytes()].concat();
        let frame = Frame { header: 0x30, body: &body, overlong: false };
        run.push(&PublishRef::decode(frame, Version::V3_1_1, &Limits::default()).unwrap());
        run
    }

    #[test]
    fn a_run_that_others_are_done_with_is_used_again_and_no_other() {
        let mut gathering = Gathering::default();
        let mut first = run("first");
        let kept = gathering.share(&mut first).unwrap();
        assert!(first.is_empty(), "it moved");
        let second = gathering.share(&mut run("second")).unwrap();
        assert!(!Arc::ptr_eq(&kept, &second), "somebody has the first");
        let place = Arc::as_ptr(&second);
        drop(second);
        let third = gathering.share(&mut run("third")).unwrap();
        assert_eq!(Arc::as_ptr(&third), place);
        let ends_with = |run: &Run, payload: &str| run.packets(0..1).bytes.ends_with(payload.as_bytes());
        assert!(ends_with(&kept, "first") && ends_with(&third, "third"));
    }

    #[test]
    fn a_large_run_is_not_remembered() {
        let mut gathering = Gathering::default();
        let mut large = run("x");
        large.clear();
        large.begin(&"t".repeat(SHARED_BYTES_MAX), Publisher::nobody(), QoS::AtMostOnce, false);
        assert!(gathering.share(&mut large).is_some());
        assert!(gathering.shared.is_empty());
    }

    #[test]
    fn so_many_runs_are_remembered_and_no_more() {
        let mut gathering = Gathering::default();
        let mut held: Vec<_> = (0..SHARED_MAX).map(|_| gathering.share(&mut run("x")).unwrap()).collect();
        let mut next = run("y");
        assert!(gathering.share(&mut next).is_none());
        assert_eq!(next.len(), 1, "it stays where it is");
        held.remove(0);
        assert!(gathering.share(&mut next).is_some(), "the oldest is free");
        gathering.rest();
        assert!(gathering.shared.is_empty());
    }
}
