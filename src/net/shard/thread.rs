//! A shard's thread, from its start to its end.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread::{Builder, JoinHandle},
};

use mio::Poll;

use super::{Shards, runner};

/// Starts the thread of one shard.
pub(crate) fn spawn(shards: Arc<Shards>, index: usize, poll: Poll) -> io::Result<JoinHandle<()>> {
    Builder::new().name(format!("ferromq-shard-{index}")).spawn(move || {
        // The broker's other shards go on; those who wait for this one must not wait for ever.
        let result = catch_unwind(AssertUnwindSafe(|| runner::run(&shards, index, poll)));
        if index == runner::HOST {
            shards.lodgings.end(&shards);
        }
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
