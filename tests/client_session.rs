//! The client's machine against a scripted server, in virtual time: connecting, what the server allows, keep-alive,
//! bad servers. Statements of the specification that bind a client are named by their number.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod client_support;

use std::time::Duration;

use bytes::Bytes;
use client_support::{
    Pair, ack, connack, filter, id, name, outgoing, outline, publication, refusal, suback, subscribe_to,
};
use ferromq::{
    codec::{Auth, Disconnect, Packet, Properties, Property, QoS, ReasonCode, Text, Version, Will},
    session::client::{AuthExchange, CloseReason, Event, Outgoing, Published, RequestError, SessionOptions},
};

fn options() -> SessionOptions {
    SessionOptions { client_id: Text::from_static("c"), ..SessionOptions::default() }
}

fn v3() -> SessionOptions {
    SessionOptions { version: Version::V3_1_1, ..options() }
}

/// [MQTT-3.1.0-1] [MQTT-3.1.2-1]: CONNECT comes first, with all that was asked for.
#[test]
fn connect_carries_every_option() {
    let will = Will {
        topic: name("gone/c"),
        payload: Bytes::from_static(b"bye"),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: [Property::WillDelayInterval(5)].into_iter().collect(),
    };
    let mut pair = Pair::new(SessionOptions {
        clean_start: false,
        session_expiry: 3600,
        keep_alive: 7,
        username: Some(Text::from_static("u")),
        password: Some(Bytes::from_static(b"p")),
        will: Some(will.clone()),
        receive_maximum: 10,
        topic_alias_maximum: 3,
        request_problem_information: false,
        request_response_information: true,
        user_properties: vec![(Text::from_static("k"), Text::from_static("v"))],
        limits: ferromq::codec::Limits { packet_bytes_max: 1000, ..Default::default() },
        ..options()
    });
    let connect = pair.connect();
    assert_eq!((connect.version, connect.clean_start, connect.keep_alive), (Version::V5, false, 7));
    assert_eq!((&*connect.client_id, connect.username.as_deref()), ("c", Some("u")));
    assert_eq!((connect.password.as_deref(), connect.will), (Some(&b"p"[..]), Some(will)));
    let properties = &connect.properties;
    assert_eq!(properties.session_expiry_interval(), Some(3600));
    assert_eq!(properties.receive_maximum(), Some(10));
    assert_eq!(properties.topic_alias_maximum(), Some(3));
    assert_eq!(properties.maximum_packet_size(), Some(1000));
    assert_eq!(properties.request_problem_information(), Some(false));
    assert_eq!(properties.request_response_information(), Some(true));
    assert_eq!(properties.user_properties().count(), 1);
}

/// [MQTT-3.1.3-7] and [MQTT-3.1.2-22] of MQTT 3.1.1.
#[test]
fn before_mqtt5_an_empty_identifier_needs_a_clean_session_and_a_password_needs_a_user_name() {
    let bad = [
        SessionOptions { client_id: Text::new(), clean_start: false, ..v3() },
        SessionOptions { client_id: Text::new(), version: Version::V3_1, ..v3() },
        SessionOptions { password: Some(Bytes::from_static(b"p")), ..v3() },
    ];
    for options in bad {
        let mut pair = Pair::new(options);
        assert!(matches!(pair.session.connect(pair.now), Err(RequestError::NotAllowed(_))));
        assert!(pair.sent().is_empty());
    }
}

/// [MQTT-3.2.0-1]: the first packet of a server is CONNACK or AUTH; [MQTT-3.2.0-2]: CONNACK comes once.
#[test]
fn a_packet_before_connack_and_a_second_connack_end_the_connection() {
    let mut pair = Pair::new(options());
    pair.connect();
    pair.give(Packet::PingResp);
    assert_eq!(pair.closed().reason(), Some(ReasonCode::ProtocolError));
    assert!(pair.sent().is_empty(), "nothing is sent to a server that has not accepted");

    let mut pair = Pair::online(options(), []);
    pair.give(connack(false, []));
    pair.fails_with(ReasonCode::ProtocolError);
}

#[test]
fn a_refused_connection_is_closed_without_disconnect() {
    let mut pair = Pair::new(options());
    pair.connect();
    pair.give(refusal(ReasonCode::NotAuthorized));
    assert!(matches!(pair.closed(), CloseReason::Refused(connack) if connack.reason == ReasonCode::NotAuthorized));
    assert!(pair.sent().is_empty());
}

#[test]
fn a_server_that_does_not_answer_connect_is_given_up() {
    let mut pair = Pair::new(SessionOptions { connack_timeout: Duration::from_secs(5), ..options() });
    pair.connect();
    assert_eq!(pair.session.poll_timeout(), Some(pair.now + Duration::from_secs(5)));
    pair.advance(4);
    assert!(pair.events().is_empty());
    pair.advance(1);
    assert_eq!(pair.closed(), CloseReason::ConnAckTimeout);
}

/// [MQTT-3.2.2-4]: a session that this side has not cannot be resumed.
#[test]
fn a_session_that_is_resumed_after_a_clean_start_is_a_protocol_error() {
    let mut pair = Pair::new(options());
    assert!(pair.connect().clean_start);
    pair.give(connack(true, []));
    assert_eq!(pair.closed().reason(), Some(ReasonCode::ProtocolError));
}

/// [MQTT-3.2.2-11] [MQTT-3.2.2-14] [MQTT-3.2.2-15]
#[test]
fn what_the_server_does_not_take_is_refused_here_and_never_sent() {
    let limits = [Property::MaximumQoS(0), Property::RetainAvailable(false), Property::MaximumPacketSize(20)];
    let mut pair = Pair::online(options(), limits);
    let max = QoS::AtMostOnce;
    assert_eq!(pair.publish("a", b"", QoS::AtLeastOnce, 1), Err(RequestError::QoSNotSupported { max }));
    let retained = Outgoing { retain: true, ..outgoing("a", b"", QoS::AtMostOnce) };
    assert_eq!(pair.session.publish(pair.now, &retained, 1), Err(RequestError::RetainNotSupported));
    let fits = [0; 14];
    assert_eq!(pair.publish("a", &[0; 15], max, 1), Err(RequestError::PacketTooLarge { len: 21, max: 20 }));
    assert!(pair.sent().is_empty());
    assert_eq!(pair.publish("a", &fits, max, 1), Ok(Published::Written));
    assert_eq!(pair.sent().len(), 1);
}

#[test]
fn filters_that_the_server_does_not_take_are_refused_here() {
    let limits = [
        Property::WildcardSubscriptionAvailable(false),
        Property::SharedSubscriptionAvailable(false),
        Property::SubscriptionIdentifierAvailable(false),
    ];
    let mut pair = Pair::online(options(), limits);
    let subscribe = |pair: &mut Pair, request| pair.session.subscribe(request, 1);
    assert_eq!(subscribe(&mut pair, subscribe_to(&["a/+"])), Err(RequestError::WildcardsNotSupported));
    assert_eq!(subscribe(&mut pair, subscribe_to(&["$share/g/a"])), Err(RequestError::SharedNotSupported));
    let mut with_identifier = subscribe_to(&["a"]);
    with_identifier.identifier = Some(1);
    assert_eq!(subscribe(&mut pair, with_identifier), Err(RequestError::IdentifiersNotSupported));
    assert!(pair.sent().is_empty());
    assert_eq!(subscribe(&mut pair, subscribe_to(&["a"])), Ok(()));
}

/// [MQTT-3.8.3-2] [MQTT-3.8.3-4] [MQTT-3.10.3-2] [MQTT-3.3.4-6] [MQTT-3.3.2-14]
#[test]
fn requests_the_protocol_forbids_are_refused_here() {
    let mut pair = Pair::online(options(), []);
    let refused = |result: Result<(), RequestError>| assert!(matches!(result, Err(RequestError::NotAllowed(_))));
    refused(pair.session.subscribe(subscribe_to(&[]), 1));
    let mut no_local = subscribe_to(&["$share/g/a"]);
    no_local.subscriptions[0].options.no_local = true;
    refused(pair.session.subscribe(no_local, 1));
    refused(pair.session.unsubscribe(vec![], 1));
    for identifier in [0, 268_435_456] {
        let mut request = subscribe_to(&["a"]);
        request.identifier = Some(identifier);
        refused(pair.session.subscribe(request, 1));
    }
    for property in [Property::SubscriptionIdentifier(1), Property::TopicAlias(1), Property::ServerKeepAlive(1)] {
        let properties: Properties = [property].into_iter().collect();
        let message = Outgoing { properties: &properties, ..outgoing("a", b"", QoS::AtMostOnce) };
        refused(pair.session.publish(pair.now, &message, 1).map(drop));
    }
    let properties: Properties = [Property::ResponseTopic(Text::from_static("a/+"))].into_iter().collect();
    let message = Outgoing { properties: &properties, ..outgoing("a", b"", QoS::AtMostOnce) };
    assert!(matches!(pair.session.publish(pair.now, &message, 1), Err(RequestError::Topic(_))));
    for topic in ["", "a/+", "#", "a\0"] {
        assert!(matches!(pair.publish(topic, b"", QoS::AtMostOnce, 1), Err(RequestError::Topic(_))), "{topic:?}");
    }
    assert!(pair.sent().is_empty());
}

#[test]
fn before_mqtt5_there_are_no_properties_and_no_options() {
    let mut pair = Pair::online(v3(), []);
    let properties: Properties = [Property::MessageExpiryInterval(1)].into_iter().collect();
    let message = Outgoing { properties: &properties, ..outgoing("a", b"", QoS::AtMostOnce) };
    assert!(matches!(pair.session.publish(pair.now, &message, 1), Err(RequestError::NeedsVersion5(_))));
    let mut request = subscribe_to(&["a"]);
    request.subscriptions[0].options.retain_as_published = true;
    assert!(matches!(pair.session.subscribe(request, 1), Err(RequestError::NeedsVersion5(_))));
}

/// [MQTT-3.2.2-16]: the identifier the server assigned is used from then on.
#[test]
fn an_assigned_identifier_is_kept_for_the_next_connection() {
    let mut pair = Pair::new(SessionOptions { client_id: Text::new(), ..options() });
    assert!(pair.connect().client_id.is_empty());
    pair.accept(false, [Property::AssignedClientIdentifier(Text::from_static("server-made"))]);
    assert_eq!(&*pair.session.client_id().clone(), "server-made");
    assert_eq!(&*pair.reconnect(false).client_id, "server-made");
}

/// [MQTT-3.1.2-20]: a packet is sent within the keep-alive; an unanswered PINGREQ ends the connection.
#[test]
fn silence_is_broken_by_ping_and_an_unanswered_one_ends_the_connection() {
    let mut pair = Pair::online(SessionOptions { keep_alive: 10, ..options() }, []);
    pair.advance(9);
    assert_eq!(pair.publish("a", b"", QoS::AtMostOnce, 0), Ok(Published::Written));
    assert_eq!(pair.sent().len(), 1);
    pair.advance(9);
    assert!(pair.sent().is_empty(), "what was sent counts as a sign of life");
    pair.advance(1);
    assert_eq!(pair.sent(), [Packet::PingReq]);
    pair.give(Packet::PingResp);
    pair.advance(10);
    assert_eq!(pair.sent(), [Packet::PingReq]);
    pair.advance(10);
    assert_eq!(pair.closed(), CloseReason::PingTimeout);
}

/// [MQTT-3.2.2-21]: the server's keep-alive wins.
#[test]
fn the_servers_keep_alive_replaces_the_clients() {
    let mut pair = Pair::online(SessionOptions { keep_alive: 100, ..options() }, [Property::ServerKeepAlive(5)]);
    pair.advance(5);
    assert_eq!(pair.sent(), [Packet::PingReq]);
    let pair = Pair::online(options(), [Property::ServerKeepAlive(0)]);
    assert_eq!(pair.session.poll_timeout(), None);
}

#[test]
fn a_shell_that_does_not_read_does_not_blame_the_server() {
    let mut pair = Pair::online(SessionOptions { keep_alive: 10, ..options() }, []);
    pair.session.set_paused(true, pair.now);
    for _ in 0..20 {
        pair.advance(10);
        assert_eq!(pair.sent(), [Packet::PingReq], "the server must not give this client up either");
    }
    pair.session.set_paused(false, pair.now);
    pair.advance(9);
    assert!(pair.events().is_empty());
    pair.advance(1);
    assert_eq!(pair.closed(), CloseReason::PingTimeout);
}

/// [MQTT-4.13.1-1]: malformed packets and protocol errors end the connection with the code for them.
#[test]
fn a_server_at_fault_is_told_why_and_left() {
    let faults: [(&[u8], ReasonCode); 6] = [
        (&[0x00, 0x00], ReasonCode::MalformedPacket),
        (&[0x36, 0x05, 0, 1, b'a', 0, 1], ReasonCode::MalformedPacket),
        (&[0xC0, 0x00], ReasonCode::ProtocolError),
        (&[0x82, 0x07, 0, 1, 0, 0, 1, b'a', 0], ReasonCode::ProtocolError),
        (&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], ReasonCode::MalformedPacket),
        (&[0x30, 0x04, 0, 1, b'+', 0], ReasonCode::TopicNameInvalid),
    ];
    for (bytes, reason) in faults {
        let mut pair = Pair::online(options(), []);
        pair.give_bytes(bytes);
        pair.fails_with(reason);
        // [MQTT-3.14.4-1]
        assert!(pair.session.publish(pair.now, &outgoing("a", b"", QoS::AtMostOnce), 0) != Ok(Published::Written));
        assert!(pair.sent().is_empty());
    }
}

#[test]
fn before_mqtt5_a_server_at_fault_is_left_without_a_word() {
    let mut pair = Pair::online(v3(), []);
    pair.give_bytes(&[0xE0, 0x00]);
    assert_eq!(pair.closed().reason(), Some(ReasonCode::ProtocolError));
    assert!(pair.sent().is_empty());
}

/// [MQTT-3.1.2-24] seen from the other side: what exceeds the maximum packet size this client has named.
#[test]
fn a_packet_over_the_announced_size_is_refused_before_it_is_read() {
    let limits = ferromq::codec::Limits { packet_bytes_max: 100, ..Default::default() };
    let mut pair = Pair::online(SessionOptions { limits, ..options() }, []);
    pair.give_bytes(&[0x30, 0xFF, 0x01]);
    pair.fails_with(ReasonCode::PacketTooLarge);
}

/// [MQTT-3.3.2-8] [MQTT-3.3.2-10] [MQTT-3.3.2-11]: aliases within the maximum, set before they are used.
#[test]
fn incoming_aliases_stand_for_their_topics_and_bad_ones_end_the_connection() {
    let with_alias = |topic: &str, alias| {
        let mut publish = publication(topic, b"x", QoS::AtMostOnce, 0);
        publish.properties.push(Property::TopicAlias(alias));
        Packet::Publish(publish)
    };
    let options = SessionOptions { topic_alias_maximum: 2, ..options() };
    let mut pair = Pair::online(options.clone(), []);
    for packet in [with_alias("t/1", 1), with_alias("", 1), with_alias("t/2", 1), with_alias("", 1)] {
        pair.give(packet);
    }
    let topics: Vec<_> = pair.messages().iter().map(|message| message.topic().to_owned()).collect();
    assert_eq!(topics, ["t/1", "t/1", "t/2", "t/2"]);

    pair.give(with_alias("t", 3));
    pair.fails_with(ReasonCode::TopicAliasInvalid);
    let mut pair = Pair::online(options, []);
    pair.give(with_alias("", 2));
    pair.fails_with(ReasonCode::ProtocolError);
}

#[test]
fn aliases_end_with_their_connection() {
    let mut publish = publication("t/1", b"x", QoS::AtMostOnce, 0);
    publish.properties.push(Property::TopicAlias(1));
    let mut pair = Pair::online(options(), []);
    pair.give(Packet::Publish(publish.clone()));
    pair.reconnect(false);
    pair.events();
    pair.sent();
    publish.topic = name("");
    pair.give(Packet::Publish(publish));
    pair.fails_with(ReasonCode::ProtocolError);
}

/// [MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-9]: outgoing aliases only as far as the server allows.
#[test]
fn outgoing_aliases_replace_a_topic_after_it_was_named_once() {
    let options = SessionOptions { topic_aliases_used_max: 10, ..options() };
    let mut pair = Pair::online(options.clone(), [Property::TopicAliasMaximum(1)]);
    for topic in ["plant/1", "plant/1", "plant/2"] {
        pair.publish(topic, b"", QoS::AtMostOnce, 0).unwrap();
    }
    let seen = |pair: &mut Pair| -> Vec<(String, Option<u16>)> {
        let of = |packet: &Packet| match packet {
            Packet::Publish(publish) => (publish.topic.as_str().to_owned(), publish.properties.topic_alias()),
            other => panic!("{other:?}"),
        };
        pair.sent().iter().map(of).collect()
    };
    let named = |topic: &str, alias| (topic.to_owned(), alias);
    assert_eq!(seen(&mut pair), [named("plant/1", Some(1)), named("", Some(1)), named("plant/2", None)]);

    let mut pair = Pair::online(options, []);
    pair.publish("plant/1", b"", QoS::AtMostOnce, 0).unwrap();
    assert_eq!(seen(&mut pair), [named("plant/1", None)]);
}

#[test]
fn a_servers_disconnect_is_reported_with_its_reason() {
    let mut pair = Pair::online(options(), []);
    let properties = [Property::ReasonString(Text::from_static("elsewhere"))].into_iter().collect();
    pair.give(Packet::Disconnect(Disconnect { reason: ReasonCode::SessionTakenOver, properties }));
    assert!(matches!(
        pair.closed(),
        CloseReason::ServerDisconnect { reason: ReasonCode::SessionTakenOver, properties }
            if properties.reason_string().is_some()
    ));
    assert!(pair.sent().is_empty());
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2]: nothing follows DISCONNECT.
#[test]
fn disconnect_is_the_last_packet_and_may_change_the_expiry() {
    let mut pair = Pair::online(SessionOptions { session_expiry: 10, ..options() }, []);
    pair.session.disconnect(ReasonCode::DisconnectWithWill, Some(99)).unwrap();
    assert_eq!(pair.closed(), CloseReason::Requested);
    pair.publish("a", b"", QoS::AtLeastOnce, 1).unwrap();
    pair.session.subscribe(subscribe_to(&["a"]), 2).unwrap();
    match pair.sent().as_slice() {
        [Packet::Disconnect(disconnect)] => {
            assert_eq!(disconnect.reason, ReasonCode::DisconnectWithWill);
            assert_eq!(disconnect.properties.session_expiry_interval(), Some(99));
        }
        other => panic!("{other:?}"),
    }
}

/// [MQTT-3.14.2-2] and section 3.14.2.2.2: an expiry of zero cannot be raised at the end.
#[test]
fn an_expiry_of_zero_cannot_be_raised_at_disconnect() {
    let mut pair = Pair::online(options(), []);
    let refused = pair.session.disconnect(ReasonCode::Success, Some(1));
    assert!(matches!(refused, Err(RequestError::NotAllowed(_))));
    assert!(pair.session.is_online());
}

#[derive(Debug)]
struct Challenge;

impl AuthExchange for Challenge {
    fn method(&self) -> Text {
        Text::from_static("count")
    }

    fn start(&mut self) -> Option<Bytes> {
        Some(Bytes::from_static(b"0"))
    }

    fn step(&mut self, data: Option<&Bytes>) -> Result<Option<Bytes>, ReasonCode> {
        match data.and_then(|data| data.first().copied()) {
            Some(b'x') | None => Err(ReasonCode::NotAuthorized),
            Some(digit) => Ok(Some(Bytes::copy_from_slice(&[digit + 1]))),
        }
    }

    fn finish(&mut self, data: Option<&Bytes>) -> Result<(), ReasonCode> {
        if data.is_some_and(|data| &**data == b"bad") { Err(ReasonCode::NotAuthorized) } else { Ok(()) }
    }
}

fn auth(reason: ReasonCode, method: &'static str, data: &'static [u8]) -> Packet {
    let method = Property::AuthenticationMethod(Text::from_static(method));
    let data = Property::AuthenticationData(Bytes::from_static(data));
    Packet::Auth(Auth { reason, properties: [method, data].into_iter().collect() })
}

fn challenged() -> Pair {
    let mut pair = Pair::with_exchange(options(), Some(Box::new(Challenge)));
    let connect = pair.connect();
    assert_eq!(connect.properties.authentication_method().map(Text::as_str), Some("count"));
    assert_eq!(connect.properties.authentication_data().map(|data| &data[..]), Some(&b"0"[..]));
    pair
}

/// [MQTT-4.12.0-3] [MQTT-4.12.0-5]: AUTH is answered with AUTH 0x18 and the method of CONNECT.
#[test]
fn challenges_are_answered_until_connack() {
    let mut pair = challenged();
    pair.give(auth(ReasonCode::ContinueAuthentication, "count", b"4"));
    assert_eq!(pair.sent(), [auth(ReasonCode::ContinueAuthentication, "count", b"5")]);
    pair.accept(false, [Property::AuthenticationMethod(Text::from_static("count"))]);
    assert!(pair.session.is_online());
}

/// [MQTT-4.12.1-1]: re-authentication uses the same method.
#[test]
fn re_authentication_runs_on_the_open_connection() {
    let mut pair = challenged();
    pair.accept(false, []);
    pair.session.reauthenticate().unwrap();
    assert_eq!(pair.sent(), [auth(ReasonCode::ReAuthenticate, "count", b"0")]);
    pair.give(auth(ReasonCode::ContinueAuthentication, "count", b"1"));
    assert_eq!(pair.sent(), [auth(ReasonCode::ContinueAuthentication, "count", b"2")]);
    pair.give(auth(ReasonCode::Success, "count", b""));
    assert!(matches!(pair.events().as_slice(), [Event::Reauthenticated]));
}

#[test]
fn a_server_that_changes_the_method_or_does_not_prove_itself_is_left() {
    let mut pair = challenged();
    pair.give(auth(ReasonCode::ContinueAuthentication, "other", b"1"));
    assert_eq!(pair.closed().reason(), Some(ReasonCode::ProtocolError));

    let mut pair = challenged();
    pair.give(connack(
        false,
        [
            Property::AuthenticationMethod(Text::from_static("count")),
            Property::AuthenticationData(Bytes::from_static(b"bad")),
        ],
    ));
    assert_eq!(pair.closed().reason(), Some(ReasonCode::NotAuthorized));

    let mut pair = challenged();
    pair.give(auth(ReasonCode::ContinueAuthentication, "count", b"x"));
    assert_eq!(pair.closed(), CloseReason::AuthenticationFailed(ReasonCode::NotAuthorized));

    // [MQTT-4.12.0-6]
    let mut pair = Pair::new(options());
    pair.connect();
    pair.give(auth(ReasonCode::ContinueAuthentication, "count", b"1"));
    assert_eq!(pair.closed().reason(), Some(ReasonCode::ProtocolError));
    let mut pair = Pair::online(options(), []);
    assert!(matches!(pair.session.reauthenticate(), Err(RequestError::NotAllowed(_))));
}

/// [MQTT-3.9.3-1] [MQTT-3.11.3-1]: one code a filter.
#[test]
fn answers_whose_codes_do_not_fit_the_question_are_protocol_errors() {
    let mut pair = Pair::online(options(), []);
    pair.session.subscribe(subscribe_to(&["a", "b"]), 1).unwrap();
    pair.sent();
    pair.give(suback(id(1), &[ReasonCode::Success]));
    pair.fails_with(ReasonCode::ProtocolError);

    let mut pair = Pair::online(options(), []);
    pair.session.unsubscribe(vec![filter("a")], 1).unwrap();
    pair.sent();
    pair.give(suback(id(1), &[ReasonCode::Success]));
    pair.fails_with(ReasonCode::ProtocolError);
}

#[test]
fn acknowledgements_of_the_wrong_kind_are_protocol_errors_and_unknown_ones_are_not() {
    let mut pair = Pair::online(options(), []);
    pair.give(Packet::PubAck(ack(9)));
    pair.give(Packet::PubComp(ack(9)));
    pair.give(suback(id(9), &[ReasonCode::Success]));
    assert!(pair.events().is_empty() && pair.sent().is_empty());
    // [MQTT-4.3.3-4] and section 3.6.2.1
    pair.give(Packet::PubRec(ack(9)));
    pair.give(Packet::PubRel(ack(9)));
    assert_eq!(outline(&pair.sent()), ["pubrel 9 0x92", "pubcomp 9 0x92"]);
    pair.publish("a", b"", QoS::ExactlyOnce, 1).unwrap();
    pair.sent();
    pair.give(Packet::PubAck(ack(1)));
    pair.fails_with(ReasonCode::ProtocolError);
}
