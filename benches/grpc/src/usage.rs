//! Processor time of a process, as Linux tells it.

use std::{fs, time::Duration};

/// Of all its threads so far; `None` if that is not told.
pub fn cpu(pid: u32) -> Option<Duration> {
    let mut ns = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // One that has just ended is gone.
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        ns += text.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(ns))
}
