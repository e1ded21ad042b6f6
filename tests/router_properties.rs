//! The router against naive oracles: a linear list of filters, a linear list of retained topics.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use ferromq::router::{
    CacheLimits, FilterTrie, Interest, RetainedStore, RouteCache, ShardId, ShardSet, SharedStrategy,
};

/// Section 4.7, word by word.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some(level), Some(text)) if level == "+" || level == text => {}
            _ => return false,
        }
    }
}

fn level() -> impl Strategy<Value = &'static str> {
    // Few texts, so that filters and topics meet; a number of them, so that nodes have many children.
    prop::sample::select(vec!["", "a", "b", "c", "d", "$x", "$SYS", "aa", "ä"])
}

fn topic() -> impl Strategy<Value = String> {
    vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let levels = vec(prop_oneof![3 => level(), 1 => Just("+")], 0..5);
    (levels, prop::bool::weighted(0.3))
        .prop_map(|(mut levels, multi)| {
            levels.extend(multi.then_some("#"));
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

#[derive(Debug, Clone)]
enum Change {
    Insert(String),
    Remove(String),
    /// Removes some filter that is there, so that pruning is met as often as growth.
    RemoveAny(prop::sample::Index),
}

fn change(text: impl Strategy<Value = String> + Clone) -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => text.clone().prop_map(Change::Insert),
        1 => text.prop_map(Change::Remove),
        3 => any::<prop::sample::Index>().prop_map(Change::RemoveAny),
    ]
}

fn filter_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => filter().prop_map(Change::Insert),
        1 => filter().prop_map(Change::Remove),
        3 => any::<prop::sample::Index>().prop_map(Change::RemoveAny),
    ]
}

/// What a change names, given what is there.
fn named<'a>(change: &Change, mut there: impl ExactSizeIterator<Item = &'a String>) -> Option<String> {
    match change {
        Change::Insert(text) | Change::Remove(text) => Some(text.clone()),
        Change::RemoveAny(_) if there.len() == 0 => None,
        Change::RemoveAny(index) => there.nth(index.index(there.len())).cloned(),
    }
}

proptest! {
    #[test]
    fn the_trie_matches_as_a_list_does(changes in vec(filter_change(), 1..120), topics in vec(topic(), 1..20)) {
        let mut trie = FilterTrie::new(1);
        let mut list: BTreeMap<String, usize> = BTreeMap::new();
        for (n, change) in changes.iter().enumerate() {
            let Some(filter) = named(change, list.keys()) else { continue };
            if matches!(change, Change::Insert(_)) {
                prop_assert_eq!(trie.insert(&filter, n), list.insert(filter, n));
            } else {
                prop_assert_eq!(trie.remove(&filter), list.remove(&filter));
            }
            let topic = &topics[n % topics.len()];
            let mut found = Vec::new();
            trie.for_each_match(topic, |value| found.push(*value));
            found.sort_unstable();
            let mut expected: Vec<usize> = list.iter().filter(|(filter, _)| matches(filter, topic)).map(|(_, n)| *n).collect();
            expected.sort_unstable();
            prop_assert_eq!(found, expected, "{}", topic);
        }
        prop_assert_eq!(trie.len(), list.len());
        for (filter, value) in &list {
            prop_assert_eq!(trie.get(filter), Some(value));
        }
        let listed: BTreeMap<String, usize> = trie.iter().map(|(filter, value)| (filter, *value)).collect();
        prop_assert_eq!(listed, list);
    }

    #[test]
    fn a_scan_finds_what_a_list_does_in_slices_of_any_size(
        changes in vec(change(topic().boxed()), 1..120),
        filters in vec(filter(), 1..10),
        steps_max in 1usize..9,
    ) {
        let mut store = RetainedStore::new(1);
        let mut list: BTreeMap<String, usize> = BTreeMap::new();
        for (n, change) in changes.iter().enumerate() {
            let Some(topic) = named(change, list.keys()) else { continue };
            if matches!(change, Change::Insert(_)) {
                prop_assert_eq!(store.insert(&topic, n), list.insert(topic, n));
            } else {
                prop_assert_eq!(store.remove(&topic), list.remove(&topic));
            }
        }
        for (topic, message) in &list {
            prop_assert_eq!(store.get(topic), Some(message));
        }
        for filter in &filters {
            let (mut found, mut cursor) = (Vec::new(), None);
            loop {
                cursor = store.scan(filter, cursor, steps_max, |topic, message| found.push((topic.to_owned(), *message)));
                if cursor.is_none() {
                    break;
                }
            }
            found.sort();
            let expected: Vec<_> = list.clone().into_iter().filter(|(topic, _)| matches(filter, topic)).collect();
            prop_assert_eq!(found, expected, "{}", filter);
        }
    }

    #[test]
    fn a_scan_shows_once_what_stays_and_never_what_was_never_there(
        stay in prop::collection::btree_set(topic(), 0..30),
        changes in vec(change(topic().boxed()), 1..200),
        filter in filter(),
        steps_max in 1usize..6,
        changes_per_slice in 0usize..5,
    ) {
        let mut store = RetainedStore::new(1);
        let mut passing: BTreeSet<String> = BTreeSet::new();
        let mut ever: BTreeSet<String> = stay.clone();
        for topic in &stay {
            store.insert(topic, ());
        }
        let mut changes = changes.into_iter();
        let mut apply = |store: &mut RetainedStore<()>, count: usize| {
            for change in changes.by_ref().take(count) {
                let Some(topic) = named(&change, passing.iter()).filter(|topic| !stay.contains(topic)) else { continue };
                if matches!(change, Change::Insert(_)) {
                    store.insert(&topic, ());
                    passing.insert(topic.clone());
                    ever.insert(topic);
                } else {
                    store.remove(&topic);
                    passing.remove(&topic);
                }
            }
            ever.clone()
        };
        apply(&mut store, 60);
        let (mut shown, mut cursor) = (Vec::new(), None);
        loop {
            cursor = store.scan(&filter, cursor, steps_max, |topic, ()| shown.push(topic.to_owned()));
            if cursor.is_none() {
                break;
            }
            apply(&mut store, changes_per_slice);
        }
        let ever = apply(&mut store, 0);
        for topic in &shown {
            prop_assert!(ever.contains(topic) && matches(&filter, topic), "{}", topic);
        }
        for topic in &stay {
            let times = shown.iter().filter(|other| *other == topic).count();
            prop_assert_eq!(times, usize::from(matches(&filter, topic)), "{}", topic);
        }
    }

    #[test]
    fn a_sweep_removes_what_expired_and_nothing_else(
        topics in prop::collection::btree_map(topic(), any::<bool>(), 0..60),
        removed in vec(any::<prop::sample::Index>(), 0..10),
        records_max in 1usize..9,
    ) {
        let mut store = RetainedStore::new(1);
        let mut list = topics;
        for (topic, expired) in &list {
            store.insert(topic, *expired);
        }
        for index in removed {
            let Some(topic) = list.keys().nth(index.index(list.len().max(1))).cloned() else { continue };
            prop_assert_eq!(store.remove(&topic), list.remove(&topic));
        }
        let mut cursor = None;
        loop {
            cursor = store.sweep(cursor, records_max, |expired| *expired);
            if cursor.is_none() {
                break;
            }
        }
        list.retain(|_, expired| !*expired);
        prop_assert_eq!(store.len(), list.len());
        prop_assert!(list.keys().all(|topic| store.get(topic) == Some(&false)));
    }

    #[test]
    fn a_cached_route_is_always_the_true_route(
        changes in vec((filter_change(), 0u8..3), 1..120),
        topics in vec(topic(), 1..8),
        entries_max in 1usize..10,
    ) {
        let interest = Interest::new(1, SharedStrategy::RoundRobin);
        let mut cache = RouteCache::new(CacheLimits { entries_max, bytes_max: 1000 });
        let mut list: BTreeMap<String, ShardSet> = BTreeMap::new();
        for (change, shard) in changes {
            let shard = ShardId(shard);
            let Some(filter) = named(&change, list.keys()) else { continue };
            let shards = list.entry(filter.clone()).or_default();
            if matches!(change, Change::Insert(_)) {
                prop_assert_eq!(interest.add(&filter, shard), shards.insert(shard));
            } else {
                prop_assert_eq!(interest.remove(&filter, shard), shards.remove(shard));
            }
            list.retain(|_, shards| !shards.is_empty());
            prop_assert_eq!(interest.len(), list.len());
            for name in &topics {
                let topic = interest.hasher().topic(name);
                let cached = cache.get(topic, |stripes| interest.generation(stripes)).map(|value| ***value);
                let route = cached.unwrap_or_else(|| {
                    let stripes = interest.hasher().stripes(topic);
                    let generation = interest.generation(stripes);
                    let targets = interest.targets(name);
                    cache.insert(topic, stripes, generation, targets, 0);
                    targets
                });
                let wanted = list.iter().filter(|(filter, _)| matches(filter, name));
                let expected = wanted.fold(ShardSet::EMPTY, |all, (_, shards)| all.union(*shards));
                prop_assert_eq!(route, expected, "{}", name);
            }
        }
    }
}
