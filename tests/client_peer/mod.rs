//! A scripted server for the client's task: in-memory connections, one for each attempt of the client.

#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::{
    io,
    sync::{Arc, Mutex},
};

use ferromq::{
    client::{Client, ClientOptions, Connecting, Connector, Error, Reconnect},
    codec::{
        Ack, ConnAck, Cut, Limits, Packet, PacketId, Properties, Property, Publish, ReasonCode, Source, SubAck, Text,
        UnsubAck, Version, frame::cut,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};

/// Makes an in-memory connection for every attempt, unless told to refuse it.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    peers: mpsc::Sender<DuplexStream>,
    script: Arc<Mutex<Script>>,
}

#[derive(Debug)]
struct Script {
    /// Attempts that fail before the next succeeds.
    refusals: usize,
    attempts: usize,
    buffer_bytes: usize,
}

/// Where the server's ends of the connections come in.
pub(crate) struct Listener {
    peers: mpsc::Receiver<DuplexStream>,
    wire: Wire,
}

pub(crate) fn wire() -> (Wire, Listener) {
    wire_of(64 * 1024)
}

/// A wire that holds so many bytes in each direction.
pub(crate) fn wire_of(buffer_bytes: usize) -> (Wire, Listener) {
    let (sender, peers) = mpsc::channel(16);
    let script = Arc::new(Mutex::new(Script { refusals: 0, attempts: 0, buffer_bytes }));
    let wire = Wire { peers: sender, script };
    (wire.clone(), Listener { peers, wire })
}

impl Connector for Wire {
    fn name(&self, _: usize) -> String {
        "the wire".to_owned()
    }

    fn connect(&self, _: usize) -> Connecting<'_> {
        let mut script = self.script.lock().unwrap();
        script.attempts += 1;
        let is_refused = script.refusals > 0;
        script.refusals = script.refusals.saturating_sub(1);
        let (client, server) = duplex(script.buffer_bytes);
        Box::pin(async move {
            if is_refused || self.peers.try_send(server).is_err() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(Box::new(client) as _)
        })
    }
}

impl Listener {
    pub(crate) async fn accept(&mut self) -> Peer<DuplexStream> {
        Peer::new(self.peers.recv().await.expect("the client is there"), Version::V5)
    }

    /// The next attempts fail.
    pub(crate) fn refuse(&self, attempts: usize) {
        self.wire.script.lock().unwrap().refusals = attempts;
    }

    pub(crate) fn attempts(&self) -> usize {
        self.wire.script.lock().unwrap().attempts
    }
}

/// The server's side of one connection.
pub(crate) struct Peer<S> {
    stream: S,
    version: Version,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(stream: S, version: Version) -> Self {
        Self { stream, version, buffer: Vec::new() }
    }

    /// The next packet; `None` when the client has closed.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Cut::Frame(frame, used) = cut(&self.buffer, u32::MAX).expect("the client's output is well-formed") {
                let packet =
                    Packet::decode(frame, self.version, &Limits::default(), &Source::Scratch).expect("so is this");
                self.buffer.drain(..used);
                return Some(packet);
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn expect(&mut self) -> Packet {
        self.next().await.expect("the client must send another packet")
    }

    pub(crate) async fn send(&mut self, packet: Packet) {
        self.send_all([packet]).await;
    }

    pub(crate) async fn send_all(&mut self, packets: impl IntoIterator<Item = Packet>) {
        let mut bytes = Vec::new();
        for packet in packets {
            packet.encode(self.version, &mut bytes).unwrap();
        }
        self.stream.write_all(&bytes).await.expect("the client reads");
    }

    /// Takes CONNECT and answers it.
    pub(crate) async fn accept(&mut self, session_present: bool, properties: impl IntoIterator<Item = Property>) {
        let Packet::Connect(connect) = self.expect().await else { panic!("CONNECT comes first") };
        self.version = connect.version;
        let properties = properties.into_iter().collect();
        self.send(Packet::ConnAck(Box::new(ConnAck { session_present, reason: ReasonCode::Success, properties })))
            .await;
    }

    pub(crate) async fn refuse(&mut self, reason: ReasonCode) {
        assert!(matches!(self.expect().await, Packet::Connect(_)));
        let reason_string = Property::ReasonString(Text::from_static("because"));
        let properties = [reason_string].into_iter().collect();
        self.send(Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties }))).await;
    }

    pub(crate) async fn expect_publish(&mut self) -> Publish {
        match self.expect().await {
            Packet::Publish(publish) => publish,
            other => panic!("PUBLISH must come, not {other:?}"),
        }
    }

    /// Takes a SUBSCRIBE and grants all of it.
    pub(crate) async fn grant(&mut self) -> ferromq::codec::Subscribe {
        self.answer_subscribe(ReasonCode::GrantedQoS1).await
    }

    pub(crate) async fn answer_subscribe(&mut self, reason: ReasonCode) -> ferromq::codec::Subscribe {
        let Packet::Subscribe(subscribe) = self.expect().await else { panic!("SUBSCRIBE must come") };
        let reasons = vec![reason; subscribe.subscriptions.len()];
        let answer = SubAck { packet_id: subscribe.packet_id, properties: Properties::new(), reasons };
        self.send(Packet::SubAck(answer)).await;
        subscribe
    }

    pub(crate) async fn answer_unsubscribe(&mut self) -> Vec<String> {
        let Packet::Unsubscribe(unsubscribe) = self.expect().await else { panic!("UNSUBSCRIBE must come") };
        let reasons = vec![ReasonCode::Success; unsubscribe.filters.len()];
        let answer = UnsubAck { packet_id: unsubscribe.packet_id, properties: Properties::new(), reasons };
        self.send(Packet::UnsubAck(answer)).await;
        unsubscribe.filters.iter().map(|filter| filter.as_str().to_owned()).collect()
    }

    pub(crate) async fn puback(&mut self, packet_id: Option<PacketId>, reason: ReasonCode) {
        self.send(Packet::PubAck(Ack::new(packet_id.expect("QoS 1 has an identifier"), reason))).await;
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }
}

/// A client on the wire and the server's side of its first connection.
pub(crate) async fn connected(
    wire: Wire,
    listener: &mut Listener,
    options: ClientOptions,
) -> (Client, Peer<DuplexStream>) {
    let client = Client::start_with(options, wire).unwrap();
    let mut peer = listener.accept().await;
    peer.accept(false, []).await;
    client.ready().await.unwrap();
    (client, peer)
}

pub(crate) fn options() -> ClientOptions {
    let mut options = ClientOptions {
        reconnect: Some(Reconnect { seed: Some(1), ..Reconnect::default() }),
        ..ClientOptions::default()
    };
    options.session.client_id = Text::from_static("c");
    options.session.keep_alive = 0;
    options
}

pub(crate) fn reason(error: &Error) -> Option<ReasonCode> {
    error.reason_code()
}
