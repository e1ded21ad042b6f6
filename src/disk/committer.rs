//! The thread that commits: whoever has changes leaves them here and goes on; everything that has come while one
//! transaction was being written makes up the next.
//!
//! A transaction that fails is tried again, with all that came since, until it succeeds: on a full disk nothing is
//! vouched for, and nothing is lost.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use super::{DiskError, Encode, File, Rows};

/// What changes do to a file.
pub(crate) trait Stage: Send + 'static {
    type Batch: Send + 'static;
    type Value: Encode + Send;

    /// Takes changes in.
    fn apply(&mut self, batch: Self::Batch);

    /// What the file lacks.
    fn rows(&mut self) -> &mut Rows<Self::Value>;

    /// All that was taken in is in the file.
    fn committed(&mut self);

    /// It is not, for now.
    fn failed(&mut self, failure: &DiskError) {
        let _ = failure;
    }
}

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Committer<B> {
    shared: Arc<Shared<B>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared<B> {
    queue: Mutex<Queue<B>>,
    /// Something has come, or the end.
    news: Condvar,
}

#[derive(Debug)]
struct Queue<B> {
    batches: Vec<B>,
    is_closing: bool,
    failure: Option<DiskError>,
}

impl<B: Send + 'static> Committer<B> {
    /// Starts the thread.
    pub(crate) fn start<S: Stage<Batch = B>>(file: File, stage: S) -> Result<Self, DiskError> {
        let queue = Queue { batches: Vec::new(), is_closing: false, failure: None };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), news: Condvar::new() });
        let path = file.path().to_owned();
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("ferromq-disk".to_owned())
            .spawn(move || run(&of_thread, file, stage))
            .map_err(|error| DiskError::Io { path, source: Arc::new(error) })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Leaves what `batch` makes, which is called under the lock that orders the batches.
    pub(crate) fn submit(&self, batch: impl FnOnce() -> B) {
        let mut queue = self.shared.queue.lock();
        let is_edge = queue.batches.is_empty();
        let batch = batch();
        queue.batches.push(batch);
        drop(queue);
        if is_edge {
            self.shared.news.notify_one();
        }
    }

    /// Why nothing has been committed lately.
    pub(crate) fn failure(&self) -> Option<DiskError> {
        self.shared.queue.lock().failure.clone()
    }

    /// Commits what was left, as far as that is possible, and lets go of the file.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().is_closing = true;
        self.shared.news.notify_one();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread that commits to the disk panicked");
        }
    }
}

impl<B> Drop for Committer<B> {
    fn drop(&mut self) {
        self.shared.queue.lock().is_closing = true;
        self.shared.news.notify_one();
        if let Some(thread) = self.thread.get_mut().take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic was told by the thread itself.
            let _ = thread.join();
        }
    }
}

fn run<S: Stage>(shared: &Shared<S::Batch>, mut file: File, mut stage: S) {
    let mut wait = None;
    loop {
        let (batches, is_closing) = shared.next(wait);
        for batch in batches {
            stage.apply(batch);
        }
        let written = if stage.rows().is_empty() { Ok(()) } else { file.write(stage.rows()) };
        match written {
            Ok(()) => {
                if wait.take().is_some() {
                    tracing::info!(path = %file.path().display(), "what waited is written");
                }
                shared.queue.lock().failure = None;
                stage.rows().clear();
                stage.committed();
            }
            Err(error) => {
                tracing::error!(%error, "not committed; trying again until it succeeds");
                // Whoever is told of it finds it so.
                shared.queue.lock().failure = Some(error.clone());
                stage.failed(&error);
                wait = Some(wait.map_or(WAIT_MIN, |wait: Duration| (wait * 2).min(WAIT_MAX)));
            }
        }
        if is_closing {
            return;
        }
    }
}

impl<B> Shared<B> {
    /// What has come, after waiting for it; or, if `retry_in` says so, after that time at most.
    fn next(&self, retry_in: Option<Duration>) -> (Vec<B>, bool) {
        let mut queue = self.queue.lock();
        if let Some(wait) = retry_in {
            while !queue.is_closing {
                if self.news.wait_for(&mut queue, wait).timed_out() {
                    break;
                }
            }
        } else {
            while queue.batches.is_empty() && !queue.is_closing {
                self.news.wait(&mut queue);
            }
        }
        (std::mem::take(&mut queue.batches), queue.is_closing)
    }
}

/// How long after the first failure the next attempt is made.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// The longest time between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(5);
