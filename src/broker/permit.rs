//! What a client may do, when the authorizer answers at once and when it has to wait: then the connection stands still
//! at the packet in question, which is looked at again when the answer is there.

use std::{num::NonZeroU64, time::Instant};

use super::{
    conn::Phase,
    shard::{Output, Shard},
    slots::ConnId,
};
use crate::{
    auth::{Access, OwnedAccess, Permit},
    codec::{Connect, PublishRef, ReasonCode, Subscribe},
};

/// A packet that waits for an authorizer, or is looked at again.
#[derive(Debug)]
pub(crate) enum Deferral {
    /// Asked under this ticket, with what could be said at once; nothing is handled until the answer comes.
    Asked(u64, Vec<Permit>),
    /// What was said to each part of the packet, which is judged by this and not asked about again.
    Answered(Vec<bool>),
}

/// Whether a packet may be handled now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    Allowed,
    Refused,
    /// Not yet: it stays where it is.
    Deferred,
}

impl From<bool> for Judged {
    fn from(is_allowed: bool) -> Self {
        if is_allowed { Self::Allowed } else { Self::Refused }
    }
}

impl Shard {
    /// Asks the authorizer, once for each topic of a connection if it allows that.
    pub(super) fn judge_publish(&mut self, id: ConnId, topic: &str, publish: &PublishRef<'_>) -> Judged {
        let Some(authorizer) = &self.shared.hooks.authorizer else { return Judged::Allowed };
        let Some(conn) = self.wire.conns.get_mut(id) else { return Judged::Refused };
        let remembers = !authorizer.per_message();
        let extras = conn.extras_mut();
        let answered = extras.deferral.take();
        if remembers && extras.allowed_topics.iter().any(|allowed| **allowed == *topic) {
            return Judged::Allowed;
        }
        let access = Access::Publish { topic, qos: publish.qos, retain: publish.retain, payload: publish.payload };
        let is_allowed = match answered {
            Some(Deferral::Answered(answers)) => answers.first().copied().unwrap_or(false),
            _ => match self.shared.hooks.authorize(conn.info().map(|info| &**info), access) {
                Permit::Allow => true,
                Permit::Refuse => false,
                Permit::Defer => {
                    self.defer(id, vec![Permit::Defer], vec![access.owned()]);
                    return Judged::Deferred;
                }
            },
        };
        if is_allowed
            && remembers
            && let Some(conn) = self.wire.conns.get_mut(id)
        {
            let topics = &mut conn.extras_mut().allowed_topics;
            if topics.len() >= ALLOWED_TOPICS_MAX {
                topics.remove(0);
            }
            topics.push(topic.into());
        }
        is_allowed.into()
    }

    /// Asks the authorizer about each filter of a SUBSCRIBE, by the filter behind a share name; `None` if it has to wait.
    pub(super) fn judge_subscribe(&mut self, id: ConnId, subscribe: &Subscribe) -> Option<Vec<bool>> {
        let filters = &subscribe.subscriptions;
        if self.shared.hooks.authorizer.is_none() || self.is_observer(Some(id)) {
            return Some(vec![true; filters.len()]);
        }
        let conn = self.wire.conns.get_mut(id)?;
        if let Some(Deferral::Answered(answers)) = conn.extras_mut().deferral.take() {
            return Some(answers);
        }
        let permits = filters.iter().map(|subscription| {
            let filter = &subscription.filter;
            let filter = filter.shared().map_or(filter.as_str(), |shared| shared.filter);
            let access = Access::Subscribe { filter, qos: subscription.options.qos };
            (self.shared.hooks.authorize(conn.info().map(|info| &**info), access), access)
        });
        let (permits, accesses): (Vec<_>, Vec<_>) = permits.unzip();
        let asked: Vec<_> = permits
            .iter()
            .zip(accesses)
            .filter(|(permit, _)| **permit == Permit::Defer)
            .map(|(_, access)| access.owned())
            .collect();
        if asked.is_empty() {
            return Some(permits.into_iter().map(|permit| permit == Permit::Allow).collect());
        }
        self.defer(id, permits, asked);
        None
    }

    /// Lets a client in that has been authenticated, unless it may not publish its will.
    pub(super) fn admit(&mut self, now: Instant, id: ConnId, connect: Box<Connect>) {
        let Some(will) = &connect.will else { return self.accept(now, id, connect) };
        let access =
            Access::Publish { topic: will.topic.as_str(), qos: will.qos, retain: will.retain, payload: &will.payload };
        let info = self.wire.conns.get(id).and_then(|conn| conn.info().cloned());
        match self.shared.hooks.authorize(info.as_deref(), access) {
            Permit::Allow => self.accept(now, id, connect),
            Permit::Refuse => self.refuse_will(now, id),
            Permit::Defer => {
                let asked = vec![access.owned()];
                let ticket = self.next_ticket(id);
                if let Some((conn, info)) = self.wire.conns.get_mut(id).zip(info) {
                    conn.phase = Phase::Authenticating(connect, NonZeroU64::new(ticket));
                    self.outputs.push_back(Output::Authorize { ticket, info, asked });
                }
            }
        }
    }

    /// The answers to what [`Output::Authorize`] asked, in its order.
    pub fn handle_permits(&mut self, now: Instant, ticket: u64, answers: Vec<bool>) {
        let Some(id) = self.tickets.remove(&ticket) else { return };
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        if let Some(Deferral::Asked(asked, permits)) = conn.extras().and_then(|extras| extras.deferral.as_ref())
            && *asked == ticket
        {
            let mut answers = answers.into_iter();
            let is_allowed = |permit: &Permit| match permit {
                Permit::Allow => true,
                Permit::Refuse => false,
                Permit::Defer => answers.next().unwrap_or(false),
            };
            let answers = permits.iter().map(is_allowed).collect();
            conn.extras_mut().deferral = Some(Deferral::Answered(answers));
            return self.go_on(now, id);
        }
        let Some(connect) = self.take_waiting_connect(id, ticket) else { return };
        if answers.first().copied().unwrap_or(false) {
            self.accept(now, id, connect);
        } else {
            self.refuse_will(now, id);
        }
        self.go_on(now, id);
    }

    /// What a connection has sent while it stood still is handled, and it is read again.
    pub(super) fn go_on(&mut self, now: Instant, id: ConnId) {
        let held = self.wire.take_partial(id);
        if !held.is_empty() {
            self.take_in(now, id, &held);
        }
        if let Some(conn) = self.wire.conns.get_mut(id)
            && conn.is_paused
        {
            conn.is_paused = false;
            self.paused.retain(|paused| *paused != id);
            self.outputs.push_back(Output::Resume { conns: vec![id] });
        }
    }

    /// A name for something that is asked elsewhere on behalf of a connection.
    pub(super) fn next_ticket(&mut self, id: ConnId) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.insert(ticket, id);
        ticket
    }

    fn defer(&mut self, id: ConnId, permits: Vec<Permit>, asked: Vec<OwnedAccess>) {
        let ticket = self.next_ticket(id);
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        conn.extras_mut().deferral = Some(Deferral::Asked(ticket, permits));
        if let Some(info) = conn.info().cloned() {
            self.outputs.push_back(Output::Authorize { ticket, info, asked });
        }
    }

    fn refuse_will(&mut self, now: Instant, id: ConnId) {
        self.refuse(now, id, ReasonCode::NotAuthorized, Some("not allowed to publish the will"));
    }
}

/// Topics that a connection is remembered to be allowed to publish to.
const ALLOWED_TOPICS_MAX: usize = 16;
