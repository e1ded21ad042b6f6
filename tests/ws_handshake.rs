//! The WebSocket upgrade through the public interface: a table of requests, and both ends against each other.
#![cfg(feature = "net")]

use std::sync::Arc;

use ferromq::net::ws::{ClientHandshake, ConnectError, Handshake, Refusal, Subprotocol, WsClient, WsServer};
use proptest::prelude::*;

const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: broker:8083\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

const BROWSER: &str = "GET http://broker/mqtt?token=abc HTTP/1.1\r\nhost: broker\r\nUPGRADE: foo, WebSocket\r\n\
    connection: keep-alive, UPGRADE\r\norigin: https://app.example\r\nx-forwarded-for: 10.0.0.1\r\n\
    X-Forwarded-For: 10.0.0.2, 10.0.0.3\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    sec-websocket-protocol: chat, mqttv3.1\r\nsec-websocket-protocol: mqtt\r\n\r\n";

#[test]
fn a_good_request_is_answered_with_101_and_the_accept_of_the_rfc() {
    let Handshake::Done { consumed, response, upgrade } = server().handshake(GOOD.as_bytes()) else {
        panic!("refused")
    };
    assert_eq!(consumed, GOOD.len());
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    assert!(response.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
    assert!(response.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\n"), "{response}");
    assert_eq!((upgrade.path.as_str(), upgrade.host.as_str()), ("/mqtt", "broker:8083"));
    assert_eq!((upgrade.query, upgrade.origin, upgrade.forwarded_for), (None, None, None));
}

#[test]
fn a_browsers_request_through_proxies_gives_up_its_facts() {
    let Handshake::Done { response, upgrade, .. } = server().handshake(BROWSER.as_bytes()) else { panic!("refused") };
    assert_eq!(upgrade.path, "/mqtt");
    assert_eq!(upgrade.query.as_deref(), Some("token=abc"));
    assert_eq!(upgrade.origin.as_deref(), Some("https://app.example"));
    assert_eq!(upgrade.forwarded_for.as_deref(), Some("10.0.0.1, 10.0.0.2, 10.0.0.3"));
    assert_eq!(upgrade.protocol, Subprotocol::Mqtt);
    // An extension that was offered is not accepted by silence.
    assert!(!String::from_utf8(response).unwrap().contains("Extensions"));
}

#[test]
fn the_older_subprotocol_is_answered_by_its_name() {
    let request = GOOD.replace("Protocol: mqtt", "Protocol: mqttv3.1");
    let Handshake::Done { response, upgrade, .. } = server().handshake(request.as_bytes()) else { panic!("refused") };
    assert_eq!(upgrade.protocol, Subprotocol::MqttV31);
    assert!(String::from_utf8(response).unwrap().contains("Sec-WebSocket-Protocol: mqttv3.1\r\n"));
}

#[test]
fn each_wrong_request_gets_its_status_and_a_body_that_names_the_fault() {
    let many = format!("Sec-WebSocket-Version: 13\r\n{}", "X: y\r\n".repeat(64));
    let long = format!("Host: {}", "h".repeat(9000));
    for (from, to, status, body) in [
        ("GET", "POST", 405, "method POST"),
        ("HTTP/1.1", "HTTP/1.0", 400, "needs HTTP/1.1"),
        ("HTTP/1.1", "HTTP/2.0", 400, "not an HTTP request"),
        ("Host: broker:8083\r\n", "", 400, "exactly one Host"),
        ("Host: broker:8083\r\n", "Host: a\r\nHost: b\r\n", 400, "exactly one Host"),
        ("Host: broker:8083", "Host : broker", 400, "not an HTTP request"),
        ("/mqtt", "/other", 404, "nothing at /other; MQTT is at /mqtt"),
        ("/mqtt", "/mqtt/", 404, "nothing at /mqtt/"),
        ("Upgrade: websocket", "Upgrade: h2c", 426, "Upgrade: websocket"),
        ("Upgrade: websocket\r\n", "", 426, "Upgrade: websocket"),
        ("Connection: Upgrade\r\n", "Connection: close\r\n", 400, "Connection: Upgrade"),
        ("Version: 13", "Version: 8", 426, "\"8\" is not supported; use 13"),
        ("Sec-WebSocket-Version: 13\r\n", "", 400, "exactly one Sec-WebSocket-Version"),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", 426, "use 13"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", 400, "16 bytes"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "!!!!", 400, "16 bytes"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "exactly one Sec-WebSocket-Key"),
        ("Protocol: mqtt", "Protocol: chat, amqp", 400, "offers \"chat, amqp\""),
        ("Protocol: mqtt", "Protocol: MQTTX", 400, "must offer \"mqtt\""),
        ("Sec-WebSocket-Protocol: mqtt\r\n", "", 400, "must offer \"mqtt\""),
        ("Sec-WebSocket-Version: 13\r\n", many.as_str(), 431, "more than 64 headers"),
        ("Host: broker:8083", long.as_str(), 431, "exceeds 8192 bytes"),
        ("Upgrade: websocket\r\n", "Upgrade: websocket\r\nContent-Length: 4\r\n", 400, "no body"),
        ("Upgrade: websocket\r\n", "Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n", 400, "no body"),
        ("GET ", "\x10\x0c\0\x04MQTT", 400, "not an HTTP request"),
    ] {
        let request = GOOD.replacen(from, to, 1);
        assert_ne!(request, GOOD, "{from} does not occur");
        let Handshake::Refuse { response, refusal } = server().handshake(request.as_bytes()) else {
            panic!("not refused: {to}")
        };
        let response = String::from_utf8(response).unwrap();
        assert_eq!(refusal.status(), status, "{to}: {response}");
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{to}: {response}");
        let (head, text) = response.split_once("\r\n\r\n").unwrap();
        assert!(text.contains(body), "{to}: {text}");
        assert!(head.contains(&format!("Content-Length: {}", text.len())), "{head}");
        assert_eq!(status == 426, head.contains("Sec-WebSocket-Version: 13"), "{head}");
        assert_eq!(status == 405, head.contains("Allow: GET"), "{head}");
    }
}

#[test]
fn a_fault_in_the_first_bytes_is_refused_without_waiting_for_a_whole_head() {
    assert!(matches!(
        server().handshake(b"\x10\x0c\0\x04MQTT"),
        Handshake::Refuse { refusal: Refusal::NotHttp(_), .. }
    ));
}

#[test]
fn an_endless_head_ends_at_the_limit_however_it_arrives() {
    let mut server = server();
    assert_eq!(server.handshake(b"GET /mqtt HTTP/1.1\r\nX: "), Handshake::NeedMore);
    for _ in 0..8 * 1024 - 22 - 2 {
        assert_eq!(server.handshake(b"y"), Handshake::NeedMore);
    }
    assert!(matches!(server.handshake(b"yy"), Handshake::Refuse { refusal: Refusal::HeadTooLarge { max: 8192 }, .. }));
}

#[test]
fn frames_behind_a_request_may_exceed_the_limit_of_the_head() {
    let input = [GOOD.as_bytes(), &vec![0x82; 20_000]].concat();
    assert!(matches!(server().handshake(&input), Handshake::Done { consumed, .. } if consumed == GOOD.len()));
}

/// [MQTT-6.0.0-3]
#[test]
fn the_client_offers_the_subprotocol_of_its_version() {
    for (protocol, line) in [(Subprotocol::Mqtt, "mqtt"), (Subprotocol::MqttV31, "mqttv3.1")] {
        let (_, request) = WsClient::new("host:8083", "/mqtt", protocol, [7; 16]).unwrap();
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("GET /mqtt HTTP/1.1\r\nHost: host:8083\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nSec-WebSocket-Protocol: {line}\r\n")), "{request}");
    }
}

#[test]
fn the_client_refuses_every_response_that_does_not_prove_the_upgrade() {
    let nonce = *b"the sample nonce";
    let good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    let answer = |response: &str| client(nonce).0.handshake(response.as_bytes());
    assert_eq!(answer(good), Ok(ClientHandshake::Done { consumed: good.len() }));
    for (from, to, says) in [
        ("101 Switching Protocols", "200 OK", "the server answered 200 OK"),
        ("Upgrade: WebSocket\r\n", "", "Upgrade header is \"\" instead of \"websocket\""),
        ("Connection: upgrade", "Connection: close", "Connection header is \"close\""),
        ("s3pPLMB", "s3pPLMC", "Sec-WebSocket-Accept header is \"s3pPLMC"),
        ("Protocol: mqtt", "Protocol: mqttv3.1", "instead of \"mqtt\""),
        ("Sec-WebSocket-Protocol: mqtt\r\n", "", "Sec-WebSocket-Protocol header is \"\""),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n", "Sec-WebSocket-Extensions header is \"x\""),
        ("HTTP/1.1", "SSH-2.0", "not an HTTP response"),
    ] {
        let error = answer(&good.replacen(from, to, 1)).unwrap_err();
        assert!(error.to_string().contains(says), "{to}: {error}");
    }
    let endless = format!("HTTP/1.1 101 x\r\nX: {}", "y".repeat(9000));
    assert_eq!(answer(&endless), Err(ConnectError::HeadTooLarge { max: 8192 }));
}

#[test]
fn a_refusal_reaches_the_clients_user_in_the_servers_words() {
    let (mut client, request) = client([7; 16]);
    let Handshake::Refuse { response, .. } = WsServer::new(Arc::from("/elsewhere")).handshake(&request) else {
        panic!("accepted")
    };
    let error = client.handshake(&response).unwrap_err();
    assert_eq!(error.to_string(), "the server answered 404 Not Found: nothing at /mqtt; MQTT is at /elsewhere");
}

#[test]
fn a_host_or_path_cannot_smuggle_a_header() {
    for (host, path) in [("a\r\nX: y", "/"), ("a", "/ HTTP/1.1\r\nX: y"), ("", "/"), ("a", "/\u{e9}")] {
        let refused = WsClient::new(host, path, Subprotocol::Mqtt, [0; 16]);
        assert!(matches!(refused, Err(ConnectError::Request { .. })), "{host} {path}");
    }
}

proptest! {
    #[test]
    fn both_ends_agree_however_the_bytes_are_split(
        nonce: [u8; 16],
        cuts in prop::collection::vec(1_usize..40, 1..20),
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let (mut client, request) = client(nonce);
        let mut server = server();
        let (response, consumed) = feed(&request, &behind, &cuts, |piece| match server.handshake(piece) {
            Handshake::NeedMore => None,
            Handshake::Done { consumed, response, .. } => Some((response, consumed)),
            Handshake::Refuse { refusal, .. } => panic!("{refusal}"),
        });
        prop_assert_eq!(consumed, request.len());
        let ((), consumed) = feed(&response, &behind, &cuts, |piece| match client.handshake(piece) {
            Ok(ClientHandshake::NeedMore) => None,
            Ok(ClientHandshake::Done { consumed }) => Some(((), consumed)),
            Err(error) => panic!("{error}"),
        });
        prop_assert_eq!(consumed, response.len());
    }

    #[test]
    fn no_bytes_make_either_end_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 0_usize..600) {
        let cut = cut.min(bytes.len());
        for start in [&b""[..], &GOOD.as_bytes()[..100]] {
            let mut server = server();
            if server.handshake(&[start, &bytes[..cut]].concat()) == Handshake::NeedMore {
                server.handshake(&bytes[cut..]);
            }
        }
        let (mut client, _) = client([0; 16]);
        if client.handshake(&bytes[..cut]) == Ok(ClientHandshake::NeedMore) {
            let _ = client.handshake(&bytes[cut..]);
        }
    }
}

fn server() -> WsServer {
    WsServer::new(Arc::from("/mqtt"))
}

fn client(nonce: [u8; 16]) -> (WsClient, Vec<u8>) {
    WsClient::new("localhost:1", "/mqtt", Subprotocol::Mqtt, nonce).expect("host and path are plain ASCII")
}

/// Feeds head and what follows in pieces of the given sizes; returns the result and the bytes taken from all input.
fn feed<T>(
    head: &[u8],
    behind: &[u8],
    cuts: &[usize],
    mut take: impl FnMut(&[u8]) -> Option<(T, usize)>,
) -> (T, usize) {
    let input = [head, behind].concat();
    let (mut at, mut sizes) = (0, cuts.iter().cycle());
    while at < input.len() {
        let end = input.len().min(at + sizes.next().expect("a cycle does not end"));
        if let Some((result, consumed)) = take(&input[at..end]) {
            return (result, at + consumed);
        }
        at = end;
    }
    panic!("incomplete after the whole input")
}
