//! Text and bytes, one after the other; and text that repeats.

use std::collections::HashMap;

use arrow_schema::TimeUnit;
use chrono::DateTime;
use foldhash::fast::RandomState;

/// Values of any length in one buffer. A batch is finished long before its offsets overflow.
#[derive(Debug, Default)]
pub(crate) struct Strings {
    pub(super) bytes: Vec<u8>,
    /// Where each value ends.
    pub(super) ends: Vec<i32>,
}

impl Strings {
    /// So many empty values.
    pub(super) fn empty(len: usize) -> Self {
        Self { bytes: Vec::new(), ends: vec![0; len] }
    }

    #[inline]
    pub(super) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(i32::try_from(self.bytes.len()).expect("a batch is finished before 2 GiB"));
    }

    pub(super) fn push_empty(&mut self, count: usize) {
        let end = self.ends.last().copied().unwrap_or_default();
        self.ends.resize(self.ends.len() + count, end);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.bytes.truncate(self.ends.last().map_or(0, |end| end.cast_unsigned() as usize));
    }
}

/// Text by number; each distinct one is kept once a batch.
#[derive(Debug, Default)]
pub(crate) struct Categories {
    pub(super) keys: Vec<i32>,
    pub(super) known: Vec<Box<str>>,
    numbers: HashMap<Box<str>, i32, RandomState>,
}

impl Categories {
    pub(crate) fn push(&mut self, text: &str) {
        let key = self.number(text);
        self.keys.push(key);
    }

    pub(crate) fn push_number(&mut self, number: i32) {
        self.keys.push(number);
    }

    /// The number of a text, given now if it is new.
    #[inline]
    pub(crate) fn number(&mut self, text: &str) -> i32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = i32::try_from(self.known.len()).expect("a batch has fewer rows than i32 counts");
        self.known.push(text.into());
        self.numbers.insert(text.into(), number);
        number
    }

    pub(super) fn push_nulls(&mut self, count: usize) {
        self.keys.resize(self.keys.len() + count, 0);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.keys.truncate(len);
    }

    /// Distinct texts known.
    pub(crate) fn known_len(&self) -> usize {
        self.known.len()
    }

    /// Forgets all texts; for between batches.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.numbers.clear();
    }
}

/// A time by RFC 3339, in `unit` since 1970.
pub(super) fn moment(text: &str, unit: TimeUnit) -> Option<i64> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    match unit {
        TimeUnit::Second => Some(time.timestamp()),
        TimeUnit::Millisecond => Some(time.timestamp_millis()),
        TimeUnit::Microsecond => Some(time.timestamp_micros()),
        TimeUnit::Nanosecond => time.timestamp_nanos_opt(),
    }
}
