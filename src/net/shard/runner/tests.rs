//! Turns of threads that the tests take themselves, on real sockets.

use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream as Pair},
    sync::Arc,
};

use bytes::Bytes;
use mio::{Interest, net::UnixStream};
use socket2::{Domain, Socket, Type};

use super::{
    super::watch::{Watched, token},
    *,
};
use crate::{
    broker::{ConnId, Envelope, Hooks, Message, Peer, Settings, Shared},
    clock::Clock,
    codec::TopicName,
    net::transport::{Stream, Transport},
    router::ShardId,
};

/// Two shards without threads, and client identifiers that are at home on the one and on the other.
fn shards(clock: &Clock) -> (Arc<Shards>, [Poll; 2], [Vec<String>; 2]) {
    let shared = Shared::new(Settings::default(), Hooks::default(), 2, 1, clock.now());
    let lodging = Lodging { saturated: 0, ..Lodging::default() };
    let (shards, polls) = Shards::new(&shared, None, None, 1, clock, None, lodging).unwrap();
    let (theirs, hosts) = (0..100).map(|number| format!("c{number}")).partition(|id| shared.home(id) == ShardId(1));
    (shards, polls.try_into().unwrap(), [hosts, theirs])
}

/// The host of both shards.
fn host(shards: &Shards, [host, lodger]: [Poll; 2]) -> Runner<'_> {
    let mut runner = Runner::new(shards, Seat::new(HOST, host));
    shards.lodgings.arrive(Seat::new(1, lodger)).unwrap();
    runner.turn(Some(Duration::ZERO));
    runner
}

/// A client whose socket keeps what was written at once apart.
struct Client {
    socket: Pair,
    home: usize,
    conn: ConnId,
}

impl Client {
    /// Accepted by a shard, which gives it to the one that it is at home on.
    fn connect(shards: &Shards, runner: &mut Runner<'_>, accepted_by: usize, (home, id): (usize, &str)) -> Self {
        let pair = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let [mut socket, theirs] = [pair.0, pair.1].map(|socket| {
            socket.set_nonblocking(true).unwrap();
            Pair::from(OwnedFd::from(socket))
        });
        let head = [0x10, 12 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, id.len() as u8];
        socket.write_all(&[&head, id.as_bytes()].concat()).unwrap();
        let transport = Transport::new(Stream::Unix(UnixStream::from_std(theirs)), None, None);
        let peer = Peer { address: "test".into(), listener: "test".into() };
        shards.send(accepted_by, Item::Accepted(Box::new((transport, peer))));
        runner.turn(Some(Duration::ZERO));
        let conn = shards.cells[home].state.lock().conns.iter().last().expect("it has come").conn;
        let mut client = Self { socket, home, conn };
        assert_eq!(client.received(), [0x20, 2, 0, 0]);
        client
    }

    fn ping(&mut self) {
        self.socket.write_all(&[0xC0, 0]).unwrap();
    }

    /// What was written to it at once.
    fn received(&mut self) -> Vec<u8> {
        let mut bytes = [0; 256];
        let len = self.socket.read(&mut bytes).unwrap_or_default();
        bytes[..len].to_vec()
    }

    fn watched(&self, shards: &Shards) -> Watched {
        shards.cells[self.home].state.lock().conns.get_mut(self.conn).expect("it is connected").watched
    }
}

const PINGRESP: [u8; 2] = [0xD0, 0];

#[test]
fn a_connection_is_told_of_where_its_shard_is_run_and_loses_nothing_on_the_way() {
    for accepted_by in [HOST, 1] {
        let clock = Clock::system();
        let (shards, polls, [_, ids]) = shards(&clock);
        let mut runner = host(&shards, polls);
        let mut client = Client::connect(&shards, &mut runner, accepted_by, (1, &ids[0]));
        assert_eq!(client.watched(&shards), Watched::AtHost);
        client.ping();
        runner.turn(Some(Duration::ZERO));
        assert_eq!(client.received(), PINGRESP, "one look at the host's source is enough");

        // To its own thread, where it is not told of yet; the host is, and passes that on.
        runner.give_back(0);
        let mut other = Runner::new(&shards, shards.cells[1].bed.sleep());
        client.ping();
        other.turn(Some(Duration::ZERO));
        assert_eq!((client.received(), client.watched(&shards)), (vec![], Watched::AtHost));
        runner.turn(Some(Duration::ZERO));
        other.turn(Some(Duration::ZERO));
        assert_eq!(client.watched(&shards), Watched::Here);
        other.turn(Some(Duration::ZERO));
        assert_eq!(client.received(), PINGRESP, "registered anew, it was told of anew");
        client.ping();
        other.turn(Some(Duration::ZERO));
        assert_eq!(client.received(), PINGRESP);

        // And back.
        shards.lodgings.arrive(other.own).unwrap();
        runner.turn(Some(Duration::ZERO));
        client.ping();
        runner.turn(Some(Duration::ZERO));
        assert_eq!((client.received(), client.watched(&shards)), (PINGRESP.to_vec(), Watched::AtHost));
        client.ping();
        runner.turn(Some(Duration::ZERO));
        assert_eq!(client.received(), PINGRESP);
    }
}

#[test]
fn what_clients_of_all_shards_of_a_thread_have_for_one_is_written_at_once() {
    for home in [HOST, 1] {
        let clock = Clock::system();
        let (shards, polls, ids) = shards(&clock);
        let mut runner = host(&shards, polls);
        let mut subscriber = Client::connect(&shards, &mut runner, HOST, (home, &ids[home][0]));
        subscriber.socket.write_all(&[0x82, 6, 0, 1, 0, 1, b'a', 0]).unwrap();
        runner.turn(Some(Duration::ZERO));
        assert_eq!(subscriber.received(), [0x90, 3, 0, 1, 0]);
        let mut publishers = [HOST, 1].map(|at| Client::connect(&shards, &mut runner, HOST, (at, &ids[at][1])));
        for (publisher, payload) in publishers.iter_mut().zip(*b"xy") {
            publisher.socket.write_all(&[0x30, 4, 0, 1, b'a', payload]).unwrap();
        }
        runner.turn(Some(Duration::ZERO));
        let (mut once, again) = (subscriber.received(), subscriber.received());
        once.sort_unstable();
        let mut both = [[0x30, 4, 0, 1, b'a', b'x'], [0x30, 4, 0, 1, b'a', b'y']].concat();
        both.sort_unstable();
        assert_eq!((once, again), (both, vec![]));
    }
}

#[test]
fn what_a_shard_that_fails_was_brought_goes_to_no_other() {
    let clock = Clock::system();
    let (shards, _, _) = shards(&clock);
    shards.cells[1].inbox.push(Item::Command(Box::new(|_, _| panic!("a test"))));
    let message = Arc::new(Message::new(TopicName::new("a").unwrap(), Bytes::new()));
    let mut batch = vec![Envelope::Publish(message)];
    assert!(!shards.visit(1, &mut batch));
    assert_eq!(batch.len(), 1, "it takes the way to other threads, where the end of the shard is known");
    assert!(shards.cells[1].was_visited.load(Ordering::Relaxed), "it has the turn in which it ends");
    assert!(shards.cells[1].state.lock().is_finished(&shards, clock.now()));
}

#[test]
fn what_a_host_was_told_and_has_not_passed_on_is_told_again() {
    let clock = Clock::system();
    let (shards, polls, [_, ids]) = shards(&clock);
    let mut runner = host(&shards, polls);
    let mut client = Client::connect(&shards, &mut runner, 1, (1, &ids[0]));
    client.ping();
    runner.own.poll(Some(Duration::ZERO));
    runner.note_events();
    runner.give_back(0);
    let mut other = Runner::new(&shards, shards.cells[1].bed.sleep());
    other.turn(Some(Duration::ZERO));
    other.turn(Some(Duration::ZERO));
    assert_eq!(client.received(), PINGRESP);
}

#[test]
fn connections_outlive_the_host_that_was_told_of_them() {
    let clock = Clock::system();
    let (shards, polls, [_, ids]) = shards(&clock);
    let mut runner = host(&shards, polls);
    let mut client = Client::connect(&shards, &mut runner, 1, (1, &ids[0]));
    drop(runner);
    shards.lodgings.end(&shards);
    let mut other = Runner::new(&shards, shards.cells[1].bed.sleep());
    other.turn(Some(Duration::ZERO));
    assert_eq!(client.watched(&shards), Watched::Here);
    client.ping();
    other.turn(Some(Duration::ZERO));
    assert_eq!(client.received(), PINGRESP);
}

/// What a full poll has left is the host's to look for. Once the shard had been given back, its own thread went on
/// looking for it for ever.
#[test]
fn a_shard_that_is_given_back_amid_many_events_sleeps_when_they_are_done() {
    let clock = Clock::system();
    let (shards, polls, _) = shards(&clock);
    // Sockets of nobody, so that each is one event and nothing else.
    let pairs: Vec<_> = (0..EVENTS_MAX)
        .map(|index| {
            let (mut ours, theirs) = Pair::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            let mut theirs = UnixStream::from_std(theirs);
            polls[1].registry().register(&mut theirs, token(1, index), Interest::READABLE).unwrap();
            ours.write_all(b"!").unwrap();
            (ours, theirs)
        })
        .collect();
    let mut runner = host(&shards, polls);
    assert_eq!(runner.park(shards.now()), Some(Duration::ZERO), "it looks for more, since its poll was full");
    runner.give_back(0);

    let mut runner = Runner::new(&shards, shards.cells[1].bed.sleep());
    runner.turn(Some(Duration::ZERO));
    assert_ne!(runner.park(shards.now()), Some(Duration::ZERO), "there is nothing left to do");
    drop(pairs);
}
