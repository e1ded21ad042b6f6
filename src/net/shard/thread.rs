//! A shard's thread: poll, tick, park.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use mio::{Events, Poll};

use super::Shards;

/// Starts the thread of one shard.
pub(crate) fn spawn(shards: Arc<Shards>, index: usize, poll: Poll) -> io::Result<JoinHandle<()>> {
    Builder::new().name(format!("ferromq-shard-{index}")).spawn(move || {
        // The broker's other shards go on; those who wait for this one must not wait for ever.
        let result = catch_unwind(AssertUnwindSafe(|| run(&shards, index, poll)));
        if result.is_err() {
            tracing::error!(shard = index, "a shard failed; its connections are closed");
        }
        let cell = &shards.cells[index];
        cell.parked.store(false, Ordering::Release);
        cell.is_stopped.store(true, Ordering::Release);
        cell.state.lock().release();
        cell.inbox.clear();
        shards.note_wills_sent(index);
        shards.note_drained(index);
        shards.notify_settle();
    })
}

fn run(shards: &Shards, index: usize, mut poll: Poll) {
    let cell = &shards.cells[index];
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut state = cell.state.lock();
    loop {
        let now = shards.now();
        if state.is_finished(shards, now) {
            return;
        }
        if state.has_more() {
            poll_once(&mut poll, &mut events, Some(Duration::ZERO));
        } else {
            let deadline = state.park();
            if state.take_activity() {
                shards.notify_settle();
            }
            cell.parked.store(true, Ordering::Release);
            // See the module's documentation: this look comes after the store, a sender's look after its push.
            if cell.inbox.is_empty() {
                drop(state);
                let timeout = deadline.map(|at| at.saturating_duration_since(now));
                poll_once(&mut poll, &mut events, timeout);
                cell.parked.store(false, Ordering::Release);
                state = cell.state.lock();
            } else {
                cell.parked.store(false, Ordering::Release);
                poll_once(&mut poll, &mut events, Some(Duration::ZERO));
            }
        }
        state.tick(shards, &events);
    }
}

fn poll_once(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) {
    if let Err(error) = poll.poll(events, timeout)
        && error.kind() != io::ErrorKind::Interrupted
    {
        // Nothing that a running shard could cause or cure.
        panic!("the readiness source failed: {error}");
    }
}

/// Events of one poll; more come with the next.
const EVENTS_MAX: usize = 1024;
