//! The client's side of a session: one sans-IO machine from CONNECT to DISCONNECT, across connections.
//!
//! It has no clock, no randomness and no sockets. The shell calls [`ClientSession::connect`] when a transport is up,
//! feeds what it reads to [`ClientSession::handle_bytes`], writes what [`ClientSession::take_output`] gives, calls
//! [`ClientSession::handle_timeout`] when [`ClientSession::poll_timeout`] says, takes every
//! [`ClientSession::poll_event`], and tells of a lost transport with [`ClientSession::connection_lost`]. The machine
//! then waits for the next `connect` with all that must survive: unacknowledged publications, the queue, received
//! QoS 2 identifiers, subscriptions.

mod acks;
mod connect;
mod event;
mod journal;
mod message;
mod options;
mod publish;
mod receive;
mod subscribe;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

pub use event::{CloseReason, Connected, Event, PublishAck, Reply, RequestError, Token};
pub use journal::{Change, Kept, Progress, Spooled};
pub use message::{AckHandle, Message};
pub use options::{AckMode, AuthExchange, Capabilities, SessionOptions};
pub use publish::{Outgoing, Payload, Published};
pub use subscribe::SubscribeRequest;

use acks::AckOrder;
use journal::Journal;
use publish::OutMessage;
use subscribe::{Active, Request};

use crate::{
    codec::{Disconnect, Packet, Properties, Property, ReasonCode, Text, TopicName, Version},
    session::{IncomingAliases, KeepAlive, OutgoingAliases, Session},
};

/// The client's machine.
#[derive(Debug)]
pub struct ClientSession {
    options: SessionOptions,
    exchange: Option<Box<dyn AuthExchange>>,
    phase: Phase,
    /// A CONNACK has accepted this machine once: from then on it resumes instead of starting clean.
    established: bool,
    /// CONNECT was sent and CONNACK has not come.
    awaits_connack: bool,
    /// A connection ended between the two: the server may have lost the session and made one nobody here has heard of.
    is_unsure: bool,
    /// The identifier in use: the server's, if it assigned one.
    client_id: Text,
    server: Capabilities,
    response_information: Option<Text>,
    session: Session<OutMessage>,
    /// Records what must survive the process, if anything has to.
    journal: Option<Box<Journal>>,
    /// QoS 0 publications in the session's queue, which newer ones must not overtake.
    queued_qos0: usize,
    requests: VecDeque<Request>,
    active: BTreeMap<Text, Active>,
    acks: AckOrder,
    aliases_in: IncomingAliases,
    aliases_out: OutgoingAliases,
    keep_alive: KeepAlive,
    /// Until when CONNACK or PINGRESP must have come.
    answer_due: Option<Instant>,
    /// The shell has stopped reading: answers cannot come in.
    is_paused: bool,
    received_at_us: u64,
    /// Bytes that are missing to the packet the last input ended in.
    bytes_needed: usize,
    out: Vec<u8>,
    events: VecDeque<Event>,
    /// The topic that was checked last: devices publish to one topic many times.
    checked_topic: String,
    /// The same, as messages keep it, once one of them had to be kept.
    kept_topic: Option<TopicName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No transport.
    Offline,
    /// CONNECT is sent.
    Connecting,
    /// CONNACK has come.
    Online,
    /// Nothing more may be sent; the transport is about to be closed.
    Closing,
}

impl ClientSession {
    /// A machine that has never been connected. Time begins at `now`.
    pub fn new(options: SessionOptions, exchange: Option<Box<dyn AuthExchange>>, now: Instant) -> Self {
        Self {
            client_id: options.client_id.clone(),
            exchange,
            phase: Phase::Offline,
            established: false,
            awaits_connack: false,
            is_unsure: false,
            server: Capabilities::default(),
            response_information: None,
            session: Session::new(),
            journal: None,
            queued_qos0: 0,
            requests: VecDeque::new(),
            active: BTreeMap::new(),
            acks: AckOrder::default(),
            aliases_in: IncomingAliases::new(0),
            aliases_out: OutgoingAliases::new(0),
            keep_alive: KeepAlive::client(0, now),
            answer_due: None,
            is_paused: false,
            received_at_us: 0,
            bytes_needed: 0,
            out: Vec::new(),
            events: VecDeque::new(),
            checked_topic: String::new(),
            kept_topic: None,
            options,
        }
    }

    /// The transport is gone, whoever closed it. What is unfinished waits for the next connection.
    pub fn connection_lost(&mut self) {
        self.phase = Phase::Offline;
        self.answer_due = None;
        self.is_paused = false;
        self.bytes_needed = 0;
        self.forget_output();
        self.acks.connection_lost();
        self.forget_request_ids();
    }

    /// Ends the connection on purpose: DISCONNECT is the last thing sent [MQTT-3.14.4-1]. `session_expiry` changes how
    /// long the server keeps the session (MQTT 5).
    pub fn disconnect(&mut self, reason: ReasonCode, session_expiry: Option<u32>) -> Result<(), RequestError> {
        if session_expiry.is_some_and(|seconds| seconds > 0) && self.server.session_expiry == 0 {
            // Section 3.14.2.2.2: the server would treat it as a protocol error.
            return Err(RequestError::NotAllowed("a session that expires at disconnect cannot be kept at DISCONNECT"));
        }
        if self.phase == Phase::Online {
            let expiry = session_expiry.filter(|_| self.is_v5()).map(Property::SessionExpiryInterval);
            self.send_disconnect(reason, expiry.into_iter().collect());
        }
        if matches!(self.phase, Phase::Online | Phase::Connecting) {
            self.close(CloseReason::Requested);
        }
        Ok(())
    }

    /// Does what is due: gives up on an answer that did not come, or pings.
    pub fn handle_timeout(&mut self, now: Instant) {
        let answer_is_late = !self.is_paused && self.answer_due.is_some_and(|due| due <= now);
        match self.phase {
            Phase::Connecting if answer_is_late => self.close(CloseReason::ConnAckTimeout),
            Phase::Online if answer_is_late => {
                self.send_disconnect(ReasonCode::KeepAliveTimeout, Properties::new());
                self.close(CloseReason::PingTimeout);
            }
            Phase::Online if self.keep_alive.is_due(now) => {
                self.out.extend_from_slice(&PINGREQ);
                self.keep_alive.touch(now);
                if self.answer_due.is_none() {
                    self.answer_due = Some(now + self.options.ping_timeout);
                }
            }
            _ => {}
        }
    }

    /// When [`Self::handle_timeout`] should be called, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let answer_due = self.answer_due.filter(|_| !self.is_paused);
        match self.phase {
            Phase::Connecting => answer_due,
            Phase::Online => [answer_due, self.keep_alive.deadline()].into_iter().flatten().min(),
            Phase::Offline | Phase::Closing => None,
        }
    }

    /// The shell stops reading, or reads again: while it does not, an answer that is late is no fault of the server.
    pub fn set_paused(&mut self, is_paused: bool, now: Instant) {
        self.is_paused = is_paused;
        if !is_paused && self.answer_due.is_some() {
            self.answer_due = Some(now + self.options.ping_timeout);
        }
    }

    /// Next event, in the order in which they happened.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Moves the bytes to be sent to the end of `into`, and refills from the queue what the window allows.
    pub fn take_output(&mut self, now: Instant, into: &mut Vec<u8>) {
        if self.phase == Phase::Online {
            self.pump(now);
        }
        let free = self.free_output_bytes();
        if free == 0 {
            return;
        }
        // [MQTT-3.1.2-20] the keep-alive counts from the last packet sent.
        self.keep_alive.touch(now);
        if free < self.out.len() {
            into.extend(self.out.drain(..free));
        } else if into.is_empty() {
            std::mem::swap(into, &mut self.out);
        } else {
            into.append(&mut self.out);
        }
        self.output_taken(free);
    }

    /// Bytes waiting to be taken, those included that [`Self::take_output`] does not give yet.
    #[inline]
    pub fn output_bytes(&self) -> usize {
        self.out.len()
    }

    /// Messages that come in from now on carry this time, Unix time in microseconds. The machine has no clock.
    pub fn stamp(&mut self, unix_us: u64) {
        self.received_at_us = unix_us;
    }

    /// At least how many more bytes the packet needs that the last input ended in; for sizing the read buffer.
    pub fn bytes_needed(&self) -> usize {
        self.bytes_needed
    }

    /// Whether CONNACK has come and nothing ended the connection since.
    #[inline]
    pub fn is_online(&self) -> bool {
        self.phase == Phase::Online
    }

    /// What the server allows on this connection, or did on the last.
    pub fn capabilities(&self) -> &Capabilities {
        &self.server
    }

    /// The client identifier in use, the one the server assigned included.
    pub fn client_id(&self) -> &Text {
        &self.client_id
    }

    /// Prefix for response topics, if the server gave one.
    pub fn response_information(&self) -> Option<&Text> {
        self.response_information.as_ref()
    }

    /// The settings.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Publications that are queued or unacknowledged.
    pub fn unfinished(&self) -> usize {
        self.session.inflight() + self.session.pending()
    }

    /// Publications sent and not acknowledged.
    pub fn inflight(&self) -> usize {
        self.session.inflight()
    }

    /// Bytes of the publications that are queued.
    pub fn queued_bytes(&self) -> usize {
        self.session.pending_bytes()
    }

    /// Subscriptions and unsubscriptions without an answer.
    pub fn unanswered(&self) -> usize {
        self.requests.len()
    }

    /// Received messages that the application has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.acks.len()
    }

    fn is_v5(&self) -> bool {
        self.options.version.is_v5()
    }

    /// The connection is over; nothing more may be sent.
    fn close(&mut self, reason: CloseReason) {
        self.phase = Phase::Closing;
        self.answer_due = None;
        self.events.push_back(Event::Closed(Box::new(reason)));
    }

    fn send_disconnect(&mut self, reason: ReasonCode, properties: Properties) {
        let packet = Packet::Disconnect(Disconnect { reason, properties });
        packet.encode(self.options.version, &mut self.out).expect("a DISCONNECT without texts always fits");
    }
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP without properties.
fn write_ack(out: &mut Vec<u8>, version: Version, header: u8, packet_id: u16, reason: ReasonCode) {
    let [high, low] = packet_id.to_be_bytes();
    if reason == ReasonCode::Success || !version.is_v5() {
        out.extend_from_slice(&[header, 2, high, low]);
    } else {
        out.extend_from_slice(&[header, 3, high, low, reason.as_u8()]);
    }
}

const PINGREQ: [u8; 2] = [0xC0, 0];
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
