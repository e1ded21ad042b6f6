//! The promise of the shared tables under threads: what has been reported is never contradicted by a cache.
//!
//! A writer and a reader go in lockstep: the reader asks again and again while the writer makes one change, and once the
//! change is reported what the reader then gets must agree with it. A stale entry that slipped into the reader's cache in
//! between would stay there, so each round can tell. The number of rounds is fixed.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use ferromq::router::{
    CacheLimits, Choice, GroupHandle, Interest, Joining, Member, RouteCache, SessionKey, ShardId, ShardSet,
    SharedStrategy,
};

const ROUNDS: usize = 10_000;
/// Longer than it takes to wake the writer, so that most changes meet a reader; then the reader waits for the writer, so
/// that a busy machine makes the test weaker rather than slow.
const READS_MAX: usize = 1_000;

/// Each round: `change` on one thread, `read` on another at the same time; then `read` again for `check`.
fn lockstep<T>(mut change: impl FnMut(usize) + Send, mut read: impl FnMut() -> T, check: impl Fn(usize, T)) {
    thread::scope(|scope| {
        let (go, rounds) = mpsc::sync_channel(1);
        let (report, changed) = mpsc::sync_channel(1);
        scope.spawn(move || {
            for round in rounds {
                change(round);
                if report.send(()).is_err() {
                    return;
                }
            }
        });
        for round in 1..=ROUNDS {
            read();
            go.send(round).expect("the writer lives as long as it is asked for changes");
            let early = (0..READS_MAX).any(|_| {
                read();
                changed.try_recv().is_ok()
            });
            if !early {
                changed.recv().expect("the writer reports every change");
            }
            check(round, read());
        }
    });
}

#[test]
fn no_stale_route_is_served_after_a_change_was_reported() {
    let filters = ["site/7/line/temp", "site/7/line/+", "site/7/+/temp", "site/+/line/temp", "site/#", "+/7/#"];
    let shard = |round: usize| ShardId((round % filters.len()) as u8);
    let filter = |round: usize| filters[round % filters.len()];
    let adds = |round: usize| (round / filters.len()).is_multiple_of(2);
    let interest = Interest::new(1, SharedStrategy::RoundRobin);
    let mut cache = RouteCache::<ShardSet>::new(CacheLimits { entries_max: 8, bytes_max: 4096 });
    lockstep(
        |round| {
            if adds(round) {
                interest.add(filter(round), shard(round));
            } else {
                interest.remove(filter(round), shard(round));
            }
        },
        || {
            let topic = interest.hasher().topic("site/7/line/temp");
            if let Some(targets) = cache.get(topic, |stripes| interest.generation(stripes)) {
                return ***targets;
            }
            let stripes = interest.hasher().stripes(topic);
            let generation = interest.generation(stripes);
            let targets = interest.targets(topic.as_str());
            cache.insert(topic, stripes, generation, targets, 0);
            targets
        },
        |round, targets| assert_eq!(targets.contains(shard(round)), adds(round), "{} in round {round}", filter(round)),
    );
    assert!(cache.hits() > ROUNDS as u64, "routes are served from the cache");
}

#[test]
fn a_new_group_is_found_and_an_ended_one_is_not_once_reported() {
    let interest = Interest::new(1, SharedStrategy::RoundRobin);
    let filters = ["jobs/+/run", "jobs/1/run", "+/1/#"];
    let mut member: Option<Arc<Member>> = None;
    let mut cache = RouteCache::<usize>::new(CacheLimits { entries_max: 8, bytes_max: 4096 });
    lockstep(
        |round| {
            if let Some(joined) = member.take() {
                assert!(interest.leave(&joined));
            } else {
                member =
                    Some(interest.join("g", filters[round % filters.len()], joining(SessionKey::first(round as u32))));
            }
        },
        || {
            let topic = interest.hasher().topic("jobs/1/run");
            if let Some(groups) = cache.get(topic, |stripes| interest.generation(stripes)) {
                return ***groups;
            }
            let stripes = interest.hasher().stripes(topic);
            let generation = interest.generation(stripes);
            let groups = interest.groups(topic.as_str()).len();
            cache.insert(topic, stripes, generation, groups, 0);
            groups
        },
        |round, groups| assert_eq!(groups, round % 2, "round {round}"),
    );
}

#[test]
fn a_group_chooses_no_member_that_was_reported_offline_or_gone() {
    for strategy in [SharedStrategy::RoundRobin, SharedStrategy::Sticky, SharedStrategy::LeastInFlight] {
        let interest = Interest::new(1, strategy);
        let keeper = interest.join("g", "jobs/#", joining(SessionKey::first(0)));
        let mut handle = GroupHandle::new(Arc::clone(&interest.groups("jobs/1")[0]));
        let (mut visitor, mut random) = (None::<Arc<Member>>, 0u64);
        // Of four rounds: one joins, goes online, goes offline, leaves. The keeper is always there, but offline.
        lockstep(
            |round| match (round % 4, &visitor) {
                (1, _) => visitor = Some(interest.join("g", "jobs/#", joining(SessionKey::first(round as u32)))),
                (2, Some(visitor)) => visitor.set_online(true),
                (3, Some(visitor)) => visitor.set_online(false),
                (_, Some(visitor)) => assert!(interest.leave(visitor)),
                (_, None) => unreachable!("a visitor joins in the first round"),
            },
            || {
                random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let choice = Choice { publisher: random, topic: random, random, ms: 0 };
                handle.choose(&choice, None).expect("the keeper is always there").session().index as usize
            },
            |round, chosen| match round % 4 {
                2 => assert_eq!(chosen, round - 1, "only the visitor is online"),
                0 => assert_eq!(chosen, 0, "the visitor has left"),
                _ => assert!(chosen == 0 || chosen == round - (round - 1) % 4, "{chosen} left before round {round}"),
            },
        );
        assert!(interest.leave(&keeper));
        assert_eq!(interest.groups_len(), 0);
    }
}

#[test]
fn a_roster_that_was_read_while_it_changed_is_read_again() {
    let interest = Interest::new(1, SharedStrategy::RoundRobin);
    let first = interest.join("g", "jobs/#", joining(SessionKey::first(0)));
    // Many members, so that reading them takes long enough for the first to change meanwhile.
    let others: Vec<_> = (1..500_u32).map(|n| interest.join("g", "jobs/#", joining(SessionKey::first(n)))).collect();
    let mut handle = GroupHandle::new(Arc::clone(&interest.groups("jobs/1")[0]));
    lockstep(
        |round| {
            for n in 0..8 {
                others[n * 60].set_online(n % 2 == 0);
                first.set_online(n % 2 == 1);
            }
            (0..8).for_each(|n| others[n * 60].set_online(false));
            first.set_online(round % 2 == 1);
        },
        || {
            let choice = Choice { publisher: 1, topic: 1, random: 1, ms: 0 };
            let chosen = handle.choose(&choice, None).expect("there are members");
            chosen.online()
        },
        |round, online| assert_eq!(online, round % 2 == 1, "round {round}"),
    );
}

#[test]
fn shards_that_change_one_filter_at_once_lose_no_change() {
    let interest = Interest::new(1, SharedStrategy::RoundRobin);
    thread::scope(|scope| {
        for shard in (0..4).map(ShardId) {
            let interest = &interest;
            scope.spawn(move || {
                for round in 0..ROUNDS / 5 {
                    for filter in ["a/b", "a/+"] {
                        assert!(interest.add(filter, shard), "round {round}");
                        assert!(interest.targets("a/b").contains(shard), "round {round}");
                        assert!(interest.remove(filter, shard), "round {round}");
                        assert!(!interest.targets("a/b").contains(shard), "round {round}");
                    }
                }
                interest.add("a/b", shard);
            });
        }
    });
    assert_eq!((interest.targets("a/b").len(), interest.len()), (4, 1));
}

fn joining(session: SessionKey) -> Joining {
    Joining { shard: ShardId(0), session, client_id: format!("c{}", session.index).into(), options: 0 }
}
