//! Connections: two streams of bytes that are split anywhere, take their time, and break.

use std::io::IoSlice;

use bytes::BytesMut;
use ferromq::broker::{ConnId, Peer, TransportEnd};

use crate::world::{Event, World};

/// One connection between a client and the broker.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: usize,
    /// The life of the client that opened it.
    pub(crate) life: u32,
    /// The broker has accepted its CONNECT.
    pub(crate) is_accepted: bool,
    pub(crate) shard: usize,
    /// The shard that accepted it, and its name there.
    pub(crate) first: (usize, ConnId),
    /// Its name at the shard; none while it moves to another, or when the broker is done with it.
    pub(crate) conn: Option<ConnId>,
    /// Arrived at the broker and not read yet.
    inbound: Vec<u8>,
    /// Arrived at the client and no whole packet yet.
    pub(crate) tail: BytesMut,
    /// When the last chunk in each direction arrives: later ones do not overtake it.
    up_last_us: u64,
    down_last_us: u64,
    /// Bytes under way to the client; the transport takes no more than `WINDOW_BYTES`.
    under_way: usize,
    /// Nothing more travels.
    pub(crate) is_cut: bool,
    up_lost: bool,
    down_lost: bool,
    pub(crate) client_knows: bool,
    pub(crate) broker_knows: bool,
    /// The client sent DISCONNECT as its last packet.
    pub(crate) said_goodbye: bool,
}

impl World {
    /// A client opens a connection, at a listener of some shard.
    pub(crate) fn open_link(&mut self, client: usize) -> usize {
        let shard = self.rng.below(self.shards.len());
        let index = self.links.len();
        let peer = Peer { address: format!("sim:{index}").into(), listener: "sim://".into() };
        let now = self.now();
        let conn = self.shards[shard].open(now, peer);
        self.by_conn.insert((shard, conn), index);
        self.wake(shard);
        self.links.push(Link {
            client,
            life: self.actors[client].life,
            is_accepted: false,
            shard,
            first: (shard, conn),
            conn: Some(conn),
            inbound: Vec::new(),
            tail: BytesMut::new(),
            up_last_us: 0,
            down_last_us: 0,
            under_way: 0,
            is_cut: false,
            up_lost: false,
            down_lost: false,
            client_knows: false,
            broker_knows: false,
            said_goodbye: false,
        });
        index
    }

    /// The client's bytes set out.
    pub(crate) fn send_up(&mut self, link: usize, bytes: &[u8]) {
        if self.links[link].is_cut || bytes.is_empty() {
            return;
        }
        let mut at = 0;
        while at < bytes.len() {
            let len = self.chunk(bytes.len() - at);
            let arrival = self.arrival(self.links[link].up_last_us);
            self.links[link].up_last_us = arrival;
            self.schedule_at(arrival, Event::ToBroker { link, bytes: bytes[at..at + len].to_vec() });
            at += len;
        }
    }

    /// Bytes reach the broker.
    pub(crate) fn arrive_up(&mut self, link: usize, bytes: &[u8]) {
        let state = &mut self.links[link];
        if state.up_lost || state.broker_knows {
            return;
        }
        state.inbound.extend_from_slice(bytes);
        self.feed(link);
    }

    /// The broker reads what has arrived, if it wants to.
    pub(crate) fn feed(&mut self, link: usize) {
        let now = self.now();
        let state = &mut self.links[link];
        let (Some(conn), false) = (state.conn, state.inbound.is_empty()) else { return };
        let shard = state.shard;
        if !self.shards[shard].wants_read(conn) {
            return;
        }
        let bytes = std::mem::take(&mut state.inbound);
        self.shards[shard].receive(now, conn, &bytes);
        self.wake(shard);
    }

    /// Takes from the outbox what the transport takes now.
    pub(crate) fn flush(&mut self, link: usize, is_last: bool) {
        let now = self.now();
        let (shard, Some(conn)) = (self.links[link].shard, self.links[link].conn) else { return };
        loop {
            let room = if is_last { usize::MAX } else { WINDOW_BYTES.saturating_sub(self.links[link].under_way) };
            let chunk = self.chunk(room);
            let Some(outbox) = self.shards[shard].outbox(conn).filter(|outbox| !outbox.is_empty()) else { break };
            let mut slices = [IoSlice::new(&[]); 8];
            let count = outbox.io_slices(&mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(chunk).collect();
            outbox.advance(bytes.len());
            self.shards[shard].flushed(now, conn, bytes.len());
            if bytes.is_empty() {
                break;
            }
            self.send_down(link, bytes);
        }
    }

    fn send_down(&mut self, link: usize, bytes: Vec<u8>) {
        if self.links[link].is_cut {
            // Nobody takes them off the connection any more.
            self.links[link].under_way += bytes.len();
            return;
        }
        let arrival = self.arrival(self.links[link].down_last_us);
        let state = &mut self.links[link];
        state.under_way += bytes.len();
        state.down_last_us = arrival;
        self.schedule_at(arrival, Event::ToClient { link, bytes });
    }

    /// Bytes reach the client: whether it is to be given them.
    pub(crate) fn arrive_down(&mut self, link: usize, bytes: &[u8]) -> bool {
        let state = &mut self.links[link];
        let was_full = state.under_way >= WINDOW_BYTES;
        state.under_way -= bytes.len();
        let is_lost = state.down_lost || state.client_knows;
        if was_full && !state.is_cut && state.conn.is_some() {
            self.flush(link, false);
        }
        !is_lost
    }

    /// The connection breaks. Either end learns of it in its own time; what is under way may or may not arrive.
    pub(crate) fn cut(&mut self, link: usize) {
        if self.links[link].is_cut {
            return;
        }
        let (up_lost, down_lost) = (self.rng.chance(50), self.rng.chance(50));
        let state = &mut self.links[link];
        (state.is_cut, state.up_lost, state.down_lost) = (true, up_lost, down_lost);
        let (up, down) = (state.up_last_us, state.down_last_us);
        let client_learns = self.after_up_to(2_000).max(down);
        let broker_learns = self.after_up_to(4_000).max(up);
        self.schedule_at(client_learns, Event::ClientLearns { link });
        self.schedule_at(broker_learns, Event::BrokerLearns { link, end: TransportEnd::Error });
    }

    /// The client closes the connection: the broker learns of it after all that was sent.
    pub(crate) fn close_from_client(&mut self, link: usize) {
        let state = &mut self.links[link];
        state.client_knows = true;
        if !state.is_cut {
            state.is_cut = true;
            let arrival = self.arrival(self.links[link].up_last_us);
            self.schedule_at(arrival, Event::BrokerLearns { link, end: TransportEnd::Closed });
        }
    }

    /// The broker closes the connection: what is in the outbox goes out, then the client learns of it.
    pub(crate) fn close_from_broker(&mut self, link: usize) {
        self.flush(link, true);
        self.broker_is_done(link, TransportEnd::Closed);
        let state = &mut self.links[link];
        if !state.client_knows {
            state.is_cut = true;
            let arrival = self.arrival(self.links[link].down_last_us);
            self.schedule_at(arrival, Event::ClientLearns { link });
        }
    }

    /// The broker learns that the connection is gone.
    pub(crate) fn broker_is_done(&mut self, link: usize, end: TransportEnd) {
        let now = self.now();
        let state = &mut self.links[link];
        state.broker_knows = true;
        if let Some(conn) = state.conn.take() {
            let shard = state.shard;
            self.by_conn.remove(&(shard, conn));
            self.shards[shard].closed(now, conn, end);
            self.wake(shard);
        }
    }

    /// The connection has arrived at its home shard, or broke on the way there.
    pub(crate) fn moved(&mut self, link: usize, shard: usize, conn: ConnId) {
        let state = &mut self.links[link];
        (state.shard, state.conn) = (shard, Some(conn));
        self.by_conn.insert((shard, conn), link);
        self.wake(shard);
        if self.links[link].broker_knows {
            self.broker_is_done(link, TransportEnd::Error);
        } else {
            self.feed(link);
        }
    }

    fn chunk(&mut self, most: usize) -> usize {
        if most == 0 { 0 } else { (1 + self.rng.below(self.plan.chunk_bytes_max)).min(most) }
    }

    fn arrival(&mut self, last_us: u64) -> u64 {
        let delay = self.rng.between(0, self.plan.delay_us_max);
        (self.now_us + delay).max(last_us)
    }
}

/// What a transport takes before it blocks.
const WINDOW_BYTES: usize = 2_000;
