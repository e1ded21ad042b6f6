//! Shared subscriptions (section 4.8.2): groups of members on any shard, of which one gets each message.
//!
//! A group is per group name and filter. Any shard may choose: it reads a [`Roster`], an unchanging list of the members
//! as they were at some version of the group. A [`GroupHandle`] keeps a roster beside the cached route and asks for a new
//! one when the version has moved, so choosing takes no lock. Joining, leaving, going online and offline only move the
//! version; the next choice builds the roster once, however many members came and went in between. They do not void
//! routes: a route names the group, and only the first and the last member make or end a group.

mod turns;

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use super::{
    shards::{SessionKey, ShardId},
    trie::FilterTrie,
};
use turns::Turns;

/// How a group chooses the member that gets a message. Members that are online come first in every strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SharedStrategy {
    /// One after the other in the order of joining. Members that are busy get several messages of a topic at a time: half
    /// of what most of them have in flight, or had in the last 10 ms, and 16 at most.
    #[default]
    RoundRobin,
    /// Any, each time anew.
    Random,
    /// One member gets everything until it leaves or goes offline; then another does.
    Sticky,
    /// The same member for the same publisher.
    HashClientId,
    /// The same member for the same topic.
    HashTopic,
    /// The member with the fewest unacknowledged messages; among equals, one after the other.
    LeastInFlight,
}

/// What a choice may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// Hash of the publisher's client identifier.
    pub publisher: u64,
    /// Hash of the topic.
    pub topic: u64,
    /// A random number, new for each message.
    pub random: u64,
    /// When, in milliseconds from some start that is the same for all choices.
    pub ms: u64,
}

/// A session about to join a group.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The session's shard.
    pub shard: ShardId,
    /// The session inside its shard.
    pub session: SessionKey,
    /// Its client identifier; the hash strategies give a client that comes back the same share as before.
    pub client_id: Arc<str>,
    /// What the shard needs to deliver (QoS and so on), packed as it likes.
    pub options: u64,
}

/// The groups that want a topic.
pub type Groups = SmallVec<[Arc<Group>; 2]>;

/// A session's membership in one group, shared between its shard, which keeps the flags up to date, and those who choose.
pub struct Member {
    joining: Joining,
    client_hash: u64,
    /// Order of joining, among all members of all groups.
    sequence: u64,
    options: AtomicU64,
    online: AtomicBool,
    in_flight: AtomicU32,
    group: Weak<Group>,
}

impl Member {
    /// The shard of the session.
    pub const fn shard(&self) -> ShardId {
        self.joining.shard
    }

    /// The session inside its shard.
    pub const fn session(&self) -> SessionKey {
        self.joining.session
    }

    /// The session's client identifier.
    pub const fn client_id(&self) -> &Arc<str> {
        &self.joining.client_id
    }

    /// What the shard packed when the session subscribed last.
    pub fn options(&self) -> u64 {
        self.options.load(Ordering::Acquire)
    }

    /// The session has subscribed again with other options; its place in the group stays.
    pub fn set_options(&self, options: u64) {
        self.options.store(options, Ordering::Release);
    }

    /// Whether the session has a connection.
    pub fn online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }

    /// The session got or lost its connection. When this returns, the group chooses accordingly.
    pub fn set_online(&self, online: bool) {
        if self.online.swap(online, Ordering::AcqRel) != online
            && let Some(group) = self.group.upgrade()
        {
            group.bump();
        }
    }

    /// Messages handed to the session and not acknowledged yet.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// So many more messages are on their way. Best called by whoever chose the member, so that a burst spreads at once.
    pub fn deliveries_started(&self, count: u32) {
        self.in_flight.fetch_add(count, Ordering::Relaxed);
    }

    /// So many messages were acknowledged, dropped or given to another member.
    pub fn deliveries_ended(&self, count: u32) {
        let less = |in_flight: u32| in_flight.checked_sub(count);
        let ended = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        debug_assert!(ended.is_ok(), "a delivery ends once");
    }

    /// The group, unless it has ended. For choosing another member in this one's place.
    pub fn group(&self) -> Option<Arc<Group>> {
        self.group.upgrade()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("joining", &self.joining)
            .field("online", &self.online())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// A shared group: name, filter, members.
#[derive(Debug)]
pub struct Group {
    name: Box<str>,
    filter: Box<str>,
    strategy: SharedStrategy,
    /// Moves after every change of members or of their being online, never before.
    version: AtomicU64,
    state: Mutex<State>,
    turns: Turns,
}

impl Group {
    /// The share name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The filter that the group shares.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// How the group chooses.
    pub const fn strategy(&self) -> SharedStrategy {
        self.strategy
    }

    /// Number of members, offline ones included.
    pub fn len(&self) -> usize {
        self.state.lock().members.len()
    }

    /// Whether the last member has left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members in the order of joining, as they are now.
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.state.lock().members.clone()
    }

    /// The member that is to get a message, but not `exclude`. A member that is offline is chosen only if none is online,
    /// since its session keeps the message. `None` if there is no other member.
    ///
    /// This takes the group's lock for a moment; where messages are many, [`GroupHandle::choose`] does not.
    pub fn choose(&self, choice: &Choice, exclude: Option<&Member>) -> Option<Arc<Member>> {
        let roster = self.roster();
        roster.choose(self, choice, exclude, 1).map(|(member, _)| Arc::clone(member))
    }

    fn new(name: &str, filter: &str, strategy: SharedStrategy) -> Self {
        Self {
            name: name.into(),
            filter: filter.into(),
            strategy,
            version: AtomicU64::new(0),
            state: Mutex::new(State { members: Vec::new(), roster: Arc::new(Roster::default()) }),
            turns: Turns::new(),
        }
    }

    fn bump(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// A roster that is at least as new as the last change before this call.
    fn roster(&self) -> Arc<Roster> {
        let mut state = self.state.lock();
        // First the version, then the members and flags it stands for; see the argument in `generation`.
        let version = self.version.load(Ordering::Acquire);
        if state.roster.version != version {
            state.roster = Arc::new(Roster::new(version, &state.members));
        }
        Arc::clone(&state.roster)
    }
}

/// A group as a cached route holds it: with the roster used last, so that choosing takes no lock while nothing changes.
#[derive(Debug, Clone)]
pub struct GroupHandle {
    group: Arc<Group>,
    roster: Arc<Roster>,
}

impl GroupHandle {
    /// A handle on `group`.
    pub fn new(group: Arc<Group>) -> Self {
        let roster = group.roster();
        Self { group, roster }
    }

    /// The group.
    pub const fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// As [`Group::choose`].
    pub fn choose(&mut self, choice: &Choice, exclude: Option<&Member>) -> Option<&Arc<Member>> {
        self.renew();
        self.roster.choose(&self.group, choice, exclude, 1).map(|(member, _)| member)
    }

    /// The member that is to get the next of `wanted` messages that have the publisher and the topic of `choice`, and how
    /// many of them: as many as the strategy gives it before the next choice, one at least.
    pub fn choose_for(&mut self, choice: &Choice, wanted: usize) -> Option<(&Arc<Member>, usize)> {
        self.renew();
        self.roster.choose(&self.group, choice, None, wanted)
    }

    #[inline]
    fn renew(&mut self) {
        if self.group.version.load(Ordering::Acquire) != self.roster.version {
            self.roster = self.group.roster();
        }
    }
}

/// All shared groups of the broker, by filter.
#[derive(Debug)]
pub(super) struct SharedGroups {
    strategy: SharedStrategy,
    /// The groups over one filter are sorted by name.
    groups: RwLock<FilterTrie<Vec<Arc<Group>>>>,
    len: AtomicU64,
    sequence: AtomicU64,
}

impl SharedGroups {
    pub(super) fn new(seed: u64, strategy: SharedStrategy) -> Self {
        let groups = RwLock::new(FilterTrie::new(seed));
        Self { strategy, groups, len: AtomicU64::new(0), sequence: AtomicU64::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed) as usize
    }

    pub(super) fn matching(&self, topic: &str) -> Groups {
        let mut found = Groups::new();
        self.groups.read().for_each_match(topic, |groups| found.extend(groups.iter().cloned()));
        found
    }

    /// The new member, and whether its group is new too.
    pub(super) fn join(&self, name: &str, filter: &str, joining: Joining, client_hash: u64) -> (Arc<Member>, bool) {
        let mut groups = self.groups.write();
        let groups = groups.entry_or_default(filter);
        let place = groups.binary_search_by(|group| group.name().cmp(name));
        let at = place.unwrap_or_else(|at| {
            groups.insert(at, Arc::new(Group::new(name, filter, self.strategy)));
            self.len.fetch_add(1, Ordering::Relaxed);
            at
        });
        let group = &groups[at];
        let member = Arc::new(Member {
            options: AtomicU64::new(joining.options),
            joining,
            client_hash,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            online: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            group: Arc::downgrade(group),
        });
        group.state.lock().members.push(Arc::clone(&member));
        group.bump();
        (member, place.is_err())
    }

    /// `None` if the member has left already.
    pub(super) fn leave(&self, member: &Member) -> Option<Left> {
        let group = member.group()?;
        let mut groups = self.groups.write();
        let mut state = group.state.lock();
        let at = state.members.binary_search_by_key(&member.sequence, |other| other.sequence).ok()?;
        state.members.remove(at);
        let dissolved = state.members.is_empty();
        drop(state);
        group.bump();
        if dissolved {
            let same_filter = groups.get_mut(group.filter()).expect("a group with members is listed");
            same_filter.retain(|other| !Arc::ptr_eq(other, &group));
            if same_filter.is_empty() {
                groups.remove(group.filter());
            }
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        drop(groups);
        Some(Left { group, dissolved })
    }
}

/// What a member left behind.
pub(super) struct Left {
    pub(super) group: Arc<Group>,
    /// Whether it was the last one.
    pub(super) dissolved: bool,
}

#[derive(Debug)]
struct State {
    /// In the order of joining, which is the order of their sequence numbers.
    members: Vec<Arc<Member>>,
    roster: Arc<Roster>,
}

/// The members of a group at one version.
#[derive(Debug, Default)]
struct Roster {
    version: u64,
    online: Candidates,
    offline: Candidates,
}

impl Roster {
    fn new(version: u64, members: &[Arc<Member>]) -> Self {
        let (online, offline) = members.iter().cloned().partition(|member: &Arc<Member>| member.online());
        Self { version, online: Candidates::new(online), offline: Candidates::new(offline) }
    }

    #[inline]
    fn choose(
        &self,
        group: &Group,
        choice: &Choice,
        exclude: Option<&Member>,
        wanted: usize,
    ) -> Option<(&Arc<Member>, usize)> {
        let online = self.online.choose(group, choice, exclude, wanted);
        online.or_else(|| self.offline.choose(group, choice, exclude, wanted))
    }
}

/// Members among which the strategy decides.
#[derive(Debug, Default)]
struct Candidates {
    /// In the order of joining.
    members: Box<[Arc<Member>]>,
    /// Hashes of their client identifiers, side by side for [`Self::by_hash`].
    hashes: Box<[u64]>,
}

impl Candidates {
    fn new(members: Vec<Arc<Member>>) -> Self {
        let hashes = members.iter().map(|member| member.client_hash).collect();
        Self { members: members.into(), hashes }
    }

    fn choose(
        &self,
        group: &Group,
        choice: &Choice,
        exclude: Option<&Member>,
        wanted: usize,
    ) -> Option<(&Arc<Member>, usize)> {
        let excluded = exclude.and_then(|member| self.position(member.sequence));
        let count = self.members.len() - usize::from(excluded.is_some());
        if count == 0 {
            return None;
        }
        let random = || scale(choice.random, count);
        let (at, several) = match group.strategy {
            SharedStrategy::RoundRobin if excluded.is_none() => {
                group.turns.deal(count, wanted, choice.ms, |from| self.most_have(from))
            }
            SharedStrategy::RoundRobin => (skip(group.turns.next(count), excluded), 1),
            SharedStrategy::Random => (skip(random(), excluded), 1),
            SharedStrategy::Sticky => (self.sticky(&group.turns, excluded, random), wanted),
            SharedStrategy::HashClientId => (self.by_hash(choice.publisher, excluded), wanted),
            SharedStrategy::HashTopic => (self.by_hash(choice.topic, excluded), wanted),
            SharedStrategy::LeastInFlight => (self.least_in_flight(&group.turns, excluded), 1),
        };
        Some((&self.members[at], several))
    }

    /// How many messages most of the members have in flight whose turns come next.
    fn most_have(&self, from: usize) -> usize {
        let around = self.around(from).take(SCAN_MAX);
        let mut under_way: SmallVec<[u32; SCAN_MAX]> = around.map(|at| self.members[at].in_flight()).collect();
        turns::most_have(&mut under_way)
    }

    /// All places, from one on.
    fn around(&self, from: usize) -> impl Iterator<Item = usize> {
        (from..self.members.len()).chain(0..from)
    }

    fn position(&self, sequence: u64) -> Option<usize> {
        self.members.binary_search_by_key(&sequence, |member| member.sequence).ok()
    }

    /// The member stuck to, or a random one that is stuck to from now on. While the one stuck to is merely excluded for
    /// this message, another stands in and nothing is remembered.
    fn sticky(&self, turns: &Turns, excluded: Option<usize>, random: impl FnOnce() -> usize) -> usize {
        let stuck = turns.sticky.load(Ordering::Relaxed);
        match self.position(stuck) {
            Some(at) if Some(at) != excluded => at,
            Some(_) => skip(random(), excluded),
            None => {
                let at = skip(random(), excluded);
                let sequence = self.members[at].sequence;
                match turns.sticky.compare_exchange(stuck, sequence, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => at,
                    // Another shard decided at the same time; agree with it if this roster knows whom it means.
                    Err(other) => self.position(other).filter(|other| Some(*other) != excluded).unwrap_or(at),
                }
            }
        }
    }

    /// Rendezvous hashing: each member bids for each hash, the highest bid wins. A member that comes or goes moves only
    /// its own share, and one that comes back gets the same share again; one multiplication per member.
    fn by_hash(&self, hash: u64, excluded: Option<usize>) -> usize {
        let bids = self.hashes.iter().map(|member| mix(member ^ hash)).enumerate();
        let bids = bids.filter(|(at, _)| Some(*at) != excluded);
        bids.max_by_key(|(_, bid)| *bid).map(|(at, _)| at).expect("there is a member that is not excluded")
    }

    /// Looks at up to [`SCAN_MAX`] members, starting one further each time so that equals take turns.
    fn least_in_flight(&self, turns: &Turns, excluded: Option<usize>) -> usize {
        let start = turns.next(self.members.len());
        let around = self.around(start).filter(|at| Some(*at) != excluded);
        let least = around.take(SCAN_MAX).min_by_key(|at| self.members[*at].in_flight());
        least.expect("there is a member that is not excluded")
    }
}

/// The index of the `at`-th member when `excluded` is not counted.
fn skip(at: usize, excluded: Option<usize>) -> usize {
    at + usize::from(excluded.is_some_and(|excluded| excluded <= at))
}

/// Maps a random word to `0..count`.
fn scale(random: u64, count: usize) -> usize {
    ((u128::from(random) * count as u128) >> 64) as usize
}

/// The finalizer of splitmix64: every bit of the input reaches every bit of the output.
const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Bounds what one choice costs in a huge group; what 64 have in flight is near enough to what all have.
const SCAN_MAX: usize = 64;

#[cfg(test)]
mod tests;
