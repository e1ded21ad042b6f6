//! Faults on purpose: an interposer between clients and a broker that loses, delays, repeats, reorders, breaks and
//! fakes packets by rules, and remembers the last ones of each connection.
//!
//! It is not in the path of anything unless asked for. A broker that was given [`Faults`] has every accepted connection
//! go through a task here (`pump`), and a shard gets the end of an in-process pipe in place of the socket. [`Proxy`] is
//! the same in front of any other broker. What is decided about bytes is decided without sockets and clock, in `link`
//! and `rule`.
//!
//! WebSocket connections are not looked into: rules that select neither type, topic nor client strike the pieces in
//! which their bytes come.

mod line;
mod link;
mod packet;
mod proxy;
mod pump;
mod rule;
mod secure;
mod trace;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify};

pub use proxy::Proxy;
pub use rule::{Action, Direction, Select, TooManyRules};
pub use trace::ConnectionTrace;

use self::{
    link::Link,
    pump::End,
    rule::{RuleBook, RuleState},
    secure::Secured,
    trace::Trace,
};
use crate::{
    broker::Peer,
    clock::Clock,
    codec::ReasonCode,
    net::{
        duplex::{self, DUPLEX_BYTES_MAX, DuplexEnd},
        interpose::{Interposer, Near},
    },
};

/// The faults of one broker or proxy; cheap to clone.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Inner>);

/// One rule. It goes on when this is dropped, until it is removed or over.
#[derive(Debug, Clone)]
pub struct FaultRule {
    action: Action,
    state: Arc<RuleState>,
    faults: Weak<Inner>,
    /// The rule is over at its end even though nobody removes it.
    id: u64,
    /// How often it strikes at most.
    hits_max: Option<u64>,
    stops: Arc<Stops>,
}

/// Why a rule need not be waited for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unstruck {
    /// It was removed.
    #[error("the rule was removed")]
    Removed,
    /// The broker or proxy has stopped.
    #[error("what the rule stands in front of has stopped")]
    Stopped,
}

/// How often the broker or proxy was stopped.
#[derive(Debug, Default)]
struct Stops {
    count: AtomicU64,
    counted: Notify,
}

pub(crate) struct Inner {
    clock: Clock,
    runtime: Handle,
    rules: Mutex<RuleBook>,
    links: Mutex<Links>,
    trace_packets_max: usize,
    stops: Arc<Stops>,
}

#[derive(Default)]
struct Links {
    open: BTreeMap<u64, Arc<Mutex<Link>>>,
    ended: VecDeque<ConnectionTrace>,
    next: u64,
}

impl Direction {
    const fn opposite(self) -> Self {
        match self {
            Self::ToBroker => Self::ToClient,
            Self::ToClient => Self::ToBroker,
        }
    }
}

impl Faults {
    /// Faults by this clock, which has to be one that can be advanced (another is made if it is not), with tasks on this
    /// runtime. `seed` decides what is random, and `trace_packets_max` packets of each connection are remembered.
    pub fn new(clock: &Clock, runtime: Handle, seed: u64, trace_packets_max: usize) -> Self {
        // Its tasks are waited for, and only such a clock knows them.
        let clock = if clock.is_adjustable() { clock.clone() } else { Clock::adjustable() };
        let rules = Mutex::new(RuleBook::new(seed));
        let trace_packets_max = trace_packets_max.min(TRACE_PACKETS_MAX);
        let (links, stops) = (Mutex::default(), Arc::default());
        Self(Arc::new(Inner { clock, runtime, rules, links, trace_packets_max, stops }))
    }

    /// Their clock.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Makes a rule.
    pub fn add(&self, select: Select, action: Action) -> Result<FaultRule, TooManyRules> {
        let now = self.0.clock.now();
        let (client, hits_max) = (select.client.clone(), select.hits_max());
        let (id, state) = self.0.rules.lock().add(now, select, action)?;
        if action == Action::HalfOpen {
            let mut dead = state.dead.lock();
            for (number, link) in self.0.links_of(client.as_deref()) {
                let mut link = link.lock();
                if !link.is_dead {
                    link.kill();
                    dead.push(number);
                }
            }
            state.hits.store(dead.len() as u64, Ordering::Release);
        }
        self.0.wake_all();
        let (faults, stops) = (Arc::downgrade(&self.0), Arc::clone(&self.0.stops));
        Ok(FaultRule { action, state, faults, id, hits_max, stops })
    }

    /// The rules that can still strike.
    pub fn rules(&self) -> Vec<FaultRule> {
        let faults = Arc::downgrade(&self.0);
        let rules = self.0.rules.lock();
        let rule = |rule: &rule::Rule| FaultRule {
            action: rule.action,
            state: Arc::clone(&rule.state),
            faults: Weak::clone(&faults),
            id: rule.id,
            hits_max: rule.select.hits_max(),
            stops: Arc::clone(&self.0.stops),
        };
        rules.active(self.0.clock.now()).map(rule).collect()
    }

    /// The broker or proxy has stopped: who waits for a rule need not wait any more.
    pub fn stopped(&self) {
        self.0.stops.notify();
    }

    /// Removes all rules.
    pub fn clear(&self) {
        let rules = self.0.rules.lock().take_all();
        for rule in rules {
            self.0.end_rule(&rule.state);
        }
        self.0.wake_all();
    }

    /// Resets the connection of one client, or all of them; how many.
    pub fn drop_connections(&self, client: Option<&str>) -> usize {
        let links = self.0.links_of(client);
        let count = links.iter().filter(|(_, link)| !std::mem::replace(&mut link.lock().is_reset, true)).count();
        self.0.wake_all();
        count
    }

    /// Says DISCONNECT in the broker's place and closes the connection; whether there was one.
    pub fn kick(&self, client: &str, reason: ReasonCode) -> bool {
        let links = self.0.links_of(Some(client));
        let now = self.0.clock.now();
        for (_, link) in &links {
            link.lock().kick(now, reason);
        }
        self.0.wake_all();
        !links.is_empty()
    }

    /// Packets, or pieces of them, that are held back or on their way.
    pub fn held(&self) -> usize {
        self.0.held()
    }

    /// The last packets of each connection, oldest connection first; of one client only, if named.
    pub fn trace(&self, client: Option<&str>) -> Vec<ConnectionTrace> {
        let links = self.0.links.lock();
        let open = links.open.values().map(|link| link.lock().trace.record());
        let all = links.ended.iter().cloned().chain(open);
        all.filter(|trace| client.is_none_or(|client| trace.client_id == client)).collect()
    }

    pub(crate) fn interposer(&self) -> Arc<dyn Interposer> {
        Arc::clone(&self.0) as _
    }
}

impl FaultRule {
    /// What it does.
    pub const fn action(&self) -> &Action {
        &self.action
    }

    /// Packets, or connections, that it has struck.
    pub fn hits(&self) -> u64 {
        self.state.hits.load(Ordering::Acquire)
    }

    /// How often it strikes at most, if that is bounded.
    pub const fn hits_max(&self) -> Option<u64> {
        self.hits_max
    }

    /// Resolves when it has struck `count` times, or when from now on it is removed or what it stands in front of stops.
    pub fn struck(&self, count: u64) -> impl Future<Output = Result<(), Unstruck>> + Send + use<> {
        let (state, stops) = (Arc::clone(&self.state), Arc::clone(&self.stops));
        let before = stops.count.load(Ordering::Acquire);
        async move {
            loop {
                let (mut again, mut stopped) = (pin!(state.struck.notified()), pin!(stops.counted.notified()));
                again.as_mut().enable();
                stopped.as_mut().enable();
                if state.hits.load(Ordering::Acquire) >= count {
                    return Ok(());
                }
                if state.is_removed.load(Ordering::Acquire) {
                    return Err(Unstruck::Removed);
                }
                if stops.count.load(Ordering::Acquire) != before {
                    return Err(Unstruck::Stopped);
                }
                tokio::select! {
                    () = again => {}
                    () = stopped => {}
                }
            }
        }
    }

    /// Whether it can still strike.
    pub fn is_active(&self) -> bool {
        let Some(faults) = self.faults.upgrade() else { return false };
        let now = faults.clock.now();
        faults.rules.lock().active(now).any(|rule| rule.id == self.id)
    }

    /// Removes it. What it holds back is let go of; connections that are dead by it are reset.
    pub fn remove(&self) {
        match self.faults.upgrade() {
            Some(faults) => {
                faults.end_rule(&self.state);
                faults.wake_all();
            }
            None => self.state.remove(),
        }
    }
}

impl Stops {
    fn notify(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.counted.notify_waiters();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stops.notify();
    }
}

impl Inner {
    fn links_of(&self, client: Option<&str>) -> Vec<(u64, Arc<Mutex<Link>>)> {
        let links = self.links.lock();
        let is_of = |link: &Mutex<Link>| client.is_none() || link.lock().client() == client;
        links.open.iter().filter(|(_, link)| is_of(link)).map(|(number, link)| (*number, Arc::clone(link))).collect()
    }

    /// A rule strikes no more; who died of it is reset.
    fn end_rule(&self, state: &RuleState) {
        state.remove();
        let dead = std::mem::take(&mut *state.dead.lock());
        let links = self.links.lock();
        for link in dead.iter().filter_map(|number| links.open.get(number)) {
            link.lock().is_reset = true;
        }
    }

    fn held(&self) -> usize {
        self.links_of(None).iter().map(|(_, link)| link.lock().held()).sum()
    }

    /// Has all tasks look at the rules anew.
    fn wake_all(&self) {
        for (_, link) in self.links_of(None) {
            let waker = link.lock().waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Whether connections are refused before they have said anything.
    fn refuses(&self) -> bool {
        self.rules.lock().refusal(self.clock.now(), None).is_some()
    }

    /// Starts the task of a connection.
    fn join(self: &Arc<Self>, address: Arc<str>, is_mqtt: bool, client: End, broker: End) {
        let trace = Trace::new(self.clock.now(), address, self.trace_packets_max);
        let link = Arc::new(Mutex::new(Link::new(trace, is_mqtt)));
        let number = {
            let mut links = self.links.lock();
            links.next += 1;
            let number = links.next;
            links.open.insert(number, Arc::clone(&link));
            number
        };
        let task = pump::run(Arc::clone(self), number, link, client, broker);
        self.runtime.spawn(self.clock.watch(Some(self.runtime.clone()), task));
    }

    /// A connection has ended.
    fn ended(&self, number: u64, link: &Mutex<Link>) {
        let mut links = self.links.lock();
        links.open.remove(&number);
        if self.trace_packets_max == 0 {
            return;
        }
        if links.ended.len() == ENDED_MAX {
            links.ended.pop_front();
        }
        let mut link = link.lock();
        link.trace.end();
        links.ended.push_back(link.trace.record());
    }
}

impl Interposer for Inner {
    fn interpose(self: Arc<Self>, near: Near, peer: &Peer, is_mqtt: bool) -> Option<DuplexEnd> {
        let _guard = self.runtime.enter();
        let near = match near {
            Near::Tcp(stream) => End::Tcp(tokio::net::TcpStream::from_std(stream).ok()?),
            Near::Tls(stream, tls) => {
                let stream = tokio::net::TcpStream::from_std(stream).ok()?;
                End::Tls(Box::new(Secured::new(stream, tls)))
            }
            Near::Unix(stream) => tokio::net::UnixStream::from_std(stream).ok()?.into(),
            Near::Memory(stream) => End::Other(Box::new(stream)),
        };
        if self.refuses() {
            near.reset();
            return None;
        }
        let (far, end) = duplex::pair(DUPLEX_BYTES_MAX);
        self.join(peer.address.to_text(), is_mqtt, near, End::Other(Box::new(far)));
        Some(end)
    }

    fn is_quiet(&self) -> bool {
        self.held() == 0
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("rules", &self.rules).field("held", &self.held()).finish_non_exhaustive()
    }
}

/// Connections that have ended and are remembered.
const ENDED_MAX: usize = 64;

/// Packets of one connection that can be remembered: a megabyte of lines at most.
const TRACE_PACKETS_MAX: usize = 4096;

/// How long a proxy waits for the broker behind it.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
