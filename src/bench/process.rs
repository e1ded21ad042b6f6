//! What a process has taken, as Linux tells it; nothing elsewhere.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// What a process has taken so far, or within some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of its threads.
    pub cpu: Duration,
}

impl Usage {
    /// Of a process of this machine, by its number; `None` if that is not told.
    pub fn of(pid: u32) -> Option<Self> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let mut ns = 0;
        for task in tasks {
            // One that has just ended is gone.
            let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
            ns += text.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
        }
        Some(Self { cpu: Duration::from_nanos(ns) })
    }

    /// Of the thread that asks.
    pub(super) fn of_this_thread() -> Option<Self> {
        let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        let ns = text.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self { cpu: Duration::from_nanos(ns) })
    }

    /// What was taken since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu) }
    }
}

/// What a process has taken, as soon as it takes nothing more for [`QUIET`]: what follows an answer belongs to it.
pub(super) fn settled(pid: u32) -> Option<Usage> {
    let mut last = Usage::of(pid)?;
    for _ in 0..QUIET_TRIES {
        pause(QUIET);
        let now = Usage::of(pid)?;
        if now.since(last).cpu < QUIET / 100 {
            return Some(now);
        }
        last = now;
    }
    Some(last)
}

/// Does nothing for some time.
pub(super) fn pause(time: Duration) {
    let begun = Instant::now();
    // It may end early, and nobody unparks this thread on purpose.
    while let Some(rest) = time.checked_sub(begun.elapsed()).filter(|rest| !rest.is_zero()) {
        thread::park_timeout(rest);
    }
}

/// Resident memory of a process; `None` if that is not told.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Longer than the scheduler waits before it accounts for a thread that runs.
const QUIET: Duration = Duration::from_millis(20);

/// A process that is never quiet is not waited for for ever.
const QUIET_TRIES: u32 = 250;
