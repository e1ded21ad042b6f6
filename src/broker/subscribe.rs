//! SUBSCRIBE and UNSUBSCRIBE from end to end.

use std::{collections::VecDeque, iter::Zip, sync::Arc, time::Instant, vec};

use super::{
    deliver::{MemberOptions, settle},
    delivery::Delivery,
    hooks::Event,
    input::Handled,
    session::RetainedScan,
    shard::Shard,
    slots::ConnId,
    subscribers::LocalSubscription,
    subscriptions::Subscribed,
};
use crate::{
    codec::{
        DecodeError, Packet, PacketId, Properties, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, Subscription,
        SubscriptionOptions, Text, TopicFilter, UnsubAck, Unsubscribe,
    },
    router::{Joining, Member, SessionKey},
};

/// A SUBSCRIBE or UNSUBSCRIBE that is being handled, filter by filter.
#[derive(Debug)]
pub(crate) struct Filters {
    packet_id: PacketId,
    left: Left,
    /// Subscription identifier of all of them.
    identifier: Option<u32>,
    /// Another packet has the packet identifier: nothing is done. MQTT 3 cannot say so, and does what is asked.
    is_id_in_use: bool,
    /// What became of those that are done.
    reasons: Vec<ReasonCode>,
    /// Retained messages that they ask for.
    scans: Vec<RetainedScan>,
}

/// Those that are not.
#[derive(Debug)]
enum Left {
    /// To be subscribed to, and whether the client may.
    Subscribe(Zip<vec::IntoIter<Subscription>, vec::IntoIter<bool>>),
    /// To be given up.
    Unsubscribe(vec::IntoIter<TopicFilter>),
}

impl Filters {
    fn is_done(&self) -> bool {
        match &self.left {
            Left::Subscribe(left) => left.len() == 0,
            Left::Unsubscribe(left) => left.len() == 0,
        }
    }
}

impl Shard {
    /// SUBSCRIBE: each filter on its own, then SUBACK, then what is retained.
    pub(super) fn handle_subscribe(&mut self, now: Instant, id: ConnId, subscribe: Subscribe) -> Handled {
        if let Err(fault) = self.check_subscribe(&subscribe) {
            self.fault(now, id, &fault);
            return Handled::Yes;
        }
        let Some(allowed) = self.judge_subscribe(id, &subscribe) else { return Handled::Later };
        let identifier = subscribe.properties.subscription_identifiers().next();
        let left = Left::Subscribe(subscribe.subscriptions.into_iter().zip(allowed));
        self.begin_filters(now, id, subscribe.packet_id, left, identifier);
        Handled::Yes
    }

    /// UNSUBSCRIBE: each filter on its own, then UNSUBACK [MQTT-3.10.4-4].
    pub(super) fn handle_unsubscribe(&mut self, now: Instant, id: ConnId, unsubscribe: Unsubscribe) {
        let left = Left::Unsubscribe(unsubscribe.filters.into_iter());
        self.begin_filters(now, id, unsubscribe.packet_id, left, None);
    }

    fn begin_filters(&mut self, now: Instant, id: ConnId, packet_id: PacketId, left: Left, identifier: Option<u32>) {
        let Some(session) = self.session_of(id).and_then(|key| self.sessions.get(key)) else { return };
        let is_id_in_use = session.version.is_v5() && session.state.is_received(packet_id);
        let (reasons, scans) = (Vec::new(), Vec::new());
        self.handle_filters(now, id, Box::new(Filters { packet_id, left, identifier, is_id_in_use, reasons, scans }));
    }

    /// Handles filters until they are done, or the turn is over.
    pub(super) fn handle_filters(&mut self, now: Instant, id: ConnId, mut filters: Box<Filters>) {
        let Some(key) = self.session_of(id) else { return };
        while !filters.is_done() {
            if !self.turns.take_filter(now) {
                return self.await_turn(now, id, filters);
            }
            let reason = self.handle_filter(now, key, &mut filters);
            filters.reasons.push(reason);
        }
        let Filters { packet_id, left, reasons, scans, .. } = *filters;
        let properties = Properties::new();
        let answer = match left {
            Left::Subscribe(_) => Packet::SubAck(SubAck { packet_id, properties, reasons }),
            Left::Unsubscribe(_) => Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }),
        };
        self.packet_when_committed(now, id, key, answer);
        if let Some(session) = self.sessions.get_mut(key) {
            session.retained.extend(scans);
        }
        self.pump(now, key);
    }

    /// Handles the next filter.
    fn handle_filter(&mut self, now: Instant, key: SessionKey, filters: &mut Filters) -> ReasonCode {
        let identifier = filters.identifier;
        match &mut filters.left {
            Left::Subscribe(left) => match left.next() {
                Some(_) if filters.is_id_in_use => ReasonCode::PacketIdentifierInUse,
                Some((subscription, is_allowed)) => {
                    match self.subscribe_one(key, &subscription, identifier, is_allowed) {
                        Err(reason) => reason,
                        Ok(is_new) => {
                            let qos = self.granted_qos(&subscription);
                            let options = SubscriptionOptions { qos, ..subscription.options };
                            self.record_subscription(key, subscription.filter.as_text(), options, identifier);
                            self.scan_if_asked(&subscription, identifier, is_new, &mut filters.scans);
                            granted(qos)
                        }
                    }
                }
                None => ReasonCode::UnspecifiedError,
            },
            Left::Unsubscribe(left) => match left.next() {
                Some(_) if filters.is_id_in_use => ReasonCode::PacketIdentifierInUse,
                Some(filter) if self.unsubscribe_one(now, key, filter.as_text()) => {
                    self.record_unsubscription(key, filter.as_text());
                    ReasonCode::Success
                }
                _ => ReasonCode::NoSubscriptionExisted,
            },
        }
    }

    /// Ends one subscription; whether there was one.
    pub(super) fn unsubscribe_one(&mut self, now: Instant, key: SessionKey, filter: &str) -> bool {
        let is_observer = self.is_observer(self.sessions.get(key).and_then(|session| session.conn));
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let Some(subscribed) = session.subscriptions.remove(filter) else { return false };
        session.retained.cancel(filter);
        if !is_observer {
            self.shared.hooks.tell(|| Event::Unsubscribed { client_id: &session.client_id, filter });
        }
        match subscribed.member {
            Some(member) => self.leave(now, key, &member),
            None => self.remove_local(key, filter),
        }
        true
    }

    /// Tells the groups of a session whether it is there to take messages.
    pub(super) fn set_members_online(&mut self, key: SessionKey, online: bool) {
        let Some(session) = self.sessions.get(key) else { return };
        for member in session.subscriptions.members() {
            member.set_online(online);
        }
    }

    /// Gives to other members what this one has not finished: after it left (`only` that membership), or when it went
    /// away and another member is there. QoS 2 messages that were sent stay [MQTT-4.8.2-4].
    pub(super) fn release_shared(&mut self, now: Instant, key: SessionKey, only: Option<&Arc<Member>>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let before = session.state.pending_bytes();
        let is_away = session.conn.is_none();
        let released = session.state.withdraw(is_away, |delivery| {
            delivery.content.is_kept()
                && delivery.member.as_ref().is_some_and(|member| match only {
                    Some(only) => Arc::ptr_eq(member, only),
                    None => has_other_online(member),
                })
        });
        self.queued_bytes = self.queued_bytes + session.state.pending_bytes() - before;
        for delivery in released.into_iter().flat_map(Delivery::singles) {
            settle(&delivery);
            self.record_settled(key, &delivery);
            if let (Some(member), Some(mut parcel)) = (&delivery.member, delivery.content.parcel()) {
                self.redispatch(now, member, &mut parcel);
            }
        }
    }

    pub(super) fn leave(&mut self, now: Instant, key: SessionKey, member: &Arc<Member>) {
        member.set_options(MemberOptions::LEFT);
        self.shared.interest.leave(member);
        self.release_shared(now, key, Some(member));
    }

    /// Capabilities that are switched off; a client was told in CONNACK.
    fn check_subscribe(&self, subscribe: &Subscribe) -> Result<(), DecodeError> {
        let capabilities = &self.shared.settings.capabilities;
        let violation = |reason, what| Err(DecodeError::Violation { reason, what });
        if !capabilities.subscription_identifier_available
            && subscribe.properties.subscription_identifiers().next().is_some()
        {
            let what = "subscription identifiers are not available [MQTT-3.2.2-3.2.2.3.12]";
            return violation(ReasonCode::SubscriptionIdentifiersNotSupported, what);
        }
        Ok(())
    }

    /// Makes or replaces one subscription; whether it is new.
    fn subscribe_one(
        &mut self,
        key: SessionKey,
        subscription: &Subscription,
        identifier: Option<u32>,
        is_allowed: bool,
    ) -> Result<bool, ReasonCode> {
        self.check_subscription(key, subscription)?;
        if !is_allowed {
            return Err(ReasonCode::NotAuthorized);
        }
        let filter = subscription.filter.as_text();
        let mut options = subscription.options;
        options.qos = self.granted_qos(subscription);
        let is_observer = self.is_observer(self.sessions.get(key).and_then(|session| session.conn));
        let Some(session) = self.sessions.get_mut(key) else { return Err(ReasonCode::UnspecifiedError) };
        if !is_observer {
            self.shared.hooks.tell(|| Event::Subscribed { client_id: &session.client_id, filter, options });
        }
        if let Some(existing) = session.subscriptions.get(filter) {
            // The retained messages begin anew, if at all: one scan for each subscription.
            session.retained.cancel(filter);
            match &existing.member {
                Some(member) => member.set_options(pack(options, identifier)),
                None => self.replace_local(filter, LocalSubscription::new(key, options, identifier)),
            }
            return Ok(false);
        }
        let member = self.join_or_add(key, &subscription.filter, options, identifier);
        if let Some(session) = self.sessions.get_mut(key) {
            session.subscriptions.insert(filter, Subscribed { member }, &self.hash_state);
        }
        Ok(true)
    }

    /// What may be wrong with one filter, told in SUBACK.
    fn check_subscription(&self, key: SessionKey, subscription: &Subscription) -> Result<(), ReasonCode> {
        let capabilities = &self.shared.settings.capabilities;
        let filter = &subscription.filter;
        let shared = filter.shared();
        if shared.is_some() && !capabilities.shared_subscription_available {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        let session = self.sessions.get(key).ok_or(ReasonCode::UnspecifiedError)?;
        if filter.has_wildcard() && !capabilities.wildcard_subscription_available && !self.is_observer(session.conn) {
            return Err(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        if session.subscriptions.len() >= self.shared.settings.session.subscriptions_max
            && session.subscriptions.get(filter.as_text()).is_none()
        {
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(())
    }

    pub(super) fn join_or_add(
        &mut self,
        key: SessionKey,
        filter: &TopicFilter,
        options: SubscriptionOptions,
        identifier: Option<u32>,
    ) -> Option<Arc<Member>> {
        let Some(shared) = filter.shared() else {
            self.add_local(filter.as_text(), LocalSubscription::new(key, options, identifier));
            return None;
        };
        let session = self.sessions.get(key)?;
        let joining = Joining {
            shard: self.id,
            session: key,
            client_id: (&*session.client_id).into(),
            options: pack(options, identifier),
        };
        let member = self.shared.interest.join(shared.group, shared.filter, joining);
        member.set_online(true);
        Some(member)
    }

    fn add_local(&mut self, filter: &Text, subscription: LocalSubscription) {
        let subscribers = self.subscriptions.entry_or_default(filter);
        let is_first = subscribers.is_empty();
        subscribers.insert(subscription);
        self.local.bump(filter);
        if is_first {
            // Visible to every shard when this returns, so before SUBACK is written.
            self.shared.interest.add(filter, self.id);
        }
    }

    fn replace_local(&mut self, filter: &Text, subscription: LocalSubscription) {
        if let Some(subscribers) = self.subscriptions.get_mut(filter) {
            subscribers.insert(subscription);
            self.local.bump(filter);
        }
    }

    pub(super) fn remove_local(&mut self, key: SessionKey, filter: &str) {
        let Some(subscribers) = self.subscriptions.get_mut(filter) else { return };
        subscribers.remove(key);
        let is_last = subscribers.is_empty();
        self.local.bump(filter);
        if is_last {
            self.subscriptions.remove(filter);
            self.shared.interest.remove(filter, self.id);
        }
    }

    fn granted_qos(&self, subscription: &Subscription) -> QoS {
        subscription.options.qos.min(self.shared.settings.capabilities.maximum_qos)
    }

    /// Retained messages for a new subscription, by its retain handling [MQTT-3.3.1-9] and not for shared ones.
    fn scan_if_asked(&self, subscription: &Subscription, id: Option<u32>, is_new: bool, scans: &mut Vec<RetainedScan>) {
        let asked = match subscription.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if !asked || subscription.filter.shared().is_some() {
            return;
        }
        scans.push(RetainedScan {
            filter: subscription.filter.as_text().clone(),
            cursor: None,
            qos: self.granted_qos(subscription),
            id,
            ready: VecDeque::new(),
            changes: 0,
            is_finished: false,
        });
    }
}

fn pack(options: SubscriptionOptions, id: Option<u32>) -> u64 {
    MemberOptions { qos: options.qos, retain_as_published: options.retain_as_published, id }.pack()
}

/// Whether somebody else of the group could take a message now.
fn has_other_online(member: &Arc<Member>) -> bool {
    member
        .group()
        .is_some_and(|group| group.members().iter().any(|other| other.online() && !Arc::ptr_eq(other, member)))
}

fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}
