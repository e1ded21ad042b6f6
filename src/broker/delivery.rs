//! A delivery: a message on its way to one session, queued or in flight; in the queue also a part of a run.

use std::{sync::Arc, time::Instant};

use smallvec::SmallVec;

use super::{
    message::{Message, Parcel},
    run::Run,
};
use crate::{codec::QoS, router::Member, session::Stored, store::Id};

/// A message on its way to one session, or several of a run that wait as one.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) content: Content,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Subscription identifiers, for MQTT 5.
    pub(crate) ids: SubscriptionIds,
    /// The shared subscription it came by: it goes to another member if this one leaves.
    pub(crate) member: Option<Arc<Member>>,
    /// Its name in the store.
    pub(crate) stored: Option<Id>,
}

/// Of what a delivery consists.
#[derive(Debug)]
pub(crate) enum Content {
    /// In flight to a session that ends with its connection: nothing will ever be sent again.
    Gone,
    /// A message by itself.
    Message(Arc<Message>),
    /// Those messages of a run from `from` to before `to`: one in flight, one or more in the queue.
    Part { run: Arc<Run>, from: u16, to: u16 },
}

/// Mostly there is none, so a word is all they take.
pub(crate) type SubscriptionIds = Option<Box<SmallVec<[u32; 2]>>>;

impl Content {
    /// The messages of a run in `range`; there are far fewer than 65,536 in one.
    pub(crate) fn part(run: &Arc<Run>, range: std::ops::Range<usize>) -> Self {
        Self::Part { run: Arc::clone(run), from: range.start as u16, to: range.end as u16 }
    }

    /// The message, or the first, to be sent or kept.
    pub(crate) fn parcel(&self) -> Option<Parcel<'_>> {
        match self {
            Self::Gone => None,
            Self::Message(message) => Some(Parcel::from_message(message)),
            Self::Part { run, from, .. } => run.parcel(usize::from(*from)),
        }
    }

    /// Its topic; empty if the message is gone.
    pub(crate) fn topic(&self) -> &str {
        match self {
            Self::Gone => "",
            Self::Message(message) => message.topic(),
            Self::Part { run, .. } => run.topic(),
        }
    }

    /// Whether there is anything to be sent again, or given to somebody else.
    pub(crate) const fn is_kept(&self) -> bool {
        !matches!(self, Self::Gone)
    }
}

impl Delivery {
    /// One without subscription identifiers, neither retained nor stored.
    pub(crate) const fn plain(content: Content, qos: QoS, member: Option<Arc<Member>>) -> Self {
        Self { content, qos, retain: false, ids: None, member, stored: None }
    }

    /// One for each message.
    pub(crate) fn singles(self) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let first = rest.as_mut()?.split(1);
            first.or_else(|| rest.take())
        })
    }
}

impl Stored for Delivery {
    fn qos(&self) -> QoS {
        self.qos
    }

    fn bytes(&self) -> usize {
        match &self.content {
            Content::Gone => 0,
            Content::Message(message) => message.bytes(),
            Content::Part { run, from, to } => run.charge(usize::from(*from)..usize::from(*to)),
        }
    }

    fn expires_at(&self) -> Option<Instant> {
        match &self.content {
            Content::Message(message) => message.expires_at,
            Content::Gone | Content::Part { .. } => None,
        }
    }

    fn count(&self) -> usize {
        match &self.content {
            Content::Gone | Content::Message(_) => 1,
            Content::Part { from, to, .. } => usize::from(to - from),
        }
    }

    fn split(&mut self, count: usize) -> Option<Self> {
        if count >= self.count() {
            return None;
        }
        let Content::Part { run, from, .. } = &mut self.content else { return None };
        let start = usize::from(*from);
        let content = Content::part(run, start..start + count);
        *from += count as u16;
        let (qos, retain, member) = (self.qos, self.retain, self.member.clone());
        Some(Self { content, qos, retain, ids: self.ids.clone(), member, stored: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window of thousands is kept for each busy client.
    #[test]
    fn a_delivery_stays_small() {
        assert!(size_of::<Delivery>() <= 48, "{}", size_of::<Delivery>());
    }
}
