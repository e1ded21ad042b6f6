//! How busy a thread is: the share of some time that it has had a processor. One look at its account a window, and not two
//! looks at a clock around each wait.

use std::time::{Duration, Instant};

/// The load of the thread that has made it.
#[derive(Debug)]
pub(super) struct Load {
    window: Duration,
    begun: Instant,
    used: Duration,
}

impl Load {
    /// Begins a first window.
    pub(super) fn new(window: Duration, now: Instant) -> Self {
        Self { window, begun: now, used: processor_time().unwrap_or_default() }
    }

    /// Whether the system tells.
    pub(super) fn is_told() -> bool {
        processor_time().is_some()
    }

    /// When a window is over, the thousandths of it that the thread has been busy; begins the next.
    pub(super) fn look(&mut self, now: Instant) -> Option<u32> {
        let elapsed = now.saturating_duration_since(self.begun);
        if elapsed < self.window {
            return None;
        }
        let used = processor_time()?;
        let busy = used.saturating_sub(std::mem::replace(&mut self.used, used));
        self.begun = now;
        Some((busy.as_nanos() * 1000 / elapsed.as_nanos().max(1)).try_into().unwrap_or(u32::MAX))
    }
}

/// What this thread has had of processors so far.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // the standard library tells no time but that on the wall
fn processor_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the one value that it is given, which lives until it returns.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    (result == 0).then(|| Duration::new(seconds, nanos))
}

#[cfg(not(target_os = "linux"))]
fn processor_time() -> Option<Duration> {
    None
}
