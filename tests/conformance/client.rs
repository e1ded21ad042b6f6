//! The statements that bind a client, tested on `session::client::ClientSession` with a scripted server.

use std::{
    cell::RefCell,
    num::NonZeroU16,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferromq::{
    codec::{
        Connect, Cut, Limits, Packet, PacketType, Properties, Publish, QoS, ReasonCode, SubscriptionOptions, Text,
        TopicFilter, TopicName, Version, Will,
        frame::{self, Source},
    },
    session::client::{
        AuthExchange, ClientSession, CloseReason, Event, Outgoing, Payload, RequestError, SessionOptions,
        SubscribeRequest,
    },
};

use crate::wire::{self, Publish as Incoming, Wire, auth, p8, p16, p32, packet, pstr, puback, pubcomp, pubrec};

/// A client and the bytes between it and a server that a test plays.
pub(crate) struct Client {
    pub(crate) session: RefCell<ClientSession>,
    pub(crate) now: RefCell<Instant>,
    version: Version,
}

impl Client {
    pub(crate) fn new(options: SessionOptions) -> Self {
        Self::with_exchange(options, None)
    }

    pub(crate) fn with_exchange(options: SessionOptions, exchange: Option<Box<dyn AuthExchange>>) -> Self {
        let now = Instant::now();
        let version = options.version;
        Self { session: ClientSession::new(options, exchange, now).into(), now: now.into(), version }
    }

    /// Connects; the CONNECT that was sent.
    pub(crate) fn connect(&self) -> Connect {
        self.session.borrow_mut().connect(*self.now.borrow()).expect("the options are valid");
        match self.sent().as_slice() {
            [Packet::Connect(connect)] => (**connect).clone(),
            other => panic!("CONNECT is the first packet and the only one: {other:?}"),
        }
    }

    /// Connects and is accepted with these CONNACK properties.
    pub(crate) fn online(&self, session_present: bool, properties: &[Vec<u8>]) {
        self.connect();
        self.accept(session_present, properties);
    }

    pub(crate) fn accept(&self, session_present: bool, properties: &[Vec<u8>]) {
        let body = [vec![u8::from(session_present), 0], wire::properties(self.version, properties)].concat();
        self.receive(packet(0x20, &body));
    }

    /// The server sends.
    pub(crate) fn receive(&self, wire: impl Wire) {
        let bytes = Bytes::from(wire.wire(self.version));
        let used = self.session.borrow_mut().handle_bytes(*self.now.borrow(), &bytes);
        assert_eq!(used, bytes.len(), "the script sends whole packets");
    }

    /// The server sends what the client may not take to the end.
    pub(crate) fn receive_some(&self, bytes: &[u8]) {
        self.session.borrow_mut().handle_bytes(*self.now.borrow(), &Bytes::copy_from_slice(bytes));
    }

    /// What the client has sent since.
    pub(crate) fn sent(&self) -> Vec<Packet> {
        self.sent_sized().into_iter().map(|(packet, _)| packet).collect()
    }

    pub(crate) fn sent_sized(&self) -> Vec<(Packet, usize)> {
        let mut out = Vec::new();
        self.session.borrow_mut().take_output(*self.now.borrow(), &mut out);
        let mut packets = Vec::new();
        let mut at = 0;
        while let Ok(Cut::Frame(found, taken)) = frame::cut(&out[at..], u32::MAX) {
            let packet = Packet::decode(found, self.version, &Limits::default(), &Source::Scratch);
            packets.push((packet.expect("a client sends valid packets"), taken));
            at += taken;
        }
        assert_eq!(at, out.len(), "a client sends whole packets");
        packets
    }

    /// The PUBLISH packets sent since, and nothing else.
    #[track_caller]
    pub(crate) fn published(&self) -> Vec<Publish> {
        let publish = |packet| match packet {
            Packet::Publish(publish) => publish,
            other => panic!("PUBLISH was expected, not {other:?}"),
        };
        self.sent().into_iter().map(publish).collect()
    }

    /// Type and identifier of the acknowledgements sent since.
    #[track_caller]
    pub(crate) fn acks(&self) -> Vec<(PacketType, u16)> {
        let ack = |packet: Packet| match &packet {
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                (packet.packet_type(), ack.packet_id.get())
            }
            other => panic!("an acknowledgement was expected, not {other:?}"),
        };
        self.sent().into_iter().map(ack).collect()
    }

    pub(crate) fn publish(&self, topic: &str, payload: &str, qos: QoS) -> Result<(), RequestError> {
        self.publish_with(topic, payload, qos, false, &Properties::new())
    }

    pub(crate) fn publish_with(
        &self,
        topic: &str,
        payload: &str,
        qos: QoS,
        retain: bool,
        properties: &Properties,
    ) -> Result<(), RequestError> {
        let message = Outgoing { topic, payload: Payload::Borrowed(payload.as_bytes()), qos, retain, properties };
        self.session.borrow_mut().publish(*self.now.borrow(), &message, 0).map(|_| ())
    }

    pub(crate) fn subscribe(&self, filter: &str, options: SubscriptionOptions) -> Result<(), RequestError> {
        let filter = TopicFilter::new(filter)?;
        self.session.borrow_mut().subscribe(SubscribeRequest::new(filter, options), 0)
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let mut session = self.session.borrow_mut();
        std::iter::from_fn(|| session.poll_event()).collect()
    }

    /// Payloads of the messages among the events.
    pub(crate) fn messages(&self) -> Vec<String> {
        let payload = |event| match event {
            Event::Message(message) => Some(String::from_utf8_lossy(message.payload()).into_owned()),
            _ => None,
        };
        self.events().into_iter().filter_map(payload).collect()
    }

    pub(crate) fn advance(&self, time: Duration) {
        let end = *self.now.borrow() + time;
        let due = || self.session.borrow().poll_timeout().filter(|at| *at <= end);
        while let Some(at) = due() {
            let now = at.max(*self.now.borrow());
            self.now.replace(now);
            self.session.borrow_mut().handle_timeout(now);
            if self.session.borrow().output_bytes() > 0 {
                return;
            }
        }
        self.now.replace(end);
    }

    pub(crate) fn lost(&self) {
        self.session.borrow_mut().connection_lost();
    }

    /// The connection is over, for the fault of the server that `reason` names.
    #[track_caller]
    pub(crate) fn expect_violation(&self, reason: ReasonCode) {
        let events = self.events();
        let violated = |event: &Event| {
            matches!(event, Event::Closed(close)
                if matches!(**close, CloseReason::Protocol { .. } | CloseReason::PacketTooLarge { .. })
                && close.reason() == Some(reason))
        };
        assert!(events.iter().any(violated), "{events:?}");
        assert!(!self.session.borrow().is_online());
    }
}

pub(crate) fn options(version: Version) -> SessionOptions {
    SessionOptions { version, client_id: Text::from_static("client"), keep_alive: 0, ..SessionOptions::default() }
}

/// Options of a client that keeps its session.
pub(crate) fn persistent(version: Version) -> SessionOptions {
    SessionOptions { clean_start: false, session_expiry: 3600, ..options(version) }
}

pub(crate) fn versions(test: impl Fn(Version)) {
    [Version::V5, Version::V3_1_1].into_iter().for_each(test);
}

pub(crate) fn online(version: Version) -> Client {
    let client = Client::new(persistent(version));
    client.online(false, &[]);
    client
}

pub(crate) fn ids(published: &[Publish]) -> Vec<u16> {
    published.iter().filter_map(|publish| publish.packet_id).map(NonZeroU16::get).collect()
}

/// MQTT 5: [MQTT-3.1.0-1] [MQTT-3.1.3-1] [MQTT-3.1.3-3]. MQTT 3.1.1: [MQTT-3.1.0-1] [MQTT-3.1.3-1] [MQTT-3.1.3-3].
#[test]
fn mqtt_3_1_0_1_a_client_s_first_packet_is_connect() {
    versions(|version| {
        let client = Client::new(options(version));
        client.publish("t", "early", QoS::AtLeastOnce).expect("it is queued");
        client.subscribe("t", SubscriptionOptions::default()).expect("it waits");
        // `connect` asserts that CONNECT comes alone.
        assert_eq!(client.connect().client_id.as_str(), "client");
        client.accept(false, &[]);
        let sent: Vec<_> = client.sent().iter().map(Packet::packet_type).collect();
        assert_eq!(sent, [PacketType::Subscribe, PacketType::Publish]);
    });
}

/// MQTT 5: [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19].
/// MQTT 3.1.1: [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21].
#[test]
fn mqtt_3_1_2_9_a_client_s_connect_flags_agree_with_its_fields() {
    versions(|version| {
        // The decoder checks that the flags and the fields agree; here is what must come out of it.
        let plain = Client::new(options(version)).connect();
        assert_eq!((plain.will, plain.username, plain.password), (None, None, None));
        let will = Will {
            topic: TopicName::new("will").expect("a valid topic"),
            payload: Bytes::from_static(b"gone"),
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: Properties::new(),
        };
        let full = SessionOptions {
            will: Some(will.clone()),
            username: Some(Text::from_static("name")),
            password: Some(Bytes::from_static(b"secret")),
            ..options(version)
        };
        let sent = Client::new(full).connect();
        assert_eq!(sent.will, Some(will));
        assert_eq!(sent.username.as_deref(), Some("name"));
        assert_eq!(sent.password.as_deref(), Some(&b"secret"[..]));
    });
}

#[test]
fn mqtt311_3_1_2_22_a_client_gives_no_password_without_a_user_name() {
    let bad = SessionOptions { password: Some(Bytes::from_static(b"x")), ..options(Version::V3_1_1) };
    let mut session = ClientSession::new(bad, None, Instant::now());
    assert!(session.connect(Instant::now()).is_err());
}

#[test]
fn mqtt311_3_1_3_7_a_client_without_identifier_asks_for_a_clean_session() {
    let bad = SessionOptions { client_id: Text::new(), ..persistent(Version::V3_1_1) };
    let mut session = ClientSession::new(bad, None, Instant::now());
    assert!(session.connect(Instant::now()).is_err());
    let good = SessionOptions { client_id: Text::new(), ..options(Version::V3_1_1) };
    assert!(Client::new(good).connect().clean_start);
}

/// MQTT 3.1.1: [MQTT-3.1.2-23].
#[test]
fn mqtt_3_1_2_20_a_silent_client_pings_within_its_keep_alive() {
    versions(|version| {
        let client = Client::new(SessionOptions { keep_alive: 10, ..options(version) });
        client.online(false, &[]);
        client.advance(Duration::from_secs(9));
        assert_eq!(client.sent(), []);
        client.publish("t", "", QoS::AtMostOnce).expect("it is sent");
        assert_eq!(client.published().len(), 1);
        client.advance(Duration::from_secs(9));
        assert_eq!(client.sent(), [], "any packet counts");
        client.advance(Duration::from_secs(1));
        assert_eq!(client.sent(), [Packet::PingReq]);
        client.receive(vec![0xD0, 0]);
        client.advance(Duration::from_secs(10));
        assert_eq!(client.sent(), [Packet::PingReq]);
        client.advance(Duration::from_secs(10));
        let events = client.events();
        assert!(
            events.iter().any(|event| matches!(event, Event::Closed(close) if **close == CloseReason::PingTimeout)),
            "no answer for ten seconds: {events:?}"
        );
    });
}

/// MQTT 5: [MQTT-3.2.2-21].
#[test]
fn mqtt_3_1_2_21_the_server_s_keep_alive_replaces_the_client_s() {
    let client = Client::new(SessionOptions { keep_alive: 60, ..options(Version::V5) });
    client.online(false, &[p16(wire::SERVER_KEEP_ALIVE, 5)]);
    client.advance(Duration::from_secs(5));
    assert_eq!(client.sent(), [Packet::PingReq]);
    let client = Client::new(SessionOptions { keep_alive: 0, ..options(Version::V5) });
    client.online(false, &[p16(wire::SERVER_KEEP_ALIVE, 7)]);
    client.advance(Duration::from_secs(7));
    assert_eq!(client.sent(), [Packet::PingReq]);
}

/// MQTT 3.1.1: [MQTT-3.1.2-4] [MQTT-3.1.2-6].
#[test]
fn mqtt_3_1_2_4_a_client_with_clean_start_has_no_earlier_session() {
    versions(|version| {
        assert!(Client::new(options(version)).connect().clean_start);
        assert!(!Client::new(persistent(version)).connect().clean_start);
    });
}

/// MQTT 5: [MQTT-4.1.0-1]. MQTT 3.1.1: [MQTT-4.1.0-1] [MQTT-3.1.2-4].
#[test]
fn mqtt_3_1_2_23_a_client_keeps_its_session_state_after_the_connection() {
    versions(|version| {
        let client = online(version);
        client.publish("t", "one", QoS::AtLeastOnce).expect("it is sent");
        let first = client.published();
        client.lost();
        client.online(true, &[]);
        let again = client.published();
        assert_eq!(ids(&again), ids(&first));
        assert!(again[0].dup);
    });
}

/// MQTT 5: [MQTT-3.1.3-2]. MQTT 3.1.1: [MQTT-3.1.3-2]. The client's side: it comes back for its session by its name,
/// the one that the server gave it if it had none.
#[test]
fn a_client_comes_back_by_the_name_that_its_session_has() {
    versions(|version| {
        let client = online(version);
        client.lost();
        assert_eq!(client.connect().client_id.as_str(), "client");
    });
    let unnamed = SessionOptions { client_id: Text::new(), ..persistent(Version::V5) };
    let client = Client::new(unnamed);
    assert_eq!(client.connect().client_id.as_str(), "");
    client.accept(false, &[pstr(0x12, "assigned")]);
    client.lost();
    assert_eq!(client.connect().client_id.as_str(), "assigned");
}

/// MQTT 5: [MQTT-4.1.0-1]. A session that ends with its connection does not end before it.
#[test]
fn mqtt311_4_1_0_2_a_client_keeps_its_session_state_as_long_as_the_connection() {
    versions(|version| {
        let client = Client::new(options(version));
        client.online(false, &[]);
        client.publish("t", "one", QoS::ExactlyOnce).expect("it is sent");
        assert_eq!(ids(&client.published()), [1]);
        client.receive(Incoming::new("t", "").qos2(7));
        assert_eq!(client.acks(), [(PacketType::PubRec, 7)]);
        client.advance(Duration::from_secs(100_000));
        client.receive(Incoming::new("t", "").qos2(7));
        assert_eq!(client.acks(), [(PacketType::PubRec, 7)], "it is known, and answered again");
        client.receive(pubrec(1));
        assert_eq!(client.acks(), [(PacketType::PubRel, 1)]);
        client.lost();
        client.online(false, &[]);
        assert_eq!(client.sent(), [], "nothing of it is left");
    });
}

/// MQTT 5: [MQTT-4.12.0-5].
#[test]
fn mqtt_3_1_2_30_a_client_that_named_a_method_sends_only_auth_before_connack() {
    let client = Client::with_exchange(options(Version::V5), Some(Box::new(Scripted)));
    client.publish("t", "early", QoS::AtLeastOnce).expect("it is queued");
    client.subscribe("t", SubscriptionOptions::default()).expect("it waits");
    let connect = client.connect();
    assert_eq!(connect.properties.authentication_method().map(ferromq::codec::Text::as_str), Some("scripted"));
    client.receive(auth(0x18, "scripted", Some(b"challenge")));
    let sent = client.sent();
    assert!(matches!(sent.as_slice(), [Packet::Auth(_)]), "{sent:?}");
}

#[derive(Debug)]
pub(crate) struct Scripted;

impl AuthExchange for Scripted {
    fn method(&self) -> Text {
        Text::from_static("scripted")
    }

    fn start(&mut self) -> Option<Bytes> {
        Some(Bytes::from_static(b"hello"))
    }

    fn step(&mut self, data: Option<&Bytes>) -> Result<Option<Bytes>, ReasonCode> {
        match data.map(|data| &data[..]) {
            Some(b"challenge") => Ok(Some(Bytes::from_static(b"response"))),
            _ => Err(ReasonCode::NotAuthorized),
        }
    }
}

#[test]
fn mqtt_4_12_0_3_a_client_continues_with_0x18_and_its_method() {
    let client = Client::with_exchange(options(Version::V5), Some(Box::new(Scripted)));
    client.connect();
    client.receive(auth(0x18, "scripted", Some(b"challenge")));
    match client.sent().as_slice() {
        [Packet::Auth(sent)] => {
            assert_eq!(sent.reason, ReasonCode::ContinueAuthentication);
            assert_eq!(sent.properties.authentication_method().map(ferromq::codec::Text::as_str), Some("scripted"));
            assert_eq!(sent.properties.authentication_data().map(|data| &data[..]), Some(&b"response"[..]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn mqtt_4_12_0_5_a_client_refuses_another_method_from_the_server() {
    let client = Client::with_exchange(options(Version::V5), Some(Box::new(Scripted)));
    client.connect();
    client.receive(auth(0x18, "other", Some(b"challenge")));
    client.expect_violation(ReasonCode::ProtocolError);

    let client = Client::with_exchange(options(Version::V5), Some(Box::new(Scripted)));
    client.connect();
    client.accept(false, &[pstr(wire::AUTHENTICATION_METHOD, "other")]);
    client.expect_violation(ReasonCode::ProtocolError);
}

#[test]
fn mqtt_4_12_0_7_a_client_without_a_method_sends_no_auth() {
    let client = online(Version::V5);
    assert!(client.session.borrow_mut().reauthenticate().is_err());
    client.receive(auth(0x18, "scripted", Some(b"challenge")));
    client.expect_violation(ReasonCode::ProtocolError);
    assert!(client.sent().iter().all(|packet| packet.packet_type() != PacketType::Auth));
}

#[test]
fn mqtt_4_12_1_1_a_client_re_authenticates_with_the_same_method() {
    let client = Client::with_exchange(options(Version::V5), Some(Box::new(Scripted)));
    client.connect();
    client.receive(auth(0x18, "scripted", Some(b"challenge")));
    client.accept(false, &[pstr(wire::AUTHENTICATION_METHOD, "scripted")]);
    client.sent();
    client.session.borrow_mut().reauthenticate().expect("there is a method");
    match client.sent().as_slice() {
        [Packet::Auth(sent)] => {
            assert_eq!(sent.reason, ReasonCode::ReAuthenticate);
            assert_eq!(sent.properties.authentication_method().map(ferromq::codec::Text::as_str), Some("scripted"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn mqtt_4_12_1_2_a_client_whose_exchange_fails_closes() {
    let client = Client::with_exchange(options(Version::V5), Some(Box::new(Scripted)));
    client.connect();
    client.receive(auth(0x18, "scripted", Some(b"nonsense")));
    let events = client.events();
    assert!(matches!(events.as_slice(), [Event::Closed(close)] if close.reason() == Some(ReasonCode::NotAuthorized)));
}

#[test]
fn mqtt_3_2_2_4_a_client_without_session_refuses_one_that_is_present() {
    versions(|version| {
        let client = Client::new(options(version));
        client.online(true, &[]);
        client.expect_violation(ReasonCode::ProtocolError);
    });
}

/// QoS 2 identifiers received before are free, QoS 1 is published anew, QoS 2 that was under way is reported lost.
#[test]
fn mqtt_3_2_2_5_a_client_discards_its_session_when_the_server_has_none() {
    versions(|version| {
        let client = online(version);
        client.publish("t", "one", QoS::AtLeastOnce).expect("it is sent");
        client.publish("t", "two", QoS::ExactlyOnce).expect("it is sent");
        client.published();
        client.receive(Incoming::new("in", "x").qos2(9));
        client.sent();
        client.events();
        client.lost();
        client.online(false, &[]);
        let again = client.published();
        assert!(again.iter().all(|publish| !publish.dup), "nothing is a repetition for a server without session");
        assert_eq!(again.len(), 1);
        let lost = |event: &Event| matches!(event, Event::Published(_, Err(RequestError::SessionLost)));
        assert!(client.events().iter().any(lost));
        client.receive(Incoming::new("in", "y").qos2(9));
        assert_eq!(client.messages(), ["y"], "the identifier is free");
    });
}

#[test]
fn mqtt_3_2_2_11_a_client_keeps_to_the_server_s_maximum_qos() {
    let client = Client::new(options(Version::V5));
    client.online(false, &[p8(wire::MAXIMUM_QOS, 1)]);
    assert_eq!(client.publish("t", "", QoS::ExactlyOnce), Err(RequestError::QoSNotSupported { max: QoS::AtLeastOnce }));
    client.publish("t", "", QoS::AtLeastOnce).expect("it is allowed");
    // What was queued before the server told its maximum must not slip through either.
    let client = Client::new(options(Version::V5));
    client.publish("t", "", QoS::ExactlyOnce).expect("nothing is known yet");
    client.online(false, &[p8(wire::MAXIMUM_QOS, 1)]);
    assert!(client.published().iter().all(|publish| publish.qos < QoS::ExactlyOnce));
}

#[test]
fn mqtt_3_2_2_14_a_client_retains_nothing_where_retain_is_not_available() {
    let client = Client::new(options(Version::V5));
    client.online(false, &[p8(wire::RETAIN_AVAILABLE, 0)]);
    let refused = client.publish_with("t", "", QoS::AtMostOnce, true, &Properties::new());
    assert_eq!(refused, Err(RequestError::RetainNotSupported));
}

#[test]
fn mqtt_3_2_2_15_a_client_keeps_to_the_server_s_maximum_packet_size() {
    let client = Client::new(options(Version::V5));
    client.online(false, &[p32(wire::MAXIMUM_PACKET_SIZE, 100)]);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for len in 0..200 {
            let result = client.publish("t", &"x".repeat(len), qos);
            for (packet, size) in client.sent_sized() {
                assert!(size <= 100 && result.is_ok(), "{packet:?} of {size} bytes");
                if let Packet::Publish(Publish { packet_id: Some(id), .. }) = packet {
                    finish(&client, id.get(), qos);
                }
            }
        }
    }
    assert!(client.publish("t", &"x".repeat(200), QoS::AtMostOnce).is_err());
}

/// The server acknowledges to the end.
fn finish(client: &Client, id: u16, qos: QoS) {
    if qos == QoS::AtLeastOnce {
        client.receive(puback(id));
    } else {
        client.receive(pubrec(id));
        assert_eq!(client.acks(), [(PacketType::PubRel, id)]);
        client.receive(pubcomp(id));
    }
}

/// MQTT 5: [MQTT-3.3.2-9].
#[test]
fn mqtt_3_2_2_17_a_client_keeps_to_the_server_s_topic_alias_maximum() {
    let client = Client::new(SessionOptions { topic_aliases_used_max: 10, ..options(Version::V5) });
    client.online(false, &[p16(wire::TOPIC_ALIAS_MAXIMUM, 2)]);
    let mut used = 0;
    for n in 0..40 {
        client.publish(&format!("topic/{}", n % 5), "", QoS::AtMostOnce).expect("it is sent");
        for publish in client.published() {
            let alias = publish.properties.topic_alias();
            assert!(alias.is_none_or(|alias| (1..=2).contains(&alias)), "{alias:?}");
            used += usize::from(alias.is_some());
        }
    }
    assert!(used > 2, "aliases are used at all");
}

#[test]
fn mqtt_3_2_2_18_without_a_maximum_a_client_sends_no_alias() {
    let client = Client::new(SessionOptions { topic_aliases_used_max: 10, ..options(Version::V5) });
    client.online(false, &[]);
    for _ in 0..5 {
        client.publish("topic/name", "", QoS::AtMostOnce).expect("it is sent");
    }
    assert!(client.published().iter().all(|publish| publish.properties.topic_alias().is_none()));
}

/// MQTT 5: [MQTT-3.3.2-8].
#[test]
fn mqtt_3_3_2_7_a_client_s_aliases_end_with_the_connection() {
    let client = Client::new(SessionOptions { topic_aliases_used_max: 10, ..persistent(Version::V5) });
    for present in [false, true] {
        client.online(present, &[p16(wire::TOPIC_ALIAS_MAXIMUM, 10)]);
        client.publish("topic/name", "", QoS::AtMostOnce).expect("it is sent");
        client.publish("topic/name", "", QoS::AtMostOnce).expect("it is sent");
        let published = client.published();
        assert_eq!(published[0].topic.as_str(), "topic/name", "the first use names the topic");
        assert_ne!(published[0].properties.topic_alias(), Some(0));
        assert_eq!(published[1].topic.as_str(), "");
        client.lost();
    }
    // The same on the receiving side.
    client.online(true, &[]);
    client.receive(Incoming::new("in", "one").with(p16(wire::TOPIC_ALIAS, 1)));
    client.receive(Incoming::new("", "two").with(p16(wire::TOPIC_ALIAS, 1)));
    assert_eq!(client.messages(), ["one", "two"]);
    client.lost();
    client.online(true, &[]);
    client.receive(Incoming::new("", "three").with(p16(wire::TOPIC_ALIAS, 1)));
    client.expect_violation(ReasonCode::ProtocolError);
}

#[test]
fn mqtt_3_3_2_10_a_client_accepts_all_aliases_up_to_its_maximum() {
    let client = Client::new(SessionOptions { topic_alias_maximum: 20, ..options(Version::V5) });
    assert_eq!(client.connect().properties.topic_alias_maximum(), Some(20));
    client.accept(false, &[]);
    for alias in 1..=20 {
        client.receive(Incoming::new(&format!("t/{alias}"), "").with(p16(wire::TOPIC_ALIAS, alias)));
    }
    client.events();
    for alias in (1..=20).rev() {
        client.receive(Incoming::new("", "").with(p16(wire::TOPIC_ALIAS, alias)));
        match client.events().as_slice() {
            [Event::Message(message)] => assert_eq!(message.topic(), format!("t/{alias}")),
            other => panic!("{other:?}"),
        }
    }
    client.receive(Incoming::new("t", "").with(p16(wire::TOPIC_ALIAS, 21)));
    client.expect_violation(ReasonCode::TopicAliasInvalid);
}
