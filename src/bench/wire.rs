//! A bare connection for loads that end by themselves: blocking, a packet at a time, next to nothing of its own, so that
//! twenty thousand of them are opened as fast as the system can.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    num::NonZeroU16,
    time::Duration,
};

use bytes::Bytes;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::BenchError;
use crate::codec::{
    Connect, Cut, Packet, PacketType, Properties, QoS, Subscribe, Subscription, SubscriptionOptions, Text, TopicFilter,
    TopicName, Version, Will, frame,
};

/// A connection to a broker.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    version: Version,
    /// What was read and not taken yet.
    input: Vec<u8>,
    taken: usize,
    /// How much is read at once.
    read_bytes: usize,
}

impl Wire {
    /// Connects the socket, from an address of this machine if one is given, and sends CONNECT; the answer is read by
    /// [`Self::expect`].
    pub(super) fn open(address: SocketAddr, from: Option<IpAddr>, connect: &Connect) -> Result<Self, BenchError> {
        let stream = match from {
            None => TcpStream::connect(address)?,
            Some(from) => {
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
                socket.bind(&SocketAddr::new(from, 0).into())?;
                socket.connect(&address.into())?;
                socket.into()
            }
        };
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut wire = Self { stream, version: connect.version, input: Vec::new(), taken: 0, read_bytes: READ_BYTES };
        wire.send(&Packet::Connect(Box::new(connect.clone())))?;
        Ok(wire)
    }

    /// Sends a packet.
    pub(super) fn send(&mut self, packet: &Packet) -> Result<(), BenchError> {
        let mut out = Vec::new();
        packet.encode(self.version, &mut out).map_err(|error| BenchError::Plan(error.to_string()))?;
        self.write(&out)
    }

    /// Sends packets that are encoded.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads packets until so many of a type have come. Others are passed over.
    pub(super) fn expect(&mut self, kind: PacketType, count: usize) -> Result<(), BenchError> {
        let mut found = 0;
        while found < count {
            match self.next()? {
                Some(header) if header >> 4 == kind as u8 => found += 1,
                Some(_) => {}
                None => self.fill()?,
            }
        }
        Ok(())
    }

    /// The first byte of the next packet that has been read, unless that says no.
    fn next(&mut self) -> Result<Option<u8>, BenchError> {
        let rest = self.input.get(self.taken..).unwrap_or_default();
        let cut = frame::cut(rest, PACKET_BYTES_MAX).map_err(|error| BenchError::Plan(error.to_string()))?;
        let Cut::Frame(frame, len) = cut else { return Ok(None) };
        let refusal = match frame.header >> 4 {
            CONNACK => frame.body.get(1).copied().filter(|code| *code != 0),
            SUBACK => frame.body.last().copied().filter(|code| *code >= 0x80),
            _ => None,
        };
        if let Some(code) = refusal {
            return Err(BenchError::Plan(format!("the broker refused with {code:#04x}")));
        }
        let header = frame.header;
        self.taken += len;
        Ok(Some(header))
    }

    fn fill(&mut self) -> Result<(), BenchError> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let kept = self.input.len();
        self.input.resize(kept + self.read_bytes, 0);
        let read = self.stream.read(self.input.get_mut(kept..).unwrap_or_default());
        self.input.truncate(kept + read.as_ref().map_or(0, |count| *count));
        match read {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection").into()),
            Ok(count) => {
                // Most connections get four bytes and are silent again; some get megabytes.
                let full = count == self.read_bytes && self.read_bytes < READ_BYTES_MAX;
                self.read_bytes = if full { self.read_bytes * 2 } else { self.read_bytes };
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives back the memory of what was read.
    pub(super) fn shrink(&mut self) {
        if self.taken == self.input.len() {
            (self.input, self.taken) = (Vec::new(), 0);
        }
    }

    /// Ends without a word, and without a port that the system keeps for a minute.
    pub(super) fn abort(self) {
        // Where that cannot be had the port is kept; nothing else comes of it.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

/// The CONNECT of a client of ours.
pub(super) fn connect(version: Version, client_id: &str, keep_alive: u16, will: Option<(&str, usize)>) -> Connect {
    let topic = |topic| TopicName::new(topic).expect("topics of the bench are valid");
    Connect {
        version,
        clean_start: true,
        bridge: false,
        keep_alive,
        client_id: Text::try_from(client_id).unwrap_or_default(),
        will: will.map(|(name, bytes)| Will {
            topic: topic(name),
            payload: Bytes::from(vec![b'.'; bytes]),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::new(),
        }),
        username: None,
        password: None,
        properties: Properties::new(),
    }
}

/// A SUBSCRIBE for one filter.
pub(super) fn subscribe(filter: &str, qos: QoS) -> Packet {
    let filter = TopicFilter::new(filter).expect("filters of the bench are valid");
    Packet::Subscribe(Subscribe {
        packet_id: NonZeroU16::MIN,
        properties: Properties::new(),
        subscriptions: vec![Subscription { filter, options: SubscriptionOptions::new(qos) }],
    })
}

const CONNACK: u8 = PacketType::ConnAck as u8;
const SUBACK: u8 = PacketType::SubAck as u8;

/// Longer than any broker takes to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// Read at once: at first, and at most.
const READ_BYTES: usize = 256;
const READ_BYTES_MAX: usize = 256 << 10;

/// More than a broker sends to these.
const PACKET_BYTES_MAX: u32 = 16 << 20;
