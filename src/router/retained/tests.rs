//! Look-up, scans in slices with changes in between, sweeps, and that nothing is left behind.

use std::collections::BTreeSet;

use super::*;

fn store_of(topics: &[&str]) -> RetainedStore<String> {
    let mut store = RetainedStore::new(3);
    for topic in topics {
        assert_eq!(store.insert(topic, (*topic).to_owned()), None);
    }
    store
}

/// Scans to the end in slices of `steps_max`; panics should the scan show a topic twice.
fn scan_all(store: &RetainedStore<String>, filter: &str, steps_max: usize) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut cursor = None;
    loop {
        cursor = store.scan(filter, cursor, steps_max, |topic, message| {
            assert_eq!(topic, message);
            assert!(found.insert(topic.to_owned()), "{topic} was shown twice");
        });
        if cursor.is_none() {
            return found.into_iter().collect();
        }
    }
}

#[test]
fn a_message_is_found_replaced_and_removed_by_its_topic() {
    let mut store = RetainedStore::new(3);
    assert_eq!(store.insert("a/b", 1), None);
    assert_eq!(store.insert("a/b", 2), Some(1));
    assert_eq!(store.insert("a", 3), None);
    assert_eq!((store.get("a/b"), store.get("a"), store.get("a/"), store.len()), (Some(&2), Some(&3), None, 2));
    assert_eq!(store.remove("a/b"), Some(2));
    assert_eq!(store.remove("a/b"), None);
    assert_eq!(store.remove("a"), Some(3));
    assert!(store.is_empty());
}

#[test]
fn filters_find_what_section_4_7_says_in_slices_of_any_size() {
    let topics = ["a", "a/", "a/b", "a/b/c", "a/c", "b/b", "/", "/b", "$SYS/b", "$SYS/b/c", "x/y/z/t"];
    let store = store_of(&topics);
    for steps_max in [1, 2, 3, 100] {
        let scan = |filter: &str| scan_all(&store, filter, steps_max);
        assert_eq!(scan("a/#"), ["a", "a/", "a/b", "a/b/c", "a/c"]);
        assert_eq!(scan("+/b"), ["/b", "a/b", "b/b"]);
        assert_eq!(scan("+"), ["a"]);
        assert_eq!(scan("a/+/#"), ["a/", "a/b", "a/b/c", "a/c"]);
        assert_eq!(scan("$SYS/#"), ["$SYS/b", "$SYS/b/c"]);
        assert_eq!(scan("$SYS/+"), ["$SYS/b"]);
        assert_eq!(scan("a/b"), ["a/b"]);
        assert_eq!(scan("+/+/+/t"), ["x/y/z/t"]);
        assert_eq!(scan("/+"), ["/", "/b"]);
        assert_eq!(scan("#").len(), topics.len() - 2);
        assert_eq!(scan("nobody/#"), Vec::<String>::new());
    }
}

#[test]
fn a_slice_looks_at_no_more_than_it_was_allowed_to() {
    let mut store = RetainedStore::new(3);
    for n in 0..1000 {
        store.insert(&format!("plant/{n}/temp"), n);
    }
    let (mut slices, mut shown, mut cursor) = (0, 0, None);
    loop {
        let before = shown;
        cursor = store.scan("plant/+/temp", cursor, 100, |_, _| shown += 1);
        assert!(shown - before <= 100);
        slices += 1;
        if cursor.is_none() {
            break;
        }
    }
    // 1 + 1000 * 2 nodes in slices of 100.
    assert_eq!((shown, slices), (1000, 21));
}

#[test]
fn topics_that_stay_are_shown_once_whatever_comes_and_goes_between_slices() {
    let stay: Vec<String> = (0..200).map(|n| format!("s/{}/{}", n % 20, n)).collect();
    for steps_max in [1, 3, 7] {
        let mut store = store_of(&stay.iter().map(String::as_str).collect::<Vec<_>>());
        for n in 0..100 {
            store.insert(&format!("s/{n}/gone"), format!("s/{n}/gone"));
        }
        let (mut shown, mut cursor, mut turn) = (Vec::new(), None, 0usize);
        loop {
            cursor = store.scan("s/+/#", cursor, steps_max, |topic, _| shown.push(topic.to_owned()));
            if cursor.is_none() {
                break;
            }
            // Remove what was shown last if it may go, and others; put new ones (with reused numbers) in their place.
            if let Some(last) = shown.last().filter(|last| last.ends_with("gone")).cloned() {
                store.remove(&last);
            }
            store.remove(&format!("s/{}/gone", turn % 100));
            let new = format!("s/{}/new{turn}", turn * 7 % 150);
            if turn < 500 {
                store.insert(&new, new.clone());
            }
            turn += 1;
        }
        for topic in &stay {
            assert_eq!(shown.iter().filter(|other| *other == topic).count(), 1, "{topic} by {steps_max}");
        }
    }
}

#[test]
fn a_sweep_removes_what_has_expired_in_slices() {
    let mut store = RetainedStore::new(3);
    for n in 0..1000 {
        store.insert(&format!("t/{n}"), n);
    }
    let (mut cursor, mut looked, mut slices) = (None, 0, 0);
    loop {
        cursor = store.sweep(cursor, 100, |n| {
            looked += 1;
            n % 3 == 0
        });
        slices += 1;
        if cursor.is_none() {
            break;
        }
    }
    // The root, `t` and 1000 leaves in slices of 100.
    assert_eq!((looked, slices, store.len()), (1000, 11, 666));
    assert_eq!((store.get("t/3"), store.get("t/4")), (None, Some(&4)));
    assert_eq!(store.sweep(None, 10_000, |_| true), None);
    assert_eq!(store.sweep(None, 10_000, |_| true), None);
    assert!(store.is_empty());
}

#[test]
fn an_empty_store_holds_no_nodes_levels_or_arena() {
    let mut store = RetainedStore::new(3);
    let topic = |n: u32| format!("site/{}/{n}/{}", n % 7, n % 3);
    for n in 0..5000 {
        store.insert(&topic(n), n);
    }
    for n in 0..5000 {
        assert_eq!(store.remove(&topic(n)), Some(n));
    }
    assert_eq!((store.nodes.len(), store.nodes.end(), store.levels.len(), store.exact.len()), (1, 1, 0, 0));
}

#[test]
fn a_node_with_its_message_is_one_cache_line() {
    assert_eq!(size_of::<Node<std::sync::Arc<str>>>(), 72);
    assert_eq!(size_of::<Node<std::sync::Arc<u64>>>(), 64);
}
