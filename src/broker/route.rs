//! Routes: who is to have the messages of a topic, and how that is remembered.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::{shard::Shard, subscribers::LocalSubscription, timers::Timer};
use crate::{
    codec::QoS,
    router::{Cached, Generation, GroupHandle, HashedTopic, SessionKey, ShardSet, Stripes},
};

/// Everybody on this shard, and every other shard, that wants a topic. Kept in the route cache.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) local: SmallVec<[Target; 1]>,
    pub(crate) remote: ShardSet,
    pub(crate) groups: Box<[GroupHandle]>,
    reach: Reach,
}

/// How far a message is to be brought, or a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// To the sessions of this shard: the message comes from another one, which has looked after all the others.
    Here,
    /// To everybody.
    Everywhere,
}

impl Route {
    /// Whether nobody wants the topic.
    pub(crate) fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty() && self.groups.is_empty()
    }

    /// Its memory beside itself.
    fn bytes(&self) -> usize {
        let targets = if self.local.spilled() { self.local.len() * size_of::<Target>() } else { 0 };
        let special = self.local.iter().filter_map(|target| target.special.as_deref()).map(Special::bytes);
        targets + special.sum::<usize>() + self.groups.len() * size_of::<GroupHandle>()
    }
}

/// The route of the topic that was published to last. Who publishes much publishes many times to one topic, and a read
/// brings many of them: then neither hash nor cache is asked, and as long as nobody subscribes, two numbers tell that
/// the route still stands.
#[derive(Debug)]
pub(crate) struct RecentRoute {
    /// How many changes there had been, in the broker and on this shard, when the generation was looked at.
    changes: (u64, u64),
    pub(crate) route: Arc<Cached<Route>>,
    /// Those of the route, each with the roster that was used last.
    pub(crate) groups: Vec<GroupHandle>,
}

impl RecentRoute {
    /// Whether it is the route of this topic.
    pub(super) fn is_of(&self, topic: &str) -> bool {
        self.route.topic() == topic.as_bytes()
    }

    /// The hash of its topic.
    pub(super) fn hash(&self) -> u64 {
        self.route.hash()
    }
}

/// One session that wants a topic, its overlapping subscriptions merged [MQTT-3.3.4-2] [MQTT-3.3.4-3]. There may be a
/// hundred thousand of them, of whom each message visits all.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) session: SessionKey,
    pub(crate) qos: QoS,
    pub(crate) retain_as_published: bool,
    /// What few targets have.
    pub(crate) special: Option<Box<Special>>,
}

/// What only some subscriptions of MQTT 5 say.
#[derive(Debug, Clone)]
pub(crate) struct Special {
    /// Subscription identifiers of all that match.
    pub(crate) ids: SmallVec<[u32; 2]>,
    /// What a message the session itself published is subject to; the same as for others unless there is No Local.
    pub(crate) own: Own,
}

impl Special {
    fn bytes(&self) -> usize {
        // Those for the session's own messages are some of the others.
        let ids = if self.ids.spilled() { 2 * self.ids.len() * size_of::<u32>() } else { 0 };
        2 * size_of::<Self>() + ids
    }
}

/// How a session receives its own publications.
#[derive(Debug, Clone)]
pub(crate) enum Own {
    /// Like those of others.
    Same,
    /// Not at all: every matching subscription says No Local.
    Never,
    /// By those subscriptions alone that do not say No Local.
    Only(Target),
}

impl Shard {
    /// The route of a topic; to be put back into `recent` when the message is delivered.
    #[inline]
    #[allow(clippy::unnecessary_box_returns)] // it stays in its place in memory from message to message
    pub(super) fn take_route(&mut self, topic: &str, reach: Reach) -> Box<RecentRoute> {
        let mut recent = self.recent.take();
        let is_it = |known: &RecentRoute| known.is_of(topic) && known.route.reach >= reach;
        if let Some(known) = recent.take_if(|known| is_it(known) && self.still_stands(known)) {
            return known;
        }
        self.find_route(topic, reach, recent)
    }

    /// Whether the route of a topic has not changed since.
    #[inline]
    pub(super) fn still_stands(&self, recent: &mut RecentRoute) -> bool {
        let changes = self.changes();
        if changes != recent.changes {
            if self.generation(recent.route.stripes()) != recent.route.generation() {
                return false;
            }
            recent.changes = changes;
        }
        true
    }

    /// The route of a topic, from the cache while nothing has changed; in the memory of the one before.
    #[allow(clippy::unnecessary_box_returns)] // as above
    fn find_route(&mut self, topic: &str, reach: Reach, recent: Option<Box<RecentRoute>>) -> Box<RecentRoute> {
        let changes = self.changes();
        let topic = self.shared.interest.hasher().topic(topic);
        let route = self.lookup(topic, reach);
        let Some(mut recent) = recent else {
            let groups = route.groups.to_vec();
            return Box::new(RecentRoute { changes, route, groups });
        };
        recent.groups.clear();
        recent.groups.extend_from_slice(&route.groups);
        (recent.changes, recent.route) = (changes, route);
        recent
    }

    fn lookup(&mut self, topic: HashedTopic<'_>, reach: Reach) -> Arc<Cached<Route>> {
        let current = |stripes| self.shared.interest.generation(stripes) + self.local.current(stripes);
        if let Some(route) = self.cache.get(topic, current)
            && route.reach >= reach
        {
            return Arc::clone(route);
        }
        // Read before the route is made, so that a change in between voids it.
        let stripes = self.shared.interest.hasher().stripes(topic);
        let generation = self.generation(stripes);
        let route = self.make_route(topic, reach);
        let bytes = route.bytes();
        self.cache.insert(topic, stripes, generation, route, bytes)
    }

    /// Looks for everybody who wants a topic. That takes a walk through a trie that may be far larger than the processor's
    /// caches, or two; so none is taken that cannot find anybody.
    fn make_route(&self, topic: HashedTopic<'_>, reach: Reach) -> Route {
        if reach == Reach::Here {
            let (remote, groups) = (ShardSet::EMPTY, Box::default());
            return Route { local: self.local_targets(topic), remote, groups, reach };
        }
        let is_alone = self.shared.shards() == 1;
        let remote = if is_alone { ShardSet::EMPTY } else { self.shared.interest.targets(topic.as_str()) };
        let is_here = is_alone || remote.contains(self.id);
        let local = if is_here { self.local_targets(topic) } else { SmallVec::new() };
        let groups = self.shared.interest.groups(topic.as_str()).into_iter().map(GroupHandle::new).collect();
        Route { local, remote: remote.without(self.id), groups, reach }
    }

    fn local_targets(&self, topic: HashedTopic<'_>) -> SmallVec<[Target; 1]> {
        let mut matching: SmallVec<[LocalSubscription; 4]> = SmallVec::new();
        self.subscriptions.for_each_match(topic.as_str(), |subscribers| matching.extend(subscribers.iter().copied()));
        matching.sort_by_key(|subscription| subscription.session);
        matching.chunk_by(|a, b| a.session == b.session).map(merge).collect()
    }

    /// Forgets routes that nobody has asked for in two sweeps, some at a time.
    pub(super) fn sweep_routes(&mut self, now: Instant) {
        if !self.cache.sweep(ROUTES_PER_TURN) {
            self.wire.timers.arm(now + ROUTES_PAUSE, Timer::Routes);
        }
    }

    fn generation(&self, stripes: Stripes) -> Generation {
        self.shared.interest.generation(stripes) + self.local.current(stripes)
    }

    #[inline]
    fn changes(&self) -> (u64, u64) {
        (self.shared.interest.changes(), self.local.changes())
    }
}

/// Merges a session's matching subscriptions: the greatest QoS, every identifier, No Local for its own publications.
fn merge(subscriptions: &[LocalSubscription]) -> Target {
    let mut others = subscriptions.iter().filter(|subscription| !subscription.options.no_local).peekable();
    let own = if subscriptions.iter().all(|subscription| !subscription.options.no_local) {
        Own::Same
    } else if others.peek().is_none() {
        Own::Never
    } else {
        Own::Only(combine(others, Own::Same))
    };
    combine(subscriptions.iter(), own)
}

fn combine<'a>(subscriptions: impl Iterator<Item = &'a LocalSubscription>, own: Own) -> Target {
    let mut ids = SmallVec::new();
    let mut target =
        Target { session: SessionKey::first(0), qos: QoS::AtMostOnce, retain_as_published: false, special: None };
    for subscription in subscriptions {
        target.session = subscription.session;
        target.qos = target.qos.max(subscription.options.qos);
        target.retain_as_published |= subscription.options.retain_as_published;
        ids.extend(subscription.id());
    }
    let is_special = !ids.is_empty() || !matches!(own, Own::Same);
    target.special = is_special.then(|| Box::new(Special { ids, own }));
    target
}

/// Cached routes that one turn of a sweep looks at (a fraction of a millisecond), and how long others have theirs.
const ROUTES_PER_TURN: usize = 4096;
const ROUTES_PAUSE: Duration = Duration::from_millis(1);
