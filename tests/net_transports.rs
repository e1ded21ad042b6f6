//! Every transport carries MQTT: TCP, Unix socket, WebSocket, in-process duplex; one broker, many listeners.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used)] // clippy.toml allows it in test functions, these are their helpers

mod net_support;

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use ferromq::{
    codec::{Packet, QoS, ReasonCode},
    net::listener::ListenerUrl,
    server::Broker,
};
use net_support::{
    Client, Options, address, broker, eventually, tcp, url,
    websocket::{BINARY, CLOSE, CONTINUATION, PING, TEXT, WebSocket, frame},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The blocking client's view of an in-process connection.
struct Blocking(ferromq::net::duplex::Duplex, tokio::runtime::Runtime);

impl Blocking {
    fn connect(broker: &Broker) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self(broker.connect_memory().unwrap(), runtime)
    }
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1.block_on(self.0.read(buffer))
    }
}

impl Write for Blocking {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.block_on(self.0.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn clients_of_every_transport_meet_in_one_broker() {
    for shards in [1, 3] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("ferromq.sock");
        let mut builder = Broker::builder()
            .shards(shards)
            .listen(url("tcp://127.0.0.1:0"))
            .listen(url("ws://127.0.0.1:0/mqtt"))
            .listen(url(&format!("unix://{}", socket.display())));
        if has_ipv6() {
            builder = builder.listen(url("tcp://[::1]:0")).listen(url("ws://[::1]:0/other"));
        }
        let broker = builder.start().unwrap();
        assert!(broker.listeners().iter().all(|listener| listener.port() != Some(0)));
        let mut clients: Vec<_> = broker.listeners().iter().map(Client::open).collect();
        clients.push(Client::raw(Blocking::connect(&broker)));
        for (index, client) in clients.iter_mut().enumerate() {
            let connack = client.handshake(&format!("client-{index}"), &Options::default());
            assert_eq!(connack.reason, ReasonCode::Success);
            client.subscribe("all/#", QoS::AtLeastOnce);
        }
        for sender in 0..clients.len() {
            // Larger than what is copied, and than one WebSocket length form.
            let payload = vec![sender as u8; 70_000];
            let packet = clients[sender].publish_packet("all/data", payload.clone(), QoS::AtMostOnce);
            clients[sender].send(&packet);
            for client in &mut clients {
                assert_eq!(client.recv_publish().payload, payload);
            }
        }
        drop(clients);
        broker.shutdown();
        assert!(!socket.exists(), "the socket file is removed");
    }
}

#[test]
fn an_unspecified_ipv6_address_serves_both_families() {
    if !has_ipv6() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let broker = Broker::builder().listen(url("tcp://[::]:0")).start().unwrap();
    let port = broker.listeners()[0].port().unwrap();
    for host in ["127.0.0.1", "::1"] {
        let at = ListenerUrl::Tcp { host: host.into(), port, tls: false };
        Client::connect(&at, host).disconnect();
    }
}

#[test]
fn a_packet_may_arrive_byte_by_byte_or_many_at_once() {
    let (_broker, url) = broker(|builder| builder);
    let mut client = Client::connect(&url, "c");
    client.subscribe("t", QoS::AtMostOnce);
    let mut bytes = Vec::new();
    client.publish_packet("t", "slow", QoS::AtMostOnce).encode(client.version, &mut bytes).unwrap();
    for byte in &bytes {
        client.stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(client.recv_publish().payload, "slow");
    let packets: Vec<_> = (0..1000).map(|n| client.publish_packet("t", n.to_string(), QoS::AtMostOnce)).collect();
    client.send_all(&packets);
    for n in 0..1000 {
        assert_eq!(client.recv_publish().payload, n.to_string());
    }
}

#[test]
fn a_peer_that_closes_its_direction_reads_what_was_due_to_it() {
    let (broker, url) = broker(|builder| builder);
    let mut observer = Client::connect(&url, "observer");
    observer.subscribe("will", QoS::AtMostOnce);
    let mut stream = tcp(address(&url));
    let mut client = Client::raw(stream.try_clone().unwrap());
    client.handshake("half", &Options { will: Some(("will", "gone")), ..Options::default() });
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    // MQTT knows no half-open connection: the broker takes it as lost.
    assert_eq!(observer.recv_publish().payload, "gone");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    eventually("the connection is counted out", || broker.handle().stats().clients_connected == 1);
}

#[test]
fn a_disconnect_reaches_a_peer_that_is_still_sending() {
    let (_broker, url) = broker(|builder| builder);
    for _ in 0..20 {
        let mut client = Client::connect(&url, "c");
        let mut bytes = Vec::new();
        // A SUBSCRIBE with the reserved flags wrong, then more than the broker will ever read.
        bytes.extend([0x80, 0x02, 0x00, 0x01]);
        bytes.resize(2 << 20, 0xC0);
        let sent = client.stream.write_all(&bytes);
        drop(sent);
        let packets = client.recv_end();
        let reason = match packets.first() {
            Some(Packet::Disconnect(disconnect)) => disconnect.reason,
            other => panic!("expected DISCONNECT, got {other:?}"),
        };
        assert_eq!(reason, ReasonCode::MalformedPacket);
    }
}

fn ws_broker() -> (Broker, ListenerUrl) {
    let broker = Broker::builder().listen(url("ws://127.0.0.1:0/mqtt")).start().unwrap();
    let url = broker.listeners()[0].clone();
    (broker, url)
}

const CONNECT: &[u8] = &[0x10, 0x0D, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'w'];
const CONNACK: &[u8] = &[0x20, 2, 0, 0];
const PINGREQ: &[u8] = &[0xC0, 0];
const PINGRESP: &[u8] = &[0xD0, 0];

#[test]
fn websocket_messages_may_be_fragmented_and_coalesced() {
    let (_broker, url) = ws_broker();
    let mut socket = WebSocket::upgrade(tcp(address(&url)), "/mqtt");
    // One packet in as many frames as it has bytes, one byte of TCP at a time.
    for (index, byte) in CONNECT.iter().enumerate() {
        let opcode = if index == 0 { BINARY } else { CONTINUATION };
        for byte in frame(opcode, index == CONNECT.len() - 1, &[*byte]) {
            socket.write_raw(&[byte]);
        }
    }
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, CONNACK);
    // Several packets in a frame, several frames in a write, a packet across two of them.
    let mut bytes = frame(BINARY, true, &[PINGREQ, PINGREQ, &PINGREQ[..1]].concat());
    bytes.extend(frame(BINARY, true, &PINGREQ[1..]));
    socket.write_raw(&bytes);
    let mut answers = [0; 6];
    socket.read_exact(&mut answers).unwrap();
    assert_eq!(answers, *PINGRESP.repeat(3));
}

#[test]
fn websocket_pings_are_answered_between_packets() {
    let (_broker, url) = ws_broker();
    let mut socket = WebSocket::upgrade(tcp(address(&url)), "/mqtt");
    socket.frame(PING, true, b"before");
    let mut pong = [0; 8];
    read_raw_exact(&mut socket, &mut pong);
    assert_eq!(pong, *b"\x8A\x06before");
    socket.frame(BINARY, false, &CONNECT[..5]);
    socket.frame(PING, true, b"inside");
    socket.frame(CONTINUATION, true, &CONNECT[5..]);
    let mut both = [0; 14];
    read_raw_exact(&mut socket, &mut both);
    assert_eq!(both, *b"\x8A\x06inside\x82\x04\x20\x02\x00\x00");
}

#[test]
fn a_websocket_close_is_answered_and_ends_the_connection() {
    let (broker, url) = ws_broker();
    let mut socket = WebSocket::upgrade(tcp(address(&url)), "/mqtt");
    socket.frame(BINARY, true, CONNECT);
    let mut connack = [0; 4];
    socket.read_exact(&mut connack).unwrap();
    socket.frame(CLOSE, true, &1000_u16.to_be_bytes());
    let mut answer = [0; 4];
    read_raw_exact(&mut socket, &mut answer);
    assert_eq!(answer, *b"\x88\x02\x03\xE8");
    assert_eq!(socket.read_raw(&mut answer).unwrap(), 0);
    eventually("the client is gone", || broker.handle().stats().clients_connected == 0);
}

#[test]
fn a_websocket_close_follows_the_last_packet() {
    let (broker, url) = ws_broker();
    let mut client = Client::connect(&url, "w");
    let handle = broker.handle();
    assert!(handle.kick("w", ReasonCode::AdministrativeAction));
    let packets = client.recv_end();
    assert!(matches!(&packets[..], [Packet::Disconnect(last)] if last.reason == ReasonCode::AdministrativeAction));
}

#[test]
fn a_websocket_fault_is_named_in_the_close_frame() {
    let (_broker, url) = ws_broker();
    let mut socket = WebSocket::upgrade(tcp(address(&url)), "/mqtt");
    socket.frame(TEXT, true, b"MQTT is binary");
    let mut answer = [0; 4];
    read_raw_exact(&mut socket, &mut answer);
    assert_eq!(answer[0], 0x88);
    assert_eq!(u16::from_be_bytes([answer[2], answer[3]]), 1003);
}

#[test]
fn a_wrong_websocket_path_is_not_found_and_plain_mqtt_is_no_request() {
    let (_broker, url) = ws_broker();
    for (request, status) in [
        (
            "GET /other HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
            "HTTP/1.1 404",
        ),
        ("GET /mqtt HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 426"),
        ("POST /mqtt HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 405"),
    ] {
        let mut stream = tcp(address(&url));
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with(status), "{request}: {response}");
    }
    let mut stream = tcp(address(&url));
    stream.write_all(CONNECT).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 400"), "{response}");
}

fn read_raw_exact(socket: &mut WebSocket, buffer: &mut [u8]) {
    let mut filled = 0;
    while filled < buffer.len() {
        let len = socket.read_raw(&mut buffer[filled..]).unwrap();
        assert_ne!(len, 0, "the end came after {:?}", &buffer[..filled]);
        filled += len;
    }
}

#[test]
fn a_dropped_duplex_is_a_lost_connection() {
    for shards in [1, 2] {
        let (broker, url) = broker(|builder| builder.shards(shards));
        let mut observer = Client::connect(&url, "observer");
        observer.subscribe("will", QoS::AtMostOnce);
        let mut client = Client::raw(Blocking::connect(&broker));
        client.handshake("memory", &Options { will: Some(("will", "gone")), ..Options::default() });
        drop(client);
        assert_eq!(observer.recv_publish().payload, "gone");
    }
}

#[test]
fn a_duplex_reads_the_end_when_the_broker_shuts_down() {
    let (broker, _) = broker(|builder| builder.shards(2));
    let handle = broker.handle();
    let mut clients: Vec<_> = (0..4).map(|_| Client::raw(Blocking::connect(&broker))).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.handshake(&format!("memory-{index}"), &Options::default());
    }
    broker.shutdown();
    for client in &mut clients {
        let packets = client.recv_end();
        assert!(matches!(&packets[..], [Packet::Disconnect(last)] if last.reason == ReasonCode::ServerShuttingDown));
    }
    assert!(handle.connect_memory().is_err());
}
