//! Load for a broker, and what became of it: a plan of publishers and subscribers, the threads that play them, and a
//! report of rates, latencies, losses, duplicates and order.
//!
//! The connections are the client's own sans-IO machine on non-blocking sockets, a few threads for all of them, so that
//! the broker and not the load is what is measured. Every payload carries its publisher, its number and the time it was
//! meant to be sent, not the time at which it could be: a broker that stalls is not excused from what would have come
//! meanwhile.

mod crowd;
mod histogram;
mod layout;
mod nap;
mod process;
mod retained;
mod tracker;
mod wire;
mod worker;

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed},
        },
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use foldhash::fast::FixedState;
use parking_lot::Mutex;

pub use crowd::{Crowd, CrowdReport, Step};
pub use histogram::Histogram;
pub use layout::Layout;
pub use process::{Usage, resident_bytes};
pub use retained::{Retained, RetainedReport};

use crate::codec::{QoS, Text, Version};
use tracker::Tracker;
use worker::Worker;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `host:port` of the broker.
    pub server: String,
    /// Version of MQTT.
    pub version: Version,
    /// User name and password, if any.
    pub credentials: Option<(Text, Option<Bytes>)>,
    /// Who publishes to whom.
    pub layout: Layout,
    /// Connections that publish.
    pub publishers: u32,
    /// Connections that subscribe; as many as publish in [`Layout::Pairs`].
    pub subscribers: u32,
    /// Filters of each subscriber in [`Layout::Matching`].
    pub filters: u32,
    /// Levels that make all topics deeper; not in [`Layout::Matching`].
    pub depth: u32,
    /// Further subscribers that never read. What they should get is not counted.
    pub stalled: u32,
    /// Further subscribers that read 4 KiB ten times a second. The same.
    pub slow: u32,
    /// Quality of service of both sides.
    pub qos: QoS,
    /// Bytes of a payload, at least [`PAYLOAD_BYTES_MIN`].
    pub payload_bytes: usize,
    /// Messages a second in all; `None` sends as fast as messages come out.
    pub rate: Option<f64>,
    /// Without a rate: messages of one publisher that have not come out.
    pub window: u32,
    /// How long is measured.
    pub duration: Duration,
    /// How long before that is not.
    pub warmup: Duration,
    /// Threads that play the clients; 0 takes half of the cores, at least one.
    pub threads: usize,
    /// Client identifiers of the publishers, then of the subscribers; who is not among them gets one of this run.
    pub clients: Vec<Text>,
    /// Tells the topics of this run from those of others.
    pub run: u32,
    /// The broker's process, to report what it took.
    pub broker: Option<u32>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// How long was measured.
    pub elapsed: Duration,
    /// Messages published while measuring, and with the time before and after it.
    pub published: u64,
    /// The same with the time before and after.
    pub published_in_all: u64,
    /// Messages that came out while measuring.
    pub received: u64,
    /// Messages that should have come out, of all that were published.
    pub expected_in_all: u64,
    /// Different messages that did.
    pub received_in_all: u64,
    /// Messages that came more than once.
    pub duplicates: u64,
    /// Messages that came after a later one of the same publisher; not known for shared subscriptions.
    pub out_of_order: u64,
    /// Times at which all messages of a publisher that were under way were given up, so that it could go on.
    pub stalls: u64,
    /// Connections that broke.
    pub connections_lost: u64,
    /// Stalled and slow ones that the broker ended.
    pub laggards_lost: u64,
    /// From the time a message was to be sent until it came out, ns.
    pub latency: Histogram,
    /// Threads that played the clients.
    pub threads: usize,
    /// How long it took to connect and subscribe everybody.
    pub connect_time: Duration,
    /// Messages that came out in each [`SLICE`].
    pub slices: Vec<u64>,
    /// What this process took while measuring.
    pub own: Option<Usage>,
    /// What the broker took, if its process is known.
    pub broker: Option<Usage>,
    /// Bytes of resident memory of the broker at the end of measuring.
    pub broker_resident_bytes: Option<u64>,
}

impl Report {
    /// Messages that never came out.
    pub fn lost(&self) -> u64 {
        self.expected_in_all.saturating_sub(self.received_in_all)
    }

    /// Messages that came out in a second.
    pub fn rate(&self) -> f64 {
        self.received as f64 / self.elapsed.as_secs_f64()
    }
}

/// Why a run ended without a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The plan cannot be carried out.
    #[error("{0}")]
    Plan(String),
    /// The broker cannot be reached.
    #[error("{server}: {error}")]
    Connect {
        /// The broker.
        server: String,
        /// Why.
        error: io::Error,
    },
    /// A client could not connect or subscribe.
    #[error("client {client}: {why}")]
    Client {
        /// Its identifier.
        client: String,
        /// Why.
        why: String,
    },
    /// Not everybody was connected and subscribed in time.
    #[error("{ready} of {wanted} clients were ready after {} s", .after.as_secs())]
    NotReady {
        /// How many were.
        ready: usize,
        /// How many should have been.
        wanted: usize,
        /// How long that was waited for.
        after: Duration,
    },
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How far a run has come, for whoever shows it.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Clients that are connected and subscribed.
    pub ready: usize,
    /// How long the load runs, warm-up included.
    pub running: Duration,
    /// Messages that came out so far.
    pub received: u64,
}

/// Carries out a plan. `progress` is called about ten times a second; a run that it answers with `false` is cut short.
pub fn run(plan: &Plan, mut progress: impl FnMut(Progress) -> bool) -> Result<Report, BenchError> {
    plan.check()?;
    let address = address(&plan.server)?;
    let threads = match plan.threads {
        0 => (thread::available_parallelism().map_or(1, usize::from) / 2).max(1),
        threads => threads.min(THREADS_MAX),
    };
    let workers = (0..threads).map(|_| mio::Poll::new()).collect::<io::Result<Vec<_>>>()?;
    let wakers = workers.iter().map(|poll| mio::Waker::new(poll.registry(), worker::WAKER));
    let board = Arc::new(Board::new(plan.clone(), wakers.collect::<io::Result<_>>()?));
    let begun = Instant::now();
    let handles: Vec<_> = workers
        .into_iter()
        .enumerate()
        .map(|(index, poll)| {
            let worker = Worker::new(Arc::clone(&board), index, poll, address);
            thread::Builder::new().name("ferromq-bench".into()).spawn(move || worker.run())
        })
        .collect::<io::Result<_>>()?;
    let measured = measure(&board, begun, &mut progress);
    board.enter(Phase::Over);
    let mut results = Vec::new();
    for handle in handles {
        results.push(handle.join().map_err(|_| BenchError::Plan("a thread of the load panicked".into()))?);
    }
    let mut report = measured?;
    board.fault()?;
    for result in results {
        report.latency.add(&result.latency);
        report.published += result.published;
        report.published_in_all += result.published_in_all;
        report.received += result.received;
        report.duplicates += result.duplicates;
        report.out_of_order += result.out_of_order;
        report.stalls += result.stalls;
        report.received_in_all += result.received_in_all;
    }
    report.expected_in_all = report.published_in_all * plan.copies();
    Ok(report)
}

impl Plan {
    fn clients(&self) -> usize {
        [self.publishers, self.subscribers, self.stalled, self.slow].map(|count| count as usize).iter().sum()
    }

    fn check(&self) -> Result<(), BenchError> {
        let fault = |what: String| Err(BenchError::Plan(what));
        if self.publishers == 0 || self.subscribers == 0 {
            return fault("a run needs at least one publisher and one subscriber".into());
        }
        if self.layout == Layout::Pairs && self.publishers != self.subscribers {
            return fault(format!("pairs need as many subscribers as publishers, not {}", self.subscribers));
        }
        if self.layout == Layout::Matching && !(1..=FILTERS_MAX).contains(&self.filters) {
            return fault(format!("a subscriber holds from 1 to {FILTERS_MAX} filters, not {}", self.filters));
        }
        if self.depth > DEPTH_MAX || (self.depth > 0 && self.layout == Layout::Matching) {
            return fault(format!(
                "topics are made deeper by up to {DEPTH_MAX} levels, and not where many filters match"
            ));
        }
        if self.payload_bytes < PAYLOAD_BYTES_MIN {
            return fault(format!("payloads begin with {PAYLOAD_BYTES_MIN} bytes that say who sent them, and when"));
        }
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return fault("the rate is a number of messages a second, more than 0".into());
        }
        if self.window == 0 {
            return fault("with a window of 0 nothing could be sent".into());
        }
        Ok(())
    }
}

/// The first address of a name that answers. A broker that is not there is told at once, and as what the system calls it.
fn address(server: &str) -> Result<SocketAddr, BenchError> {
    let fault = |error| BenchError::Connect { server: server.to_owned(), error };
    let mut last = io::ErrorKind::NotFound.into();
    for address in server.to_socket_addrs().map_err(fault)? {
        match std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(fault(last))
}

/// Runs the phases and watches the clock.
fn measure(board: &Board, begun: Instant, progress: &mut impl FnMut(Progress) -> bool) -> Result<Report, BenchError> {
    let plan = &board.plan;
    let told = |running| Progress { ready: board.ready.load(Relaxed), running, received: board.received.load(Relaxed) };
    while board.ready.load(Relaxed) < plan.clients() {
        board.fault()?;
        if begun.elapsed() > READY_TIMEOUT || !progress(told(Duration::ZERO)) {
            let ready = board.ready.load(Relaxed);
            return Err(BenchError::NotReady { ready, wanted: plan.clients(), after: begun.elapsed() });
        }
        thread::park_timeout(Duration::from_millis(2));
    }
    let connect_time = begun.elapsed();
    let start = board.now_ns();
    let (from, until) = (start + ns(plan.warmup), start + ns(plan.warmup + plan.duration));
    board.start_ns.store(start, Relaxed);
    board.from_ns.store(from, Relaxed);
    board.until_ns.store(until, Relaxed);
    board.enter(Phase::Running);
    wait(board, from, &mut |running| progress(told(running)), &mut |_| ());
    let before = (Usage::of(std::process::id()), plan.broker.and_then(Usage::of));
    let (begin_ns, mut last) = (board.now_ns(), board.received.load(Relaxed));
    let mut slices = Vec::new();
    wait(board, until, &mut |running| progress(told(running)), &mut |received| {
        slices.push(received - last);
        last = received;
    });
    let elapsed = Duration::from_nanos(board.now_ns() - begin_ns);
    // Cut short: what is sent from now on is not measured.
    board.until_ns.fetch_min(board.now_ns(), Relaxed);
    let usage = |before: Option<Usage>, pid| before.zip(Usage::of(pid)).map(|(before, after)| after.since(before));
    let own = usage(before.0, std::process::id());
    let broker = plan.broker.and_then(|pid| usage(before.1, pid));
    let broker_resident_bytes = plan.broker.and_then(process::resident_bytes);
    board.enter(Phase::Draining);
    drain(board);
    Ok(Report {
        elapsed,
        published: 0,
        published_in_all: 0,
        received: 0,
        expected_in_all: 0,
        received_in_all: board.groups_received(),
        duplicates: board.groups_duplicates(),
        out_of_order: 0,
        stalls: 0,
        connections_lost: board.lost.load(Relaxed),
        laggards_lost: board.laggards_lost.load(Relaxed),
        latency: Histogram::new(),
        threads: board.wakers.len(),
        connect_time,
        slices,
        own,
        broker,
        broker_resident_bytes,
    })
}

/// Waits until a time of the run, telling how it goes and counting what came in each slice.
fn wait(board: &Board, until_ns: u64, progress: &mut impl FnMut(Duration) -> bool, slice: &mut impl FnMut(u64)) {
    let mut next_slice = board.now_ns() + ns(SLICE);
    loop {
        let now = board.now_ns();
        if now >= until_ns {
            return;
        }
        if now >= next_slice {
            slice(board.received.load(Relaxed));
            next_slice += ns(SLICE);
        }
        if !progress(Duration::from_nanos(now - board.start_ns.load(Relaxed))) {
            return;
        }
        thread::park_timeout(Duration::from_nanos((until_ns - now).min(next_slice.saturating_sub(now)).max(1)));
    }
}

/// Waits for what is under way, as long as something comes.
fn drain(board: &Board) {
    let (mut last, mut since) = (board.received.load(Relaxed), Instant::now());
    let begun = Instant::now();
    while begun.elapsed() < DRAIN_TIMEOUT && since.elapsed() < DRAIN_SILENCE {
        // First: whoever publishes no more has counted all that he published.
        let is_all = board.publishing.load(Acquire) == 0;
        let received = board.received.load(Relaxed);
        let expected = board.published.load(Relaxed) * board.plan.copies();
        if received >= expected && is_all {
            return;
        }
        if received != last {
            (last, since) = (received, Instant::now());
        }
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// What all threads of a run see.
struct Board {
    plan: Plan,
    epoch: Instant,
    phase: AtomicU8,
    ready: AtomicUsize,
    /// When the load began, from when and until when it is measured; ns since `epoch`.
    start_ns: AtomicU64,
    from_ns: AtomicU64,
    until_ns: AtomicU64,
    /// Threads that have not seen that the time is over, and publishers that are to publish by the clock and are not done
    /// with it.
    publishing: AtomicUsize,
    published: AtomicU64,
    received: AtomicU64,
    lost: AtomicU64,
    laggards_lost: AtomicU64,
    /// Messages of each publisher that came out, copies counted.
    came_out: Box<[AtomicU32]>,
    /// Publishers' threads that have something to look at.
    news: Box<[AtomicBool]>,
    wakers: Vec<mio::Waker>,
    /// What a group has of each publisher, whoever of it got it.
    groups: Mutex<std::collections::HashMap<u32, Tracker, FixedState>>,
    fault: Mutex<Option<(String, String)>>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Phase {
    Connecting,
    Running,
    Draining,
    Over,
}

impl Board {
    fn new(plan: Plan, wakers: Vec<mio::Waker>) -> Self {
        Self {
            epoch: Instant::now(),
            phase: AtomicU8::new(Phase::Connecting as u8),
            ready: AtomicUsize::new(0),
            start_ns: AtomicU64::new(0),
            from_ns: AtomicU64::new(u64::MAX),
            until_ns: AtomicU64::new(u64::MAX),
            publishing: AtomicUsize::new(wakers.len()),
            published: AtomicU64::new(0),
            received: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            laggards_lost: AtomicU64::new(0),
            came_out: (0..plan.publishers).map(|_| AtomicU32::new(0)).collect(),
            news: wakers.iter().map(|_| AtomicBool::new(false)).collect(),
            wakers,
            groups: Mutex::default(),
            fault: Mutex::default(),
            plan,
        }
    }

    fn now_ns(&self) -> u64 {
        ns(self.epoch.elapsed())
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Connecting,
            1 => Phase::Running,
            2 => Phase::Draining,
            _ => Phase::Over,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        for waker in &self.wakers {
            // A thread that cannot be woken looks by itself within its longest wait.
            let _ = waker.wake();
        }
    }

    /// A client cannot do its part.
    fn fail(&self, client: &str, why: String) {
        self.fault.lock().get_or_insert_with(|| (client.to_owned(), why));
    }

    fn fault(&self) -> Result<(), BenchError> {
        match self.fault.lock().take() {
            Some((client, why)) => Err(BenchError::Client { client, why }),
            None => Ok(()),
        }
    }

    fn groups_received(&self) -> u64 {
        self.groups.lock().values().map(Tracker::received).sum()
    }

    fn groups_duplicates(&self) -> u64 {
        self.groups.lock().values().map(Tracker::duplicates).sum()
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Publisher, number and time.
pub const PAYLOAD_BYTES_MIN: usize = 16;

/// What [`Report::slices`] counts in.
pub const SLICE: Duration = Duration::from_millis(250);

/// Filters of one subscriber: more than any broker is asked to take of one client.
const FILTERS_MAX: u32 = 1_000_000;

/// Further levels of a topic; brokers have limits from 128 levels on.
const DEPTH_MAX: u32 = 120;

/// More threads than any broker keeps busy.
const THREADS_MAX: usize = 64;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connecting and subscribing may take in all.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// How long is waited for what is under way, and for how long if nothing comes.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_SILENCE: Duration = Duration::from_secs(2);
