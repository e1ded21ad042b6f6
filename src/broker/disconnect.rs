//! The ends of connections and sessions, and the deadlines that bring them about.

use std::{sync::atomic::Ordering, time::Instant};

use super::{
    conn::Phase,
    delivery::Delivery,
    hooks::Event,
    moment::Moment,
    reasons::{DropReason, EndReason},
    session::Away,
    shard::{Output, SWEEP_INTERVAL, Shard},
    slots::ConnId,
    timers::Timer,
    will::WillDecision,
};
use crate::{
    codec::{DecodeError, Disconnect, Packet, Properties, Property, ReasonCode, Text},
    router::SessionKey,
};

impl Shard {
    /// DISCONNECT from a client.
    pub(super) fn handle_disconnect(&mut self, now: Instant, id: ConnId, disconnect: &Disconnect) {
        let Some(key) = self.session_of(id) else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !may_client_send(disconnect.reason) || disconnect.properties.server_reference().is_some() {
            let what = "DISCONNECT with a reason code or property that only a server sends";
            return self.fault(now, id, &DecodeError::protocol(what));
        }
        if let Some(interval) = disconnect.properties.session_expiry_interval() {
            if session.expiry_interval == 0 && interval > 0 {
                // [MQTT-3.14.2-2] a session that was to end cannot be kept after all.
                let what = "DISCONNECT changes a session expiry interval of 0";
                return self.fault(now, id, &DecodeError::protocol(what));
            }
            session.expiry_interval = interval.min(self.shared.settings.capabilities.session_expiry_max);
        }
        if disconnect.reason == ReasonCode::Success {
            // [MQTT-3.14.4-3]
            session.will = None;
        }
        self.end(now, id, EndReason::ClientDisconnect);
    }

    /// The peer broke the protocol: it is told, if its version lets us, and the connection ends [MQTT-4.13.1-1].
    pub(super) fn fault(&mut self, now: Instant, id: ConnId, error: &DecodeError) {
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        if conn.is_closing() {
            return;
        }
        let reason = error.reason();
        tracing::debug!(peer = %conn.peer.address, %error, "protocol violation");
        let why = match error {
            DecodeError::Violation { what, .. } => Some(*what),
            _ => None,
        };
        match conn.phase {
            // [MQTT-3.1.4-1] [MQTT-3.1.2-2] before MQTT 5 only these two faults have a return code; others just close.
            Phase::AwaitConnect | Phase::Authenticating(..) => match reason {
                ReasonCode::UnsupportedProtocolVersion | ReasonCode::ClientIdentifierNotValid => {
                    self.refuse(now, id, reason, why);
                }
                _ if conn.version.is_v5() => self.refuse(now, id, reason, why),
                _ => self.end(now, id, EndReason::from_code(reason)),
            },
            _ => self.disconnect(now, id, reason, EndReason::from_code(reason), why),
        }
    }

    /// Ends a connection from the server's side, with DISCONNECT where MQTT 5 allows [MQTT-3.14.0-1].
    pub(super) fn disconnect(
        &mut self,
        now: Instant,
        id: ConnId,
        code: ReasonCode,
        reason: EndReason,
        why: Option<&str>,
    ) {
        let Some(conn) = self.wire.conns.get(id) else { return };
        if conn.is_connected() && conn.version.is_v5() {
            let mut properties = Properties::new();
            if conn.problem_information
                && let Some(text) = why.and_then(|why| Text::try_from(why).ok())
            {
                properties.push(Property::ReasonString(text));
            }
            self.wire.packet(id, Packet::Disconnect(Disconnect { reason: code, properties }));
        }
        self.end(now, id, reason);
    }

    /// The connection is over for the session; its transport is closed once what is in the outbox has gone.
    pub(super) fn end(&mut self, now: Instant, id: ConnId, reason: EndReason) {
        self.lost(now, id, reason);
        if self.wire.close(id) {
            self.outputs.push_back(Output::Close { conn: id });
        }
    }

    /// What the end of a connection means for its session. Does nothing the second time.
    pub(super) fn lost(&mut self, now: Instant, id: ConnId, reason: EndReason) {
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        if conn.is_closing() {
            return;
        }
        self.wire.out.stats.count_end(reason);
        let session = conn.session.and_then(|key| self.sessions.get(key));
        let client_id: &str = match (session, conn.info()) {
            (Some(session), _) => &session.client_id,
            (None, Some(info)) => &info.client_id,
            (None, None) => "",
        };
        tracing::debug!(client = client_id, peer = %conn.peer.address, reason = reason.name(), "connection ended");
        let is_observer = conn.peer.is_observer();
        if self.shared.hooks.events.is_some() && !is_observer {
            let peer = conn.peer.address.to_text();
            self.shared.hooks.tell(|| Event::Disconnected { client_id, peer: &peer, reason });
        }
        let Some(key) = conn.session.take() else { return };
        if let Some(journal) = &mut self.journal {
            journal.forget(id);
        }
        if !is_observer {
            self.shared.connected.fetch_sub(1, Ordering::Relaxed);
        }
        self.set_members_online(key, false);
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.conn = None;
        let decision = session.on_connection_lost(now);
        if session.is_persistent() {
            let is_bounded = session.expiry_interval != u32::MAX;
            let expires_at = is_bounded.then(|| super::message::expiry(now, session.expiry_interval));
            session.away = Some(Box::new(Away { lost_at: now, expires_at }));
            self.record_session(key);
            self.release_shared(now, key, None);
            self.arm_session(key);
        }
        if decision == WillDecision::Now {
            self.publish_will(now, key);
        }
        if self.sessions.get(key).is_some_and(|session| !session.is_persistent()) {
            self.end_session(now, key);
        }
    }

    /// The session ends: its will, subscriptions and messages with it.
    pub(super) fn end_session(&mut self, now: Instant, key: SessionKey) {
        // [MQTT-3.1.3-9]: a will whose delay runs is sent when the session ends.
        self.publish_will(now, key);
        self.record_session_removed(key);
        let Some(session) = self.sessions.get(key) else { return };
        for member in session.subscriptions.members().cloned().collect::<Vec<_>>() {
            self.leave(now, key, &member);
        }
        let Some(session) = self.remove_session(key) else { return };
        self.queued_bytes -= session.state.pending_bytes();
        for delivery in session.state.into_messages().flat_map(Delivery::singles) {
            super::deliver::settle(&delivery);
            self.count_drop(&session.client_id, delivery.content.topic(), DropReason::SessionEnded);
        }
        for filter in session.subscriptions.filters() {
            self.shared.hooks.tell(|| Event::Unsubscribed { client_id: &session.client_id, filter });
        }
        self.shared.hooks.tell(|| Event::SessionEnded { client_id: &session.client_id });
        self.forget_filters(now, key, session.subscriptions.into_unshared());
    }

    /// A deadline of a connection may have come.
    pub(super) fn handle_conn_deadline(&mut self, now: Instant, id: ConnId, at: Moment) {
        let (moment, stall_timeout_ms) = (self.wire.epoch.moment(now), self.wire.stall_timeout_ms());
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        if !conn.armed.fired(at) {
            return;
        }
        if conn.connect_deadline.is_some_and(|deadline| deadline <= moment) {
            return self.end(now, id, EndReason::ConnectTimeout);
        }
        if conn.stalled_since.is_some_and(|since| since.after(stall_timeout_ms) <= moment) {
            if conn.is_closing() {
                // Its end is told already; only the transport is left, and it takes nothing.
                conn.stalled_since = None;
                let left = conn.outbox.len();
                conn.outbox.advance(left);
                self.wire.flushed(now, id, left);
                self.outputs.push_back(Output::Close { conn: id });
                return;
            }
            return self.end(now, id, EndReason::Stalled);
        }
        if conn.is_paused || conn.is_choked || conn.is_waiting() {
            // What it sends is not read, so nobody knows whether it is silent.
            conn.heard = moment;
        }
        if conn.keep_alive_deadline().is_some_and(|deadline| deadline <= moment) {
            let code = ReasonCode::KeepAliveTimeout;
            return self.disconnect(now, id, code, EndReason::KeepAliveTimeout, None);
        }
        self.wire.arm(id);
    }

    /// A deadline of a session may have come.
    pub(super) fn handle_session_deadline(&mut self, now: Instant, key: SessionKey, at: Moment) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.armed.fired(at) {
            return;
        }
        if session.away.as_ref().and_then(|away| away.expires_at).is_some_and(|at| at <= now) {
            self.wire.out.stats.sessions_expired += 1;
            return self.end_session(now, key);
        }
        if session.will.as_ref().and_then(|will| will.at).is_some_and(|at| at <= now) {
            self.publish_will(now, key);
        }
        self.arm_session(key);
    }

    /// Removes what has expired: retained messages (by one shard for all) and queued ones of clients that are away.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.wire.timers.arm(now + SWEEP_INTERVAL, Timer::Sweep);
        if self.id.0 == 0 {
            let mut cursor = None;
            loop {
                let journal = &mut self.journal;
                cursor = self.shared.retained.write().sweep(cursor, SWEEP_SLICE, |message| {
                    let is_expired = message.is_expired(now);
                    if let Some(journal) = journal.as_mut().filter(|_| is_expired) {
                        journal.retained_removed(message.topic());
                    }
                    is_expired
                });
                if cursor.is_none() {
                    break;
                }
            }
        }
        self.sweep_routes(now);
        self.wire.rest();
        self.gathering.rest();
        let awake = self.sessions.iter().filter(|(_, session)| !session.state.is_at_rest());
        let awake: Vec<SessionKey> = awake.map(|(key, _)| key).collect();
        for key in awake {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            session.state.rest();
            let before = session.state.pending_bytes();
            let mut expired = Vec::new();
            if session.state.pending() > 0 {
                session.state.sweep(now, |delivery| expired.push(delivery));
            }
            self.queued_bytes = self.queued_bytes + session.state.pending_bytes() - before;
            for delivery in expired {
                self.drop_delivery(key, delivery, DropReason::Expired);
            }
        }
    }

    pub(super) fn arm_session(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            let deadline = session.deadline();
            let deadline = deadline.map(|at| self.wire.epoch.moment(at));
            session.armed.ensure(&mut self.wire.timers, deadline, Timer::Session(key));
        }
    }
}

/// Whether a client may end its connection with this code (MQTT 5, table 3-10).
const fn may_client_send(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::Success
            | ReasonCode::DisconnectWithWill
            | ReasonCode::UnspecifiedError
            | ReasonCode::MalformedPacket
            | ReasonCode::ProtocolError
            | ReasonCode::ImplementationSpecificError
            | ReasonCode::TopicNameInvalid
            | ReasonCode::ReceiveMaximumExceeded
            | ReasonCode::TopicAliasInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::MessageRateTooHigh
            | ReasonCode::QuotaExceeded
            | ReasonCode::AdministrativeAction
            | ReasonCode::PayloadFormatInvalid
    )
}

/// Retained messages looked at under one lock.
const SWEEP_SLICE: usize = 1024;
