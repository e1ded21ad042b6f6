//! Enhanced authentication: sections 3.15 and 4.12.

use std::sync::Arc;

use bytes::Bytes;
use ferromq::{
    auth::{ConnectInfo, EnhancedAuthenticator, Exchange, ExchangeStep},
    broker::Hooks,
    codec::{Auth, Packet, PacketType, ReasonCode, Version},
};

use crate::{
    harness::{Bench, Peer, on_all, on_all_hooked},
    wire::{self, Connect, Publish, auth, p32, packet, pbin, pstr},
};

/// A method of two rounds: `hello` is answered with `challenge`, `response` is accepted with `welcome`, all else is
/// refused.
#[derive(Debug)]
struct TwoRounds;

impl EnhancedAuthenticator for TwoRounds {
    fn start(&self, method: &str, _: &ConnectInfo) -> Option<Box<dyn Exchange>> {
        (method == "two-rounds").then(|| Box::new(TwoRounds) as Box<dyn Exchange>)
    }
}

impl Exchange for TwoRounds {
    fn step(&mut self, data: Option<&Bytes>) -> ExchangeStep {
        match data.map(|data| &data[..]) {
            Some(b"hello") => ExchangeStep::Continue(Bytes::from_static(b"challenge")),
            Some(b"response") => ExchangeStep::Accept(Some(Bytes::from_static(b"welcome"))),
            _ => ExchangeStep::Refuse(ReasonCode::NotAuthorized),
        }
    }
}

fn with_method(test: impl Fn(&Bench)) {
    on_all_hooked(|_| {}, || Hooks { enhanced: Some(Arc::new(TwoRounds)), ..Hooks::default() }, test);
}

fn hello() -> Connect {
    Connect::new("client")
        .with(pstr(wire::AUTHENTICATION_METHOD, "two-rounds"))
        .with(pbin(wire::AUTHENTICATION_DATA, b"hello"))
}

fn expect_auth(peer: &Peer, reason: ReasonCode, data: &[u8]) -> Auth {
    let Packet::Auth(auth) = peer.expect(PacketType::Auth) else { unreachable!("expect checks the type") };
    assert_eq!(auth.reason, reason);
    assert_eq!(auth.properties.authentication_method().map(ferromq::codec::Text::as_str), Some("two-rounds"));
    assert_eq!(auth.properties.authentication_data().map(|data| data.to_vec()), Some(data.to_vec()));
    auth
}

fn authenticated(bench: &Bench) -> Peer {
    let peer = bench.connect(Version::V5, &hello());
    expect_auth(&peer, ReasonCode::ContinueAuthentication, b"challenge");
    peer.send(auth(0x18, "two-rounds", Some(b"response")));
    let connack = peer.expect_connack();
    assert_eq!(connack.reason, ReasonCode::Success);
    assert_eq!(connack.properties.authentication_method().map(ferromq::codec::Text::as_str), Some("two-rounds"));
    assert_eq!(connack.properties.authentication_data().map(|data| data.to_vec()), Some(b"welcome".to_vec()));
    peer
}

#[test]
fn mqtt_4_12_0_1_an_unknown_method_is_refused_with_0x8c() {
    with_method(|bench| {
        let connect = Connect::new("client").with(pstr(wire::AUTHENTICATION_METHOD, "unknown"));
        bench.connect(Version::V5, &connect).expect_refused(ReasonCode::BadAuthenticationMethod);
    });
    on_all(|bench| {
        bench.connect(Version::V5, &hello()).expect_refused(ReasonCode::BadAuthenticationMethod);
    });
}

/// MQTT 5: [MQTT-4.12.0-5] [MQTT-3.15.2-1].
#[test]
fn mqtt_4_12_0_2_the_exchange_runs_until_connack() {
    with_method(|bench| {
        authenticated(bench).expect_healthy();
    });
}

/// MQTT 5: [MQTT-3.1.4-6].
#[test]
fn mqtt_4_12_0_4_authentication_may_be_refused_at_any_step() {
    with_method(|bench| {
        let wrong = Connect::new("client")
            .with(pstr(wire::AUTHENTICATION_METHOD, "two-rounds"))
            .with(pbin(wire::AUTHENTICATION_DATA, b"nonsense"));
        bench.connect(Version::V5, &wrong).expect_refused(ReasonCode::NotAuthorized);

        let peer = bench.connect(Version::V5, &hello());
        expect_auth(&peer, ReasonCode::ContinueAuthentication, b"challenge");
        peer.send(auth(0x18, "two-rounds", Some(b"nonsense")));
        peer.expect_refused(ReasonCode::NotAuthorized);
    });
}

/// The server's side of it: anything but AUTH and DISCONNECT ends the exchange.
#[test]
fn mqtt_3_1_2_30_other_packets_during_the_exchange_end_it() {
    with_method(|bench| {
        let watcher = bench.client(Version::V5, "watcher");
        watcher.subscribe("#", 0);
        let peer = bench.connect(Version::V5, &hello());
        expect_auth(&peer, ReasonCode::ContinueAuthentication, b"challenge");
        peer.send(Publish::new("t", "too early"));
        // No DISCONNECT before an accepting CONNACK [MQTT-3.14.0-1].
        let answer = peer.received();
        assert!(
            answer.iter().all(|packet| matches!(packet, Packet::ConnAck(connack) if connack.reason.is_error())),
            "{answer:?}"
        );
        assert!(peer.is_closed());
        watcher.expect_nothing();
    });
}

/// The server's side of [MQTT-4.12.0-3]: AUTH with another code or method ends the exchange.
#[test]
fn mqtt_4_12_0_3_the_client_continues_with_0x18_and_the_same_method() {
    with_method(|bench| {
        for (reason, method) in [(0x00, "two-rounds"), (0x19, "two-rounds"), (0x18, "other")] {
            let peer = bench.connect(Version::V5, &hello());
            expect_auth(&peer, ReasonCode::ContinueAuthentication, b"challenge");
            peer.send(auth(reason, method, Some(b"response")));
            let connack = peer.expect_connack();
            assert!(connack.reason.is_error(), "{connack:?}");
            peer.expect_closed();
        }
    });
}

#[test]
fn mqtt_4_12_0_6_without_a_method_the_server_sends_none() {
    with_method(|bench| {
        let (peer, connack) = bench.accepted(Version::V5, &Connect::new("client"));
        assert_eq!(connack.properties.authentication_method(), None);
        peer.expect_nothing();
    });
}

/// The server's side of it.
#[test]
fn mqtt_4_12_0_7_auth_from_a_client_without_a_method_is_a_protocol_error() {
    with_method(|bench| {
        for reason in [0x18, 0x19] {
            let peer = bench.client(Version::V5, "client");
            peer.send(auth(reason, "two-rounds", None));
            peer.expect_disconnect(ReasonCode::ProtocolError);
        }
    });
}

#[test]
fn a_client_may_authenticate_anew_while_messages_flow() {
    with_method(|bench| {
        let peer = authenticated(bench);
        peer.subscribe("t", 0);
        peer.send(auth(0x19, "two-rounds", Some(b"hello")));
        expect_auth(&peer, ReasonCode::ContinueAuthentication, b"challenge");
        bench.client(Version::V5, "publisher").publish("t", "meanwhile", 0);
        assert_eq!(peer.payloads(), ["meanwhile"]);
        peer.send(auth(0x18, "two-rounds", Some(b"response")));
        expect_auth(&peer, ReasonCode::Success, b"welcome");
        peer.expect_healthy();
    });
}

/// The server's side of it: another method is refused.
#[test]
fn mqtt_4_12_1_1_re_authentication_keeps_the_method() {
    with_method(|bench| {
        let peer = authenticated(bench);
        peer.send(auth(0x19, "other", Some(b"hello")));
        let answer = peer.next();
        let refused = |reason| matches!(reason, ReasonCode::ProtocolError | ReasonCode::BadAuthenticationMethod);
        assert!(matches!(&answer, Some(Packet::Disconnect(d)) if refused(d.reason)), "{answer:?}");
        peer.expect_closed();
    });
}

#[test]
fn mqtt_4_12_1_2_a_failed_re_authentication_ends_the_connection() {
    with_method(|bench| {
        let peer = authenticated(bench);
        peer.send(auth(0x19, "two-rounds", Some(b"nonsense")));
        peer.expect_disconnect(ReasonCode::NotAuthorized);

        let peer = authenticated(bench);
        peer.send(auth(0x19, "two-rounds", Some(b"hello")));
        expect_auth(&peer, ReasonCode::ContinueAuthentication, b"challenge");
        peer.send(auth(0x18, "two-rounds", Some(b"nonsense")));
        peer.expect_disconnect(ReasonCode::NotAuthorized);
    });
}

#[test]
fn mqtt_3_15_1_1_the_flags_of_auth_are_zero() {
    with_method(|bench| {
        for flags in 1..16 {
            let peer = authenticated(bench);
            peer.send(packet(0xF0 | flags, &[0x19, 0]));
            peer.expect_disconnect(ReasonCode::MalformedPacket);
        }
    });
}

#[test]
fn mqtt_3_15_2_1_auth_uses_the_codes_listed_for_it() {
    with_method(|bench| {
        for code in [0x01, 0x04, 0x17, 0x1A, 0x80, 0xFF] {
            let peer = authenticated(bench);
            peer.send(auth(code, "two-rounds", Some(b"hello")));
            peer.expect_disconnect(ReasonCode::ProtocolError);
        }
    });
}

/// MQTT 5: [MQTT-3.15.2-3]. AUTH carries nothing that could be left out: what does not fit is not sent at all, and the
/// exchange cannot go on.
#[test]
fn mqtt_3_15_2_2_auth_keeps_to_the_maximum_packet_size() {
    with_method(|bench| {
        for maximum in [5, 10, 20, 30, 40, 100] {
            let peer = bench.connect(Version::V5, &hello().with(p32(wire::MAXIMUM_PACKET_SIZE, maximum)));
            while let Some((packet, size)) = peer.next_sized() {
                assert!(size <= maximum as usize, "{packet:?} of {size} bytes, maximum {maximum}");
            }
        }
    });
}

#[test]
fn auth_is_unknown_before_mqtt_5() {
    with_method(|bench| {
        let peer = bench.client(Version::V3_1_1, "client");
        peer.send(vec![0xF0, 0]);
        peer.expect_closed();
    });
}
