//! SUBSCRIBE and UNSUBSCRIBE, their answers, and the subscriptions to be made again when the server lost the session.

use super::{ClientSession, Event, Phase, Reply, RequestError, Token, receive::Violation};
use crate::codec::{
    Packet, PacketId, Properties, Property, ReasonCode, RetainHandling, SubAck, Subscribe, Subscription,
    SubscriptionOptions, Text, TopicFilter, UnsubAck, Unsubscribe,
};

/// What to subscribe to in one SUBSCRIBE.
#[derive(Debug, Clone, Default)]
pub struct SubscribeRequest {
    /// At least one filter [MQTT-3.8.3-2].
    pub subscriptions: Vec<Subscription>,
    /// Subscription identifier that messages shall carry (MQTT 5), 1 to 268,435,455.
    pub identifier: Option<u32>,
    /// User properties (MQTT 5).
    pub user_properties: Vec<(Text, Text)>,
}

/// A subscription the server has granted.
#[derive(Debug, Clone)]
pub(super) struct Active {
    filter: TopicFilter,
    options: SubscriptionOptions,
    identifier: Option<u32>,
}

/// A SUBSCRIBE or UNSUBSCRIBE without an answer; sent if it has a packet identifier.
#[derive(Debug)]
pub(super) struct Request {
    packet_id: Option<PacketId>,
    verb: Verb,
}

#[derive(Debug)]
enum Verb {
    Subscribe(SubscribeRequest, Token),
    /// Part of restoring the subscriptions; nobody waits for it.
    Restore(SubscribeRequest),
    Unsubscribe(Vec<TopicFilter>, Token),
}

impl ClientSession {
    /// Subscribes: now, or as soon as there is a connection. [`Event::Subscribed`] follows. What is granted is made
    /// again by itself whenever the server has lost the session.
    pub fn subscribe(&mut self, request: SubscribeRequest, token: Token) -> Result<(), RequestError> {
        self.check_subscribe(&request)?;
        self.request(Verb::Subscribe(request, token))
    }

    /// Makes a subscription that is to replace a granted one serve those who asked for that as well: the greater QoS, and
    /// nothing left out or changed that they wanted.
    pub fn widen(&self, subscription: &mut Subscription) {
        let Some(active) = self.active.get(subscription.filter.as_str()) else { return };
        let (known, options) = (&active.options, &mut subscription.options);
        options.qos = options.qos.max(known.qos);
        options.no_local &= known.no_local;
        options.retain_as_published |= known.retain_as_published;
    }

    /// Unsubscribes, and no longer restores these subscriptions. [`Event::Unsubscribed`] follows.
    pub fn unsubscribe(&mut self, filters: Vec<TopicFilter>, token: Token) -> Result<(), RequestError> {
        if filters.is_empty() {
            return Err(RequestError::NotAllowed("UNSUBSCRIBE needs at least one filter"));
        }
        for filter in &filters {
            self.active.remove(filter.as_str());
        }
        self.request(Verb::Unsubscribe(filters, token))
    }

    /// Filters the server has granted.
    pub fn subscriptions(&self) -> impl Iterator<Item = &TopicFilter> {
        self.active.values().map(|active| &active.filter)
    }

    pub(super) fn handle_suback(&mut self, ack: SubAck) -> Result<(), Violation> {
        let Some(request) = self.answered(ack.packet_id) else { return Ok(()) };
        let (request, token) = match request.verb {
            Verb::Subscribe(request, token) => (request, Some(token)),
            Verb::Restore(request) => (request, None),
            Verb::Unsubscribe(..) => return Err(Violation::protocol("SUBACK for an UNSUBSCRIBE")),
        };
        if ack.reasons.len() != request.subscriptions.len() {
            // [MQTT-3.9.3-1]
            return Err(Violation::protocol("SUBACK whose reason codes do not fit the SUBSCRIBE"));
        }
        for (subscription, reason) in request.subscriptions.iter().zip(&ack.reasons) {
            match (reason.is_error(), token) {
                (false, Some(_)) => self.activate(subscription, request.identifier),
                (true, None) if self.active.remove(subscription.filter.as_str()).is_some() => {
                    self.events.push_back(Event::SubscriptionLost(subscription.filter.clone(), *reason));
                }
                // Restored as it was, ended meanwhile, or refused as who waits will hear.
                _ => {}
            }
        }
        if let Some(token) = token {
            let reply = Reply { reasons: ack.reasons, properties: ack.properties };
            self.events.push_back(Event::Subscribed(token, Ok(reply)));
        }
        self.send_requests();
        Ok(())
    }

    pub(super) fn handle_unsuback(&mut self, ack: UnsubAck) -> Result<(), Violation> {
        let Some(request) = self.answered(ack.packet_id) else { return Ok(()) };
        let Verb::Unsubscribe(filters, token) = request.verb else {
            return Err(Violation::protocol("UNSUBACK for a SUBSCRIBE"));
        };
        if self.is_v5() && ack.reasons.len() != filters.len() {
            // [MQTT-3.11.3-1]
            return Err(Violation::protocol("UNSUBACK whose reason codes do not fit the UNSUBSCRIBE"));
        }
        for filter in &filters {
            // A SUBSCRIBE that was under way when this was asked for has been granted since.
            self.active.remove(filter.as_str());
        }
        let reply = Reply { reasons: ack.reasons, properties: ack.properties };
        self.events.push_back(Event::Unsubscribed(token, Ok(reply)));
        self.send_requests();
        Ok(())
    }

    /// Sends the requests that were not sent on this connection.
    pub(super) fn send_requests(&mut self) {
        if self.phase != Phase::Online {
            return;
        }
        let mut requests = std::mem::take(&mut self.requests);
        requests.retain_mut(|request| {
            if request.packet_id.is_some() {
                return true;
            }
            if let Verb::Restore(restore) = &mut request.verb {
                restore.subscriptions.retain(|part| self.active.contains_key(part.filter.as_str()));
                if restore.subscriptions.is_empty() {
                    return false;
                }
            }
            let Some(packet_id) = self.session.reserve() else { return true };
            request.packet_id = Some(packet_id);
            let sent = self.write_request(&request.verb, packet_id);
            if let Err(fault) = sent {
                self.session.release(packet_id);
                self.refuse(&request.verb, fault);
                return false;
            }
            true
        });
        self.requests = requests;
    }

    /// The connection is gone, and with it the identifiers: the requests will be sent anew.
    pub(super) fn forget_request_ids(&mut self) {
        for request in &mut self.requests {
            if let Some(packet_id) = request.packet_id.take() {
                self.session.release(packet_id);
            }
        }
    }

    /// The server has no session, or perhaps not the one that was: asks again for all that it had granted. Where the
    /// subscription may still be there, only a server that made it anew sends retained messages (MQTT 5).
    pub(super) fn subscribe_again(&mut self, may_be_there: bool) {
        self.requests.retain(|request| !matches!(request.verb, Verb::Restore(_)));
        let is_careful = may_be_there && self.is_v5();
        let mut groups: Vec<SubscribeRequest> = Vec::new();
        for active in self.active.values() {
            let mut options = active.options;
            if is_careful && options.retain_handling == RetainHandling::Send {
                options.retain_handling = RetainHandling::SendIfNew;
            }
            let subscription = Subscription { filter: active.filter.clone(), options };
            let fits = |group: &SubscribeRequest| {
                group.identifier == active.identifier && group.subscriptions.len() < RESTORE_FILTERS_MAX
            };
            match groups.iter_mut().rev().find(|group| fits(group)) {
                Some(group) => group.subscriptions.push(subscription),
                None => groups.push(SubscribeRequest {
                    subscriptions: vec![subscription],
                    identifier: active.identifier,
                    user_properties: Vec::new(),
                }),
            }
        }
        for group in groups.into_iter().rev() {
            self.requests.push_front(Request { packet_id: None, verb: Verb::Restore(group) });
        }
    }

    pub(super) fn abandon_requests(&mut self) {
        for request in std::mem::take(&mut self.requests) {
            self.refuse(&request.verb, RequestError::Closed);
        }
    }

    fn request(&mut self, verb: Verb) -> Result<(), RequestError> {
        if self.requests.len() >= REQUESTS_MAX {
            return Err(RequestError::TooManyRequests);
        }
        if self.phase != Phase::Online {
            self.requests.push_back(Request { packet_id: None, verb });
            return Ok(());
        }
        let packet_id = self.session.reserve().ok_or(RequestError::TooManyRequests)?;
        if let Err(fault) = self.write_request(&verb, packet_id) {
            self.session.release(packet_id);
            return Err(fault);
        }
        self.requests.push_back(Request { packet_id: Some(packet_id), verb });
        Ok(())
    }

    fn answered(&mut self, packet_id: PacketId) -> Option<Request> {
        let at = self.requests.iter().position(|request| request.packet_id == Some(packet_id))?;
        self.session.release(packet_id);
        self.requests.remove(at)
    }

    fn activate(&mut self, subscription: &Subscription, identifier: Option<u32>) {
        let Subscription { filter, mut options } = subscription.clone();
        if let Some(known) = self.active.get(filter.as_str()) {
            // Made again on a new session, it brings the retained messages that somebody wanted once.
            options.retain_handling = options.retain_handling.min(known.options.retain_handling);
        }
        let active = Active { filter: filter.clone(), options, identifier };
        self.active.insert(filter.as_text().clone(), active);
    }

    fn refuse(&mut self, verb: &Verb, fault: RequestError) {
        match verb {
            Verb::Subscribe(_, token) => self.events.push_back(Event::Subscribed(*token, Err(fault))),
            Verb::Unsubscribe(_, token) => self.events.push_back(Event::Unsubscribed(*token, Err(fault))),
            Verb::Restore(request) => {
                for subscription in &request.subscriptions {
                    self.active.remove(subscription.filter.as_str());
                    let filter = subscription.filter.clone();
                    self.events.push_back(Event::SubscriptionLost(filter, ReasonCode::ImplementationSpecificError));
                }
            }
        }
    }

    fn write_request(&mut self, verb: &Verb, packet_id: PacketId) -> Result<(), RequestError> {
        let packet = match verb {
            Verb::Subscribe(request, _) | Verb::Restore(request) => {
                self.check_capabilities(request)?;
                Packet::Subscribe(Subscribe {
                    packet_id,
                    properties: request.properties(),
                    subscriptions: request.subscriptions.clone(),
                })
            }
            Verb::Unsubscribe(filters, _) => {
                Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::new(), filters: filters.clone() })
            }
        };
        let start = self.out.len();
        packet.encode(self.options.version, &mut self.out)?;
        let (len, max) = (self.out.len() - start, self.server.maximum_packet_size);
        if len > max as usize {
            self.out.truncate(start);
            return Err(RequestError::PacketTooLarge { len, max });
        }
        Ok(())
    }

    fn check_subscribe(&self, request: &SubscribeRequest) -> Result<(), RequestError> {
        if request.subscriptions.is_empty() {
            return Err(RequestError::NotAllowed("SUBSCRIBE needs at least one filter"));
        }
        if !self.is_v5() && (request.identifier.is_some() || !request.user_properties.is_empty()) {
            return Err(RequestError::NeedsVersion5("a SUBSCRIBE with properties"));
        }
        if request.identifier.is_some_and(|id| !(1..=SUBSCRIPTION_ID_MAX).contains(&id)) {
            return Err(RequestError::NotAllowed("a subscription identifier is 1 to 268,435,455"));
        }
        for Subscription { filter, options } in &request.subscriptions {
            let plain = SubscriptionOptions { qos: options.qos, ..SubscriptionOptions::default() };
            if !self.is_v5() && *options != plain {
                return Err(RequestError::NeedsVersion5("a subscription with options beside QoS"));
            }
            if options.no_local && filter.shared().is_some() {
                // [MQTT-3.8.3-4]
                return Err(RequestError::NotAllowed("a shared subscription cannot be no-local"));
            }
        }
        Ok(())
    }

    fn check_capabilities(&self, request: &SubscribeRequest) -> Result<(), RequestError> {
        let server = &self.server;
        if request.identifier.is_some() && !server.subscription_identifiers {
            return Err(RequestError::IdentifiersNotSupported);
        }
        for Subscription { filter, .. } in &request.subscriptions {
            if filter.has_wildcard() && !server.wildcard_subscriptions {
                return Err(RequestError::WildcardsNotSupported);
            }
            if filter.shared().is_some() && !server.shared_subscriptions {
                return Err(RequestError::SharedNotSupported);
            }
        }
        Ok(())
    }
}

impl SubscribeRequest {
    /// One filter with these options.
    pub fn new(filter: TopicFilter, options: SubscriptionOptions) -> Self {
        Self { subscriptions: vec![Subscription { filter, options }], ..Self::default() }
    }

    fn properties(&self) -> Properties {
        let identifier = self.identifier.map(Property::SubscriptionIdentifier);
        let user = self.user_properties.iter().cloned().map(Property::UserProperty);
        identifier.into_iter().chain(user).collect()
    }
}

/// Filters asked for in one packet when subscriptions are restored: a few kilobytes, which every server takes.
const RESTORE_FILTERS_MAX: usize = 50;

/// Requests without an answer; a bound for memory, far above what a server leaves unanswered.
const REQUESTS_MAX: usize = 10_000;

const SUBSCRIPTION_ID_MAX: u32 = 268_435_455;
