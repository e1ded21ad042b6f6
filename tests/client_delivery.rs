//! The client's machine against a scripted server, in virtual time: delivery in both directions, across connections.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod client_support;

use std::time::Duration;

use client_support::{Pair, ack, filter, id, outgoing, outline, publication, suback, subscribe_to};
use ferromq::{
    codec::{
        Ack, ConnAck, Packet, Properties, Property, QoS, ReasonCode, RetainHandling, Subscription, Text, TopicFilter,
        UnsubAck, Version,
    },
    session::{
        QueueLimits,
        client::{AckMode, Event, Message, Outgoing, PublishAck, Published, RequestError, SessionOptions},
    },
};

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;

fn options() -> SessionOptions {
    SessionOptions { client_id: Text::from_static("c"), session_expiry: 100, ..SessionOptions::default() }
}

fn manual() -> SessionOptions {
    SessionOptions { ack_mode: AckMode::Application, ..options() }
}

fn sent(pair: &mut Pair) -> Vec<String> {
    outline(&pair.sent())
}

#[allow(clippy::unnecessary_wraps)] // it is what is compared with
fn success() -> Result<PublishAck, RequestError> {
    Ok(PublishAck::success())
}

fn refused(n: u16, reason: ReasonCode) -> Ack {
    Ack::new(id(n), reason)
}

/// [MQTT-2.2.1-2] [MQTT-3.3.1-2] [MQTT-4.3.1-1]
#[test]
fn qos0_is_written_at_once_without_identifier() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        let mut pair = Pair::online(SessionOptions { version, ..options() }, []);
        assert_eq!(pair.publish("a", b"x", Q0, 1), Ok(Published::Written));
        assert_eq!(sent(&mut pair), ["publish 0 x"]);
        assert!(pair.events().is_empty());
    }
}

/// [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.2-2]
#[test]
fn qos1_is_done_with_puback() {
    let mut pair = Pair::online(options(), []);
    assert_eq!(pair.publish("a", b"x", Q1, 7), Ok(Published::Accepted));
    assert_eq!(sent(&mut pair), ["publish 1 x"]);
    assert_eq!(pair.session.unfinished(), 1);
    pair.give(Packet::PubAck(refused(1, ReasonCode::NoMatchingSubscribers)));
    let done = PublishAck { reason: ReasonCode::NoMatchingSubscribers, properties: Properties::new() };
    assert_eq!(pair.published(), [(7, Ok(done))]);
    assert_eq!(pair.session.unfinished(), 0);
}

/// [MQTT-4.3.3-1] to [MQTT-4.3.3-7]: PUBREL follows PUBREC, the PUBLISH is never sent again after it.
#[test]
fn qos2_is_done_with_pubcomp() {
    let mut pair = Pair::online(options(), []);
    pair.publish("a", b"x", Q2, 7).unwrap();
    pair.give(Packet::PubRec(ack(1)));
    assert_eq!(sent(&mut pair), ["publish 1 x", "pubrel 1 0x00"]);
    assert!(pair.published().is_empty());
    pair.reconnect(true);
    assert_eq!(sent(&mut pair), ["pubrel 1 0x00"]);
    pair.give(Packet::PubComp(ack(1)));
    assert_eq!(pair.published(), [(7, success())]);
}

#[test]
fn a_refused_publication_frees_its_identifier() {
    let mut pair = Pair::online(options(), [Property::ReceiveMaximum(1)]);
    for (token, qos) in [(1, Q1), (2, Q2), (3, Q1)] {
        pair.publish("a", b"x", qos, token).unwrap();
    }
    assert_eq!(sent(&mut pair), ["publish 1 x"]);
    pair.give(Packet::PubAck(refused(1, ReasonCode::NotAuthorized)));
    assert_eq!(sent(&mut pair), ["publish 2 x"]);
    pair.give(Packet::PubRec(refused(2, ReasonCode::QuotaExceeded)));
    // [MQTT-4.3.3-4]: no PUBREL answers a PUBREC that refuses.
    assert_eq!(sent(&mut pair), ["publish 3 x"]);
    let codes: Vec<_> = pair.published().into_iter().map(|(token, done)| (token, done.unwrap().reason)).collect();
    assert_eq!(codes, [(1, ReasonCode::NotAuthorized), (2, ReasonCode::QuotaExceeded)]);
}

/// [MQTT-3.3.4-7] [MQTT-4.9.0-2] [MQTT-4.9.0-3]: the server's receive maximum bounds what is in flight, QoS 0 passes.
#[test]
fn the_servers_receive_maximum_bounds_the_window() {
    let mut pair = Pair::online(options(), [Property::ReceiveMaximum(2)]);
    for token in 1..=4 {
        pair.publish("a", b"x", Q1, token).unwrap();
    }
    pair.publish("b", b"now", Q0, 0).unwrap();
    assert_eq!(sent(&mut pair), ["publish 1 x", "publish 2 x", "publish 0 now"]);
    pair.give(Packet::PubAck(ack(2)));
    assert_eq!(sent(&mut pair), ["publish 3 x"]);
    pair.give(Packet::PubAck(ack(1)));
    pair.give(Packet::PubAck(ack(3)));
    assert_eq!(sent(&mut pair), ["publish 4 x"]);
}

/// [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1]: on resume, and only then, all is sent again in its order with DUP.
#[test]
fn a_resumed_session_sends_again_in_order_with_dup() {
    let mut pair = Pair::online(options(), []);
    for (token, qos, payload) in [(1, Q1, "one"), (2, Q2, "two"), (3, Q1, "three"), (4, Q2, "four")] {
        pair.publish("a", payload.as_bytes(), qos, token).unwrap();
    }
    pair.give(Packet::PubRec(ack(2)));
    pair.give(Packet::PubAck(ack(3)));
    pair.sent();
    pair.published();
    let connect = pair.reconnect(true);
    assert!(!connect.clean_start, "this machine has a session to resume");
    pair.publish("a", b"five", Q1, 5).unwrap();
    assert_eq!(sent(&mut pair), ["publish 1 dup one", "pubrel 2 0x00", "publish 4 dup four", "publish 5 five"]);
    for packet in [Packet::PubAck(ack(1)), Packet::PubComp(ack(2)), Packet::PubRec(ack(4))] {
        pair.give(packet);
    }
    assert_eq!(pair.published(), [(1, success()), (2, success())]);
}

/// [MQTT-3.2.2-5]: with the server's session gone, this side's is dropped. QoS 1 goes out anew; a QoS 2 message that
/// was under way cannot, or it might arrive twice.
#[test]
fn a_lost_session_publishes_anew_what_cannot_arrive_twice() {
    let mut pair = Pair::online(options(), [Property::ReceiveMaximum(3)]);
    for (token, qos, payload) in [(1, Q1, "one"), (2, Q2, "two"), (3, Q2, "three"), (4, Q2, "four")] {
        pair.publish("a", payload.as_bytes(), qos, token).unwrap();
    }
    pair.give(Packet::PubRec(ack(2)));
    pair.sent();
    pair.reconnect(false);
    let lost = Err(RequestError::SessionLost);
    assert_eq!(pair.published(), [(2, lost.clone()), (3, lost)]);
    assert_eq!(sent(&mut pair), ["publish 1 one", "publish 2 four"]);
}

#[test]
fn a_pubcomp_that_does_not_know_the_identifier_is_no_failure() {
    let mut pair = Pair::online(options(), []);
    pair.publish("a", b"x", Q2, 1).unwrap();
    pair.give(Packet::PubRec(ack(1)));
    pair.reconnect(true);
    pair.give(Packet::PubComp(refused(1, ReasonCode::PacketIdentifierNotFound)));
    assert_eq!(pair.published(), [(1, success())]);
}

#[test]
fn publications_wait_for_the_connection_within_the_bounds_of_the_queue() {
    let queue = QueueLimits { messages_max: 2, bytes_max: 10_000, drop_oldest: false };
    let mut pair = Pair::new(SessionOptions { queue, ..options() });
    assert_eq!(pair.publish("a", b"1", Q0, 1), Ok(Published::Accepted));
    assert_eq!(pair.publish("a", b"2", Q1, 2), Ok(Published::Accepted));
    assert!(matches!(pair.publish("a", b"3", Q1, 3), Err(RequestError::QueueFull { messages: 2, .. })));
    assert!(!pair.session.has_queue_room(1));
    pair.connect();
    pair.accept(false, []);
    assert_eq!(sent(&mut pair), ["publish 0 1", "publish 1 2"]);
    assert!(pair.session.has_queue_room(1));
}

#[test]
fn the_oldest_make_room_if_the_queue_says_so() {
    let queue = QueueLimits { messages_max: 1, bytes_max: 10_000, drop_oldest: true };
    let mut pair = Pair::new(SessionOptions { queue, ..options() });
    pair.publish("a", b"1", Q0, 1).unwrap();
    pair.publish("a", b"2", Q1, 2).unwrap();
    assert_eq!(pair.published(), [(1, Err(RequestError::Displaced))]);
    pair.connect();
    pair.give(client_support::connack(false, []));
    assert_eq!(sent(&mut pair), ["publish 1 2"]);
}

#[test]
fn qos0_is_refused_offline_if_it_is_not_to_be_queued() {
    let mut pair = Pair::new(SessionOptions { queue_qos0: false, ..options() });
    assert_eq!(pair.publish("a", b"1", Q0, 1), Err(RequestError::Offline));
    assert_eq!(pair.publish("a", b"2", Q1, 2), Ok(Published::Accepted));
}

/// [MQTT-4.6.0-6]: the order of one topic and QoS is kept, queued or not.
#[test]
fn qos0_does_not_overtake_qos0_that_is_queued_behind_a_full_window() {
    let mut pair = Pair::new(options());
    pair.publish("a", b"1", Q1, 1).unwrap();
    pair.publish("a", b"2", Q1, 2).unwrap();
    pair.publish("a", b"first", Q0, 3).unwrap();
    pair.connect();
    pair.give(client_support::connack(false, [Property::ReceiveMaximum(1)]));
    assert_eq!(pair.publish("a", b"second", Q0, 4), Ok(Published::Accepted));
    assert_eq!(sent(&mut pair), ["publish 1 1"]);
    pair.give(Packet::PubAck(ack(1)));
    assert_eq!(sent(&mut pair), ["publish 2 2", "publish 0 first", "publish 0 second"]);
    assert_eq!(pair.publish("a", b"third", Q0, 5), Ok(Published::Written));
}

/// [MQTT-3.3.2-6]: the interval that is left goes out; what has expired does not.
#[test]
fn message_expiry_counts_down_while_a_message_waits() {
    let mut pair = Pair::new(options());
    let expiring = |seconds| -> Properties { [Property::MessageExpiryInterval(seconds)].into_iter().collect() };
    for (token, seconds) in [(1, 10), (2, 100)] {
        let properties = expiring(seconds);
        let message = Outgoing { properties: &properties, ..outgoing("a", b"x", Q1) };
        pair.session.publish(pair.now, &message, token).unwrap();
    }
    pair.now += Duration::from_secs(30);
    pair.connect();
    pair.give(client_support::connack(false, []));
    assert_eq!(pair.published(), [(1, Err(RequestError::Expired))]);
    match pair.sent().as_slice() {
        [Packet::Publish(publish)] => assert_eq!(publish.properties.message_expiry_interval(), Some(70)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn properties_travel_with_a_publication_and_its_repetition() {
    let mut pair = Pair::online(options(), []);
    let properties: Properties = [
        Property::PayloadFormatIndicator(1),
        Property::ContentType(Text::from_static("text")),
        Property::UserProperty((Text::from_static("k"), Text::from_static("v"))),
    ]
    .into_iter()
    .collect();
    let message = Outgoing { properties: &properties, ..outgoing("a", b"x", Q1) };
    pair.session.publish(pair.now, &message, 1).unwrap();
    let seen = |pair: &mut Pair| match pair.sent().as_slice() {
        [Packet::Publish(publish)] => publish.properties.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(seen(&mut pair), properties);
    pair.reconnect(true);
    assert_eq!(seen(&mut pair), properties);
}

#[test]
fn what_a_new_server_does_not_take_is_given_up_when_it_is_sent_again() {
    let mut pair = Pair::online(options(), []);
    pair.publish("a", &[0; 100], Q1, 1).unwrap();
    pair.publish("a", &[0; 100], Q2, 2).unwrap();
    pair.publish("a", b"", Q1, 3).unwrap();
    pair.session.connection_lost();
    pair.connect();
    pair.give(client_support::connack(true, [Property::MaximumPacketSize(50), Property::MaximumQoS(1)]));
    let results = pair.published();
    assert!(matches!(results[0], (1, Err(RequestError::PacketTooLarge { max: 50, .. }))), "{results:?}");
    assert!(matches!(results[1], (2, Err(RequestError::QoSNotSupported { max: Q1 }))), "{results:?}");
    assert_eq!(sent(&mut pair), ["publish 3 dup "]);
}

/// [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11]
#[test]
fn received_messages_are_acknowledged_by_their_qos() {
    let mut pair = Pair::online(options(), []);
    for (qos, n) in [(Q0, 0), (Q1, 1), (Q2, 2)] {
        pair.give(Packet::Publish(publication("a", b"x", qos, n)));
    }
    assert_eq!(pair.messages().iter().map(Message::qos).collect::<Vec<_>>(), [Q0, Q1, Q2]);
    assert_eq!(sent(&mut pair), ["puback 1 0x00", "pubrec 2 0x00"]);
    pair.give(Packet::PubRel(ack(2)));
    assert_eq!(sent(&mut pair), ["pubcomp 2 0x00"]);
}

/// [MQTT-4.3.3-10]: until PUBREL the same identifier is the same message, across connections, with DUP or without.
#[test]
fn a_qos2_message_is_handed_out_once() {
    let mut pair = Pair::online(options(), []);
    let mut publish = publication("a", b"x", Q2, 2);
    pair.give(Packet::Publish(publish.clone()));
    pair.give(Packet::Publish(publish.clone()));
    pair.reconnect(true);
    publish.dup = true;
    pair.give(Packet::Publish(publish.clone()));
    assert_eq!(pair.messages().len(), 1);
    assert_eq!(sent(&mut pair), ["pubrec 2 0x00"]);
    pair.give(Packet::PubRel(ack(2)));
    publish.dup = false;
    pair.give(Packet::Publish(publish));
    assert_eq!(pair.messages().len(), 1, "after PUBREL the identifier is a new message's");
}

/// [MQTT-3.2.2-5]: with the session lost, received identifiers are free.
#[test]
fn a_lost_session_frees_received_identifiers() {
    let mut pair = Pair::online(options(), []);
    pair.give(Packet::Publish(publication("a", b"x", Q2, 2)));
    assert_eq!(pair.messages().len(), 1);
    pair.reconnect(false);
    pair.give(Packet::Publish(publication("a", b"y", Q2, 2)));
    assert_eq!(pair.messages().len(), 1);
}

/// [MQTT-3.3.4-9]: a server that exceeds the receive maximum is told 0x93.
#[test]
fn a_server_that_exceeds_the_receive_maximum_is_left() {
    let mut pair = Pair::online(SessionOptions { receive_maximum: 2, ..manual() }, []);
    for n in 1..=3 {
        pair.give(Packet::Publish(publication("a", b"x", Q1, n)));
    }
    pair.fails_with(ReasonCode::ReceiveMaximumExceeded);
}

/// [MQTT-4.6.0-2] [MQTT-4.6.0-3]: acknowledgements in the order of the messages, however the application finishes.
#[test]
fn the_application_acknowledges_in_any_order_and_the_server_hears_in_turn() {
    let mut pair = Pair::online(SessionOptions { receive_maximum: 3, ..manual() }, []);
    for (n, qos) in [(1, Q1), (2, Q2), (3, Q1)] {
        pair.give(Packet::Publish(publication("a", b"x", qos, n)));
    }
    let handles: Vec<_> = pair.messages().iter().map(|message| message.ack_handle().unwrap()).collect();
    assert!(pair.session.acknowledge(handles[2], ReasonCode::Success));
    assert!(pair.session.acknowledge(handles[1], ReasonCode::QuotaExceeded));
    assert!(sent(&mut pair).is_empty());
    assert_eq!(pair.session.unacknowledged(), 3);
    assert!(pair.session.acknowledge(handles[0], ReasonCode::Success));
    assert_eq!(sent(&mut pair), ["puback 1 0x00", "pubrec 2 0x97", "puback 3 0x00"]);
    // The refused QoS 2 message is over: its identifier and its place in the window are free.
    for n in 2..=4 {
        pair.give(Packet::Publish(publication("a", b"x", Q2, n)));
    }
    assert_eq!(pair.messages().len(), 3);
}

#[test]
fn acknowledgements_of_an_earlier_connection_count_only_for_qos2() {
    let mut pair = Pair::online(manual(), []);
    pair.give(Packet::Publish(publication("a", b"x", Q1, 1)));
    pair.give(Packet::Publish(publication("a", b"x", Q2, 2)));
    let handles: Vec<_> = pair.messages().iter().map(|message| message.ack_handle().unwrap()).collect();
    pair.reconnect(true);
    assert!(!pair.session.acknowledge(handles[0], ReasonCode::Success), "the server sends QoS 1 again");
    let mut again = publication("a", b"x", Q2, 2);
    again.dup = true;
    pair.give(Packet::Publish(again));
    assert!(pair.messages().is_empty());
    assert!(sent(&mut pair).is_empty(), "the application still has it");
    assert!(pair.session.acknowledge(handles[1], ReasonCode::Success));
    assert_eq!(sent(&mut pair), ["pubrec 2 0x00"]);
}

/// [MQTT-2.2.1-3] [MQTT-2.2.1-6] [MQTT-3.8.4-1]: SUBSCRIBE shares the identifiers of PUBLISH.
#[test]
fn subscriptions_are_answered_by_their_identifier() {
    let mut pair = Pair::online(options(), []);
    pair.publish("a", b"x", Q1, 1).unwrap();
    pair.session.subscribe(subscribe_to(&["a/+", "b"]), 2).unwrap();
    pair.publish("a", b"x", Q1, 3).unwrap();
    match pair.sent().as_slice() {
        [Packet::Publish(first), Packet::Subscribe(subscribe), Packet::Publish(second)] => {
            assert_eq!((first.packet_id, subscribe.packet_id, second.packet_id), (Some(id(1)), id(2), Some(id(3))));
            assert_eq!(subscribe.subscriptions.len(), 2);
        }
        other => panic!("{other:?}"),
    }
    pair.give(suback(id(2), &[ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized]));
    match pair.events().as_slice() {
        [Event::Subscribed(2, Ok(reply))] => {
            assert_eq!(reply.reasons, [ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.session.subscriptions().map(TopicFilter::as_str).collect::<Vec<_>>(), ["a/+"]);
}

#[test]
fn granted_subscriptions_are_made_again_only_if_the_session_is_gone() {
    let mut pair = Pair::online(options(), []);
    let mut request = subscribe_to(&["a", "b", "c"]);
    request.identifier = Some(9);
    pair.session.subscribe(request, 1).unwrap();
    pair.give(suback(id(1), &[ReasonCode::Success, ReasonCode::GrantedQoS2, ReasonCode::NotAuthorized]));
    pair.session.unsubscribe(vec![filter("b")], 2).unwrap();
    pair.give(Packet::UnsubAck(UnsubAck {
        packet_id: id(2),
        properties: Properties::new(),
        reasons: vec![ReasonCode::Success],
    }));
    assert_eq!(pair.events().len(), 2);
    pair.sent();

    pair.reconnect(true);
    assert!(pair.sent().is_empty(), "the server still has them");
    pair.reconnect(false);
    match pair.sent().as_slice() {
        [Packet::Subscribe(subscribe)] => {
            let filters: Vec<_> =
                subscribe.subscriptions.iter().map(|part: &Subscription| part.filter.as_str()).collect();
            assert_eq!(filters, ["a"]);
            assert_eq!(subscribe.properties.subscription_identifiers().collect::<Vec<_>>(), [9]);
            pair.events();
            pair.give(suback(subscribe.packet_id, &[ReasonCode::NotAuthorized]));
        }
        other => panic!("{other:?}"),
    }
    let lost = pair.events();
    assert!(
        matches!(lost.as_slice(), [Event::SubscriptionLost(filter, ReasonCode::NotAuthorized)] if filter.as_str() == "a"),
        "{lost:?}"
    );
    assert_eq!(pair.session.subscriptions().count(), 0);
}

#[test]
fn a_restoration_that_was_cut_short_is_taken_up_on_the_next_connection() {
    let mut pair = Pair::online(options(), []);
    pair.session.subscribe(subscribe_to(&["a", "b"]), 1).unwrap();
    pair.give(suback(id(1), &[ReasonCode::Success, ReasonCode::Success]));
    pair.sent();
    pair.reconnect(false);
    assert_eq!(sent(&mut pair), ["subscribe"]);
    // The session the server resumes now is the new one: it may lack what was asked for last.
    pair.session.connection_lost();
    pair.session.unsubscribe(vec![filter("b")], 2).unwrap();
    pair.reconnect(true);
    match pair.sent().as_slice() {
        [Packet::Subscribe(subscribe), Packet::Unsubscribe(_)] => {
            let filters: Vec<_> = subscribe.subscriptions.iter().map(|part| part.filter.as_str()).collect();
            assert_eq!(filters, ["a"]);
            pair.give(suback(subscribe.packet_id, &[ReasonCode::Success]));
        }
        other => panic!("{other:?}"),
    }
    pair.reconnect(true);
    assert_eq!(sent(&mut pair), ["unsubscribe"]);
}

/// The server may have lost the session, made another, and resumes that one.
#[test]
fn a_connection_whose_connack_was_lost_leaves_subscriptions_in_doubt() {
    for version in [Version::V3_1_1, Version::V5] {
        let mut pair = Pair::online(SessionOptions { version, clean_start: false, ..options() }, []);
        pair.session.subscribe(subscribe_to(&["a"]), 1).unwrap();
        pair.give(suback(id(1), &[ReasonCode::Success]));
        pair.sent();
        pair.session.connection_lost();
        pair.connect();
        pair.reconnect(true);
        match pair.sent().as_slice() {
            [Packet::Subscribe(subscribe)] => {
                let [part] = subscribe.subscriptions.as_slice() else { panic!("{subscribe:?}") };
                let retained = if version.is_v5() { RetainHandling::SendIfNew } else { RetainHandling::Send };
                assert_eq!((part.filter.as_str(), part.options.retain_handling), ("a", retained));
                pair.give(suback(subscribe.packet_id, &[ReasonCode::Success]));
            }
            other => panic!("{other:?}"),
        }
        // A CONNACK that refuses is an answer.
        pair.session.connection_lost();
        pair.connect();
        let (session_present, reason, properties) = (false, ReasonCode::ServerBusy, Properties::new());
        pair.give(Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties })));
        pair.reconnect(true);
        assert!(pair.sent().is_empty());
    }
}

#[test]
fn a_subscription_that_was_ended_before_it_was_granted_is_not_made_again() {
    let mut pair = Pair::online(options(), []);
    pair.session.subscribe(subscribe_to(&["a"]), 1).unwrap();
    pair.session.unsubscribe(vec![filter("a")], 2).unwrap();
    pair.give(suback(id(1), &[ReasonCode::Success]));
    let (packet_id, reasons) = (id(2), vec![ReasonCode::Success]);
    pair.give(Packet::UnsubAck(UnsubAck { packet_id, properties: Properties::new(), reasons }));
    pair.sent();
    pair.reconnect(false);
    assert!(pair.sent().is_empty());
}

#[test]
fn requests_without_an_answer_are_sent_again_on_the_next_connection() {
    let mut pair = Pair::new(options());
    pair.session.subscribe(subscribe_to(&["early"]), 1).unwrap();
    pair.connect();
    pair.accept(false, []);
    assert_eq!(sent(&mut pair), ["subscribe"]);
    pair.session.unsubscribe(vec![filter("x")], 2).unwrap();
    pair.reconnect(true);
    assert_eq!(sent(&mut pair), ["subscribe", "unsubscribe"]);
    assert_eq!(pair.session.unanswered(), 2);
    // The identifiers of the first connection went with it.
    pair.publish("a", b"x", Q1, 3).unwrap();
    assert_eq!(sent(&mut pair), ["publish 5 x"]);
}

#[test]
fn before_mqtt5_the_same_flows_run_without_codes() {
    let mut pair = Pair::online(SessionOptions { version: Version::V3_1_1, clean_start: false, ..options() }, []);
    pair.publish("a", b"x", Q1, 1).unwrap();
    pair.publish("a", b"y", Q2, 2).unwrap();
    pair.session.subscribe(subscribe_to(&["a"]), 3).unwrap();
    pair.session.unsubscribe(vec![filter("b")], 4).unwrap();
    for packet in [
        Packet::PubAck(ack(1)),
        Packet::PubRec(ack(2)),
        Packet::PubComp(ack(2)),
        suback(id(3), &[ReasonCode::UnspecifiedError]),
        Packet::UnsubAck(UnsubAck { packet_id: id(4), properties: Properties::new(), reasons: vec![] }),
        Packet::Publish(publication("t", b"z", Q2, 9)),
    ] {
        pair.give(packet);
    }
    assert_eq!(
        sent(&mut pair),
        ["publish 1 x", "publish 2 y", "subscribe", "unsubscribe", "pubrel 2 0x00", "pubrec 9 0x00"]
    );
    assert_eq!(pair.events().len(), 5);
    let connect = pair.reconnect(true);
    assert!(!connect.clean_start);
    assert_eq!(pair.session.subscriptions().count(), 0);
}

#[test]
fn abandoning_tells_everybody_who_waits() {
    let mut pair = Pair::online(options(), [Property::ReceiveMaximum(1)]);
    pair.publish("a", b"", Q1, 1).unwrap();
    pair.publish("a", b"", Q1, 2).unwrap();
    pair.session.subscribe(subscribe_to(&["a"]), 3).unwrap();
    pair.session.abandon();
    let closed = |event: &Event| match event {
        Event::Published(token, Err(RequestError::Closed)) | Event::Subscribed(token, Err(RequestError::Closed)) => {
            *token
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(pair.events().iter().map(closed).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn messages_are_taken_from_any_split_of_the_bytes() {
    let mut bytes = Vec::new();
    for n in 1..=20 {
        let payload = vec![b'x'; usize::from(n) * 7];
        Packet::Publish(publication("some/topic", &payload, Q1, n)).encode(Version::V5, &mut bytes).unwrap();
    }
    for chunk in [1, 2, 3, 7, 64, 1000, 100_000] {
        let mut pair = Pair::online(options(), []);
        for part in bytes.chunks(chunk) {
            pair.give_bytes(part);
        }
        let lengths: Vec<_> = pair.messages().iter().map(|message| message.payload().len()).collect();
        assert_eq!(lengths, (1..=20).map(|n| n * 7).collect::<Vec<_>>(), "in chunks of {chunk}");
        assert_eq!(pair.sent().len(), 20);
    }
}

#[test]
fn a_message_tells_all_that_the_packet_said() {
    let mut pair = Pair::online(options(), []);
    let mut publish = publication("a/b", b"payload", Q1, 1);
    publish.retain = true;
    publish.dup = true;
    publish.properties.push(Property::ContentType(Text::from_static("text")));
    publish.properties.push(Property::SubscriptionIdentifier(5));
    pair.session.stamp(123);
    pair.give(Packet::Publish(publish.clone()));
    let messages = pair.messages();
    for message in [messages[0].clone(), messages[0].clone().detach()] {
        assert_eq!((message.topic(), &*message.topic_text()), ("a/b", "a/b"));
        assert_eq!((message.payload(), &*message.payload_bytes()), (&b"payload"[..], &b"payload"[..]));
        assert_eq!((message.qos(), message.retain(), message.dup()), (Q1, true, true));
        assert_eq!((message.properties(), message.received_at_us()), (publish.properties.clone(), 123));
        assert!(message.has_properties());
    }
    pair.give(Packet::Publish(publication("a", b"", Q1, 2)));
    let plain = &pair.messages()[0];
    assert!(!plain.has_properties() && plain.payload().is_empty() && plain.properties().is_empty());
}
