//! Starting and stopping: errors that say what to do, goodbyes that arrive, nothing left behind.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used)] // clippy.toml allows it in test functions, these are their helpers

mod net_support;

use std::{
    collections::HashMap,
    fmt, fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use ferromq::{
    auth::{Access, Authorizer, ConnectInfo, Permit},
    broker::Hooks,
    codec::{Packet, QoS, ReasonCode, Version},
    net::listener::BindError,
    server::{Broker, StartError},
    store::{CommitListener, Contents, LogId, MemoryStore, Record, Store, StoreError, Ticket},
};
use net_support::{Client, Options, broker, tcp, url};

#[test]
fn shutdown_publishes_wills_to_all_subscribers_and_then_tells_version_5_why() {
    for shards in [1, 2, 4] {
        let (broker, url) = broker(|builder| builder.shards(shards));
        let handle = broker.handle();
        let mut modern: Vec<_> = (0..8).map(|n| Client::connect(&url, &format!("modern-{n}"))).collect();
        let old = Options { version: Version::V3_1_1, ..Options::default() };
        let mut older: Vec<_> = (0..8).map(|n| Client::connect_with(&url, &format!("old-{n}"), &old)).collect();
        for client in modern.iter_mut().chain(&mut older) {
            client.subscribe("last/+", QoS::AtMostOnce);
        }
        let willing = Options { will: Some(("last/words", "goodbye")), ..Options::default() };
        let mut testator = Client::connect_with(&url, "testator", &willing);
        let mut half_open = tcp(net_support::address(&url));
        broker.shutdown();
        for client in &mut modern {
            match &client.recv_end()[..] {
                [Packet::Publish(will), Packet::Disconnect(last)] => {
                    assert_eq!((&will.payload[..], last.reason), (&b"goodbye"[..], ReasonCode::ServerShuttingDown));
                }
                other => panic!("{other:?}"),
            }
        }
        for client in &mut older {
            let packets = client.recv_end();
            assert!(matches!(&packets[..], [Packet::Publish(_)]), "{packets:?}");
        }
        testator.recv_end();
        assert!(matches!(std::io::Read::read(&mut half_open, &mut [0]), Ok(0) | Err(_)));
        let will = handle.retained("last/words", 1);
        assert_eq!(will[0].payload(), b"goodbye");
        assert_eq!(handle.stats().clients_connected, 0);
        assert!(Client::raw_connect_fails(&url), "nobody listens any more");
    }
}

#[test]
fn shutdown_sends_what_is_unsent_as_long_as_it_may() {
    let (broker, url) = broker(|builder| builder);
    let mut reader = Client::connect(&url, "reader");
    reader.subscribe("big", QoS::AtMostOnce);
    let mut publisher = Client::connect(&url, "publisher");
    // More than the sockets between them hold.
    let packet = publisher.publish_packet("big", vec![9; 12 << 20], QoS::AtMostOnce);
    publisher.send(&packet);
    publisher.ping();
    let reading = std::thread::spawn(move || {
        let publish = reader.recv_publish();
        (publish.payload.len(), reader.recv_end())
    });
    broker.shutdown();
    let (len, rest) = reading.join().unwrap();
    assert_eq!(len, 12 << 20);
    assert!(matches!(&rest[..], [Packet::Disconnect(_)]), "{rest:?}");
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    let (broker, url) = broker(|builder| builder.drain_timeout(Duration::from_millis(100)).shards(2));
    let mut stuck = Client::connect(&url, "stuck");
    stuck.subscribe("big", QoS::AtMostOnce);
    let mut publisher = Client::connect(&url, "publisher");
    let packet = publisher.publish_packet("big", vec![9; 12 << 20], QoS::AtMostOnce);
    publisher.send(&packet);
    publisher.ping();
    broker.shutdown();
}

#[test]
fn a_second_broker_is_told_that_the_port_is_taken() {
    let (_first, url) = broker(|builder| builder.shards(2));
    for shards in [1, 2] {
        let error = Broker::builder().shards(shards).listen(url.clone()).start().unwrap_err();
        assert!(matches!(&error, StartError::Bind(BindError::AddressInUse { url: named }) if *named == url));
        assert!(error.to_string().contains("in use"), "{error}");
    }
}

#[test]
fn a_failed_start_leaves_the_other_listeners_free() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a.sock");
    let (_first, taken) = broker(|builder| builder);
    let unix = url(&format!("unix://{}", socket.display()));
    assert!(Broker::builder().listen(unix.clone()).listen(taken).start().is_err());
    assert!(!socket.exists());
    Broker::builder().listen(unix).start().unwrap().shutdown();
    assert!(!socket.exists());
}

#[test]
fn two_hundred_brokers_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let cycle = |n: usize| {
        let socket = directory.path().join(format!("{n}.sock"));
        let (broker, url) = broker(|builder| {
            builder.shards(1 + n % 3).listen(net_support::url(&format!("unix://{}", socket.display())))
        });
        let handle = broker.handle();
        let mut client = Client::connect(&url, "c");
        client.subscribe("t", QoS::AtMostOnce);
        let packet = client.publish_packet("t", "x", QoS::AtMostOnce);
        client.send(&packet);
        client.recv_publish();
        let memory = broker.connect_memory().unwrap();
        if n.is_multiple_of(2) {
            client.disconnect();
            broker.shutdown();
        } else {
            drop(broker);
        }
        drop((memory, handle));
    };
    // In a process of its own this could be exact; beside other tests, 200 brokers must not show.
    (0..3).for_each(cycle);
    let before = (entries("/proc/self/fd"), shard_threads());
    (0..200).for_each(cycle);
    let after = (entries("/proc/self/fd"), shard_threads());
    assert!(after.0 < before.0 + 100, "descriptors: {before:?}, then {after:?}");
    assert!(after.1 < before.1 + 50, "threads: {before:?}, then {after:?}");
}

fn entries(path: &str) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

fn shard_threads() -> usize {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("ferromq-shard"))
        .count()
}

/// Panics where no hook is expected to be asked anything, which stands for any fault of a shard.
#[derive(Debug, Default)]
struct Faulty(AtomicBool);

impl Authorizer for Faulty {
    fn authorize(&self, _: &ConnectInfo, _: Access<'_>) -> Permit {
        Permit::Allow
    }

    fn per_message(&self) -> bool {
        assert!(!self.0.swap(false, Ordering::Relaxed), "this panic is part of the test");
        true
    }
}

#[test]
fn a_shard_that_panics_neither_hangs_the_broker_nor_its_end() {
    let faulty = Arc::new(Faulty(AtomicBool::new(true)));
    let hooks = Hooks { authorizer: Some(faulty), ..Hooks::default() };
    let (broker, url) = broker(|builder| builder.hooks(hooks).shards(2));
    let handle = broker.handle();
    let mut victim = Client::connect(&url, "victim");
    let packet = victim.publish_packet("t", Vec::new(), QoS::AtMostOnce);
    victim.send(&packet);
    assert_eq!(victim.recv_end(), [], "its shard is gone");
    handle.stats();
    handle.wait_settled();
    broker.shutdown();
}

#[test]
fn a_broker_without_listeners_serves_its_own_process() {
    let broker = Broker::builder().start().unwrap();
    assert!(broker.listeners().is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut duplex = broker.connect_memory().unwrap();
        duplex.write_all(b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01m").await.unwrap();
        let mut connack = [0; 4];
        duplex.read_exact(&mut connack).await.unwrap();
        assert_eq!(connack, [0x20, 2, 0, 0]);
        broker.handle().settled().await;
    });
}

/// Commits what it is given on a thread of its own, as an engine with a disk does.
struct Late {
    memory: MemoryStore,
    committed: Arc<Mutex<HashMap<LogId, Ticket>>>,
    waiting: mpsc::SyncSender<(LogId, Ticket)>,
    listener: Arc<Mutex<Option<CommitListener>>>,
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl Late {
    fn new() -> Self {
        let (waiting, submitted) = mpsc::sync_channel(1024);
        let committed: Arc<Mutex<HashMap<LogId, Ticket>>> = Arc::default();
        let listener: Arc<Mutex<Option<CommitListener>>> = Arc::default();
        let (done, told) = (Arc::clone(&committed), Arc::clone(&listener));
        std::thread::spawn(move || {
            for (log, ticket) in submitted {
                done.lock().unwrap().insert(log, ticket);
                if let Some(tell) = &*told.lock().unwrap() {
                    tell(log, ticket);
                }
            }
        });
        Self { memory: MemoryStore::default(), committed, waiting, listener }
    }
}

impl Store for Late {
    fn submit(&self, log: LogId, batch: Vec<Record>) -> Ticket {
        let ticket = self.memory.submit(log, batch);
        self.waiting.send((log, ticket)).unwrap();
        ticket
    }

    fn committed(&self, log: LogId) -> Ticket {
        self.committed.lock().unwrap().get(&log).copied().unwrap_or_default()
    }

    fn on_commit(&self, tell: CommitListener) {
        *self.listener.lock().unwrap() = Some(tell);
    }

    fn load(&self) -> Result<Contents, StoreError> {
        self.memory.load()
    }
}

#[test]
fn a_store_among_the_hooks_carries_sessions_over_a_restart() {
    let store = Arc::new(Late::new());
    let hooks = || Hooks { store: Some(Arc::clone(&store) as _), ..Hooks::default() };
    let lasting = Options { clean_start: false, session_expiry: 3600, ..Options::default() };
    let (first, url) = broker(|builder| builder.hooks(hooks()).shards(2));
    let mut keeper = Client::connect_with(&url, "keeper", &lasting);
    keeper.subscribe("kept/+", QoS::AtLeastOnce);
    keeper.disconnect();
    let mut publisher = Client::connect(&url, "publisher");
    for n in 0..20 {
        publisher.publish("kept/x", n.to_string(), QoS::AtLeastOnce);
    }
    first.shutdown();
    let (second, url) = broker(|builder| builder.hooks(hooks()).shards(3));
    let mut keeper = Client::connect_with(&url, "keeper", &lasting);
    for n in 0..20 {
        assert_eq!(keeper.recv_publish().payload, n.to_string());
    }
    second.shutdown();
}
