//! The least program that can take a broker's place in some rows of `make bench-peers`: what these cost it is what the
//! kernel asks for moving the bytes, and so a floor for any broker that reads and writes each message by itself.
//!
//! It is no broker and must not be used as one. It has no sessions, queues, limits, wildcards, authentication, keep-alive,
//! wills or retained messages, answers MQTT 3.1.1 alone with answers of one shape, believes what it is sent, and passes
//! PUBLISH on byte for byte, packet identifier and flags included. One thread, one epoll. A readable socket is read once; all
//! neighbouring messages of one topic that came with this read go to each of its subscribers with one write, at once; what
//! has to be answered, PUBACK with QoS 1, goes back with one more. That is all it does.
//!
//! `relay --port PORT`; benches/e2e starts it when it is asked for `--floor`.

use std::{
    collections::HashMap,
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [option, port] = &words[..] else { return Err(USAGE.into()) };
    if option != "--port" {
        return Err(USAGE.into());
    }
    let port = port.parse().map_err(|error| format!("--port {port}: {error}"))?;
    Ok(Relay::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?.run()?)
}

/// Everything there is.
struct Relay {
    poll: Poll,
    listener: TcpListener,
    /// By token.
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    /// Who wants a topic, by its number; numbers are given for as long as this runs.
    routes: Vec<Vec<usize>>,
    numbers: HashMap<Vec<u8>, usize>,
    /// What is read, behind what was left of the read before.
    bytes: Vec<u8>,
    /// What a read has to be answered with.
    answers: Vec<u8>,
}

/// One connection.
struct Peer {
    stream: TcpStream,
    /// Begin of a packet of which more is to come.
    begun: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
    /// Topics that it has subscribed to.
    wants: Vec<usize>,
    /// The topic it published to last, so that most are not looked up.
    last: (Vec<u8>, Option<usize>),
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// It has said so.
    Left,
    Broken(io::Error),
    /// Nothing that this program knows.
    Unknown(&'static str),
}

impl Relay {
    fn new(address: SocketAddr) -> io::Result<Self> {
        let (poll, mut listener) = (Poll::new()?, TcpListener::bind(address)?);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            peers: Vec::new(),
            free: Vec::new(),
            routes: Vec::new(),
            numbers: HashMap::new(),
            bytes: vec![0; READ_BYTES_MAX],
            answers: Vec::new(),
        })
    }

    /// Until the process is ended.
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                done => done?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let at = event.token().0;
                let done = if event.is_writable() { self.send(at, &[]) } else { Ok(()) };
                if let Err(end) = done.and_then(|()| if event.is_readable() { self.read(at) } else { Ok(()) }) {
                    self.close(at, &end);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let at = self.free.pop().unwrap_or(self.peers.len());
            self.poll.registry().register(&mut stream, Token(at), Interest::READABLE)?;
            let peer = Peer { stream, begun: Vec::new(), unsent: Vec::new(), wants: Vec::new(), last: <_>::default() };
            match self.peers.get_mut(at) {
                Some(place) => *place = Some(peer),
                None => self.peers.push(Some(peer)),
            }
        }
    }

    /// Reads until the socket is empty, which is once: a read that does not fill the buffer has emptied it (epoll(7)).
    fn read(&mut self, at: usize) -> Result<(), End> {
        let mut bytes = std::mem::take(&mut self.bytes);
        let done = loop {
            match self.read_once(at, &mut bytes) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(end) => break Err(end),
            }
        };
        self.bytes = bytes;
        done
    }

    /// Whether the socket may have more.
    fn read_once(&mut self, at: usize, bytes: &mut [u8]) -> Result<bool, End> {
        // An event of a connection that ended since.
        let Some(peer) = self.peers[at].as_mut() else { return Ok(false) };
        let before = peer.begun.len();
        bytes[..before].copy_from_slice(&peer.begun);
        let got = match peer.stream.read(&mut bytes[before..]) {
            Ok(0) => return Err(End::Left),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(End::Broken(error)),
        };
        peer.begun.clear();
        let filled = &bytes[..before + got];
        let used = self.serve(at, filled)?;
        if used == 0 && filled.len() == bytes.len() {
            return Err(End::Unknown("a packet that is longer than what is read at once"));
        }
        let peer = self.peers[at].as_mut().ok_or(End::Left)?;
        peer.begun.extend_from_slice(&filled[used..]);
        Ok(filled.len() == bytes.len())
    }

    /// Does what the packets ask for; how many bytes they took.
    fn serve(&mut self, at: usize, bytes: &[u8]) -> Result<usize, End> {
        self.answers.clear();
        // Neighbours of one topic: where they begin, and who wants them.
        let mut run: Option<(usize, Option<usize>)> = None;
        let mut used = 0;
        while let Some((body, next)) = packet(&bytes[used..]) {
            let (body, next) = (used + body.start..used + body.end, used + next);
            if bytes[used] >> 4 == PUBLISH {
                let route = self.publish(at, bytes[used], &bytes[body])?;
                if let Some((begin, of_run)) = run
                    && of_run != route
                {
                    self.forward(of_run, &bytes[begin..used]);
                    run = None;
                }
                run = run.or(Some((used, route)));
            } else {
                if let Some((begin, of_run)) = run.take() {
                    self.forward(of_run, &bytes[begin..used]);
                }
                self.answer(at, bytes[used] >> 4, &bytes[body])?;
            }
            used = next;
        }
        if let Some((begin, of_run)) = run {
            self.forward(of_run, &bytes[begin..used]);
        }
        if !self.answers.is_empty() {
            let answers = std::mem::take(&mut self.answers);
            let done = self.send(at, &answers);
            self.answers = answers;
            done?;
        }
        Ok(used)
    }

    /// The number of its topic, if anybody ever wanted that; acknowledges QoS 1.
    fn publish(&mut self, at: usize, first: u8, body: &[u8]) -> Result<Option<usize>, End> {
        let (topic, rest) = text(body)?;
        match (first >> 1 & 3, rest) {
            (0, _) => {}
            (1, [high, low, ..]) => self.answers.extend_from_slice(&[PUBACK << 4, 2, *high, *low]),
            _ => return Err(End::Unknown("QoS 2")),
        }
        let peer = self.peers[at].as_mut().ok_or(End::Left)?;
        if peer.last.0 != topic || peer.last.1.is_none() {
            peer.last = (topic.to_vec(), self.numbers.get(topic).copied());
        }
        Ok(peer.last.1)
    }

    fn answer(&mut self, at: usize, kind: u8, body: &[u8]) -> Result<(), End> {
        match kind {
            CONNECT if body.starts_with(CONNECT_3_1_1) => self.answers.extend_from_slice(&[CONNACK << 4, 2, 0, 0]),
            CONNECT => return Err(End::Unknown("a version other than 3.1.1")),
            SUBSCRIBE => {
                let [high, low, filters @ ..] = body else { return Err(End::Unknown("an empty SUBSCRIBE")) };
                let (mut rest, mut granted) = (filters, Vec::new());
                while !rest.is_empty() {
                    let (filter, [qos, others @ ..]) = text(rest)? else { return Err(End::Unknown("a filter alone")) };
                    granted.push(self.subscribe(at, filter, *qos)?);
                    rest = others;
                }
                let length = u8::try_from(2 + granted.len()).ok().filter(|length| *length < 128);
                let length = length.ok_or(End::Unknown("more filters than a short SUBACK answers"))?;
                self.answers.extend_from_slice(&[SUBACK << 4, length, *high, *low]);
                self.answers.extend_from_slice(&granted);
            }
            PINGREQ => self.answers.extend_from_slice(&[PINGRESP << 4, 0]),
            // A receiver has it; nobody here remembers.
            PUBACK => {}
            DISCONNECT => return Err(End::Left),
            _ => return Err(End::Unknown("a packet of another kind")),
        }
        Ok(())
    }

    /// The code for the SUBACK.
    fn subscribe(&mut self, at: usize, filter: &[u8], qos: u8) -> Result<u8, End> {
        if qos > 1 || filter.starts_with(b"$share/") || filter.iter().any(|byte| matches!(byte, b'+' | b'#')) {
            return Ok(REFUSED);
        }
        let next = self.routes.len();
        let number = *self.numbers.entry(filter.to_vec()).or_insert(next);
        if number == next {
            self.routes.push(Vec::new());
        }
        let peer = self.peers[at].as_mut().ok_or(End::Left)?;
        if !peer.wants.contains(&number) {
            peer.wants.push(number);
            self.routes[number].push(at);
        }
        Ok(qos)
    }

    /// To each who wants this topic, with one write.
    fn forward(&mut self, route: Option<usize>, bytes: &[u8]) {
        let Some(route) = route else { return };
        let mut index = 0;
        while let Some(to) = self.routes[route].get(index).copied() {
            match self.send(to, bytes) {
                Ok(()) => index += 1,
                // It leaves the list, so the next one is in its place.
                Err(end) => self.close(to, &end),
            }
        }
    }

    /// Writes at once, behind what the socket did not take before; with nothing, only that.
    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), End> {
        let Some(peer) = self.peers[to].as_mut() else { return Ok(()) };
        let had_unsent = !peer.unsent.is_empty();
        if had_unsent {
            peer.unsent.extend_from_slice(bytes);
        }
        let all = if had_unsent { &peer.unsent[..] } else { bytes };
        if all.is_empty() {
            return Ok(());
        }
        let sent = match peer.stream.write(all) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(End::Broken(error)),
        };
        if had_unsent {
            peer.unsent.drain(..sent);
        } else {
            peer.unsent.extend_from_slice(&bytes[sent..]);
        }
        if peer.unsent.len() > UNSENT_BYTES_MAX {
            return Err(End::Unknown("somebody who does not read"));
        }
        if had_unsent == peer.unsent.is_empty() {
            let both = Interest::READABLE | Interest::WRITABLE;
            let interest = if had_unsent { Interest::READABLE } else { both };
            self.poll.registry().reregister(&mut peer.stream, Token(to), interest).map_err(End::Broken)?;
        }
        Ok(())
    }

    fn close(&mut self, at: usize, end: &End) {
        let Some(peer) = self.peers[at].take() else { return };
        for number in peer.wants {
            self.routes[number].retain(|other| *other != at);
        }
        self.free.push(at);
        match end {
            End::Left => {}
            End::Broken(error) => eprintln!("relay: {error}"),
            End::Unknown(what) => eprintln!("relay: {what} is nothing for a relay"),
        }
    }
}

/// Where the body of the first packet lies, and where the next one begins; `None` while it is not all there.
fn packet(bytes: &[u8]) -> Option<(Range<usize>, usize)> {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().skip(1).take(4) {
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let next = at + 1 + length;
            return (next <= bytes.len()).then_some((at + 1..next, next));
        }
    }
    None
}

/// A text with its length before it, and what follows.
fn text(bytes: &[u8]) -> Result<(&[u8], &[u8]), End> {
    let parts = bytes.split_first_chunk().and_then(|(length, rest)| {
        let length = u16::from_be_bytes(*length);
        rest.split_at_checked(length.into())
    });
    parts.ok_or(End::Unknown("a packet that ends too early"))
}

const USAGE: &str = "usage: relay --port PORT";

const LISTENER: Token = Token(usize::MAX);
const EVENTS_MAX: usize = 1024;

/// A packet must fit.
const READ_BYTES_MAX: usize = 256 << 10;

/// More than a closed loop has under way. Who leaves more unread is cut off.
const UNSENT_BYTES_MAX: usize = 16 << 20;

const CONNECT_3_1_1: &[u8] = b"\x00\x04MQTT\x04";
const REFUSED: u8 = 0x80;

const CONNECT: u8 = 1;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBSCRIBE: u8 = 8;
const SUBACK: u8 = 9;
const PINGREQ: u8 = 12;
const PINGRESP: u8 = 13;
const DISCONNECT: u8 = 14;

#[cfg(test)]
mod tests {
    use std::{net::TcpStream as Client, thread, time::Duration};

    use super::*;

    #[test]
    fn a_message_goes_to_all_who_want_its_topic_and_is_acknowledged() {
        let address = start();
        let (mut one, mut other, mut publisher) = (connect(address), connect(address), connect(address));
        for subscriber in [&mut one, &mut other] {
            exchange(subscriber, b"\x82\x08\x00\x07\x00\x03a/b\x01", b"\x90\x03\x00\x07\x01");
        }
        let publish = b"\x32\x08\x00\x03a/b\x00\x09!";
        exchange(&mut publisher, publish, b"\x40\x02\x00\x09");
        for subscriber in [&mut one, &mut other] {
            exchange(subscriber, b"\x40\x02\x00\x09", publish);
            exchange(subscriber, b"\xC0\x00", b"\xD0\x00");
        }
    }

    #[test]
    fn neighbours_of_other_topics_and_packets_in_pieces_arrive_whole() {
        let address = start();
        let (mut a, mut b, mut publisher) = (connect(address), connect(address), connect(address));
        exchange(&mut a, b"\x82\x06\x00\x01\x00\x01a\x00", b"\x90\x03\x00\x01\x00");
        exchange(&mut b, b"\x82\x06\x00\x01\x00\x01b\x00", b"\x90\x03\x00\x01\x00");
        // Two for a, one that nobody wants, one for b, and the begin of one for a.
        publisher
            .write_all(b"\x30\x04\x00\x01a1\x30\x04\x00\x01a2\x30\x04\x00\x01c3\x30\x04\x00\x01b4\x30\x04\x00")
            .unwrap();
        expect(&mut b, b"\x30\x04\x00\x01b4");
        publisher.write_all(b"\x01a5").unwrap();
        expect(&mut a, b"\x30\x04\x00\x01a1\x30\x04\x00\x01a2\x30\x04\x00\x01a5");
    }

    #[test]
    fn what_no_relay_can_do_is_refused_and_who_left_gets_nothing() {
        let address = start();
        let (mut other, mut publisher) = (connect(address), connect(address));
        exchange(&mut other, b"\x82\x08\x00\x01\x00\x03a/+\x00", b"\x90\x03\x00\x01\x80");
        exchange(&mut other, b"\x82\x06\x00\x02\x00\x01a\x00", b"\x90\x03\x00\x02\x00");
        // QoS 2 ends the connection, which is told by the end of its bytes.
        other.write_all(b"\x34\x06\x00\x01a\x00\x01!").unwrap();
        assert_eq!(other.read(&mut [0; 8]).unwrap(), 0);
        exchange(&mut publisher, b"\x32\x06\x00\x01a\x00\x03!", b"\x40\x02\x00\x03");
    }

    #[test]
    fn what_a_socket_does_not_take_at_once_follows_in_order() {
        let address = start();
        let (mut slow, mut publisher) = (connect(address), connect(address));
        exchange(&mut slow, b"\x82\x06\x00\x01\x00\x01a\x00", b"\x90\x03\x00\x01\x00");
        // Together more than the sockets between hold, less than a relay keeps.
        for number in 0..100_u8 {
            let mut packet = b"\x30\x83\x80\x04\x00\x01a".to_vec();
            packet.resize(packet.len() + (64 << 10), number);
            publisher.write_all(&packet).unwrap();
        }
        for number in 0..100_u8 {
            let mut got = vec![0; 7 + (64 << 10)];
            slow.read_exact(&mut got).unwrap();
            assert!(got.starts_with(b"\x30\x83\x80\x04\x00\x01a"));
            assert!(got[7..].iter().all(|byte| *byte == number), "{number}");
        }
    }

    fn start() -> SocketAddr {
        let relay = Relay::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = relay.listener.local_addr().unwrap();
        // Until the process ends.
        thread::spawn(|| relay.run());
        address
    }

    fn connect(address: SocketAddr) -> Client {
        let mut client = Client::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        exchange(&mut client, b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01x", b"\x20\x02\x00\x00");
        client
    }

    fn exchange(client: &mut Client, packet: &[u8], answer: &[u8]) {
        client.write_all(packet).unwrap();
        expect(client, answer);
    }

    fn expect(client: &mut Client, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
    }
}
