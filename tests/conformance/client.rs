//! The statements that bind a client, tested on `session::client::ClientSession` with a scripted server.

use std::{
    cell::RefCell,
    num::NonZeroU16,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
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

use crate::wire::{self, Publish as Incoming, Wire, auth, p8, p16, p32, packet, pstr, puback, pubcomp, pubrec, pubrel};

/// A client and the bytes between it and a server that a test plays.
pub(crate) struct Client {
    session: RefCell<ClientSession>,
    now: RefCell<Instant>,
    version: Version,
}

impl Client {
    pub(crate) fn new(options: SessionOptions) -> Self {
        Self::with_exchange(options, None)
    }

    fn with_exchange(options: SessionOptions, exchange: Option<Box<dyn AuthExchange>>) -> Self {
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

    /// What the client has sent since.
    pub(crate) fn sent(&self) -> Vec<Packet> {
        self.sent_sized().into_iter().map(|(packet, _)| packet).collect()
    }

    fn sent_sized(&self) -> Vec<(Packet, usize)> {
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
    fn published(&self) -> Vec<Publish> {
        let publish = |packet| match packet {
            Packet::Publish(publish) => publish,
            other => panic!("PUBLISH was expected, not {other:?}"),
        };
        self.sent().into_iter().map(publish).collect()
    }

    /// Type and identifier of the acknowledgements sent since.
    #[track_caller]
    fn acks(&self) -> Vec<(PacketType, u16)> {
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

    fn publish_with(
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
    fn messages(&self) -> Vec<String> {
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
    fn expect_violation(&self, reason: ReasonCode) {
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

fn options(version: Version) -> SessionOptions {
    SessionOptions { version, client_id: Text::from_static("client"), keep_alive: 0, ..SessionOptions::default() }
}

/// Options of a client that keeps its session.
fn persistent(version: Version) -> SessionOptions {
    SessionOptions { clean_start: false, session_expiry: 3600, ..options(version) }
}

fn versions(test: impl Fn(Version)) {
    [Version::V5, Version::V3_1_1].into_iter().for_each(test);
}

fn online(version: Version) -> Client {
    let client = Client::new(persistent(version));
    client.online(false, &[]);
    client
}

fn ids(published: &[Publish]) -> Vec<u16> {
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

/// MQTT 5: [MQTT-4.12.0-5].
#[test]
fn mqtt_3_1_2_30_a_client_that_named_a_method_sends_only_auth_before_connack() {
    let client = Client::with_exchange(options(Version::V5), Some(Box::new(Scripted)));
    client.publish("t", "early", QoS::AtLeastOnce).expect("it is queued");
    client.subscribe("t", SubscriptionOptions::default()).expect("it waits");
    let connect = client.connect();
    assert_eq!(connect.properties.authentication_method().map(|method| method.as_str()), Some("scripted"));
    client.receive(auth(0x18, "scripted", Some(b"challenge")));
    let sent = client.sent();
    assert!(matches!(sent.as_slice(), [Packet::Auth(_)]), "{sent:?}");
}

#[derive(Debug)]
struct Scripted;

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
            assert_eq!(sent.properties.authentication_method().map(|method| method.as_str()), Some("scripted"));
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
            assert_eq!(sent.properties.authentication_method().map(|method| method.as_str()), Some("scripted"));
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
    match qos {
        QoS::AtLeastOnce => client.receive(puback(id)),
        _ => {
            client.receive(pubrec(id));
            assert_eq!(client.acks(), [(PacketType::PubRel, id)]);
            client.receive(pubcomp(id));
        }
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

/// MQTT 5: [MQTT-4.3.2-1] [MQTT-4.3.3-1]. MQTT 3.1.1: [MQTT-2.3.1-1] [MQTT-2.3.1-2].
#[test]
fn mqtt_2_2_1_3_identifiers_of_a_client_are_not_zero_and_not_in_use() {
    versions(|version| {
        let client = online(version);
        for round in 0..3 {
            client.publish("t", "", QoS::AtLeastOnce).expect("it is sent");
            client.publish("t", "", QoS::ExactlyOnce).expect("it is sent");
            client.subscribe(&format!("t/{round}"), SubscriptionOptions::default()).expect("it is sent");
        }
        let id = |packet: &Packet| match packet {
            Packet::Publish(publish) => publish.packet_id.map(NonZeroU16::get),
            Packet::Subscribe(subscribe) => Some(subscribe.packet_id.get()),
            other => panic!("{other:?}"),
        };
        let sent = client.sent();
        let used: std::collections::HashSet<u16> = sent.iter().filter_map(id).collect();
        assert_eq!(used.len(), 9, "{sent:?}");
        // An identifier is used again only when its exchange is over.
        client.publish("t", "", QoS::AtLeastOnce).expect("it is sent");
        assert!(!used.contains(&ids(&client.published())[0]));
    });
}

/// MQTT 5: [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-4.3.1-1] [MQTT-4.4.0-1].
/// MQTT 3.1.1: [MQTT-3.3.1-1] [MQTT-3.3.1-2] [MQTT-2.3.1-3] [MQTT-4.3.1-1] [MQTT-4.4.0-1].
#[test]
fn mqtt_3_3_1_1_a_client_sets_dup_on_repetitions_only() {
    versions(|version| {
        let client = online(version);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            client.publish("t", "", qos).expect("it is sent");
        }
        let first = client.published();
        assert!(first.iter().all(|publish| !publish.dup));
        client.advance(Duration::from_secs(3600));
        assert_eq!(client.sent(), [], "nothing is repeated on the same connection");
        client.lost();
        client.online(true, &[]);
        let again = client.published();
        assert!(again.iter().all(|publish| publish.dup));
        assert_eq!(ids(&again), ids(&first));
    });
}

/// MQTT 5: [MQTT-4.3.2-3]. MQTT 3.1.1: [MQTT-4.6.0-1] [MQTT-4.3.2-1].
#[test]
fn mqtt_4_6_0_1_a_client_repeats_publications_in_their_order() {
    versions(|version| {
        let client = online(version);
        for n in 0..20 {
            let qos = if n % 3 == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
            client.publish("t", &n.to_string(), qos).expect("it is sent");
        }
        let first = ids(&client.published());
        client.receive(puback(first[4]));
        client.receive(puback(first[1]));
        client.lost();
        client.publish("t", "new", QoS::AtLeastOnce).expect("it is queued");
        client.online(true, &[]);
        let again: Vec<String> =
            client.published().iter().map(|publish| String::from_utf8_lossy(&publish.payload).into_owned()).collect();
        let mut expected: Vec<String> = (0..20).filter(|n| ![1, 4].contains(n)).map(|n| n.to_string()).collect();
        expected.push("new".into());
        assert_eq!(again, expected);
    });
}

/// MQTT 5: [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-3.3.4-1] [MQTT-2.2.1-5].
/// MQTT 3.1.1: [MQTT-4.5.0-2] [MQTT-3.3.4-1] [MQTT-2.3.1-6].
#[test]
fn mqtt_4_5_0_2_a_client_acknowledges_every_publish() {
    versions(|version| {
        let client = online(version);
        // It has no subscription at all: it acknowledges nevertheless.
        client.receive(Incoming::new("t", "").qos1(7));
        client.receive(Incoming::new("t", "").qos2(8));
        client.receive(Incoming::new("t", ""));
        assert_eq!(client.acks(), [(PacketType::PubAck, 7), (PacketType::PubRec, 8)]);
    });
}

/// MQTT 5: [MQTT-4.6.0-3]. MQTT 3.1.1: [MQTT-4.6.0-2] [MQTT-4.6.0-3].
#[test]
fn mqtt_4_6_0_2_a_client_acknowledges_in_the_order_of_arrival() {
    versions(|version| {
        let manual = SessionOptions { ack_mode: ferromq::session::client::AckMode::Application, ..options(version) };
        let client = Client::new(manual);
        client.online(false, &[]);
        for id in [5, 3, 9, 1] {
            client.receive(Incoming::new("t", "").qos(if id == 3 { 2 } else { 1 }, id));
        }
        let message = |event| match event {
            Event::Message(message) => message.ack_handle(),
            _ => None,
        };
        let handles: Vec<_> = client.events().into_iter().filter_map(message).collect();
        // The application finishes in another order.
        for handle in [handles[3], handles[1], handles[0], handles[2]] {
            client.session.borrow_mut().acknowledge(handle, ReasonCode::Success);
        }
        let acks = [(PacketType::PubAck, 5), (PacketType::PubRec, 3), (PacketType::PubAck, 9), (PacketType::PubAck, 1)];
        assert_eq!(client.acks(), acks);
    });
}

/// MQTT 5: [MQTT-4.3.3-4]. MQTT 3.1.1: [MQTT-4.6.0-4].
#[test]
fn mqtt_4_6_0_4_a_client_sends_pubrel_in_the_order_of_the_pubrecs() {
    versions(|version| {
        let client = online(version);
        for _ in 0..4 {
            client.publish("t", "", QoS::ExactlyOnce).expect("it is sent");
        }
        let sent = ids(&client.published());
        let order = [sent[2], sent[0], sent[3], sent[1]];
        order.iter().for_each(|id| client.receive(pubrec(*id)));
        assert_eq!(client.acks(), order.map(|id| (PacketType::PubRel, id)));
    });
}

/// MQTT 5: [MQTT-4.3.3-3] [MQTT-4.3.3-5]. MQTT 3.1.1: [MQTT-4.3.3-1].
#[test]
fn mqtt_4_3_3_6_after_pubrel_a_client_repeats_pubrel_and_not_the_publish() {
    versions(|version| {
        let client = online(version);
        client.publish("t", "", QoS::ExactlyOnce).expect("it is sent");
        let id = ids(&client.published())[0];
        client.lost();
        client.online(true, &[]);
        assert!(client.published()[0].dup, "PUBLISH is repeated until PUBREC");
        client.receive(pubrec(id));
        client.sent();
        client.lost();
        client.online(true, &[]);
        assert_eq!(client.acks(), [(PacketType::PubRel, id)]);
        client.receive(pubcomp(id));
        client.lost();
        client.online(true, &[]);
        assert_eq!(client.sent(), []);
    });
}

/// MQTT 5: [MQTT-4.3.3-11] [MQTT-4.3.3-12]. MQTT 3.1.1: [MQTT-4.3.3-2].
#[test]
fn mqtt_4_3_3_10_a_client_hands_a_repeated_qos2_message_out_once() {
    versions(|version| {
        let client = online(version);
        client.receive(Incoming::new("t", "once").qos2(1));
        client.receive(Incoming::new("t", "once").qos2(1).dup());
        assert_eq!(client.acks(), [(PacketType::PubRec, 1); 2]);
        client.lost();
        client.online(true, &[]);
        client.receive(Incoming::new("t", "once").qos2(1).dup());
        assert_eq!(client.messages(), ["once"]);
        client.receive(pubrel(1));
        assert_eq!(client.acks(), [(PacketType::PubRec, 1), (PacketType::PubComp, 1)]);
        client.receive(Incoming::new("t", "new").qos2(1));
        assert_eq!(client.messages(), ["new"]);
    });
}

/// MQTT 3.1.1: [MQTT-4.3.2-2].
#[test]
fn mqtt_4_3_2_5_after_puback_a_client_takes_the_identifier_for_a_new_message() {
    versions(|version| {
        let client = online(version);
        client.receive(Incoming::new("t", "one").qos1(1));
        client.receive(Incoming::new("t", "two").qos1(1).dup());
        assert_eq!(client.messages(), ["one", "two"]);
    });
}

/// MQTT 5: [MQTT-4.3.3-9].
#[test]
fn mqtt_4_4_0_2_a_failing_acknowledgement_ends_a_client_s_publication() {
    let client = online(Version::V5);
    client.publish("t", "", QoS::AtLeastOnce).expect("it is sent");
    client.publish("t", "", QoS::ExactlyOnce).expect("it is sent");
    let sent = ids(&client.published());
    client.receive(puback(sent[0]).reason(0x87));
    client.receive(pubrec(sent[1]).reason(0x97));
    assert_eq!(client.sent(), [], "no PUBREL follows a failing PUBREC");
    let failed = |event: &Event| matches!(event, Event::Published(_, Ok(ack)) if ack.reason.is_error());
    assert_eq!(client.events().iter().filter(|event| failed(event)).count(), 2);
    client.lost();
    client.online(true, &[]);
    assert_eq!(client.sent(), []);
}

#[test]
fn mqtt_4_3_3_7_a_client_s_qos2_message_once_sent_does_not_expire() {
    let client = online(Version::V5);
    let expiry = [ferromq::codec::Property::MessageExpiryInterval(5)].into_iter().collect();
    client.publish_with("t", "x", QoS::ExactlyOnce, false, &expiry).expect("it is sent");
    client.published();
    client.lost();
    client.advance(Duration::from_secs(100));
    client.online(true, &[]);
    assert_eq!(client.published().len(), 1);
}

#[test]
fn mqtt_4_3_3_13_a_client_completes_qos2_whatever_the_expiry() {
    let client = online(Version::V5);
    client.receive(Incoming::new("t", "x").qos2(1).with(p32(wire::MESSAGE_EXPIRY, 1)));
    client.advance(Duration::from_secs(100));
    client.receive(pubrel(1));
    assert_eq!(client.acks(), [(PacketType::PubRec, 1), (PacketType::PubComp, 1)]);
}

#[test]
fn mqtt_3_3_4_6_a_client_s_publish_carries_no_subscription_identifier() {
    let client = online(Version::V5);
    let properties = [ferromq::codec::Property::SubscriptionIdentifier(1)].into_iter().collect();
    assert!(client.publish_with("t", "", QoS::AtMostOnce, false, &properties).is_err());
}

/// MQTT 5: [MQTT-4.9.0-1] [MQTT-4.9.0-2].
#[test]
fn mqtt_3_3_4_7_a_client_keeps_to_the_server_s_receive_maximum() {
    let client = Client::new(persistent(Version::V5));
    client.online(false, &[p16(wire::RECEIVE_MAXIMUM, 3)]);
    for n in 0..10 {
        let qos = if n % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        client.publish("t", "", qos).expect("it is sent or queued");
    }
    let sent = ids(&client.published());
    assert_eq!(sent.len(), 3);
    client.receive(pubrec(sent[1]));
    assert_eq!(client.acks(), [(PacketType::PubRel, sent[1])], "PUBREC gives no room");
    client.receive(pubcomp(sent[1]));
    assert_eq!(client.published().len(), 1);
    client.receive(puback(sent[0]));
    assert_eq!(client.published().len(), 1);
    client.lost();
    client.online(true, &[p16(wire::RECEIVE_MAXIMUM, 2)]);
    assert_eq!(client.published().len(), 2, "the maximum of this connection counts");
}

/// MQTT 5: [MQTT-4.9.0-3].
#[test]
fn mqtt_3_3_4_8_at_the_receive_maximum_a_client_still_sends_all_else() {
    let client = Client::new(SessionOptions { keep_alive: 10, ..options(Version::V5) });
    client.online(false, &[p16(wire::RECEIVE_MAXIMUM, 1)]);
    client.publish("t", "", QoS::AtLeastOnce).expect("it is sent");
    client.sent();
    client.subscribe("t", SubscriptionOptions::default()).expect("it is sent");
    client.receive(Incoming::new("t", "").qos1(7));
    client.advance(Duration::from_secs(10));
    let sent: Vec<_> = client.sent().iter().map(Packet::packet_type).collect();
    assert_eq!(sent, [PacketType::Subscribe, PacketType::PubAck, PacketType::PingReq]);
}

/// MQTT 5: [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.8.2-1] [MQTT-4.8.2-2].
/// MQTT 3.1.1: [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1] [MQTT-4.7.3-2].
#[test]
fn mqtt_4_7_0_1_a_client_refuses_topics_that_are_none() {
    versions(|version| {
        let client = online(version);
        for topic in ["", "a/+", "#", "a\0"] {
            assert!(client.publish(topic, "", QoS::AtMostOnce).is_err(), "{topic:?}");
        }
        for filter in ["", "a#", "a/#/b", "a+/b", "\0", "$share//t", "$share/g+/t", "$share/g"] {
            assert!(client.subscribe(filter, SubscriptionOptions::default()).is_err(), "{filter:?}");
        }
        assert_eq!(client.sent(), []);
    });
}

#[test]
fn mqtt_3_8_3_4_a_client_does_not_ask_for_no_local_on_a_shared_subscription() {
    let client = online(Version::V5);
    let no_local = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
    assert!(client.subscribe("$share/g/t", no_local).is_err());
    assert_eq!(client.sent(), []);
}

/// MQTT 5: [MQTT-3.10.3-2]. MQTT 3.1.1: [MQTT-3.8.3-3] [MQTT-3.10.3-2].
#[test]
fn mqtt_3_8_3_2_a_client_s_requests_hold_at_least_one_filter() {
    versions(|version| {
        let client = online(version);
        assert!(client.session.borrow_mut().subscribe(SubscribeRequest::default(), 0).is_err());
        assert!(client.session.borrow_mut().unsubscribe(Vec::new(), 0).is_err());
        assert_eq!(client.sent(), []);
    });
}

/// MQTT 5: [MQTT-3.14.4-2] [MQTT-4.13.2-1]. MQTT 3.1.1: [MQTT-3.14.4-1] [MQTT-3.14.4-2].
#[test]
fn mqtt_3_14_4_1_a_client_sends_nothing_after_disconnect_and_closes() {
    versions(|version| {
        let client = online(version);
        client.session.borrow_mut().disconnect(ReasonCode::Success, None).expect("it may");
        let _ = client.publish("t", "", QoS::AtLeastOnce);
        client.receive(Incoming::new("t", "").qos1(1));
        let sent: Vec<_> = client.sent().iter().map(Packet::packet_type).collect();
        assert_eq!(sent, [PacketType::Disconnect]);
        let closed = |event: &Event| matches!(event, Event::Closed(close) if **close == CloseReason::Requested);
        assert!(client.events().iter().any(closed));
    });
}

/// MQTT 5: [MQTT-2.1.3-1] [MQTT-3.3.1-4] [MQTT-3.3.2-1] [MQTT-1.5.4-2]. MQTT 3.1.1: [MQTT-2.2.2-1] [MQTT-2.2.2-2]
/// [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT-3.3.1-4] [MQTT-4.8.0-1].
#[test]
fn mqtt_1_5_4_1_a_client_closes_on_malformed_packets() {
    versions(|version| {
        let none = wire::properties(version, &[]);
        let bad_topic = packet(0x30, &[wire::binary(b"\xFF"), none.clone()].concat());
        let null_topic = packet(0x30, &[wire::binary(b"a\0"), none].concat());
        let mut qos3 = Incoming::new("t", "").qos1(1).wire(version);
        qos3[0] |= 0x06;
        for bytes in
            [bad_topic, null_topic, qos3, vec![0xD1, 0], vec![0x41, 2, 0, 1], vec![0x00, 0], vec![0x60, 2, 0, 1]]
        {
            let client = online(version);
            client.receive(bytes);
            client.expect_violation(ReasonCode::MalformedPacket);
            match client.sent().as_slice() {
                [] if !version.is_v5() => {}
                [Packet::Disconnect(sent)] if version.is_v5() => assert_eq!(sent.reason, ReasonCode::MalformedPacket),
                other => panic!("{other:?}"),
            }
        }
    });
}

/// MQTT 5: [MQTT-3.3.4-9]. The client's side: a server that exceeds the receive maximum is told so.
#[test]
fn a_client_disconnects_a_server_that_exceeds_its_receive_maximum() {
    let client = Client::new(SessionOptions { receive_maximum: 2, ..options(Version::V5) });
    assert_eq!(client.connect().properties.receive_maximum(), Some(2));
    client.accept(false, &[]);
    for id in 1..=3 {
        client.receive(Incoming::new("t", "").qos2(id));
    }
    client.expect_violation(ReasonCode::ReceiveMaximumExceeded);
}

/// MQTT 5: [MQTT-3.2.0-1].
#[test]
fn a_client_refuses_packets_before_connack() {
    versions(|version| {
        let client = Client::new(options(version));
        client.connect();
        client.receive(Incoming::new("t", ""));
        client.expect_violation(ReasonCode::ProtocolError);
    });
}

/// A packet that came in pieces, or several in one piece, is the same to a client.
#[test]
fn a_client_takes_packets_split_and_joined_anywhere() {
    versions(|version| {
        let mut bytes = Incoming::new("t", "one").qos1(1).wire(version);
        bytes.extend(Incoming::new("t", "two").qos2(2).wire(version));
        for piece in 1..bytes.len() {
            let client = online(version);
            let mut kept = BytesMut::new();
            for part in bytes.chunks(piece) {
                kept.extend_from_slice(part);
                let input = kept.clone().freeze();
                let used = client.session.borrow_mut().handle_bytes(*client.now.borrow(), &input);
                let _ = kept.split_to(used);
            }
            assert_eq!(client.messages(), ["one", "two"], "pieces of {piece} bytes");
        }
    });
}
