//! The few threads on which authenticators may block.
//!
//! Started when first needed, gone after a while without work, and never more than [`THREADS_MAX`]: a slow back end
//! delays its own clients, not the shards.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

/// A piece of blocking work.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The pool; a handle that can be cloned.
#[derive(Clone)]
pub(crate) struct BlockingPool(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

impl BlockingPool {
    /// A pool without threads yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), work: Condvar::new() }))
    }

    /// Runs `job` on a thread that may block, or gives it back when too many wait or no thread can be had.
    pub(crate) fn run(&self, job: Job) -> Result<(), Job> {
        let mut state = self.0.state.lock();
        if state.is_closed || state.jobs.len() >= JOBS_MAX {
            return Err(job);
        }
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            self.0.work.notify_one();
        } else if state.threads < THREADS_MAX {
            let pool = self.clone();
            let spawned = thread::Builder::new().name("ferromq-auth".into()).spawn(move || pool.work());
            match spawned {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    tracing::error!(%error, "no thread for authentication");
                    return Err(state.jobs.pop_back().expect("the job was pushed above"));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whether any job waits or runs.
    pub(crate) fn is_busy(&self) -> bool {
        let state = self.0.state.lock();
        !state.jobs.is_empty() || state.threads > state.idle
    }

    /// Drops what waits; threads end when their present job does.
    pub(crate) fn close(&self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        state.jobs.clear();
        drop(state);
        self.0.work.notify_all();
    }

    fn work(&self) {
        let mut state = self.0.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!("an authenticator panicked");
                }
                state = self.0.state.lock();
                continue;
            }
            if state.is_closed {
                break;
            }
            state.idle += 1;
            let timeout = self.0.work.wait_for(&mut state, IDLE_TIMEOUT);
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

impl std::fmt::Debug for BlockingPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("BlockingPool").field("threads", &state.threads).field("jobs", &state.jobs.len()).finish()
    }
}

/// Enough for back ends that answer in milliseconds; a slower one would not be helped by more requests at once.
const THREADS_MAX: usize = 16;

/// CONNECTs that wait for a thread; more are told that the server is busy.
const JOBS_MAX: usize = 4096;

/// A thread without work ends after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_run_beside_each_other_and_survive_a_panic() {
        let pool = BlockingPool::new();
        let (sender, receiver) = mpsc::sync_channel(2);
        let (release, released) = mpsc::sync_channel::<()>(1);
        let first = sender.clone();
        let blocked: Job = Box::new(move || {
            released.recv().unwrap();
            first.send("first").unwrap();
        });
        assert!(pool.run(blocked).is_ok());
        assert!(pool.run(Box::new(|| panic!("a faulty back end"))).is_ok());
        assert!(pool.run(Box::new(move || sender.send("second").unwrap())).is_ok());
        assert_eq!(receiver.recv().unwrap(), "second");
        release.send(()).unwrap();
        assert_eq!(receiver.recv().unwrap(), "first");
        pool.close();
        assert!(pool.run(Box::new(|| ())).is_err());
    }
}
