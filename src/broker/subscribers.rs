//! Who of a shard has one filter: mostly one session, and sometimes a hundred thousand, each of whom may go at any time.

use std::{collections::BTreeMap, num::NonZeroU32};

use crate::{codec::SubscriptionOptions, router::SessionKey};

/// A subscription as the shard's trie holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalSubscription {
    pub(crate) session: SessionKey,
    pub(crate) options: SubscriptionOptions,
    id: Option<NonZeroU32>,
}

impl LocalSubscription {
    pub(crate) fn new(session: SessionKey, options: SubscriptionOptions, id: Option<u32>) -> Self {
        Self { session, options, id: id.and_then(NonZeroU32::new) }
    }

    /// The subscription identifier.
    pub(crate) fn id(&self) -> Option<u32> {
        self.id.map(NonZeroU32::get)
    }
}

/// The subscriptions to one filter, one for each session.
#[derive(Debug, Default)]
pub(crate) enum Subscribers {
    #[default]
    None,
    One(LocalSubscription),
    /// A tree, so that one of very many is found and taken out without a look at the others.
    #[allow(clippy::box_collection)] // of one there are very many, and they are no larger than that
    Many(Box<BTreeMap<SessionKey, LocalSubscription>>),
}

impl Subscribers {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Adds one, or puts it in the place of that of the same session.
    pub(crate) fn insert(&mut self, new: LocalSubscription) {
        match self {
            Self::None => *self = Self::One(new),
            Self::One(there) if there.session == new.session => *there = new,
            Self::One(there) => {
                let both = [*there, new].map(|subscription| (subscription.session, subscription));
                *self = Self::Many(Box::new(both.into()));
            }
            Self::Many(map) => {
                map.insert(new.session, new);
            }
        }
    }

    pub(crate) fn remove(&mut self, session: SessionKey) {
        match self {
            Self::One(there) if there.session == session => *self = Self::None,
            Self::Many(map) => {
                map.remove(&session);
                if map.is_empty() {
                    *self = Self::None;
                }
            }
            _ => {}
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &LocalSubscription> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(only) => (Some(only), None),
            Self::Many(map) => (None, Some(map.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_has_one_subscription_however_many_there_are() {
        let of = |n, id| LocalSubscription::new(SessionKey::first(n), SubscriptionOptions::default(), id);
        let mut subscribers = Subscribers::default();
        for count in 1..=50 {
            for id in [None, Some(count)] {
                subscribers.insert(of(count, id));
            }
            assert_eq!(subscribers.iter().count(), count as usize);
            assert!(subscribers.iter().any(|subscription| *subscription == of(count, Some(count))));
        }
        subscribers.remove(SessionKey::first(77));
        for left in (0..50).rev() {
            subscribers.remove(SessionKey::first(left + 1));
            assert_eq!((subscribers.iter().count(), subscribers.is_empty()), (left as usize, left == 0));
        }
        assert!(size_of::<Subscribers>() <= 16, "{}", size_of::<Subscribers>());
    }
}
