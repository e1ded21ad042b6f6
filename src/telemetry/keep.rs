//! The batches of a table in memory, bounded by age, rows and bytes.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arrow_array::{RecordBatch, cast::AsArray, types::TimestampMicrosecondType};
use arrow_select::concat::concat_batches;

/// What is kept in memory.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Rows older than this go.
    pub age_max: Option<Duration>,
    /// Of more rows the oldest go.
    pub rows_max: Option<u64>,
    /// Memory of the rows, bytes. Default 2 GiB.
    pub bytes_max: usize,
    /// At `bytes_max` the oldest rows go; otherwise the capture ends.
    pub drops_oldest: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self { age_max: None, rows_max: None, bytes_max: 2 << 30, drops_oldest: false }
    }
}

/// Batches, oldest first.
#[derive(Debug)]
pub(super) struct Kept {
    keep: Keep,
    batches: VecDeque<RecordBatch>,
    rows: u64,
    bytes: usize,
}

impl Kept {
    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, batches: VecDeque::new(), rows: 0, bytes: 0 }
    }

    /// Adds a batch. Small ones, as snapshots make them, are put together.
    pub(super) fn push(&mut self, batch: RecordBatch) {
        let batch = match self.batches.back() {
            Some(last) if last.num_rows() + batch.num_rows() <= SMALL_ROWS && last.schema() == batch.schema() => {
                match concat_batches(&batch.schema(), [last, &batch]) {
                    Ok(both) => {
                        self.take_out(VecDeque::pop_back);
                        both
                    }
                    Err(_) => batch,
                }
            }
            _ => batch,
        };
        self.rows += batch.num_rows() as u64;
        self.bytes += batch.get_array_memory_size();
        self.batches.push_back(batch);
    }

    pub(super) fn batches(&self) -> Vec<RecordBatch> {
        self.batches.iter().cloned().collect()
    }

    /// Whether there is no room for so much more, and nothing may be dropped.
    pub(super) fn is_full(&self, more_bytes: usize) -> bool {
        !self.keep.drops_oldest && self.bytes + more_bytes >= self.keep.bytes_max
    }

    /// Lets go what is too old or too much; rows.
    pub(super) fn forget(&mut self, now: SystemTime) -> u64 {
        let before = self.rows;
        while self.keep.drops_oldest && self.bytes > self.keep.bytes_max && self.batches.len() > 1 {
            self.take_out(VecDeque::pop_front);
        }
        if let Some(max) = self.keep.rows_max {
            while self.rows > max {
                self.cut_front(usize::try_from(self.rows - max).unwrap_or(usize::MAX));
            }
        }
        if let Some(age) = self.keep.age_max {
            let oldest = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age);
            let oldest = i64::try_from(oldest.as_micros()).unwrap_or(i64::MAX);
            while let Some(times) = self.batches.front().map(|batch| Arc::clone(batch.column(0))) {
                let times = times.as_primitive::<TimestampMicrosecondType>();
                let late = times.values().partition_point(|time| *time < oldest);
                if late == 0 {
                    break;
                }
                self.cut_front(late);
            }
        }
        before - self.rows
    }

    /// Lets go the first rows, up to a whole batch.
    fn cut_front(&mut self, rows: usize) {
        let Some(front) = self.take_out(VecDeque::pop_front).filter(|front| front.num_rows() > rows) else { return };
        let rest = front.slice(rows, front.num_rows() - rows);
        self.rows += rest.num_rows() as u64;
        // The slice keeps the whole of it; once most of it is gone, what is left is copied out.
        let rest = if rest.num_rows() * 2 < SMALL_ROWS {
            concat_batches(&rest.schema(), [&rest]).unwrap_or(rest)
        } else {
            rest
        };
        self.bytes += rest.get_array_memory_size();
        self.batches.push_front(rest);
    }

    fn take_out(
        &mut self,
        take: impl FnOnce(&mut VecDeque<RecordBatch>) -> Option<RecordBatch>,
    ) -> Option<RecordBatch> {
        let batch = take(&mut self.batches)?;
        self.rows -= batch.num_rows() as u64;
        self.bytes = self.bytes.saturating_sub(batch.get_array_memory_size());
        Some(batch)
    }
}

/// Batches below this are put together.
const SMALL_ROWS: usize = 8192;
