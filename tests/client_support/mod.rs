//! A client session and a scripted server, in virtual time.

#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::{
    num::NonZeroU16,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferromq::{
    codec::{
        Ack, ConnAck, Cut, Limits, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Source, SubAck,
        Subscription, SubscriptionOptions, Text, TopicFilter, TopicName, Version, frame::cut,
    },
    session::client::{
        AuthExchange, ClientSession, CloseReason, Event, Message, Outgoing, Payload, PublishAck, Published,
        RequestError, SessionOptions, SubscribeRequest, Token,
    },
};

/// The machine under test, the clock, and what both sides saw.
pub(crate) struct Pair {
    pub(crate) session: ClientSession,
    pub(crate) now: Instant,
    pub(crate) version: Version,
    /// Bytes from the server that the machine has not taken.
    inbox: Vec<u8>,
}

impl Pair {
    /// A machine with these options, not connected.
    pub(crate) fn new(options: SessionOptions) -> Self {
        Self::with_exchange(options, None)
    }

    pub(crate) fn with_exchange(options: SessionOptions, exchange: Option<Box<dyn AuthExchange>>) -> Self {
        let now = Instant::now();
        let version = options.version;
        Self { session: ClientSession::new(options, exchange, now), now, version, inbox: Vec::new() }
    }

    /// A machine with these options and a connection that the server accepted with `properties`.
    pub(crate) fn online(options: SessionOptions, properties: impl IntoIterator<Item = Property>) -> Self {
        let mut pair = Self::new(options);
        pair.connect();
        pair.accept(false, properties);
        pair
    }

    /// A transport comes up; the CONNECT.
    pub(crate) fn connect(&mut self) -> ferromq::codec::Connect {
        self.session.connect(self.now).expect("the options are good");
        match self.sent().as_slice() {
            [Packet::Connect(connect)] => (**connect).clone(),
            other => panic!("CONNECT alone is the first packet, not {other:?}"),
        }
    }

    /// The server accepts; what follows CONNACK stays to be looked at.
    pub(crate) fn accept(&mut self, session_present: bool, properties: impl IntoIterator<Item = Property>) {
        self.give(connack(session_present, properties));
        let event = self.session.poll_event();
        let mut late = Vec::new();
        let mut connected = matches!(event, Some(Event::Connected(_)));
        late.extend(event);
        while let Some(event) = self.session.poll_event() {
            connected |= matches!(event, Event::Connected(_));
            late.push(event);
        }
        assert!(connected, "CONNACK must be reported, there is {late:?}");
    }

    /// The transport is lost and comes up again; the server accepts.
    pub(crate) fn reconnect(&mut self, session_present: bool) -> ferromq::codec::Connect {
        self.session.connection_lost();
        self.inbox.clear();
        let connect = self.connect();
        self.give(connack(session_present, []));
        connect
    }

    /// The server sends a packet.
    #[allow(clippy::needless_pass_by_value)] // packets are made in place
    pub(crate) fn give(&mut self, packet: Packet) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).expect("the test's packet can be encoded");
        self.give_bytes(&bytes);
    }

    pub(crate) fn give_bytes(&mut self, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
        let input = Bytes::from(std::mem::take(&mut self.inbox));
        let taken = self.session.handle_bytes(self.now, &input);
        self.inbox = input[taken..].to_vec();
    }

    /// What the machine has sent since the last look.
    pub(crate) fn sent(&mut self) -> Vec<Packet> {
        let mut bytes = Vec::new();
        self.session.take_output(self.now, &mut bytes);
        decode_all(&bytes, self.version)
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// The messages among the events.
    pub(crate) fn messages(&mut self) -> Vec<Message> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Message(message) => Some(message),
                _ => None,
            })
            .collect()
    }

    /// The finished publications among the events.
    pub(crate) fn published(&mut self) -> Vec<(Token, Result<PublishAck, RequestError>)> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Published(token, result) => Some((token, result)),
                _ => None,
            })
            .collect()
    }

    /// Why the connection is over.
    pub(crate) fn closed(&mut self) -> CloseReason {
        let events = self.events();
        events
            .iter()
            .find_map(|event| match event {
                Event::Closed(reason) => Some((**reason).clone()),
                _ => None,
            })
            .unwrap_or_else(|| panic!("the connection must be over, there is {events:?}"))
    }

    /// Asserts that the machine closes with this code, and tells the server so.
    pub(crate) fn fails_with(&mut self, reason: ReasonCode) {
        let closed = self.closed();
        assert_eq!(closed.reason(), Some(reason), "{closed}");
        let sent = self.sent();
        assert!(
            matches!(sent.last(), Some(Packet::Disconnect(disconnect)) if disconnect.reason == reason),
            "DISCONNECT {reason} must be the last packet, not {sent:?}"
        );
    }

    pub(crate) fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        token: Token,
    ) -> Result<Published, RequestError> {
        let message = outgoing(topic, payload, qos);
        self.session.publish(self.now, &message, token)
    }

    pub(crate) fn advance(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.session.handle_timeout(self.now);
    }
}

pub(crate) fn outgoing<'a>(topic: &'a str, payload: &'a [u8], qos: QoS) -> Outgoing<'a> {
    const NONE: &Properties = &Properties::new();
    Outgoing { topic, payload: Payload::Borrowed(payload), qos, retain: false, properties: NONE }
}

pub(crate) fn decode_all(mut bytes: &[u8], version: Version) -> Vec<Packet> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let Cut::Frame(frame, used) = cut(bytes, u32::MAX).expect("the machine's output is well-formed") else {
            panic!("the machine's output ends inside a packet");
        };
        packets.push(Packet::decode(frame, version, &Limits::default(), &Source::Scratch).expect("well-formed"));
        bytes = &bytes[used..];
    }
    packets
}

pub(crate) fn connack(session_present: bool, properties: impl IntoIterator<Item = Property>) -> Packet {
    let properties = properties.into_iter().collect();
    Packet::ConnAck(Box::new(ConnAck { session_present, reason: ReasonCode::Success, properties }))
}

pub(crate) fn refusal(reason: ReasonCode) -> Packet {
    Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties: Properties::new() }))
}

pub(crate) fn id(n: u16) -> PacketId {
    NonZeroU16::new(n).unwrap()
}

pub(crate) fn ack(n: u16) -> Ack {
    Ack::new(id(n), ReasonCode::Success)
}

/// A PUBLISH from the server; `n` is its packet identifier.
pub(crate) fn publication(topic: &str, payload: &[u8], qos: QoS, n: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: name(topic),
        packet_id: NonZeroU16::new(n).filter(|_| qos > QoS::AtMostOnce),
        properties: Properties::new(),
        payload: Bytes::copy_from_slice(payload),
    }
}

pub(crate) fn name(topic: &str) -> TopicName {
    if topic.is_empty() {
        return TopicName::empty();
    }
    TopicName::parse(Text::try_from(topic).unwrap(), &Limits::default()).unwrap()
}

pub(crate) fn filter(filter: &str) -> TopicFilter {
    TopicFilter::parse(Text::try_from(filter).unwrap(), &Limits::default()).unwrap()
}

pub(crate) fn subscribe_to(filters: &[&str]) -> SubscribeRequest {
    let options = SubscriptionOptions { qos: QoS::ExactlyOnce, ..SubscriptionOptions::default() };
    let subscriptions = filters.iter().map(|text| Subscription { filter: filter(text), options }).collect();
    SubscribeRequest { subscriptions, ..SubscribeRequest::default() }
}

pub(crate) fn suback(n: PacketId, reasons: &[ReasonCode]) -> Packet {
    Packet::SubAck(SubAck { packet_id: n, properties: Properties::new(), reasons: reasons.to_vec() })
}

/// Identifier, DUP and payload of the PUBLISH packets, `PUBREL n` as a number alone.
pub(crate) fn outline(packets: &[Packet]) -> Vec<String> {
    packets
        .iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => {
                let id = publish.packet_id.map_or(0, NonZeroU16::get);
                let dup = if publish.dup { " dup" } else { "" };
                format!("publish {id}{dup} {}", String::from_utf8_lossy(&publish.payload))
            }
            Packet::PubAck(ack) => format!("puback {} {:#04x}", ack.packet_id, ack.reason.as_u8()),
            Packet::PubRec(ack) => format!("pubrec {} {:#04x}", ack.packet_id, ack.reason.as_u8()),
            Packet::PubRel(ack) => format!("pubrel {} {:#04x}", ack.packet_id, ack.reason.as_u8()),
            Packet::PubComp(ack) => format!("pubcomp {} {:#04x}", ack.packet_id, ack.reason.as_u8()),
            other => format!("{:?}", other.packet_type()).to_lowercase(),
        })
        .collect()
}
