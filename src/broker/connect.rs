//! CONNECT from end to end: rules, authentication, takeover, CONNACK.

use std::{
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    conn::Phase,
    hooks::{self, Event},
    publish::is_reserved,
    reasons::EndReason,
    session::{ClientSession, Will},
    shard::{Output, Shard},
    slots::ConnId,
};
use crate::{
    auth::{ConnectInfo, ExchangeStep, Verdict},
    codec::{Auth, ConnAck, Connect, DecodeError, Packet, Properties, Property, QoS, ReasonCode, Text, Version},
    router::SessionKey,
    session::OutgoingAliases,
};

impl Shard {
    /// A well-formed CONNECT, on its home shard.
    pub(super) fn handle_connect(&mut self, now: Instant, id: ConnId, mut connect: Box<Connect>) {
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        conn.version = connect.version;
        conn.problem_information = connect.properties.request_problem_information().unwrap_or(true);
        conn.maximum_packet_size = connect.properties.maximum_packet_size().unwrap_or(u32::MAX);
        let is_observer = conn.peer.is_observer();
        if let Err((reason, why)) = self.check_connect(&connect, is_observer) {
            return self.refuse(now, id, reason, Some(why));
        }
        let is_assigned = connect.client_id.is_empty();
        if is_assigned {
            connect.client_id = self.assign_client_id();
        }
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        if !is_observer && (self.shared.hooks.want_to_know() || connect.username.is_some()) {
            let info = ConnectInfo {
                client_id: connect.client_id.clone(),
                username: connect.username.clone(),
                password: connect.password.take(),
                version: connect.version,
                peer: conn.peer.address.to_text(),
                listener: Arc::clone(&conn.peer.listener),
            };
            conn.extras_mut().info = Some(Arc::new(info));
        }
        if is_assigned {
            // Told in CONNACK; kept with the properties so that it survives until the verdict.
            connect.properties.push(Property::AssignedClientIdentifier(connect.client_id.clone()));
        }
        if let Some(method) = connect.properties.authentication_method().cloned() {
            return self.start_exchange(now, id, connect, &method);
        }
        if is_observer {
            return self.accept(now, id, connect);
        }
        self.judge(now, id, connect);
    }

    /// A verdict for a ticket that [`Output::Authenticate`] carried.
    pub fn handle_verdict(&mut self, now: Instant, ticket: u64, verdict: Verdict) {
        let Some(id) = self.tickets.remove(&ticket) else { return };
        let Some(connect) = self.take_waiting_connect(id, ticket) else { return };
        self.act_on_verdict(now, id, connect, verdict);
        self.go_on(now, id);
    }

    /// AUTH: the next step of an exchange, or the start of a re-authentication.
    pub(super) fn handle_auth(&mut self, now: Instant, id: ConnId, auth: &Auth) {
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        if auth.properties.authentication_method()
            != conn.extras().and_then(|extras| extras.authentication_method.as_ref())
        {
            // [MQTT-4.12.0-5] the method must be that of CONNECT.
            let fault = DecodeError::Violation {
                reason: if conn.extras().is_some_and(|extras| extras.authentication_method.is_some()) {
                    ReasonCode::BadAuthenticationMethod
                } else {
                    ReasonCode::ProtocolError
                },
                what: "AUTH names another authentication method than CONNECT [MQTT-4.12.0-5]",
            };
            return self.fault(now, id, &fault);
        }
        let is_exchanging = conn.extras().is_some_and(|extras| extras.exchange.is_some());
        match auth.reason {
            ReasonCode::ReAuthenticate if conn.is_connected() && !is_exchanging => {
                let method = conn.extras().and_then(|extras| extras.authentication_method.clone());
                let info = conn.info().cloned();
                let exchange =
                    method.zip(info).and_then(|(method, info)| self.shared.hooks.start_exchange(&method, &info));
                let Some(exchange) = exchange else {
                    let (code, why) = (ReasonCode::BadAuthenticationMethod, "this method is not known any more");
                    return self.disconnect(now, id, code, EndReason::from_code(code), Some(why));
                };
                if let Some(conn) = self.wire.conns.get_mut(id) {
                    conn.extras_mut().exchange = Some(exchange);
                }
            }
            ReasonCode::ContinueAuthentication if is_exchanging => {}
            _ => {
                let what = "AUTH that continues nothing, or re-authenticates at the wrong moment";
                return self.fault(now, id, &DecodeError::protocol(what));
            }
        }
        self.step_exchange(now, id, auth.properties.authentication_data().cloned().as_ref());
    }

    /// Answers a CONNECT with a failure and closes [MQTT-3.2.2-7].
    pub(super) fn refuse(&mut self, now: Instant, id: ConnId, reason: ReasonCode, why: Option<&str>) {
        let mut properties = Properties::new();
        if let Some(text) = why.and_then(|why| Text::try_from(why).ok()) {
            properties.push(Property::ReasonString(text));
        }
        self.wire.packet(id, Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties })));
        self.end(now, id, EndReason::from_code(reason));
    }

    /// What can be judged without knowing who the client is.
    fn check_connect(&self, connect: &Connect, is_observer: bool) -> Result<(), (ReasonCode, &'static str)> {
        let settings = &self.shared.settings;
        if self.is_shutting_down {
            return Err((ReasonCode::ServerUnavailable, "the server is shutting down"));
        }
        let connections_max = settings.connections_max;
        // Who takes over its own connection adds none.
        let adds_one = || !is_observer && self.connection_of(connect).is_none();
        if connections_max > 0 && self.shared.connected() >= connections_max && adds_one() {
            return Err((ReasonCode::ServerBusy, "too many connections"));
        }
        if self.moving_bytes() > settings.slow_consumer.memory_watermark_bytes.saturating_mul(2) {
            return Err((ReasonCode::ServerBusy, "memory watermark exceeded"));
        }
        if connect.client_id.is_empty() && !connect.version.is_v5() && !connect.clean_start {
            // [MQTT-3.1.3-8] of 3.1.1: a session to keep needs a name.
            return Err((ReasonCode::ClientIdentifierNotValid, "an empty client identifier needs a clean session"));
        }
        let Some(will) = &connect.will else { return Ok(()) };
        if is_reserved(will.topic.as_str()) {
            return Err((ReasonCode::NotAuthorized, "only the server publishes below $SYS"));
        }
        if will.qos > settings.capabilities.maximum_qos {
            return Err((ReasonCode::QoSNotSupported, "the will's QoS exceeds the maximum QoS"));
        }
        if will.retain && !settings.capabilities.retain_available {
            return Err((ReasonCode::RetainNotSupported, "retained messages are not available"));
        }
        if settings.check_payload_format
            && will.properties.payload_format_indicator() == Some(1)
            && std::str::from_utf8(&will.payload).is_err()
        {
            return Err((ReasonCode::PayloadFormatInvalid, "the will's payload is not UTF-8"));
        }
        Ok(())
    }

    /// The connection that has the client identifier of a CONNECT.
    fn connection_of(&self, connect: &Connect) -> Option<ConnId> {
        let key = self.session_key(&connect.client_id)?;
        self.sessions.get(key)?.conn
    }

    /// A client identifier that is at home on this shard, so that the connection need not move.
    fn assign_client_id(&mut self) -> Text {
        loop {
            let text = format!("auto-{:016x}", self.secret());
            if self.shared.home(&text) == self.id
                && self.session_key(&text).is_none()
                && let Ok(text) = Text::try_from(text.as_str())
            {
                return text;
            }
        }
    }

    fn start_exchange(&mut self, now: Instant, id: ConnId, connect: Box<Connect>, method: &Text) {
        let info = self.wire.conns.get(id).and_then(|conn| conn.info());
        let Some(exchange) = info.and_then(|info| self.shared.hooks.start_exchange(method, info)) else {
            // [MQTT-4.12.0-1]
            return self.refuse(now, id, ReasonCode::BadAuthenticationMethod, Some("unknown authentication method"));
        };
        let data = connect.properties.authentication_data().cloned();
        if let Some(conn) = self.wire.conns.get_mut(id) {
            let extras = conn.extras_mut();
            extras.authentication_method = Some(method.clone());
            extras.exchange = Some(exchange);
            conn.phase = Phase::Authenticating(connect, None);
        }
        self.step_exchange(now, id, data.as_ref());
    }

    fn step_exchange(&mut self, now: Instant, id: ConnId, data: Option<&bytes::Bytes>) {
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        let extras = conn.extras_mut();
        let Some(exchange) = &mut extras.exchange else { return };
        let step = hooks::step(exchange.as_mut(), data);
        if !matches!(step, ExchangeStep::Continue(_)) {
            extras.exchange = None;
        }
        let method = extras.authentication_method.clone();
        let is_connected = conn.is_connected();
        let auth = |reason, data: Option<bytes::Bytes>| {
            let method = method.clone().map(Property::AuthenticationMethod);
            let properties = method.into_iter().chain(data.map(Property::AuthenticationData)).collect();
            Packet::Auth(Auth { reason, properties })
        };
        match step {
            ExchangeStep::Continue(data) => {
                self.wire.packet(id, auth(ReasonCode::ContinueAuthentication, Some(data)));
            }
            ExchangeStep::Accept(data) if is_connected => {
                self.wire.packet(id, auth(ReasonCode::Success, data));
            }
            ExchangeStep::Accept(data) => {
                let phase = std::mem::replace(&mut conn.phase, Phase::AwaitConnect);
                if let Phase::Authenticating(mut connect, _) = phase {
                    connect.properties.retain(|property| !matches!(property, Property::AuthenticationData(_)));
                    if let Some(data) = data {
                        connect.properties.push(Property::AuthenticationData(data));
                    }
                    self.admit(now, id, connect);
                }
            }
            ExchangeStep::Refuse(reason) if is_connected => {
                self.disconnect(now, id, reason, EndReason::AuthenticationFailed, Some("re-authentication failed"));
            }
            ExchangeStep::Refuse(reason) => self.refuse(now, id, reason, Some("authentication failed")),
        }
    }

    fn judge(&mut self, now: Instant, id: ConnId, connect: Box<Connect>) {
        let info = self.wire.conns.get(id).and_then(|conn| conn.info());
        let verdict = match info.and_then(|info| self.shared.hooks.authenticate(info)) {
            Some(verdict) => verdict,
            None if self.shared.settings.allow_anonymous => Verdict::Accept,
            None => {
                let reason = ReasonCode::NotAuthorized;
                Verdict::Refuse { reason, message: Some("anonymous clients are not allowed".into()) }
            }
        };
        self.act_on_verdict(now, id, connect, verdict);
    }

    fn act_on_verdict(&mut self, now: Instant, id: ConnId, connect: Box<Connect>, verdict: Verdict) {
        match verdict {
            Verdict::Accept => self.admit(now, id, connect),
            Verdict::Refuse { reason, message } => self.refuse(now, id, reason, message.as_deref()),
            Verdict::Defer => {
                let Some(conn) = self.wire.conns.get_mut(id) else { return };
                let Some(info) = conn.info().cloned() else { return };
                let ticket = self.next_ticket(id);
                if let Some(conn) = self.wire.conns.get_mut(id) {
                    conn.phase = Phase::Authenticating(connect, NonZeroU64::new(ticket));
                }
                self.outputs.push_back(Output::Authenticate { ticket, info });
            }
        }
    }

    /// The client may come in. If it has a connection, what that has sent comes first: who publishes, ends its connection
    /// and opens another is not to lose a publication because we look at the new one before we read the old.
    pub(super) fn accept(&mut self, now: Instant, id: ConnId, connect: Box<Connect>) {
        match self.connection_of(&connect) {
            Some(old) => self.hear_out(id, connect, old),
            None => self.let_in(now, id, connect),
        }
    }

    fn hear_out(&mut self, id: ConnId, connect: Box<Connect>, old: ConnId) {
        let ticket = self.next_ticket(id);
        if let Some(conn) = self.wire.conns.get_mut(id) {
            conn.phase = Phase::Authenticating(connect, NonZeroU64::new(ticket));
        }
        self.outputs.push_back(Output::HearOut { conn: old, ticket });
    }

    /// What `conn` had sent when [`Output::HearOut`] named it has been given to [`Self::receive`].
    pub fn handle_heard_out(&mut self, now: Instant, conn: ConnId, ticket: u64) {
        let Some(id) = self.tickets.remove(&ticket) else { return };
        let Some(connect) = self.take_waiting_connect(id, ticket) else { return };
        match self.connection_of(&connect) {
            // Two connections came at once, and the other one was first.
            Some(other) if other != conn => self.hear_out(id, connect, other),
            _ => self.let_in(now, id, connect),
        }
        self.go_on(now, id);
    }

    /// The CONNECT of a connection that waits for what this ticket is about.
    pub(super) fn take_waiting_connect(&mut self, id: ConnId, ticket: u64) -> Option<Box<Connect>> {
        let conn = self.wire.conns.get_mut(id)?;
        match std::mem::replace(&mut conn.phase, Phase::AwaitConnect) {
            Phase::Authenticating(connect, Some(expected)) if expected.get() == ticket => Some(connect),
            other => {
                conn.phase = other;
                None
            }
        }
    }

    /// The client is let in: takeover, session, CONNACK, and what waits for it.
    fn let_in(&mut self, now: Instant, id: ConnId, connect: Box<Connect>) {
        let capabilities = &self.shared.settings.capabilities;
        let granted = grant_keep_alive(connect.keep_alive, capabilities.keep_alive_max);
        let expiry_interval = requested_expiry(&connect).min(capabilities.session_expiry_max);
        let mut connack = Packet::ConnAck(Box::new(self.connack(&connect, granted, expiry_interval)));
        self.lift_limits(id, &mut connack);
        if !self.wire.can_send(id, &connack) {
            // [MQTT-3.1.2-24] it must not be sent, and nothing may come before it [MQTT-3.2.0-1].
            let why = "the maximum packet size leaves no room for CONNACK";
            return self.refuse(now, id, ReasonCode::PacketTooLarge, Some(why));
        }
        let (key, session_present) = self.take_session(now, &connect);
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let capabilities = &self.shared.settings.capabilities;
        conn.phase = Phase::Connected;
        conn.session = Some(key);
        conn.connect_deadline = None;
        conn.set_keep_alive(granted, self.wire.epoch.moment(now));
        let aliases = connect.properties.topic_alias_maximum().unwrap_or(0).min(capabilities.topic_alias_outgoing_max);
        if aliases > 0 {
            conn.extras_mut().outgoing_aliases = OutgoingAliases::new(aliases);
        }
        session.conn = Some(id);
        session.version = connect.version;
        session.away = None;
        session.expiry_interval = expiry_interval;
        session.will = connect.will.as_ref().map(|will| Box::new(Will::from_connect(will, conn.info().cloned())));
        let window = connect.properties.receive_maximum().unwrap_or(u16::MAX);
        let window = window.min(self.shared.settings.session.inflight_max);
        // A client before MQTT 5 knows of no receive maximum and cannot be held to one.
        let receive_maximum = if connect.version.is_v5() { capabilities.receive_maximum } else { u16::MAX };
        session.state.connected(window, receive_maximum);
        self.set_members_online(key, true);
        self.record_session(key);
        if let Packet::ConnAck(connack) = &mut connack {
            // 3.1 has no session present flag: the byte is reserved.
            connack.session_present = session_present && connect.version != Version::V3_1;
        }
        self.wire.packet(id, connack);
        self.wire.arm(id);
        self.count_and_tell(id, &connect, session_present);
        self.pump(now, key);
    }

    /// There is one client more, and who wants to know is told.
    fn count_and_tell(&mut self, id: ConnId, connect: &Connect, session_present: bool) {
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        if conn.peer.is_observer() {
            return;
        }
        let connected = self.shared.connected.fetch_add(1, Ordering::Relaxed) as u64 + 1;
        self.wire.out.stats.clients_maximum = self.wire.out.stats.clients_maximum.max(connected);
        tracing::debug!(client = %connect.client_id, peer = %conn.peer.address, session_present, "client connected");
        let Some(info) = conn.info() else { return };
        self.shared.hooks.tell(|| Event::Connected { info, version: info.version, session_present });
        let is_needed = self.shared.hooks.authorizer.is_some() || info.username.is_some();
        if !is_needed && connect.properties.authentication_method().is_none() {
            conn.drop_info();
        }
    }

    /// The session for a CONNECT: the one there is, or a new one. A connection that uses it is ended [MQTT-3.1.4-3].
    fn take_session(&mut self, now: Instant, connect: &Connect) -> (SessionKey, bool) {
        if let Some(key) = self.session_key(&connect.client_id) {
            if let Some(old) = self.sessions.get(key).and_then(|session| session.conn) {
                let why = Some("another connection uses this client identifier");
                self.disconnect(now, old, ReasonCode::SessionTakenOver, EndReason::SessionTakenOver, why);
            }
            // A session that ended with its connection is gone now.
            if self.sessions.get(key).is_some() {
                if !connect.clean_start {
                    return (key, true);
                }
                self.end_session(now, key);
            }
        }
        let hash = self.shared.client_hash(&connect.client_id);
        let key = self.add_session(ClientSession::new(&connect.client_id, hash, connect.version));
        (key, false)
    }

    /// CONNACK with what the client cannot know: what was assigned, limited or switched off.
    fn connack(&self, connect: &Connect, keep_alive: u16, expiry_interval: u32) -> ConnAck {
        let mut properties = Properties::new();
        if connect.version.is_v5() {
            self.announce(connect, keep_alive, expiry_interval, &mut properties);
        }
        ConnAck { session_present: false, reason: ReasonCode::Success, properties }
    }

    /// Who looks on may use wildcards where clients may not.
    fn lift_limits(&self, id: ConnId, connack: &mut Packet) {
        if let Packet::ConnAck(connack) = connack
            && self.is_observer(Some(id))
        {
            connack.properties.retain(|property| !matches!(property, Property::WildcardSubscriptionAvailable(_)));
        }
    }

    fn announce(&self, connect: &Connect, keep_alive: u16, expiry_interval: u32, properties: &mut Properties) {
        let settings = &self.shared.settings;
        let capabilities = &settings.capabilities;
        if expiry_interval != connect.properties.session_expiry_interval().unwrap_or(0) {
            properties.push(Property::SessionExpiryInterval(expiry_interval));
        }
        if let Some(assigned) = connect.properties.assigned_client_identifier() {
            properties.push(Property::AssignedClientIdentifier(assigned.clone()));
        }
        if keep_alive != connect.keep_alive {
            properties.push(Property::ServerKeepAlive(keep_alive));
        }
        if capabilities.receive_maximum != u16::MAX {
            properties.push(Property::ReceiveMaximum(capabilities.receive_maximum));
        }
        if capabilities.topic_alias_maximum > 0 {
            properties.push(Property::TopicAliasMaximum(capabilities.topic_alias_maximum));
        }
        if settings.limits.packet_bytes_max < crate::codec::Limits::default().packet_bytes_max {
            properties.push(Property::MaximumPacketSize(settings.limits.packet_bytes_max));
        }
        if capabilities.maximum_qos != QoS::ExactlyOnce {
            properties.push(Property::MaximumQoS(capabilities.maximum_qos as u8));
        }
        let switches = [
            (capabilities.retain_available, Property::RetainAvailable(false)),
            (capabilities.wildcard_subscription_available, Property::WildcardSubscriptionAvailable(false)),
            (capabilities.subscription_identifier_available, Property::SubscriptionIdentifierAvailable(false)),
            (capabilities.shared_subscription_available, Property::SharedSubscriptionAvailable(false)),
        ];
        switches.into_iter().filter(|(on, _)| !on).for_each(|(_, off)| properties.push(off));
        if connect.properties.request_response_information() == Some(true)
            && let Some(prefix) = &capabilities.response_information
            && let Ok(text) = Text::try_from(format!("{prefix}{}", connect.client_id).as_str())
        {
            properties.push(Property::ResponseInformation(text));
        }
        if let Some(method) = connect.properties.authentication_method() {
            properties.push(Property::AuthenticationMethod(method.clone()));
            if let Some(data) = connect.properties.authentication_data() {
                properties.push(Property::AuthenticationData(data.clone()));
            }
        }
    }
}

/// How long the client wants its session kept, seconds; before MQTT 5, clean session 0 means for ever.
fn requested_expiry(connect: &Connect) -> u32 {
    match connect.version {
        Version::V5 => connect.properties.session_expiry_interval().unwrap_or(0),
        _ if connect.clean_start => 0,
        _ => u32::MAX,
    }
}

/// The keep-alive in force, seconds.
fn grant_keep_alive(asked: u16, max: u16) -> u16 {
    match (asked, max) {
        (_, 0) => asked,
        (0, max) => max,
        (asked, max) => asked.min(max),
    }
}
