//! A handle to a running broker: publish into it, look at it, administer it, from any thread or task.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use tokio::sync::oneshot;

use crate::{
    broker::{ClientInfo, Message, Peer, Shard, Shared, Stats},
    clock::Clock,
    codec::ReasonCode,
    net::{
        NetStats,
        duplex::{self, DUPLEX_BYTES_MAX, Duplex, DuplexEnd},
        interpose::Near,
        shard::{Probe, Shards},
    },
};

/// A handle to a [`Broker`](super::Broker); cheap to clone. It does not keep the broker running.
///
/// Each question has two forms: one that waits, for threads, and one with `_async`, for tasks. An answer takes as long
/// as one tick of a busy shard. Hooks are called on the shards' threads, so they may use what does not wait
/// ([`Self::publish`], [`Self::retained`]) and nothing else.
#[derive(Debug, Clone)]
pub struct BrokerHandle {
    shards: Arc<Shards>,
    shared: Arc<Shared>,
    next_shard: Arc<AtomicUsize>,
}

/// Why a message of the process was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The broker has been shut down.
    #[error("the broker has been shut down")]
    Stopped,
    /// More messages wait than the broker holds.
    #[error("too many messages of this process wait in the broker; try again when it has caught up")]
    Busy,
}

impl BrokerHandle {
    pub(super) fn new(shards: Arc<Shards>, shared: Arc<Shared>) -> Self {
        Self { shards, shared, next_shard: Arc::default() }
    }

    pub(super) fn shards(&self) -> &Arc<Shards> {
        &self.shards
    }

    /// Publishes a message to all who want it. The process is one publisher: its messages stay in order.
    pub fn publish(&self, message: Message) -> Result<(), PublishError> {
        self.publish_all(vec![message])
    }

    /// Publishes messages in one go.
    pub fn publish_all(&self, messages: Vec<Message>) -> Result<(), PublishError> {
        if self.shards.is_stopped() {
            return Err(PublishError::Stopped);
        }
        let command = Box::new(move |shard: &mut Shard, now: Instant| {
            for message in messages {
                shard.publish(now, message);
            }
        });
        self.shards
            .command(HOME_OF_THE_PROCESS, command)
            .map_err(|_| if self.shards.is_stopped() { PublishError::Stopped } else { PublishError::Busy })
    }

    /// All clients, connected or with a session.
    pub fn clients(&self) -> Vec<ClientInfo> {
        block_on(self.clients_async())
    }

    /// All clients, connected or with a session.
    pub async fn clients_async(&self) -> Vec<ClientInfo> {
        let answers = self.ask_all(|shard, _| shard.clients());
        let mut clients = Vec::new();
        for answer in answers {
            clients.extend(answer.await.unwrap_or_default());
        }
        clients
    }

    /// Ends the connection of a client with a reason; whether there was one.
    pub fn kick(&self, client_id: &str, reason: ReasonCode) -> bool {
        block_on(self.kick_async(client_id, reason))
    }

    /// Ends the connection of a client with a reason; whether there was one.
    pub async fn kick_async(&self, client_id: &str, reason: ReasonCode) -> bool {
        let home = usize::from(self.shared.home(client_id).0);
        let client_id = client_id.to_owned();
        self.ask(home, move |shard, now| shard.kick(now, &client_id, reason)).await.unwrap_or_default()
    }

    /// The counters of all shards, summed. Those of a broker that was shut down can still be read.
    pub fn stats(&self) -> Stats {
        block_on(self.stats_async())
    }

    /// The counters of all shards, summed. Those of a broker that was shut down can still be read.
    pub async fn stats_async(&self) -> Stats {
        let mut sum = Stats::default();
        for (index, answer) in self.ask_all(|shard, _| shard.stats()).into_iter().enumerate() {
            match answer.await {
                Ok(stats) => sum.add(&stats),
                Err(_) => sum.add(&self.shards.with_stopped(index, Shard::stats)),
            }
        }
        sum
    }

    /// What happened before any session: connections refused, accepting postponed.
    pub fn net_stats(&self) -> NetStats {
        self.shards.net_stats()
    }

    /// The retained messages that match a filter, `max` at most.
    pub fn retained(&self, filter: &str, max: usize) -> Vec<Arc<Message>> {
        self.shared.retained(filter, max)
    }

    /// Whether everything that has reached the broker is done: delivered and acknowledged as far as clients are
    /// connected, and written to their connections.
    pub fn is_settled(&self) -> bool {
        block_on(self.is_settled_async())
    }

    /// Whether everything that has reached the broker is done.
    pub async fn is_settled_async(&self) -> bool {
        // What leaves one shard after it was looked at arrives at another, whose activity then differs the second time.
        // So it is with clients of the process, if they live by the broker's clock.
        self.clock().cross_fences().await;
        let seats = self.clock().seats();
        let is_quiet = self.shards.interposer().is_none_or(|interposer| interposer.is_quiet());
        let Some(first) = self.probe_all().await else { return true };
        if !seats.0 || !is_quiet || !first.iter().all(|probe| probe.is_settled) {
            return false;
        }
        self.clock().cross_fences().await;
        let Some(second) = self.probe_all().await else { return true };
        let is_same = |(first, second): (&Probe, &Probe)| first.activity == second.activity && second.is_settled;
        first.iter().zip(&second).all(is_same) && self.clock().seats() == seats
    }

    /// Waits until the broker [is settled](Self::is_settled), or has been shut down.
    pub async fn settled(&self) {
        let event = self.shards.settle_event();
        loop {
            let mut notified = pin!(event.notified());
            notified.as_mut().enable();
            let rest = self.clock().rest();
            if self.is_settled_async().await {
                return;
            }
            tokio::select! {
                () = notified => {}
                () = rest => {}
            }
        }
    }

    /// Waits until the broker [is settled](Self::is_settled), or has been shut down.
    pub fn wait_settled(&self) {
        block_on(self.settled());
    }

    /// Where the broker has its time from.
    pub fn clock(&self) -> &Clock {
        self.shards.clock()
    }

    /// A connection from inside the process, without sockets: the peer's end of it, on which to speak MQTT.
    pub fn connect_memory(&self) -> io::Result<Duplex> {
        let peer = Peer { address: "memory".into(), listener: Arc::from("memory") };
        let (client, end) = match self.shards.interposer() {
            None => duplex::pair(DUPLEX_BYTES_MAX),
            Some(_) if self.shards.is_stopped() => return Err(io::ErrorKind::ConnectionRefused.into()),
            Some(interposer) => {
                let (client, near) = duplex::relayed(DUPLEX_BYTES_MAX);
                let end = Arc::clone(interposer).interpose(Near::Memory(near), &peer, true);
                (client, end.ok_or(io::ErrorKind::ConnectionRefused)?)
            }
        };
        self.accept(client, end, peer)
    }

    /// The same for one who only looks on: faults and traces do not concern it, nor do credentials, permissions and limits
    /// of connections, and it is not counted among the clients.
    pub fn connect_observer(&self) -> io::Result<Duplex> {
        let (client, end) = duplex::pair(DUPLEX_BYTES_MAX);
        self.accept(client, end, Peer::observer())
    }

    fn accept(&self, client: Duplex, end: DuplexEnd, peer: Peer) -> io::Result<Duplex> {
        if self.shards.is_stopped() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let to = self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        self.shards.accept_duplex(to, end, peer);
        Ok(client)
    }

    /// Asks one shard.
    fn ask<R: Send + 'static>(
        &self,
        shard: usize,
        question: impl FnOnce(&mut Shard, Instant) -> R + Send + 'static,
    ) -> oneshot::Receiver<R> {
        let (sender, receiver) = oneshot::channel();
        let command = Box::new(move |shard: &mut Shard, now: Instant| {
            // Who asked may have lost interest.
            let _ = sender.send(question(shard, now));
        });
        // If it is given back, dropping it ends the wait.
        drop(self.shards.command(shard, command));
        receiver
    }

    fn ask_all<R: Send + 'static>(
        &self,
        question: impl Fn(&mut Shard, Instant) -> R + Clone + Send + 'static,
    ) -> Vec<oneshot::Receiver<R>> {
        (0..self.shards.len()).map(|shard| self.ask(shard, question.clone())).collect()
    }

    /// One look at every shard, or `None` if the broker has been shut down.
    async fn probe_all(&self) -> Option<Vec<Probe>> {
        let answers: Vec<_> = (0..self.shards.len()).map(|shard| self.shards.probe(shard)).collect();
        let mut probes = Vec::with_capacity(answers.len());
        for answer in answers {
            probes.push(answer.await.ok()?);
        }
        Some(probes)
    }
}

/// Drives a future on a thread that may wait, whatever runtime surrounds it: nothing here needs one.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Where what the process publishes enters.
const HOME_OF_THE_PROCESS: usize = 0;
