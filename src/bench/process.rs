//! What a process has taken, as Linux tells it; nothing elsewhere.

use std::{fs, time::Duration};

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

    /// What was taken since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu) }
    }
}

/// Resident memory of a process; `None` if that is not told.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}
