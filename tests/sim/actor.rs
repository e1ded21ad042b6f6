//! A client and what it does of its own: publish, subscribe, leave, come back, forget.

use std::collections::HashMap;

use bytes::Bytes;
use ferromq::{
    codec::{
        Limits, Properties, Property, QoS, ReasonCode, SubscriptionOptions, Text, TopicFilter, TopicName, Will, topic,
    },
    session::client::{
        ClientSession, CloseReason, Connected, Event as Told, Message, Outgoing, Payload, SessionOptions,
        SubscribeRequest,
    },
};

use crate::{
    ledger::{self, Published, Received, Subscription},
    plan::{Habits, TOPICS},
    world::{Event, World},
};

/// A client.
pub(crate) struct Actor {
    pub(crate) habits: Habits,
    pub(crate) session: ClientSession,
    /// Which life this is: it has no memory of the earlier ones.
    pub(crate) life: u32,
    pub(crate) link: Option<usize>,
    pub(crate) subscriptions: HashMap<String, Subscription>,
    pub(crate) steps: usize,
    next_token: u64,
    /// The server is to keep the session of this life.
    keeps_session: bool,
    /// When the server was last heard, if it has a session to keep since then.
    heard_us: Option<u64>,
}

/// What a publication has besides topic and QoS.
#[derive(Debug, Clone, Copy, Default)]
struct Extras {
    retain: bool,
    expires: bool,
    /// Bytes of payload behind its number.
    padding: usize,
}

impl World {
    pub(crate) fn populate(&mut self) {
        for client in 0..self.plan.clients.len() {
            let habits = self.plan.clients[client].clone();
            let clean = habits.version.is_v5() || !habits.is_persistent;
            let session = ClientSession::new(options(client, 0, &habits, clean), None, self.now());
            self.ledger.received.push(Vec::new());
            self.actors.push(Actor {
                session,
                life: 0,
                link: None,
                subscriptions: HashMap::new(),
                steps: self.plan.steps,
                next_token: FIRST_REQUEST,
                keeps_session: habits.is_persistent,
                heard_us: None,
                habits: habits.clone(),
            });
            self.make_will(client);
            if habits.is_watcher {
                self.subscribe(client, "will/#".into(), QoS::ExactlyOnce);
            }
            for _ in 0..habits.filters {
                let (filter, qos) = habits.filter(&mut self.rng);
                self.subscribe(client, filter, qos);
            }
            let at = self.after_up_to(100);
            self.schedule_at(at, Event::Reconnect(client));
            if !habits.is_watcher {
                // By then the watcher is there to see what becomes of them.
                let at = 2_000_000 + self.after_up_to(1_000);
                self.schedule_at(at, Event::Step(client));
            }
        }
    }

    /// A client's next idea.
    pub(crate) fn act(&mut self, client: usize) -> Result<(), String> {
        if self.is_calm || self.actors[client].steps == 0 {
            return Ok(());
        }
        self.actors[client].steps -= 1;
        let habits = self.actors[client].habits.clone();
        let link = self.actors[client].link;
        if let Some(link) = link.filter(|_| self.rng.chance(self.plan.cut_percent)) {
            self.note(|_| format!("client {client}: link {link} breaks"));
            self.cut(link);
        } else if self.rng.chance(habits.restart_percent) {
            let clean = !(habits.may_forget() && self.actors[client].keeps_session && self.rng.chance(50));
            self.forget(client, clean);
        } else if self.rng.chance(habits.resubscribe_percent) {
            self.change_subscriptions(client, &habits);
        } else if self.rng.chance(4) {
            self.say_goodbye(client, None);
        } else if let Some(qos) = habits.publishes.filter(|_| self.rng.chance(habits.burst_percent)) {
            self.publish_burst(client, qos);
        } else if let Some(qos) = habits.publishes {
            for _ in 0..self.rng.between(1, 5) {
                self.publish(client, qos);
            }
        }
        self.serve(client)?;
        let pause = *self.rng.pick(&[1, 10, 10, 100, 100, 1_000, 8_000]);
        let at = self.after_up_to(pause);
        self.schedule_at(at, Event::Step(client));
        Ok(())
    }

    /// Many small messages to one topic, which a read brings together.
    fn publish_burst(&mut self, client: usize, most: QoS) {
        let qos = (*self.rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtLeastOnce])).min(most);
        let topic = *self.rng.pick(&TOPICS);
        for _ in 0..self.rng.between(5, 40) {
            self.publish_one(client, topic, qos, Extras::default());
        }
    }

    pub(crate) fn publish(&mut self, client: usize, most: QoS) {
        let qos = *self.rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let retain = self.rng.chance(10);
        // Of one QoS, so that repetitions cannot bring an older message back: QoS 1 is taken again, QoS 2 is not.
        let qos = if retain { most } else { qos.min(most) };
        let topic = if retain { format!("r/{client}") } else { (*self.rng.pick(&TOPICS)).to_owned() };
        // Large payloads in tiny pieces would take all the time there is.
        let padding = (*self.rng.pick(&[0, 5, 50, 250, 1_500])).min(self.plan.chunk_bytes_max * 20);
        let expires = self.actors[client].habits.version.is_v5() && !retain && self.rng.chance(5);
        self.publish_one(client, &topic, qos, Extras { retain, expires, padding });
    }

    fn publish_one(&mut self, client: usize, topic: &str, qos: QoS, extras: Extras) {
        let Extras { retain, expires, padding } = extras;
        let number = self.ledger.published.len();
        let payload = format!("{number}:{}", "x".repeat(padding));
        let properties: Properties = expires.then_some(Property::MessageExpiryInterval(1)).into_iter().collect();
        let now = self.now();
        let message =
            Outgoing { topic, payload: Payload::Borrowed(payload.as_bytes()), qos, retain, properties: &properties };
        let actor = &mut self.actors[client];
        let result = actor.session.publish(now, &message, number as u64);
        let (life, attempts) = (actor.life, u32::from(actor.session.is_online()));
        self.note(|_| {
            format!("client {client} publishes {number} to {topic} with {qos:?}, retain {retain}: {result:?}")
        });
        self.ledger.published.push(Published {
            client,
            life,
            topic: topic.to_owned(),
            qos,
            retain,
            payload_bytes: payload.len(),
            expires,
            at: self.tick,
            acked: false,
            given_up: result.is_err(),
            attempts,
        });
    }

    fn change_subscriptions(&mut self, client: usize, habits: &Habits) {
        let mut held: Vec<String> = self.actors[client].subscriptions.keys().cloned().collect();
        held.sort();
        if held.is_empty() || self.rng.chance(60) {
            let (filter, qos) = habits.filter(&mut self.rng);
            self.subscribe(client, filter, qos);
            return;
        }
        let filter = self.rng.pick(&held).clone();
        self.note(|_| format!("client {client} unsubscribes from {filter}"));
        let actor = &mut self.actors[client];
        actor.subscriptions.remove(&filter);
        actor.next_token += 1;
        let filter = TopicFilter::new(&filter).expect("the plan's filters are valid");
        actor.session.unsubscribe(vec![filter], actor.next_token).expect("few requests are under way");
    }

    pub(crate) fn subscribe(&mut self, client: usize, filter: String, qos: QoS) {
        self.note(|_| format!("client {client} subscribes to {filter} with {qos:?}"));
        let actor = &mut self.actors[client];
        actor.next_token += 1;
        let request = TopicFilter::new(&filter).expect("the plan's filters are valid");
        let request = SubscribeRequest::new(request, SubscriptionOptions::new(qos));
        actor.session.subscribe(request, actor.next_token).expect("few requests are under way");
        let fresh = Subscription { qos, since: None, asked: qos, token: 0 };
        let held = actor.subscriptions.entry(filter).or_insert(fresh);
        held.token = actor.next_token;
        held.asked = qos;
        held.qos = held.qos.min(qos);
    }

    /// DISCONNECT; the client comes back later, unless the run is over.
    pub(crate) fn say_goodbye(&mut self, client: usize, session_expiry: Option<u32>) {
        self.note(|_| format!("client {client} disconnects"));
        let actor = &mut self.actors[client];
        let was_online = actor.session.is_online();
        actor.session.disconnect(ReasonCode::Success, session_expiry).expect("the expiry was not zero before");
        if let Some(link) = actor.link.filter(|_| was_online) {
            self.links[link].said_goodbye = true;
        }
    }

    /// The process of the client dies, and another takes its place that knows nothing of it.
    pub(crate) fn forget(&mut self, client: usize, clean: bool) {
        self.note(|_| format!("client {client} restarts, clean {clean}"));
        if let Some(link) = self.actors[client].link.take() {
            self.close_from_client(link);
        }
        let now = self.now();
        let actor = &mut self.actors[client];
        let life = actor.life;
        // Before MQTT 5 the flag also says whether the session is kept.
        actor.keeps_session = actor.habits.is_persistent && (actor.habits.version.is_v5() || !clean);
        for message in &mut self.ledger.published {
            if (message.client, message.life) == (client, life) && !message.acked {
                message.given_up = true;
            }
        }
        actor.life += 1;
        actor.session = ClientSession::new(options(client, actor.life, &actor.habits, clean), None, now);
        if clean {
            actor.heard_us = None;
            actor.subscriptions.values_mut().for_each(|held| held.since = None);
        }
        self.make_will(client);
        self.restore(client);
        let at = self.after_up_to(200);
        self.schedule_at(at, Event::Reconnect(client));
    }

    /// Asks for all subscriptions again, so that it is known when they hold.
    fn restore(&mut self, client: usize) {
        let mut held: Vec<(String, QoS)> =
            self.actors[client].subscriptions.iter().map(|(filter, held)| (filter.clone(), held.asked)).collect();
        held.sort();
        for (filter, qos) in held {
            self.subscribe(client, filter, qos);
        }
    }

    fn make_will(&mut self, client: usize) {
        let actor = &self.actors[client];
        if let Some(delay) = actor.habits.will_delay_s {
            let is_prompt = delay == 0 || !actor.habits.version.is_v5();
            let will = ledger::Will { is_prompt, ..ledger::Will::default() };
            self.ledger.wills.insert(will_payload(client, actor.life), will);
        }
    }

    pub(crate) fn reconnect(&mut self, client: usize) -> Result<(), String> {
        if self.actors[client].link.is_some() {
            return Ok(());
        }
        let link = self.open_link(client);
        self.note(|_| format!("client {client} connects on link {link}"));
        let now = self.now();
        let actor = &mut self.actors[client];
        actor.link = Some(link);
        actor.session.connect(now).map_err(|error| format!("client {client} cannot connect: {error}"))?;
        self.serve(client)
    }

    /// Bytes for the client of a link.
    pub(crate) fn deliver(&mut self, link: usize, bytes: &[u8]) -> Result<(), String> {
        let client = self.links[link].client;
        if self.actors[client].link != Some(link) {
            return Ok(());
        }
        let now = self.now();
        let tail = &mut self.links[link].tail;
        tail.extend_from_slice(bytes);
        let input = Bytes::copy_from_slice(tail);
        let used = self.actors[client].session.handle_bytes(now, &input);
        let _ = self.links[link].tail.split_to(used);
        self.serve(client)?;
        if self.actors[client].session.is_online() && self.actors[client].keeps_session {
            self.actors[client].heard_us = Some(self.now_us);
        }
        Ok(())
    }

    /// The client learns that its connection is gone.
    pub(crate) fn client_learns(&mut self, link: usize) -> Result<(), String> {
        let client = self.links[link].client;
        if std::mem::replace(&mut self.links[link].client_knows, true) || self.actors[client].link != Some(link) {
            return Ok(());
        }
        self.note(|_| format!("client {client} learns that link {link} is gone"));
        self.actors[client].link = None;
        self.actors[client].session.connection_lost();
        self.come_back(client);
        self.serve(client)
    }

    /// Sends what the client has to send, and notes what it tells.
    pub(crate) fn serve(&mut self, client: usize) -> Result<(), String> {
        loop {
            let now = self.now();
            let mut out = Vec::new();
            self.actors[client].session.take_output(now, &mut out);
            if let Some(link) = self.actors[client].link {
                self.send_up(link, &out);
            }
            let Some(told) = self.actors[client].session.poll_event() else { return Ok(()) };
            self.told(client, told)?;
        }
    }

    fn told(&mut self, client: usize, told: Told) -> Result<(), String> {
        match told {
            Told::Connected(connected) => return self.connected(client, &connected),
            Told::Message(message) => return self.message(client, &message),
            Told::Published(number, result) => {
                self.note(|_| format!("client {client} is told of {number}: {result:?}"));
                let message = &mut self.ledger.published[number as usize];
                match result {
                    // For QoS 0 it says only that the message was sent.
                    Ok(ack) if !ack.reason.is_error() => message.acked = message.qos > QoS::AtMostOnce,
                    _ => message.given_up = true,
                }
            }
            Told::Subscribed(token, Ok(reply)) => {
                let tick = self.tick;
                let held = self.actors[client].subscriptions.values_mut().find(|held| held.token == token);
                match (held, reply.reasons.as_slice()) {
                    (_, [reason]) if reason.is_error() => return Err(format!("client {client}: SUBACK {reason}")),
                    (Some(held), [reason]) if held.since.is_none() => {
                        held.since = Some(tick);
                        held.qos = QoS::from_bits(reason.as_u8()).unwrap_or_default();
                    }
                    _ => {}
                }
            }
            Told::Subscribed(_, Err(error)) => return Err(format!("client {client}: SUBSCRIBE failed: {error}")),
            Told::Unsubscribed(..) | Told::Reauthenticated => {}
            Told::SubscriptionLost(filter, reason) => {
                return Err(format!("client {client}: {} was not restored: {reason}", filter.as_str()));
            }
            Told::Closed(reason) => return self.closed(client, &reason),
        }
        Ok(())
    }

    fn connected(&mut self, client: usize, connected: &Connected) -> Result<(), String> {
        self.note(|_| format!("client {client} is connected, session present {}", connected.session_present));
        let now_us = self.now_us;
        let actor = &mut self.actors[client];
        for message in &mut self.ledger.published {
            if (message.client, message.life) == (client, actor.life) && !message.acked && !message.given_up {
                message.attempts += 1;
            }
        }
        let kept_us = u64::from(actor.habits.expiry_s).saturating_mul(1_000_000);
        if connected.session_present {
            // The session may have expired, and another begun by a CONNECT whose CONNACK never arrived: what was
            // published before the client had subscribed again did not reach it.
            if actor.heard_us.is_some_and(|heard| now_us >= heard.saturating_add(kept_us)) {
                actor.subscriptions.values_mut().for_each(|held| held.since = None);
            }
            return Ok(());
        }
        if actor.heard_us.is_some_and(|heard| now_us < heard.saturating_add(kept_us)) {
            return Err(format!("client {client} has lost its session too early"));
        }
        actor.subscriptions.values_mut().for_each(|held| held.since = None);
        self.restore(client);
        Ok(())
    }

    fn message(&mut self, client: usize, message: &Message) -> Result<(), String> {
        let payload = String::from_utf8_lossy(message.payload()).into_owned();
        self.note(|_| format!("client {client} gets {} {payload:.20} {message:?}", message.topic()));
        if payload.starts_with("will") {
            if self.actors[client].habits.is_watcher {
                self.ledger.wills.get_mut(&payload).ok_or("a will that nobody made")?.seen += 1;
            }
            return Ok(());
        }
        let number = payload.split(':').next().and_then(|number| number.parse::<usize>().ok());
        let number = number.filter(|number| *number < self.ledger.published.len());
        let Some(number) = number else { return Err(format!("client {client} got a strange payload {payload:.20}")) };
        if self.ledger.published[number].topic != message.topic() {
            return Err(format!("message {number} came on topic {}", message.topic()));
        }
        if self.ledger.published[number].payload_bytes != payload.len() {
            return Err(format!("message {number} has {} bytes now", payload.len()));
        }
        self.ledger.received[client].push(Received {
            number,
            qos: message.qos(),
            dup: message.dup(),
            retain: message.retain(),
            life: self.actors[client].life,
            is_promised: self.actors[client].subscriptions.iter().any(|(filter, held)| {
                held.since.is_some_and(|since| since <= self.ledger.published[number].at)
                    && topic::matches(filter, message.topic())
            }),
        });
        Ok(())
    }

    /// The client's machine has ended the connection.
    fn closed(&mut self, client: usize, reason: &CloseReason) -> Result<(), String> {
        self.note(|_| format!("client {client}: {reason}"));
        let is_cut = self.actors[client].link.is_none_or(|link| self.links[link].is_cut);
        let expected = match reason {
            CloseReason::Requested => true,
            CloseReason::ServerDisconnect { reason, .. } => {
                matches!(reason, ReasonCode::SessionTakenOver | ReasonCode::KeepAliveTimeout)
                    || *reason == ReasonCode::ServerShuttingDown && self.is_over
            }
            // Above twice the watermark, or while it shuts down.
            CloseReason::Refused(connack) if connack.reason == ReasonCode::ServerBusy => !self.is_calm,
            CloseReason::Refused(connack) if connack.reason == ReasonCode::ServerUnavailable => {
                !self.is_calm || self.is_over
            }
            // A server that is not reached does not answer.
            CloseReason::ConnAckTimeout | CloseReason::PingTimeout => is_cut,
            _ => false,
        };
        if !expected {
            return Err(format!("client {client}: {reason}"));
        }
        let now = self.now();
        let mut out = Vec::new();
        self.actors[client].session.take_output(now, &mut out);
        if let Some(link) = self.actors[client].link.take() {
            self.send_up(link, &out);
            self.close_from_client(link);
        }
        self.actors[client].session.connection_lost();
        self.come_back(client);
        Ok(())
    }

    fn come_back(&mut self, client: usize) {
        if self.is_over {
            return;
        }
        let pause = if self.is_calm { 10 } else { *self.rng.pick(&[10, 100, 1_000, 9_000]) };
        let at = self.after_up_to(pause);
        self.schedule_at(at, Event::Reconnect(client));
    }
}

fn options(client: usize, life: u32, habits: &Habits, clean: bool) -> SessionOptions {
    let delay = habits.will_delay_s.filter(|_| habits.version.is_v5()).map(Property::WillDelayInterval);
    let will = habits.will_delay_s.map(|_| Will {
        topic: TopicName::new(&format!("will/{client}")).expect("a valid topic"),
        payload: Bytes::from(will_payload(client, life)),
        qos: QoS::ExactlyOnce,
        retain: false,
        properties: delay.into_iter().collect(),
    });
    let limits = Limits { packet_bytes_max: habits.packet_bytes_max, ..Limits::default() };
    SessionOptions {
        version: habits.version,
        client_id: Text::try_from(format!("client{client}").as_str()).expect("a short text"),
        clean_start: clean,
        session_expiry: if habits.is_persistent { habits.expiry_s } else { 0 },
        keep_alive: habits.keep_alive_s,
        will,
        receive_maximum: habits.receive_maximum,
        topic_alias_maximum: habits.topic_aliases,
        topic_aliases_used_max: habits.topic_aliases,
        limits,
        ..SessionOptions::default()
    }
}

/// Payload of the will of one life.
pub(crate) fn will_payload(client: usize, life: u32) -> String {
    format!("will of client {client}, life {life}")
}

/// Tokens of requests; those of publications are the messages' numbers.
const FIRST_REQUEST: u64 = 1 << 32;
