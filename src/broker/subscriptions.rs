//! The subscriptions of one session, by filter: most have one, and some have thousands.

use std::{collections::HashMap, sync::Arc, vec};

use super::session::HashState;
use crate::router::Member;

/// One subscription; its options are where deliveries look: in the shard's trie, or with the member.
#[derive(Debug)]
pub(crate) struct Subscribed {
    /// The membership, if it is shared.
    pub(crate) member: Option<Arc<Member>>,
}

/// Subscriptions by filter, in two words.
#[derive(Debug)]
pub(crate) enum Subscriptions {
    /// A single one that is not shared, as most sessions have it.
    One(Box<str>),
    /// Any others; none of them without a map.
    Many(Option<Box<Map>>),
}

type Map = HashMap<Box<str>, Subscribed, HashState>;

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(map) => map.as_ref().map_or(0, |map| map.len()),
        }
    }

    pub(crate) fn get(&self, filter: &str) -> Option<&Subscribed> {
        match self {
            Self::One(only) => (**only == *filter).then_some(&NOT_SHARED),
            Self::Many(map) => map.as_ref()?.get(filter),
        }
    }

    /// Adds one, or puts it in the place of the one for the same filter.
    pub(crate) fn insert(&mut self, filter: &str, subscribed: Subscribed, hasher: &HashState) {
        match self {
            Self::Many(None) if subscribed.member.is_none() => *self = Self::One(filter.into()),
            Self::One(only) if **only == *filter => {}
            _ => {
                self.map_mut(hasher).insert(filter.into(), subscribed);
            }
        }
    }

    pub(crate) fn remove(&mut self, filter: &str) -> Option<Subscribed> {
        let removed = match self {
            Self::One(only) => (**only == *filter).then_some(NOT_SHARED),
            Self::Many(map) => map.as_mut()?.remove(filter),
        };
        let is_last = match self {
            Self::One(_) => removed.is_some(),
            Self::Many(map) => map.as_ref().is_some_and(|map| map.is_empty()),
        };
        if is_last {
            *self = Self::default();
        }
        removed
    }

    pub(crate) fn filters(&self) -> impl Iterator<Item = &str> {
        let (one, map) = match self {
            Self::One(only) => (Some(&**only), None),
            Self::Many(map) => (None, map.as_ref()),
        };
        one.into_iter().chain(map.into_iter().flat_map(|map| map.keys().map(|filter| &**filter)))
    }

    /// The memberships of those that are shared.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        let map = match self {
            Self::One(_) => None,
            Self::Many(map) => map.as_ref(),
        };
        map.into_iter().flat_map(|map| map.values()).filter_map(|subscribed| subscribed.member.as_ref())
    }

    /// The filters of those that are not shared.
    pub(crate) fn into_unshared(self) -> vec::IntoIter<Box<str>> {
        let filters: Vec<Box<str>> = match self {
            Self::One(only) => vec![only],
            Self::Many(None) => Vec::new(),
            Self::Many(Some(map)) => {
                let unshared = map.into_iter().filter(|(_, subscribed)| subscribed.member.is_none());
                unshared.map(|(filter, _)| filter).collect()
            }
        };
        filters.into_iter()
    }

    fn map_mut(&mut self, hasher: &HashState) -> &mut Map {
        if let Self::One(_) = self
            && let Self::One(only) = std::mem::take(self)
        {
            self.map_mut(hasher).insert(only, NOT_SHARED);
        }
        match self {
            Self::Many(map) => map.get_or_insert_with(|| Box::new(HashMap::with_hasher(hasher.clone()))),
            Self::One(_) => unreachable!("it was taken out"),
        }
    }
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self::Many(None)
    }
}

const NOT_SHARED: Subscribed = Subscribed { member: None };

#[cfg(test)]
mod tests {
    use foldhash::SharedSeed;

    use super::*;

    #[test]
    fn one_many_and_none_are_the_same_to_whoever_asks() {
        let hasher = HashState::with_seed(7, SharedSeed::global_fixed());
        let mut subscriptions = Subscriptions::default();
        let filters: Vec<String> = (0..50).map(|n| format!("plant/{n}/#")).collect();
        for (n, filter) in (1..).zip(&filters) {
            for _ in 0..2 {
                subscriptions.insert(filter, Subscribed { member: None }, &hasher);
            }
            assert_eq!(subscriptions.len(), n);
            assert!(subscriptions.get(filter).is_some());
            assert!(subscriptions.get("plant").is_none() && subscriptions.remove("plant").is_none());
        }
        assert_eq!((subscriptions.filters().count(), subscriptions.members().count()), (50, 0));
        for (left, filter) in (0..50).rev().zip(&filters) {
            assert!(subscriptions.remove(filter).is_some() && subscriptions.remove(filter).is_none());
            assert_eq!(subscriptions.len(), left);
        }
        assert!(matches!(subscriptions, Subscriptions::Many(None)));
        assert!(size_of::<Subscriptions>() <= 16, "{}", size_of::<Subscriptions>());
    }
}
