//! CONNECT, CONNACK and AUTH: how a connection begins, and what becomes of the session then.

use std::time::Instant;

use super::{Capabilities, ClientSession, CloseReason, Connected, Event, Phase, RequestError, receive::Violation};
use crate::{
    codec::{Auth, ConnAck, Connect, Packet, Properties, Property, QoS, ReasonCode, Version},
    session::{IncomingAliases, KeepAlive, OutgoingAliases, QueueLimits, Stored},
};

impl ClientSession {
    /// A transport is up: CONNECT is the first thing sent [MQTT-3.1.0-1].
    pub fn connect(&mut self, now: Instant) -> Result<(), RequestError> {
        self.connection_lost();
        let connect = self.connect_packet()?;
        Packet::Connect(Box::new(connect)).encode(self.options.version, &mut self.out)?;
        self.aliases_in = IncomingAliases::new(if self.is_v5() { self.options.topic_alias_maximum } else { 0 });
        self.phase = Phase::Connecting;
        self.is_unsure |= std::mem::replace(&mut self.awaits_connack, true);
        self.answer_due = Some(now + self.options.connack_timeout);
        Ok(())
    }

    /// Proves itself anew on the running connection (MQTT 5, section 4.12.1).
    pub fn reauthenticate(&mut self) -> Result<(), RequestError> {
        if self.phase != Phase::Online {
            return Err(RequestError::Offline);
        }
        let Some(exchange) = &mut self.exchange else {
            return Err(RequestError::NotAllowed("re-authentication needs an authentication method in CONNECT"));
        };
        let data = exchange.start();
        self.send_auth(ReasonCode::ReAuthenticate, data);
        Ok(())
    }

    fn connect_packet(&mut self) -> Result<Connect, RequestError> {
        let options = &self.options;
        let version = options.version;
        let clean_start = self.starts_clean();
        if version < Version::V5 {
            if self.client_id.is_empty() && (!clean_start || version == Version::V3_1) {
                // [MQTT-3.1.3-7], and MQTT 3.1 knows no empty identifier at all.
                return Err(RequestError::NotAllowed(
                    "an empty client identifier needs a clean session and MQTT 3.1.1",
                ));
            }
            if options.password.is_some() && options.username.is_none() {
                // [MQTT-3.1.2-22] of MQTT 3.1.1
                return Err(RequestError::NotAllowed("before MQTT 5 a password needs a user name"));
            }
        }
        Ok(Connect {
            version,
            clean_start,
            bridge: false,
            keep_alive: options.keep_alive,
            client_id: self.client_id.clone(),
            will: options.will.clone(),
            username: options.username.clone(),
            password: options.password.clone(),
            properties: if version.is_v5() { self.connect_properties() } else { Properties::new() },
        })
    }

    /// Whether the server shall forget the session: only before this machine has one of its own. Before MQTT 5 the
    /// flag also says how long the session lives and stays as it is.
    fn starts_clean(&self) -> bool {
        self.options.clean_start && !(self.established && self.is_v5())
    }

    fn connect_properties(&mut self) -> Properties {
        let options = &self.options;
        let mut properties = Properties::new();
        let mut push_if = |holds: bool, property: Property| {
            if holds {
                properties.push(property);
            }
        };
        push_if(options.session_expiry > 0, Property::SessionExpiryInterval(options.session_expiry));
        push_if(options.receive_maximum < u16::MAX, Property::ReceiveMaximum(options.receive_maximum.max(1)));
        let packet_bytes_max = options.limits.packet_bytes_max;
        push_if(packet_bytes_max < super::options::PACKET_BYTES_MAX, Property::MaximumPacketSize(packet_bytes_max));
        push_if(options.topic_alias_maximum > 0, Property::TopicAliasMaximum(options.topic_alias_maximum));
        push_if(options.request_response_information, Property::RequestResponseInformation(true));
        push_if(!options.request_problem_information, Property::RequestProblemInformation(false));
        for (name, value) in &options.user_properties {
            properties.push(Property::UserProperty((name.clone(), value.clone())));
        }
        if let Some(exchange) = &mut self.exchange {
            properties.push(Property::AuthenticationMethod(exchange.method()));
            if let Some(data) = exchange.start() {
                properties.push(Property::AuthenticationData(data));
            }
        }
        properties
    }

    pub(super) fn handle_connack(&mut self, now: Instant, connack: ConnAck) -> Result<(), Violation> {
        if self.phase != Phase::Connecting {
            return Err(Violation::protocol("a second CONNACK"));
        }
        self.awaits_connack = false;
        if connack.reason.is_error() {
            self.close(CloseReason::Refused(connack));
            return Ok(());
        }
        if connack.session_present && self.starts_clean() {
            // [MQTT-3.2.2-2] [MQTT-3.2.2-4] there is no session on this side that could be resumed.
            return Err(Violation::protocol("CONNACK resumes a session although a clean start was asked for"));
        }
        self.finish_exchange(&connack.properties)?;
        self.server = Capabilities::of(&connack, &self.options);
        self.response_information = connack.properties.response_information().cloned();
        if let Some(assigned) = connack.properties.assigned_client_identifier() {
            self.client_id = assigned.clone();
        }
        self.phase = Phase::Online;
        self.answer_due = None;
        self.keep_alive = KeepAlive::client(self.server.keep_alive, now);
        self.aliases_out =
            OutgoingAliases::new(self.server.topic_alias_maximum.min(self.options.topic_aliases_used_max));
        let was_established = std::mem::replace(&mut self.established, true);
        if !connack.session_present {
            self.forget_session(was_established);
        }
        let receive_maximum = if self.is_v5() { self.options.receive_maximum.max(1) } else { u16::MAX };
        self.session.connected(self.server.receive_maximum.min(self.options.send_window.max(1)), receive_maximum);
        self.events.push_back(Event::Connected(Box::new(Connected {
            session_present: connack.session_present,
            capabilities: self.server.clone(),
            properties: connack.properties,
        })));
        let is_unsure = std::mem::take(&mut self.is_unsure);
        if !connack.session_present || is_unsure {
            self.subscribe_again(connack.session_present);
        }
        self.send_requests();
        self.pump(now);
        Ok(())
    }

    pub(super) fn handle_auth(&mut self, auth: &Auth) -> Result<(), Violation> {
        let Some(exchange) = &mut self.exchange else {
            // [MQTT-4.12.0-6]
            return Err(Violation::protocol("AUTH without an authentication method in CONNECT"));
        };
        if auth.properties.authentication_method() != Some(&exchange.method()) {
            // [MQTT-4.12.0-5]
            return Err(Violation::protocol("AUTH with another authentication method than CONNECT"));
        }
        let data = auth.properties.authentication_data();
        match (auth.reason, self.phase) {
            (ReasonCode::ContinueAuthentication, Phase::Connecting | Phase::Online) => match exchange.step(data) {
                Ok(answer) => self.send_auth(ReasonCode::ContinueAuthentication, answer),
                Err(reason) => self.fail_authentication(reason),
            },
            (ReasonCode::Success, Phase::Online) => match exchange.finish(data) {
                Ok(()) => self.events.push_back(Event::Reauthenticated),
                Err(reason) => self.fail_authentication(reason),
            },
            _ => return Err(Violation::protocol("AUTH with a reason code that is not allowed here")),
        }
        Ok(())
    }

    fn finish_exchange(&mut self, properties: &Properties) -> Result<(), Violation> {
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        if properties.authentication_method().is_some_and(|method| *method != exchange.method()) {
            return Err(Violation::protocol("CONNACK with another authentication method than CONNECT"));
        }
        exchange
            .finish(properties.authentication_data())
            .map_err(|reason| Violation { reason, what: "the server did not prove itself in CONNACK" })
    }

    fn fail_authentication(&mut self, reason: ReasonCode) {
        if self.phase == Phase::Online {
            self.send_disconnect(reason, Properties::new());
        }
        self.close(CloseReason::AuthenticationFailed(reason));
    }

    fn send_auth(&mut self, reason: ReasonCode, data: Option<bytes::Bytes>) {
        let method = self.exchange.as_ref().map(|exchange| Property::AuthenticationMethod(exchange.method()));
        let properties = method.into_iter().chain(data.map(Property::AuthenticationData)).collect();
        let packet = Packet::Auth(Auth { reason, properties });
        if packet.encode(self.options.version, &mut self.out).is_err() {
            // Only data of more than 65,535 bytes does not fit: no server could have asked for it.
            self.fail_authentication(ReasonCode::ImplementationSpecificError);
        }
    }

    /// The server has no session, so this side drops its own [MQTT-3.2.2-5]: received identifiers are free, and what
    /// was under way is published anew where that cannot make a QoS 2 message arrive twice.
    fn forget_session(&mut self, was_established: bool) {
        self.acks.session_lost();
        if !was_established {
            return;
        }
        let sent = self.session.inflight();
        let old = std::mem::take(&mut self.session);
        // SUBSCRIBE waits for that to be committed, so the new session has nothing for us whose identifier is still taken.
        for packet_id in old.received() {
            self.record_released(*packet_id);
        }
        self.queued_qos0 = 0;
        for (at, message) in old.into_messages().enumerate() {
            if at < sent && message.qos() == QoS::ExactlyOnce {
                self.given_up(&message, RequestError::SessionLost);
                continue;
            }
            if at < sent {
                self.record_unsent(&message);
            }
            self.queued_qos0 += usize::from(message.qos() == QoS::AtMostOnce);
            self.session.enqueue(message, &ADMITTED).unwrap_or_else(|_| unreachable!("the queue has no bound here"));
        }
    }
}

/// What was admitted once is not judged again.
const ADMITTED: QueueLimits = QueueLimits { messages_max: usize::MAX, bytes_max: usize::MAX, drop_oldest: false };
