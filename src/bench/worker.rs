//! One thread of the load: its share of the clients on one readiness loop.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, Release},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use foldhash::fast::FixedState;
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use super::{Board, Histogram, PAYLOAD_BYTES_MIN, Phase, Plan, nap, tracker::Tracker};
use crate::{
    codec::{Properties, Subscription, SubscriptionOptions, Text, TopicFilter, Version},
    session::{
        QueueLimits,
        client::{ClientSession, Event, Message, Outgoing, Payload, SessionOptions, SubscribeRequest},
    },
};

/// A thread's clients and what it has seen.
pub(super) struct Worker {
    board: Arc<Board>,
    index: usize,
    poll: Poll,
    address: SocketAddr,
    clients: Vec<Client>,
    /// Where the publishers are among them: opened last, they stand in a row.
    publishers: Range<usize>,
    /// Topics that each publisher picks from.
    topics: u32,
    /// With a rate: when each publisher is due next, ns.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// When the slow ones read again, ns.
    slow_ns: u64,
    /// Clients to be read again, since a read did not empty them.
    unread: Vec<usize>,
    /// Connections yet to be opened, last first.
    planned: Vec<Role>,
    /// Opened, and CONNACK or SUBACK has not come.
    opening: usize,
    /// Where a read goes; what came is copied out, which costs less than clearing it for each.
    room: Box<[u8]>,
    buffer: BytesMut,
    payload: Vec<u8>,
    properties: Properties,
    /// Threads whose publishers may go on.
    news: Vec<bool>,
    result: Outcome,
}

/// What a thread has seen.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) latency: Histogram,
    pub(super) published: u64,
    pub(super) published_in_all: u64,
    pub(super) received: u64,
    pub(super) received_in_all: u64,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
    pub(super) stalls: u64,
}

/// What a client is there for.
#[derive(Debug, Clone, Copy)]
enum Role {
    Publisher(u32),
    Subscriber(u32),
    /// Subscribes as the subscriber of this number does, and never reads.
    Stalled(u32),
    /// The same, and reads a little now and then.
    Slow(u32),
}

impl Role {
    /// Whether it is expected to fall behind.
    fn lags(self) -> bool {
        matches!(self, Self::Stalled(_) | Self::Slow(_))
    }
}

struct Client {
    name: String,
    role: Role,
    stream: TcpStream,
    session: ClientSession,
    tail: BytesMut,
    out: Vec<u8>,
    out_at: usize,
    is_full: bool,
    is_ready: bool,
    is_lost: bool,
    /// SUBACKs to come.
    unanswered: u32,
    topic: String,
    /// State of the generator that picks topics.
    random: u32,
    number: u32,
    /// Without a rate: messages given up because nothing came out any more.
    forgiven: u32,
    moved_ns: u64,
    came_out: u32,
    streams: HashMap<u32, Tracker, FixedState>,
}

impl Worker {
    pub(super) fn new(board: Arc<Board>, index: usize, poll: Poll, address: SocketAddr) -> Self {
        let plan = &board.plan;
        let threads = board.wakers.len();
        let is_ours = |at: &u32| *at as usize % threads == index;
        // Opened from the end: subscribers first.
        let publishers = (0..plan.publishers).filter(is_ours).map(Role::Publisher);
        let planned = publishers
            .chain((0..plan.subscribers).filter(is_ours).map(Role::Subscriber))
            .chain((0..plan.stalled).filter(is_ours).map(Role::Stalled))
            .chain((0..plan.slow).filter(is_ours).map(Role::Slow))
            .collect();
        Self {
            poll,
            address,
            clients: Vec::new(),
            publishers: 0..0,
            topics: plan.topics(),
            due: BinaryHeap::new(),
            slow_ns: 0,
            unread: Vec::new(),
            planned,
            opening: 0,
            room: vec![0; READ_BYTES].into(),
            buffer: BytesMut::new(),
            payload: vec![b'.'; plan.payload_bytes],
            properties: Properties::new(),
            news: vec![false; threads],
            result: Outcome::default(),
            index,
            board,
        }
    }

    /// Plays the clients until the run is over.
    pub(super) fn run(mut self) -> Outcome {
        let mut events = Events::with_capacity(1024);
        let mut phase = Phase::Connecting;
        nap::be_punctual();
        loop {
            let now = self.board.phase();
            if now >= Phase::Running && phase < Phase::Running {
                self.begin();
            }
            if now >= Phase::Draining && phase < Phase::Draining {
                self.board.publishing.fetch_sub(1, Release);
            }
            phase = now;
            match phase {
                Phase::Connecting => self.open_some(),
                Phase::Running => self.publish(),
                // What should have gone before the end goes late, but goes.
                Phase::Draining => self.publish_due(),
                Phase::Over => break,
            }
            self.read_slow();
            self.spread_news();
            let timeout = self.timeout(phase);
            if let Err(error) = nap::poll(&mut self.poll, &mut events, timeout)
                && error.kind() != ErrorKind::Interrupted
            {
                self.board.fail("the load", error.to_string());
                break;
            }
            for at in std::mem::take(&mut self.unread) {
                self.read(at);
            }
            for event in &events {
                let at = event.token().0;
                if event.token() == WAKER {
                    continue;
                }
                if event.is_writable() {
                    self.clients[at].is_full = false;
                    self.flush(at);
                }
                if event.is_readable() {
                    self.read(at);
                }
            }
        }
        self.finish()
    }

    /// Opens connections, a few at a time: what is measured is not how many a listener can hold back.
    fn open_some(&mut self) {
        while self.opening < OPENING_MAX
            && let Some(role) = self.planned.pop()
        {
            match self.open(role) {
                Ok(at) => {
                    self.opening += 1;
                    self.flush(at);
                }
                Err(why) => return self.board.fail(&name(&self.board.plan, role), why),
            }
        }
    }

    fn open(&mut self, role: Role) -> Result<usize, String> {
        let plan = &self.board.plan;
        let mut stream = TcpStream::connect(self.address).map_err(|error| error.to_string())?;
        // Else the system keeps a small packet back until the one before it is acknowledged: up to 40 ms.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let at = self.clients.len();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut stream, Token(at), interest);
        registered.map_err(|error| error.to_string())?;
        let now = Instant::now();
        let name = name(plan, role);
        let mut session = ClientSession::new(options(plan, &name), None, now);
        session.connect(now).map_err(|error| error.to_string())?;
        let mut topic = String::new();
        let unanswered = match role {
            Role::Publisher(number) => {
                plan.topic(number, 0, &mut topic);
                0
            }
            Role::Subscriber(number) => subscribe(plan, number, &mut session)?,
            Role::Stalled(number) | Role::Slow(number) => {
                // What the system takes for it is not the broker's memory, and would put off what is to be seen.
                socket2::SockRef::from(&stream).set_recv_buffer_size(SLOW_BYTES).map_err(|error| error.to_string())?;
                subscribe(plan, number % plan.subscribers, &mut session)?
            }
        };
        self.clients.push(Client {
            name,
            role,
            stream,
            session,
            tail: BytesMut::new(),
            out: Vec::new(),
            out_at: 0,
            // Until the connection is made.
            is_full: true,
            is_ready: false,
            is_lost: false,
            unanswered,
            topic,
            random: at as u32 + 1,
            number: 0,
            forgiven: 0,
            moved_ns: 0,
            came_out: 0,
            streams: HashMap::default(),
        });
        Ok(at)
    }

    /// The load begins: who publishes by the clock gets the first time.
    #[allow(clippy::cast_sign_loss)] // times after the start
    fn begin(&mut self) {
        let (start, plan) = (self.board.start_ns.load(Relaxed), &self.board.plan);
        let is_publisher = |client: &Client| matches!(client.role, Role::Publisher(_));
        self.publishers = self.clients.iter().position(is_publisher).unwrap_or(self.clients.len())..self.clients.len();
        for (at, client) in self.clients.iter_mut().enumerate() {
            let Role::Publisher(number) = client.role else { continue };
            client.moved_ns = start;
            if let Some(rate) = plan.rate {
                let offset = f64::from(number) / rate * 1e9;
                self.due.push(Reverse((start + offset as u64, at)));
                self.board.publishing.fetch_add(1, Relaxed);
            }
        }
    }

    fn publish(&mut self) {
        if self.board.plan.rate.is_some() {
            return self.publish_due();
        }
        self.board.news[self.index].store(false, Relaxed);
        let (window, copies) = (self.board.plan.window, self.board.plan.copies() as u32);
        let now = self.board.now_ns();
        let begun = Instant::now();
        for at in self.publishers.clone() {
            let Role::Publisher(number) = self.clients[at].role else { continue };
            let came_out = self.board.came_out[number as usize].load(Relaxed);
            let client = &mut self.clients[at];
            let done = (came_out / copies).wrapping_add(client.forgiven);
            let room = window.saturating_sub(client.number.wrapping_sub(done));
            if came_out != client.came_out {
                client.came_out = came_out;
                client.moved_ns = 0;
            }
            if room > 0 {
                for _ in 0..room {
                    if !self.send(at, now, begun) {
                        break;
                    }
                }
                self.flush(at);
            } else if client.moved_ns == 0 {
                client.moved_ns = now;
            } else if now.saturating_sub(client.moved_ns) > STALL_NS {
                // What has not come out by now is lost, or as good as that: the publisher goes on.
                client.forgiven = client.number.wrapping_sub(came_out / copies);
                client.moved_ns = 0;
                self.result.stalls += 1;
            }
        }
    }

    #[allow(clippy::cast_sign_loss)] // times after the start
    fn publish_due(&mut self) {
        let (now, plan) = (self.board.now_ns(), &self.board.plan);
        let Some(rate) = plan.rate else { return };
        let interval = f64::from(plan.publishers) / rate * 1e9;
        let until = self.board.until_ns.load(Relaxed);
        let start = self.board.start_ns.load(Relaxed);
        let begun = Instant::now();
        while let Some(Reverse((due, at))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            if due >= until {
                self.board.publishing.fetch_sub(1, Release);
                continue;
            }
            let Role::Publisher(number) = self.clients[at].role else { continue };
            // What waits for the socket is bounded; the time it should have gone stays what it was.
            if self.clients[at].out.len() - self.clients[at].out_at > UNSENT_BYTES_MAX || !self.send(at, due, begun) {
                self.due.push(Reverse((due, at)));
                break;
            }
            let next = (f64::from(number) / rate).mul_add(1e9, f64::from(self.clients[at].number) * interval);
            self.due.push(Reverse((start + next as u64, at)));
            self.flush(at);
        }
    }

    /// Publishes one message that should go at `due`; whether that was possible.
    fn send(&mut self, at: usize, due: u64, now: Instant) -> bool {
        let client = &mut self.clients[at];
        let Role::Publisher(publisher) = client.role else { return false };
        if client.is_lost || client.out.len() - client.out_at > UNSENT_BYTES_MAX {
            return false;
        }
        self.payload[..4].copy_from_slice(&publisher.to_be_bytes());
        self.payload[4..8].copy_from_slice(&client.number.to_be_bytes());
        self.payload[8..16].copy_from_slice(&due.to_be_bytes());
        if self.topics > 1 {
            client.random = next(client.random);
            let pick = (u64::from(client.random) * u64::from(self.topics)) >> u32::BITS;
            self.board.plan.topic(publisher, pick as u32, &mut client.topic);
        }
        let message = Outgoing {
            topic: &client.topic,
            payload: Payload::Borrowed(&self.payload),
            qos: self.board.plan.qos,
            retain: false,
            properties: &self.properties,
        };
        if client.session.publish(now, &message, 1).is_err() {
            return false;
        }
        client.number += 1;
        self.result.published_in_all += 1;
        let is_measured = due >= self.board.from_ns.load(Relaxed) && due < self.board.until_ns.load(Relaxed);
        self.result.published += u64::from(is_measured);
        self.board.published.fetch_add(1, Relaxed);
        true
    }

    fn read(&mut self, at: usize) {
        let board = Arc::clone(&self.board);
        for _ in 0..READS_MAX {
            let client = &mut self.clients[at];
            if client.is_lost || (client.is_ready && client.role.lags()) {
                return;
            }
            match client.stream.read(&mut self.room) {
                Ok(0) => return self.lose(at, "the broker closed the connection"),
                Ok(count) => {
                    self.buffer.reserve(client.tail.len() + count);
                    self.buffer.extend_from_slice(&client.tail);
                    self.buffer.extend_from_slice(&self.room[..count]);
                    let input = self.buffer.split().freeze();
                    self.take(at, &board, &input);
                    if count < READ_BYTES {
                        return self.flush(at);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.flush(at),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.lose(at, &error.to_string()),
            }
        }
        self.unread.push(at);
        self.flush(at);
    }

    /// Has the slow ones read what they read at a time.
    fn read_slow(&mut self) {
        let now = self.board.now_ns();
        if self.board.plan.slow == 0 || now < self.slow_ns {
            return;
        }
        self.slow_ns = now + SLOW_NS;
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if !matches!(client.role, Role::Slow(_)) || !client.is_ready || client.is_lost {
                continue;
            }
            let mut input = BytesMut::zeroed(client.tail.len() + SLOW_BYTES);
            let (kept, room) = input.split_at_mut(client.tail.len());
            kept.copy_from_slice(&client.tail);
            match client.stream.read(room) {
                Ok(0) => self.lose(at, "the broker closed the connection"),
                Ok(count) => {
                    input.truncate(client.tail.len() + count);
                    let input = input.freeze();
                    let used = client.session.handle_bytes_to(Instant::now(), &input, |_| None);
                    client.tail.clear();
                    client.tail.extend_from_slice(&input[used..]);
                    while client.session.poll_event().is_some() {}
                    self.flush(at);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => self.lose(at, &error.to_string()),
            }
        }
    }

    /// What a read brought.
    fn take(&mut self, at: usize, board: &Board, input: &Bytes) {
        let now = Instant::now();
        let now_ns = board.now_ns();
        let mut seen = Seen { board, now_ns, result: &mut self.result, news: &mut self.news, count: 0 };
        let Client { session, streams, tail, .. } = &mut self.clients[at];
        let used = session.handle_bytes_to(now, input, |message| {
            seen.message(streams, &message);
            None
        });
        let count = seen.count;
        board.received.fetch_add(count, Relaxed);
        tail.clear();
        tail.extend_from_slice(&input[used..]);
        while let Some(event) = self.clients[at].session.poll_event() {
            self.told(at, event);
        }
    }

    fn told(&mut self, at: usize, event: Event) {
        let client = &mut self.clients[at];
        let is_ready = match (event, client.role) {
            (Event::Connected(_), Role::Publisher(_)) => true,
            (Event::Subscribed(_, Ok(reply)), _) => match reply.reasons.first() {
                Some(reason) if reason.is_error() => {
                    return self.board.fail(&client.name, format!("the subscription was refused: {reason}"));
                }
                _ => {
                    client.unanswered -= 1;
                    client.unanswered == 0
                }
            },
            (Event::Subscribed(_, Err(error)), _) => return self.board.fail(&client.name, error.to_string()),
            (Event::Closed(reason), _) => return self.lose(at, &reason.to_string()),
            _ => false,
        };
        if is_ready && !client.is_ready {
            client.is_ready = true;
            self.opening -= 1;
            self.board.ready.fetch_add(1, Relaxed);
        }
    }

    fn flush(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.is_lost {
            return;
        }
        client.session.take_output(Instant::now(), &mut client.out);
        while client.out_at < client.out.len() && !client.is_full {
            match client.stream.write(&client.out[client.out_at..]) {
                Ok(count) => client.out_at += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    client.is_full = true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.lose(at, &error.to_string()),
            }
        }
        if client.out_at == client.out.len() {
            client.out.clear();
            client.out_at = 0;
        }
    }

    fn lose(&mut self, at: usize, why: &str) {
        let client = &mut self.clients[at];
        if std::mem::replace(&mut client.is_lost, true) {
            return;
        }
        if client.is_ready {
            let lost = if client.role.lags() { &self.board.laggards_lost } else { &self.board.lost };
            lost.fetch_add(1, Relaxed);
        } else {
            self.board.fail(&client.name, why.to_owned());
        }
        // A socket that cannot be taken off the poll is closed with its client anyhow.
        let _ = self.poll.registry().deregister(&mut client.stream);
    }

    /// Wakes the threads whose publishers have got room.
    fn spread_news(&mut self) {
        for thread in 0..self.news.len() {
            if std::mem::take(&mut self.news[thread])
                && thread != self.index
                && !self.board.news[thread].swap(true, Relaxed)
            {
                // As in `Board::enter`.
                let _ = self.board.wakers[thread].wake();
            }
        }
    }

    fn timeout(&self, phase: Phase) -> Duration {
        if !self.unread.is_empty() || (phase == Phase::Connecting && !self.planned.is_empty() && self.opening == 0) {
            return Duration::ZERO;
        }
        let longest = Duration::from_millis(100);
        let Some(Reverse((due, _))) = self.due.peek().filter(|_| phase >= Phase::Running) else { return longest };
        Duration::from_nanos(due.saturating_sub(self.board.now_ns())).min(longest)
    }

    fn finish(mut self) -> Outcome {
        for client in &mut self.clients {
            for stream in client.streams.values() {
                self.result.received_in_all += stream.received();
                self.result.duplicates += stream.duplicates();
                self.result.out_of_order += stream.late();
            }
        }
        self.result
    }
}

/// Where the messages of one read are counted.
struct Seen<'a> {
    board: &'a Board,
    now_ns: u64,
    result: &'a mut Outcome,
    news: &'a mut [bool],
    count: u64,
}

impl Seen<'_> {
    fn message(&mut self, streams: &mut HashMap<u32, Tracker, FixedState>, message: &Message) {
        let Some((publisher, number, due)) = read(message.payload()) else { return };
        let Some(came_out) = self.board.came_out.get(publisher as usize) else { return };
        self.count += 1;
        if self.board.plan.layout.is_spread() {
            self.board.groups.lock().entry(publisher).or_default().record(number);
        } else {
            streams.entry(publisher).or_default().record(number);
        }
        came_out.fetch_add(1, Relaxed);
        let threads = self.news.len();
        self.news[publisher as usize % threads] = true;
        let (from, until) = (self.board.from_ns.load(Relaxed), self.board.until_ns.load(Relaxed));
        if due >= from && due < until {
            self.result.latency.record(self.now_ns.saturating_sub(due));
        }
        self.result.received += u64::from(self.now_ns >= from && self.now_ns < until);
    }
}

fn read(payload: &[u8]) -> Option<(u32, u32, u64)> {
    let (publisher, rest) = payload.get(..PAYLOAD_BYTES_MIN)?.split_first_chunk::<4>()?;
    let (number, due) = rest.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*publisher), u32::from_be_bytes(*number), u64::from_be_bytes(*due.first_chunk::<8>()?)))
}

/// The client identifier.
fn name(plan: &Plan, role: Role) -> String {
    let at = match role {
        Role::Publisher(number) => Some(number),
        Role::Subscriber(number) => Some(plan.publishers + number),
        Role::Stalled(_) | Role::Slow(_) => None,
    };
    if let Some(name) = at.and_then(|at| plan.clients.get(at as usize)) {
        return name.to_string();
    }
    match role {
        Role::Publisher(number) => format!("bench-{:08x}-p{number}", plan.run),
        Role::Subscriber(number) => format!("bench-{:08x}-s{number}", plan.run),
        Role::Stalled(number) => format!("bench-{:08x}-stalled{number}", plan.run),
        Role::Slow(number) => format!("bench-{:08x}-slow{number}", plan.run),
    }
}

/// Asks for all filters of a subscriber; in how many packets.
fn subscribe(plan: &Plan, subscriber: u32, session: &mut ClientSession) -> Result<u32, String> {
    let mut packets = 0;
    let mut at = 0;
    while at < plan.filters_each() {
        let until = plan.filters_each().min(at + FILTERS_OF_PACKET);
        let mut request = SubscribeRequest::default();
        for at in at..until {
            let filter = TopicFilter::new(&plan.filter(subscriber, at)).map_err(|error| error.to_string())?;
            request.subscriptions.push(Subscription { filter, options: SubscriptionOptions::new(plan.qos) });
        }
        session.subscribe(request, 0).map_err(|error| error.to_string())?;
        (at, packets) = (until, packets + 1);
    }
    Ok(packets)
}

/// The next state of a generator (xorshift); never 0 after a state that is not.
fn next(mut state: u32) -> u32 {
    state ^= state << 13;
    state ^= state >> 17;
    state ^ (state << 5)
}

fn options(plan: &Plan, name: &str) -> SessionOptions {
    let (username, password) = plan.credentials.clone().unzip();
    SessionOptions {
        version: plan.version,
        client_id: Text::try_from(name).unwrap_or_default(),
        keep_alive: 0,
        username,
        password: password.flatten(),
        topic_alias_maximum: if plan.version == Version::V5 { 16 } else { 0 },
        queue: QueueLimits { messages_max: UNSENT_MESSAGES_MAX, bytes_max: UNSENT_BYTES_MAX, drop_oldest: false },
        ..SessionOptions::default()
    }
}

/// The token of what wakes a thread.
pub(super) const WAKER: Token = Token(usize::MAX);

/// Filters in one SUBSCRIBE; every broker takes so many.
const FILTERS_OF_PACKET: u32 = 50;

/// Connections of a thread that are being opened at a time.
const OPENING_MAX: usize = 64;

/// Read at once, and times in a row before others have their turn.
const READ_BYTES: usize = 256 << 10;
const READS_MAX: usize = 4;

/// What a slow subscriber reads at a time, and how often.
const SLOW_BYTES: usize = 4 << 10;
const SLOW_NS: u64 = 100_000_000;

/// What waits in one client for the socket, or for acknowledgements.
const UNSENT_BYTES_MAX: usize = 4 << 20;
const UNSENT_MESSAGES_MAX: usize = 100_000;

/// Without a rate: how long nothing comes out before what is under way is given up.
const STALL_NS: u64 = 1_000_000_000;
