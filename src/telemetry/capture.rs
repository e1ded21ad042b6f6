//! A subscription that becomes a table in memory or files on the disk, on a thread of its own.
//!
//! Decoding costs time and files block, so neither is done by the threads that move packets. While this thread is busy,
//! messages wait in the subscription's mailbox, which stops the socket when it is full.

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Condvar, Mutex};
use tokio::{runtime::Handle, sync::Notify};

use super::{
    Counts, Recorder, Rows, Table, TelemetryError,
    keep::{Keep, Kept},
};
use crate::client::{Message, Subscription};

/// When a capture ends by itself, and what it does with its rows.
#[derive(Debug)]
pub struct CaptureOptions {
    /// End after so many rows.
    pub rows_max: Option<u64>,
    /// Where rows go.
    pub target: CaptureTarget,
}

/// Where rows go.
#[derive(Debug)]
pub enum CaptureTarget {
    /// Memory; the oldest go first, or the capture ends when it is full.
    Memory(Keep),
    /// Files.
    Files(Box<Recorder>),
}

/// A capture that runs, or has ended.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How far a capture is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// What was counted.
    pub counts: Counts,
    /// Bytes of the files.
    pub file_bytes: u64,
    /// Messages that wait to be decoded.
    pub pending: u64,
    /// Messages that were dropped before they could be.
    pub dropped: u64,
    /// Rows that `keep` let go.
    pub forgotten: u64,
    /// Age of the last message when it was decoded.
    pub lag: Duration,
    /// It has ended.
    pub is_done: bool,
    /// It ended because memory was full.
    pub is_full: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
    stop: Notify,
}

#[derive(Debug)]
struct State {
    rows: Rows,
    kept: Option<Kept>,
    recorder: Option<Box<Recorder>>,
    rows_max: Option<u64>,
    first_row_at: Option<Instant>,
    progress: Progress,
    failure: Option<TelemetryError>,
}

impl Capture {
    /// Begins to take the messages of `subscription`.
    pub fn start(runtime: Handle, subscription: Subscription, rows: Rows, options: CaptureOptions) -> Arc<Self> {
        let (kept, recorder) = match options.target {
            CaptureTarget::Memory(keep) => (Some(Kept::new(keep)), None),
            CaptureTarget::Files(recorder) => (None, Some(recorder)),
        };
        let state = State {
            rows,
            kept,
            recorder,
            rows_max: options.rows_max,
            first_row_at: None,
            progress: Progress::default(),
            failure: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), ended: Condvar::new(), stop: Notify::new() });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("ferromq-decode".to_owned());
        let thread = thread.spawn(move || {
            let subscription = worker.run(&runtime, subscription);
            runtime.block_on(async { drop(subscription) });
        });
        let thread = thread.expect("the process can start a thread");
        Arc::new(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let state = self.shared.state.lock();
        Progress { counts: state.rows.counts().clone(), ..state.progress.clone() }
    }

    /// Waits until it has ended, `at_most` so long; whether it has.
    pub fn wait(&self, at_most: Duration) -> bool {
        let mut state = self.shared.state.lock();
        if !state.progress.is_done {
            self.shared.ended.wait_for(&mut state, at_most);
        }
        state.progress.is_done
    }

    /// Ends it, and waits until all that came before is in the table or on the disk.
    pub fn stop(&self) {
        self.shared.stop.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            // A panic there has been reported by the panic hook; the state says that it has not ended.
            let _ = thread.join();
        }
    }

    /// Why it ended, if it failed; once.
    pub fn take_failure(&self) -> Option<TelemetryError> {
        self.shared.state.lock().failure.take()
    }

    /// All rows that are kept now, as one table. Columns are shared, not copied.
    pub fn table(&self) -> Result<Table, TelemetryError> {
        let mut state = self.shared.state.lock();
        state.finish_batch()?;
        state.forget();
        let (batches, limit) = match &state.kept {
            Some(kept) => (kept.batches(), state.rows_max),
            None => (Vec::new(), None),
        };
        drop(state);
        let batches = match limit {
            Some(limit) => first_rows(batches, limit),
            None => batches,
        };
        Ok(Table::unify(batches)?)
    }

    /// Files that are complete.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        let state = self.shared.state.lock();
        state.recorder.as_ref().map_or_else(Vec::new, |recorder| recorder.files().to_vec())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Takes messages until it is enough; gives the subscription back, to be dropped inside the runtime.
    fn run(&self, runtime: &Handle, mut subscription: Subscription) -> Subscription {
        let mut messages = Vec::with_capacity(SLICE_MESSAGES);
        // Once it is to stop: how many messages had come by then. More may come faster than they are decoded, for ever.
        let mut left = None;
        let mut is_last = false;
        while !is_last {
            let taken = match left {
                Some(left) => Some(subscription.drain_into(&mut messages, SLICE_MESSAGES.min(left))),
                None => runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = self.stop.notified() => {
                            left = Some(subscription.pending());
                            None
                        }
                        taken = subscription.recv_many(&mut messages, SLICE_MESSAGES) => Some(taken),
                        () = tokio::time::sleep(TICK) => None,
                    }
                }),
            };
            left = left.map(|left: usize| left.saturating_sub(taken.unwrap_or(0)));
            let mut state = self.state.lock();
            is_last = left == Some(0) || taken == Some(0);
            let result = state.take(&mut messages, subscription.pending()).and_then(|is_enough| {
                is_last |= is_enough;
                state.tick(Instant::now(), is_last)
            });
            state.progress.pending = subscription.pending() as u64;
            state.progress.dropped = subscription.dropped();
            if taken == Some(0) {
                state.failure = subscription.failure().map(TelemetryError::Client);
            }
            if let Err(error) = result {
                state.failure = Some(error);
                is_last = true;
            }
        }
        let mut state = self.state.lock();
        state.progress.is_done = true;
        self.ended.notify_all();
        subscription
    }
}

impl State {
    /// Decodes messages; whether it is enough.
    fn take(&mut self, messages: &mut Vec<Message>, pending: usize) -> Result<bool, TelemetryError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if let Some(oldest) = messages.first() {
            self.progress.lag = now.saturating_sub(Duration::from_micros(oldest.received_at_us()));
            self.first_row_at.get_or_insert_with(Instant::now);
        }
        self.progress.pending = pending as u64;
        for message in messages.drain(..) {
            if self.is_enough() {
                return Ok(true);
            }
            self.rows.push_message(&message)?;
            let pending = self.rows.pending_bytes();
            self.progress.is_full |= self.kept.as_ref().is_some_and(|kept| kept.is_full(pending));
            if self.rows.is_full() {
                self.finish_batch()?;
            }
        }
        Ok(self.is_enough())
    }

    fn is_enough(&self) -> bool {
        self.progress.is_full || self.rows_max.is_some_and(|max| self.rows.counts().rows >= max)
    }

    /// Does what is due: batches to files, files to their end.
    fn tick(&mut self, now: Instant, is_last: bool) -> Result<(), TelemetryError> {
        let Some(recorder) = &self.recorder else {
            self.forget();
            return Ok(());
        };
        let is_due = self.first_row_at.is_some_and(|at| now.saturating_duration_since(at) >= FLUSH_AFTER);
        let rotates = recorder.is_due(now);
        if is_last || is_due || rotates {
            self.finish_batch()?;
        }
        let recorder = self.recorder.as_mut().expect("it was there above");
        if is_last && recorder.files().is_empty() && !recorder.is_open() {
            // Nothing came: a file without rows says so.
            recorder.write(&self.rows.finish())?;
        }
        if is_last || rotates {
            recorder.finish()?;
            self.rows.thaw();
        }
        self.progress.file_bytes = recorder.bytes();
        Ok(())
    }

    /// Lets go what is not to be kept.
    fn forget(&mut self) {
        if let Some(kept) = &mut self.kept {
            self.progress.forgotten += kept.forget(SystemTime::now());
        }
    }

    fn finish_batch(&mut self) -> Result<(), TelemetryError> {
        self.first_row_at = None;
        if self.rows.is_empty() {
            return Ok(());
        }
        match (&mut self.kept, &mut self.recorder) {
            (Some(kept), _) => {
                kept.push(self.rows.finish());
            }
            (None, Some(recorder)) => {
                if !recorder.is_open() {
                    // The first batch decides what columns the file has.
                    self.rows.freeze();
                }
                recorder.write(&self.rows.finish())?;
            }
            (None, None) => unreachable!("rows go to memory or to files"),
        }
        Ok(())
    }
}

/// At most the first `max` rows: a message may hold several, so that the last one overshoots.
fn first_rows(batches: Vec<arrow_array::RecordBatch>, max: u64) -> Vec<arrow_array::RecordBatch> {
    let mut left = usize::try_from(max).unwrap_or(usize::MAX);
    let mut first = Vec::with_capacity(batches.len());
    for batch in batches {
        let rows = batch.num_rows().min(left);
        left -= rows;
        if rows > 0 {
            first.push(batch.slice(0, rows));
        }
    }
    first
}

/// Messages that are decoded before anybody else gets at the state.
const SLICE_MESSAGES: usize = 4096;

/// How often time is looked at while nothing comes.
const TICK: Duration = Duration::from_millis(100);

/// How long rows of a recording wait for more of them.
const FLUSH_AFTER: Duration = Duration::from_secs(2);
