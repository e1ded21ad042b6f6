//! The rules of each strategy: whom it prefers, what it keeps, whom it leaves out.

use std::collections::HashMap;

use super::*;
use crate::router::{Interest, TopicHasher};

fn group_of(strategy: SharedStrategy, members: u64) -> (Interest, Vec<Arc<Member>>) {
    let interest = Interest::new(11, strategy);
    let members = (0..members).map(|n| join(&interest, n)).collect();
    (interest, members)
}

fn join(interest: &Interest, n: u64) -> Arc<Member> {
    let joining = Joining {
        shard: ShardId((n % 4) as u8),
        session: SessionKey::first(n as u32),
        client_id: format!("worker-{n}").into(),
        options: 0,
    };
    let member = interest.join("g", "jobs/+", joining);
    member.set_online(true);
    member
}

fn handle(interest: &Interest) -> GroupHandle {
    GroupHandle::new(interest.groups("jobs/1").pop().expect("the group exists"))
}

/// A stream of choices by many publishers about many topics.
fn choices(count: u64) -> impl Iterator<Item = Choice> {
    let hasher = TopicHasher::new(1);
    (0..count).map(move |n| Choice {
        publisher: hasher.text(&format!("publisher-{}", n % 1000)),
        topic: hasher.text(&format!("jobs/{}", n % 1000)),
        random: mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        ms: n,
    })
}

fn counts(handle: &mut GroupHandle, messages: u64, exclude: Option<&Member>) -> HashMap<u64, u64> {
    let mut counts = HashMap::new();
    for choice in choices(messages) {
        let member = handle.choose(&choice, exclude).expect("a member is there");
        *counts.entry(u64::from(member.session().index)).or_default() += 1;
    }
    counts
}

const ALL: [SharedStrategy; 6] = [
    SharedStrategy::RoundRobin,
    SharedStrategy::Random,
    SharedStrategy::Sticky,
    SharedStrategy::HashClientId,
    SharedStrategy::HashTopic,
    SharedStrategy::LeastInFlight,
];

#[test]
fn round_robin_gives_every_member_its_turn_in_order() {
    let (interest, _members) = group_of(SharedStrategy::RoundRobin, 3);
    let mut handle = handle(&interest);
    let order: Vec<u64> =
        choices(7).map(|c| handle.choose(&c, None).expect("a member").session().index.into()).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn all_but_sticky_spread_work_over_all_members() {
    for strategy in ALL.into_iter().filter(|s| *s != SharedStrategy::Sticky) {
        let (interest, _members) = group_of(strategy, 5);
        let counts = counts(&mut handle(&interest), 10_000, None);
        assert_eq!(counts.len(), 5, "{strategy:?}");
        assert!(counts.values().all(|n| (1500..2500).contains(n)), "{strategy:?} {counts:?}");
    }
}

#[test]
fn sticky_stays_until_its_member_goes() {
    let (interest, members) = group_of(SharedStrategy::Sticky, 5);
    let mut handle = handle(&interest);
    let first = counts(&mut handle, 100, None);
    assert_eq!(first.len(), 1);
    let first = *first.keys().next().expect("one member");
    members[first as usize].set_online(false);
    let second = counts(&mut handle, 100, None);
    let second_key = *second.keys().next().expect("one member");
    assert_eq!(second.len(), 1);
    assert_ne!(second_key, first);
    members[first as usize].set_online(true);
    assert_eq!(counts(&mut handle, 100, None), second);
    interest.leave(&members[second_key as usize]);
    assert!(!counts(&mut handle, 100, None).contains_key(&second_key));
}

#[test]
fn sticky_returns_to_its_member_after_standing_in_for_it() {
    let (interest, members) = group_of(SharedStrategy::Sticky, 3);
    let mut handle = handle(&interest);
    let stuck = counts(&mut handle, 10, None);
    let stuck_key = *stuck.keys().next().expect("one member");
    assert!(!counts(&mut handle, 100, Some(&members[stuck_key as usize])).contains_key(&stuck_key));
    assert_eq!(counts(&mut handle, 10, None), stuck);
}

#[test]
fn hashes_keep_their_member_and_move_only_the_share_of_one_that_goes() {
    for strategy in [SharedStrategy::HashClientId, SharedStrategy::HashTopic] {
        let (interest, members) = group_of(strategy, 8);
        let mut handle = handle(&interest);
        let mut map = |skip_offline: Option<u64>| -> Vec<u64> {
            let chosen: Vec<u64> =
                choices(1000).map(|c| handle.choose(&c, None).expect("a member").session().index.into()).collect();
            assert!(skip_offline.is_none_or(|key| !chosen.contains(&key)));
            chosen
        };
        let before = map(None);
        assert_eq!(map(None), before);
        members[3].set_online(false);
        let without = map(Some(3));
        let moved = before.iter().zip(&without).filter(|(a, b)| a != b);
        assert!(moved.clone().count() > 50 && moved.into_iter().all(|(a, _)| *a == 3));
        // The client comes back with a new session: same share.
        interest.leave(&members[3]);
        join(&interest, 3);
        assert_eq!(map(None), before);
    }
}

#[test]
fn hash_strategies_look_at_their_own_hash_only() {
    let (interest, _members) = group_of(SharedStrategy::HashTopic, 8);
    let mut handle = handle(&interest);
    let of = |topic, publisher| Choice { topic, publisher, random: topic ^ publisher, ms: 0 };
    let one = handle.choose(&of(77, 1), None).expect("a member").session();
    assert!((0..100).all(|publisher| handle.choose(&of(77, publisher), None).expect("a member").session() == one));
}

#[test]
fn least_in_flight_prefers_the_idle_and_takes_turns_among_equals() {
    let (interest, members) = group_of(SharedStrategy::LeastInFlight, 4);
    let mut handle = handle(&interest);
    for member in [&members[0], &members[1], &members[1], &members[3]] {
        member.deliveries_started(1);
    }
    assert_eq!(counts(&mut handle, 10, None).into_keys().collect::<Vec<_>>(), [2]);
    members[0].deliveries_ended(1);
    let two = counts(&mut handle, 100, None);
    assert_eq!(two.len(), 2);
    assert!(two[&0] >= 25 && two[&2] >= 25, "{two:?}");
    assert_eq!(members[1].in_flight(), 2);
}

#[test]
fn the_excluded_member_is_never_chosen() {
    for strategy in ALL {
        let (interest, members) = group_of(strategy, 3);
        let mut handle = handle(&interest);
        for excluded in &members {
            let counts = counts(&mut handle, 300, Some(excluded));
            assert!(!counts.contains_key(&excluded.session().index.into()), "{strategy:?}");
            if strategy != SharedStrategy::Sticky {
                assert_eq!(counts.len(), 2, "{strategy:?}");
            }
        }
        interest.leave(&members[0]);
        interest.leave(&members[1]);
        let choice = choices(1).next().expect("one");
        assert!(handle.choose(&choice, Some(&members[2])).is_none(), "{strategy:?}");
        assert!(handle.group().choose(&choice, None).is_some(), "{strategy:?}");
    }
}

#[test]
fn offline_members_are_chosen_only_when_none_is_online() {
    for strategy in ALL {
        let (interest, members) = group_of(strategy, 4);
        let mut handle = handle(&interest);
        for member in &members[1..] {
            member.set_online(false);
        }
        assert_eq!(counts(&mut handle, 50, None).into_keys().collect::<Vec<_>>(), [0], "{strategy:?}");
        // The only online member is excluded: an offline one keeps the message rather than nobody.
        assert!(!counts(&mut handle, 50, Some(&members[0])).contains_key(&0), "{strategy:?}");
        members[0].set_online(false);
        let counts = counts(&mut handle, 400, None);
        assert_eq!(counts.values().sum::<u64>(), 400, "{strategy:?}");
        members[2].set_online(true);
        assert_eq!(self::counts(&mut handle, 50, None).into_keys().collect::<Vec<_>>(), [2], "{strategy:?}");
    }
}

#[test]
fn groups_of_one_filter_or_one_name_are_separate() {
    let interest = Interest::new(11, SharedStrategy::RoundRobin);
    let joining =
        |n| Joining { shard: ShardId(0), session: SessionKey::first(n as u32), client_id: "c".into(), options: n };
    let members = [("a", "x/+"), ("b", "x/+"), ("a", "x/1"), ("a", "#")];
    let members: Vec<_> =
        (0..).zip(members).map(|(n, (name, filter))| interest.join(name, filter, joining(n))).collect();
    assert_eq!(interest.groups_len(), 4);
    let mut groups: Vec<_> =
        interest.groups("x/1").iter().map(|g| (g.name().to_owned(), g.filter().to_owned())).collect();
    groups.sort();
    let expected = [("a", "#"), ("a", "x/+"), ("a", "x/1"), ("b", "x/+")];
    assert_eq!(groups, expected.map(|(name, filter)| (name.to_owned(), filter.to_owned())));
    assert_eq!(interest.groups("x/2").len(), 3);
    for member in &members {
        assert!(interest.leave(member));
    }
    assert_eq!((interest.groups_len(), interest.groups("x/1").len()), (0, 0));
}

#[test]
fn a_group_that_ended_and_began_again_is_another() {
    let (interest, members) = group_of(SharedStrategy::RoundRobin, 1);
    let mut old = handle(&interest);
    interest.leave(&members[0]);
    let choice = choices(1).next().expect("one");
    assert!(old.choose(&choice, None).is_none() && old.group().is_empty());
    let again = join(&interest, 0);
    assert!(!interest.leave(&members[0]), "the old membership is not the new one");
    assert!(old.choose(&choice, None).is_none());
    assert_eq!(handle(&interest).choose(&choice, None).map(Arc::as_ptr), Some(Arc::as_ptr(&again)));
}

#[test]
fn options_change_without_losing_the_place() {
    let (interest, members) = group_of(SharedStrategy::RoundRobin, 2);
    members[0].set_options(0b1010);
    let mut handle = handle(&interest);
    let first = handle.choose(&choices(1).next().expect("one"), None).expect("a member");
    assert_eq!((first.session(), first.options()), (SessionKey::first(0), 0b1010));
    assert_eq!(&**members[0].client_id(), "worker-0");
}
