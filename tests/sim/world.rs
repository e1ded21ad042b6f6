//! The loop: shards, clients and connections in one thread under virtual time.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ferromq::{
    broker::{
        ConnId, EndReason, Envelope, Event as Told, EventSink, Handoff, Hooks, Output, Shard, Shared, Stats,
        TransportEnd,
    },
    router::ShardId,
    store::{LogId, Store},
};

use crate::{
    actor::{Actor, will_payload},
    ledger::{Ledger, Tick},
    network::Link,
    plan::{Plan, Profile},
    rng::Rng,
    store::LateStore,
};

/// Everything there is in a run.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) shared: Arc<Shared>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) links: Vec<Link>,
    pub(crate) by_conn: HashMap<(usize, ConnId), usize>,
    pub(crate) actors: Vec<Actor>,
    pub(crate) ledger: Ledger,
    pub(crate) now_us: u64,
    pub(crate) tick: Tick,
    /// Nothing breaks any more, and nobody has ideas of their own.
    pub(crate) is_calm: bool,
    /// Clients that leave do not come back.
    pub(crate) is_over: bool,
    pub(crate) store: Option<Arc<LateStore>>,
    recorder: Arc<Recorder>,
    epoch: Instant,
    queue: BinaryHeap<Reverse<Scheduled>>,
    next_event: u64,
    /// Shards that are about to do what follows from their input.
    awake: Vec<bool>,
    /// When the last envelopes from one shard to another arrive.
    envelopes_last_us: HashMap<(usize, usize), u64>,
    trace: Option<Vec<String>>,
}

/// What can happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A shard's tick: outputs are carried, outboxes flushed.
    Tick(usize),
    Envelopes {
        to: usize,
        batch: Vec<Envelope>,
    },
    Handoff {
        link: usize,
        to: usize,
        handoff: Box<Handoff>,
    },
    ToBroker {
        link: usize,
        bytes: Vec<u8>,
    },
    ToClient {
        link: usize,
        bytes: Vec<u8>,
    },
    /// The store has committed a batch.
    Commit {
        log: LogId,
        ticket: u64,
    },
    ClientLearns {
        link: usize,
    },
    BrokerLearns {
        link: usize,
        end: TransportEnd,
    },
    /// A client does something of its own.
    Step(usize),
    Reconnect(usize),
}

/// An event and its time; of events at the same time the older comes first.
#[derive(Debug)]
struct Scheduled {
    at_us: u64,
    number: u64,
    event: Event,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl World {
    pub(crate) fn new(profile: Profile, seed: u64, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(profile, &mut rng);
        let epoch = epoch();
        let recorder = Arc::new(Recorder::default());
        let store = plan.stores.then(Arc::<LateStore>::default);
        let hooks = Hooks {
            events: Some(Arc::clone(&recorder) as Arc<dyn EventSink>),
            store: store.clone().map(|store| store as Arc<dyn Store>),
            ..Hooks::default()
        };
        let unix_time = Duration::from_hours(500_000);
        let shared = Shared::with_store(plan.settings.clone(), hooks, plan.shards, seed, epoch, unix_time)
            .expect("the store begins empty");
        let make = |id: usize| Shard::new(ShardId(id as u8), Arc::clone(&shared), epoch, seed ^ id as u64);
        let mut world = Self {
            shards: (0..plan.shards).map(make).collect(),
            awake: vec![false; plan.shards],
            shared,
            links: Vec::new(),
            by_conn: HashMap::new(),
            actors: Vec::new(),
            ledger: Ledger::default(),
            now_us: 0,
            tick: 0,
            is_calm: false,
            is_over: false,
            store,
            recorder,
            epoch,
            queue: BinaryHeap::new(),
            next_event: 0,
            envelopes_last_us: HashMap::new(),
            trace: traced.then(Vec::new),
            rng,
            plan,
        };
        world.note(|world| format!("{:#?}", world.plan));
        world.populate();
        world
    }

    pub(crate) fn now(&self) -> Instant {
        self.epoch + Duration::from_micros(self.now_us)
    }

    pub(crate) fn schedule_at(&mut self, at_us: u64, event: Event) {
        self.queue.push(Reverse(Scheduled { at_us: at_us.max(self.now_us), number: self.next_event, event }));
        self.next_event += 1;
    }

    /// Some time within these milliseconds.
    pub(crate) fn after_up_to(&mut self, millis: u64) -> u64 {
        self.now_us + self.rng.between(0, millis * 1_000)
    }

    /// The shard has had input: its tick comes soon.
    pub(crate) fn wake(&mut self, shard: usize) {
        if !std::mem::replace(&mut self.awake[shard], true) {
            let at = self.now_us + self.rng.between(0, self.plan.delay_us_max / 4);
            self.schedule_at(at, Event::Tick(shard));
        }
    }

    /// Writes a line of the trace.
    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>12} us  {}", self.now_us, line(self));
            self.trace.iter_mut().for_each(|trace| trace.push(line.clone()));
        }
    }

    pub(crate) fn trace(&self) -> &[String] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// Lets things happen until `done`, but no longer than this many seconds of virtual time.
    pub(crate) fn run(&mut self, seconds: u64, done: impl Fn(&Self) -> bool) -> Result<bool, String> {
        let end_us = self.now_us + seconds * 1_000_000;
        for _ in 0..STEPS_MAX {
            if done(self) {
                return Ok(true);
            }
            if !self.step(end_us)? {
                self.now_us = end_us;
                return Ok(done(self));
            }
        }
        Err(format!("{STEPS_MAX} events and no end: something runs in circles"))
    }

    /// The next thing that happens before `end_us`; whether there was one.
    fn step(&mut self, end_us: u64) -> Result<bool, String> {
        let event_us = self.queue.peek().map(|Reverse(next)| next.at_us);
        let due = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(self.epoch).as_micros() as u64);
        let shard = (0..self.shards.len())
            .filter_map(|shard| due(self.shards[shard].poll_timeout()).map(|at| (at, shard)))
            .min();
        let actor = (0..self.actors.len())
            .filter_map(|actor| due(self.actors[actor].session.poll_timeout()).map(|at| (at, actor)))
            .min();
        let times = [event_us, shard.map(|(at, _)| at), actor.map(|(at, _)| at)];
        let Some(next_us) = times.into_iter().flatten().min().filter(|at| *at <= end_us) else { return Ok(false) };
        self.now_us = self.now_us.max(next_us);
        self.tick += 1;
        if event_us == Some(next_us) {
            let Some(Reverse(next)) = self.queue.pop() else { return Ok(false) };
            self.happen(next.event)?;
        } else if let Some((_, shard)) = shard.filter(|(at, _)| *at == next_us) {
            let now = self.now() + Duration::from_micros(1);
            self.shards[shard].handle_timeout(now);
            self.wake(shard);
        } else if let Some((_, actor)) = actor {
            let now = self.now() + Duration::from_micros(1);
            self.actors[actor].session.handle_timeout(now);
            self.serve(actor)?;
        }
        self.schedule_commits();
        self.recorded()?;
        Ok(true)
    }

    /// What the broker said of connections: which were accepted, and which ended how.
    fn recorded(&mut self) -> Result<(), String> {
        for (link, end) in self.recorder.take() {
            let state = &mut self.links[link];
            let Some(reason) = end else {
                state.is_accepted = true;
                continue;
            };
            if !state.is_accepted {
                continue;
            }
            if reason == EndReason::ClientDisconnect {
                if !state.said_goodbye {
                    return Err(format!("link {link} ended with a DISCONNECT that was not sent"));
                }
                continue;
            }
            let will = will_payload(state.client, state.life);
            self.ledger.wills.entry(will).and_modify(|will| will.broken += 1);
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Tick(shard) => self.tick_shard(shard),
            Event::Envelopes { to, batch } => {
                self.note(|_| format!("shard {to} takes {} envelopes", batch.len()));
                let now = self.now();
                self.shards[to].handle_envelopes(now, batch);
                self.wake(to);
            }
            Event::Handoff { link, to, handoff } => {
                self.note(|_| format!("link {link} arrives at shard {to}"));
                let now = self.now();
                let conn = self.shards[to].handle_handoff(now, *handoff);
                self.moved(link, to, conn);
            }
            Event::ToBroker { link, bytes } => {
                self.note(|_| format!("link {link} up {bytes:02x?}"));
                self.arrive_up(link, &bytes);
            }
            Event::ToClient { link, bytes } => {
                self.note(|_| format!("link {link} down {bytes:02x?}"));
                if self.arrive_down(link, &bytes) {
                    self.deliver(link, &bytes)?;
                }
            }
            Event::Commit { log, ticket } => {
                self.note(|_| format!("{log:?} is committed up to {ticket}"));
                self.commit(log, ticket);
            }
            Event::ClientLearns { link } => self.client_learns(link)?,
            Event::BrokerLearns { link, end } => {
                self.note(|_| format!("the broker learns that link {link} is gone: {end:?}"));
                self.broker_is_done(link, end);
            }
            Event::Step(actor) => self.act(actor)?,
            Event::Reconnect(actor) => self.reconnect(actor)?,
        }
        Ok(())
    }

    /// What a shell does after input: carries outputs, flushes what is dirty.
    fn tick_shard(&mut self, shard: usize) {
        self.awake[shard] = false;
        while let Some(output) = self.shards[shard].poll_output() {
            self.carry(shard, output);
        }
        while let Some(conn) = self.shards[shard].next_dirty() {
            if let Some(link) = self.by_conn.get(&(shard, conn)).copied() {
                self.flush(link, false);
            }
        }
        // Flushing may have let readers go on, and closed what stalled.
        while let Some(output) = self.shards[shard].poll_output() {
            self.carry(shard, output);
        }
    }

    fn carry(&mut self, from: usize, output: Output) {
        match output {
            Output::Envelopes { to, batch } => {
                let to = usize::from(to.0);
                let delay = self.rng.between(0, self.plan.delay_us_max);
                let last = self.envelopes_last_us.entry((from, to)).or_default();
                let at = (self.now_us + delay).max(*last);
                *last = at;
                self.schedule_at(at, Event::Envelopes { to, batch });
            }
            Output::Handoff { conn, to, handoff } => {
                // It may have broken since: then its home shard is the one to be told.
                let link = self.links.iter().rposition(|link| link.first == (from, conn));
                let link = link.expect("a hand-off is of a connection that was opened");
                self.by_conn.remove(&(from, conn));
                self.links[link].conn = None;
                let at = self.now_us + self.rng.between(0, self.plan.delay_us_max);
                self.schedule_at(at, Event::Handoff { link, to: usize::from(to.0), handoff });
            }
            Output::Close { conn } => {
                if let Some(link) = self.by_conn.get(&(from, conn)).copied() {
                    self.note(|_| format!("the broker closes link {link}"));
                    self.close_from_broker(link);
                }
            }
            Output::Resume { conns } => {
                for conn in conns {
                    if let Some(link) = self.by_conn.get(&(from, conn)).copied() {
                        self.feed(link);
                    }
                }
            }
            Output::HearOut { conn, ticket } => {
                if let Some(link) = self.by_conn.get(&(from, conn)).copied() {
                    self.feed(link);
                }
                let now = self.now();
                self.shards[from].handle_heard_out(now, conn, ticket);
            }
            Output::Authenticate { .. } | Output::Authorize { .. } => unreachable!("nobody is asked"),
        }
    }

    /// Nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.is_empty()
    }

    /// Counters of all shards together.
    pub(crate) fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.stats()));
        sum
    }
}

/// Keeps what the broker tells of connections: accepted, or ended with a reason.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<(usize, Option<EndReason>)>>);

impl Recorder {
    fn take(&self) -> Vec<(usize, Option<EndReason>)> {
        std::mem::take(&mut self.0.lock().expect("one thread"))
    }
}

impl EventSink for Recorder {
    fn event(&self, event: &Told<'_>) {
        let (peer, end) = match event {
            Told::Connected { info, .. } => (&*info.peer, None),
            Told::Disconnected { peer, reason, .. } => (*peer, Some(*reason)),
            _ => return,
        };
        let link = peer.strip_prefix("sim:").and_then(|link| link.parse().ok()).expect("peers are named by links");
        self.0.lock().expect("one thread").push((link, end));
    }
}

/// The instant at which every run begins.
fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Far more than any run takes.
const STEPS_MAX: usize = 2_000_000;
