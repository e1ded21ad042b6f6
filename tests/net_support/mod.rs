//! What the socket tests share: a blocking client over any byte stream, made of the codec alone, and a broker to talk
//! to. Every wait has a deadline and none is for a fixed time.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file is a crate and uses its part")]

pub mod websocket;

use std::{
    collections::VecDeque,
    fmt,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    num::NonZeroU16,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ferromq::{
    codec::{
        Ack, ConnAck, Connect, Decoder, Disconnect, Limits, Packet, Properties, Property, Publish, QoS, ReasonCode,
        Subscribe, Subscription, SubscriptionOptions, Text, TopicFilter, TopicName, Version, Will,
    },
    net::listener::ListenerUrl,
    server::{Broker, BrokerBuilder},
};

/// A byte stream that waits, at most [`PATIENCE`].
pub trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// One MQTT client.
pub struct Client {
    pub stream: Box<dyn Stream>,
    pub version: Version,
    decoder: Decoder,
    received: VecDeque<Packet>,
    next_id: u16,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// How a client connects, beyond the defaults: MQTT 5, clean start, no keep-alive.
#[derive(Debug, Clone)]
pub struct Options {
    pub version: Version,
    pub clean_start: bool,
    pub session_expiry: u32,
    pub receive_maximum: Option<u16>,
    pub will: Option<(&'static str, &'static str)>,
    pub username: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: Version::V5,
            clean_start: true,
            session_expiry: 0,
            receive_maximum: None,
            will: None,
            username: None,
        }
    }
}

impl Client {
    /// A transport on which nothing has been said.
    pub fn raw(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            version: Version::V5,
            decoder: Decoder::new(),
            received: VecDeque::new(),
            next_id: 0,
        }
    }

    /// Connects to a listener, and says CONNECT.
    pub fn connect(url: &ListenerUrl, client_id: &str) -> Self {
        Self::connect_with(url, client_id, &Options::default())
    }

    pub fn connect_with(url: &ListenerUrl, client_id: &str, options: &Options) -> Self {
        let (client, connack) = Self::try_connect(url, client_id, options);
        assert_eq!(connack.reason, ReasonCode::Success);
        client
    }

    pub fn try_connect(url: &ListenerUrl, client_id: &str, options: &Options) -> (Self, ConnAck) {
        let mut client = Self::open(url);
        let connack = client.handshake(client_id, options);
        (client, connack)
    }

    /// Opens a transport, the upgrade of a WebSocket included.
    pub fn open(url: &ListenerUrl) -> Self {
        match url {
            ListenerUrl::Tcp { host, port, .. } => Self::raw(tcp((host.as_str(), *port))),
            ListenerUrl::Ws { host, port, path, .. } => {
                Self::raw(websocket::WebSocket::upgrade(tcp((host.as_str(), *port)), path))
            }
            ListenerUrl::Unix { path } => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                Self::raw(stream)
            }
        }
    }

    /// Whether nobody accepts connections there.
    pub fn raw_connect_fails(url: &ListenerUrl) -> bool {
        TcpStream::connect(address(url)).is_err()
    }

    /// CONNECT and CONNACK.
    pub fn handshake(&mut self, client_id: &str, options: &Options) -> ConnAck {
        self.version = options.version;
        let mut properties = Properties::new();
        if options.version == Version::V5 {
            if options.session_expiry > 0 {
                properties.push(Property::SessionExpiryInterval(options.session_expiry));
            }
            if let Some(maximum) = options.receive_maximum {
                properties.push(Property::ReceiveMaximum(maximum));
            }
        }
        let will = options.will.map(|(topic, payload)| Will {
            topic: TopicName::new(topic).unwrap(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Properties::new(),
        });
        self.send(&Packet::Connect(Box::new(Connect {
            version: options.version,
            clean_start: options.clean_start,
            bridge: false,
            keep_alive: 0,
            client_id: Text::try_from(client_id).unwrap(),
            will,
            username: options.username.map(Text::from_static),
            password: None,
            properties,
        })));
        match self.recv() {
            Packet::ConnAck(connack) => *connack,
            other => panic!("expected CONNACK, got {other:?}"),
        }
    }

    pub fn send(&mut self, packet: &Packet) {
        self.send_all(std::slice::from_ref(packet));
    }

    /// Sends packets in one write.
    pub fn send_all(&mut self, packets: &[Packet]) {
        let mut bytes = Vec::new();
        for packet in packets {
            packet.encode(self.version, &mut bytes).unwrap();
        }
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next packet.
    pub fn recv(&mut self) -> Packet {
        self.try_recv().expect("the connection is open").expect("a packet comes before the end")
    }

    /// The next packet, or `None` at the end.
    pub fn try_recv(&mut self) -> io::Result<Option<Packet>> {
        loop {
            if let Some(packet) = self.received.pop_front() {
                return Ok(Some(packet));
            }
            let mut buffer = [0; 16 << 10];
            let len = self.stream.read(&mut buffer)?;
            if len == 0 {
                return Ok(None);
            }
            self.decoder.feed(&buffer[..len]);
            while let Some(packet) = self.decoder.poll(self.version, &Limits::default()).expect("the broker is right") {
                self.received.push_back(packet);
            }
        }
    }

    /// The next packet, which must be a PUBLISH; acknowledged as its QoS asks for.
    pub fn recv_publish(&mut self) -> Publish {
        let Packet::Publish(publish) = self.recv() else { panic!("expected PUBLISH") };
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.send(&Packet::PubAck(Ack::new(id, ReasonCode::Success))),
            (QoS::ExactlyOnce, Some(id)) => self.send(&Packet::PubRec(Ack::new(id, ReasonCode::Success))),
            _ => {}
        }
        publish
    }

    /// The next packet, which must be a PUBLISH; left unacknowledged.
    pub fn recv_publish_unacknowledged(&mut self) -> Publish {
        match self.recv() {
            Packet::Publish(publish) => publish,
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }

    /// Reads to the end; returns the packets before it.
    pub fn recv_end(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        loop {
            match self.try_recv() {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => return packets,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return packets,
                Err(error) => panic!("no end within {PATIENCE:?}: {error}"),
            }
        }
    }

    /// SUBSCRIBE and its SUBACK.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) {
        let packet_id = self.packet_id();
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let subscriptions = vec![Subscription { filter: TopicFilter::new(filter).unwrap(), options }];
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::new(), subscriptions }));
        match self.recv() {
            Packet::SubAck(ack) => assert!(ack.reasons.iter().all(|reason| reason.as_u8() <= 2), "{ack:?}"),
            other => panic!("expected SUBACK, got {other:?}"),
        }
    }

    /// PUBLISH with the acknowledgements of its QoS.
    pub fn publish(&mut self, topic: &str, payload: impl Into<Bytes>, qos: QoS) {
        let packet = self.publish_packet(topic, payload, qos);
        self.send(&packet);
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => assert!(matches!(self.recv(), Packet::PubAck(_))),
            QoS::ExactlyOnce => {
                let Packet::PubRec(ack) = self.recv() else { panic!("expected PUBREC") };
                self.send(&Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success)));
                assert!(matches!(self.recv(), Packet::PubComp(_)));
            }
        }
    }

    pub fn publish_packet(&mut self, topic: &str, payload: impl Into<Bytes>, qos: QoS) -> Packet {
        Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic: TopicName::new(topic).unwrap(),
            packet_id: (qos != QoS::AtMostOnce).then(|| self.packet_id()),
            properties: Properties::new(),
            payload: payload.into(),
        })
    }

    pub fn disconnect(mut self) {
        self.send(&Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: Properties::new() }));
        self.recv_end();
    }

    /// The broker has done everything that was sent before this returns.
    pub fn ping(&mut self) {
        self.send(&Packet::PingReq);
        assert!(matches!(self.recv(), Packet::PingResp));
    }

    /// Like [`Self::ping`], whatever arrives before the answer.
    pub fn ping_through(&mut self) {
        self.send(&Packet::PingReq);
        while !matches!(self.recv(), Packet::PingResp) {}
    }

    fn packet_id(&mut self) -> NonZeroU16 {
        self.next_id = self.next_id % u16::MAX + 1;
        NonZeroU16::new(self.next_id).expect("from 1 to 65535")
    }
}

/// A broker on a free port of this machine.
pub fn broker(change: impl FnOnce(BrokerBuilder) -> BrokerBuilder) -> (Broker, ListenerUrl) {
    let broker = change(Broker::builder().listen(url("tcp://127.0.0.1:0"))).start().unwrap();
    let url = broker.listeners()[0].clone();
    (broker, url)
}

pub fn url(text: &str) -> ListenerUrl {
    text.parse().unwrap()
}

pub fn tcp(address: impl ToSocketAddrs) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The host and port of a network listener.
pub fn address(url: &ListenerUrl) -> (String, u16) {
    match url {
        ListenerUrl::Tcp { host, port, .. } | ListenerUrl::Ws { host, port, .. } => (host.clone(), *port),
        ListenerUrl::Unix { .. } => panic!("a Unix socket has no port"),
    }
}

/// Looks until it is so. For conditions that nothing announces.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// Longer than anything takes on a busy machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
