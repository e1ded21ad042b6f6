//! When small packets come, or go, so fast that a wake for each would cost more than the packets: they are gathered.
//!
//! A server that writes each packet by itself has its clients read each by itself, and a wake of this task and of its
//! consumer cost ten times what the message does. So once many small reads were made within a millisecond, the socket is
//! told to wait for about half a millisecond's worth of bytes ([`super::low_water`]), as long as many come. The same with
//! what is published: a caller that says when he is done for the moment need not wake this task each time.
//!
//! Who exchanges messages one by one must not notice. Only what comes in without the application saying anything is
//! gathered, and a guess that was wrong costs one tick, and makes the next guess twice as hard.

use std::time::{Duration, Instant};

/// What comes in.
#[derive(Debug)]
pub(super) struct Arrivals {
    window: Option<Window>,
    reads_wanted: u32,
    gathering: Option<Gathering>,
}

/// Reads that are still made at once.
#[derive(Debug)]
struct Window {
    began: Instant,
    reads: u32,
    bytes: usize,
    /// What the application had said by then.
    said: u64,
}

#[derive(Debug)]
struct Gathering {
    reads: u32,
    last: Instant,
    /// What the socket waits for.
    bytes: usize,
    /// A tick went by without that many: what has come is read now, and tells how to go on.
    is_late: bool,
}

/// What one read brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub(super) bytes: usize,
    pub(super) messages: u64,
    /// Counts what the application has sent.
    pub(super) said: u64,
}

/// What goes out.
#[derive(Debug)]
pub(super) struct Departures {
    began: Option<Instant>,
    writes: u32,
    writes_wanted: u32,
    /// Publications by the start of the window, or by the last tick.
    published: u64,
    /// Ticks since wakes are spared, if they are.
    ticks: Option<u32>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { window: None, reads_wanted: READS_WANTED, gathering: None }
    }
}

impl Arrivals {
    /// Something was read. How many bytes the socket is to wait for from now on, if that changes.
    pub(super) fn read(&mut self, now: Instant, read: Read) -> Option<usize> {
        if self.gathering.is_some() {
            return self.go_on(now, read);
        }
        let fresh = Window { began: now, reads: 0, bytes: 0, said: read.said };
        let most = WINDOW * self.reads_wanted / READS_WANTED;
        match &mut self.window {
            Some(window) if window.said == read.said && now.saturating_duration_since(window.began) <= most => {}
            window => *window = Some(fresh),
        }
        let window = self.window.as_mut()?;
        window.reads += u32::from(read.bytes < SMALL_BYTES);
        window.bytes += read.bytes;
        if window.reads < self.reads_wanted {
            return None;
        }
        let took_us = now.saturating_duration_since(window.began).as_micros().max(1);
        let bytes = window.bytes as u128 * GATHERING.as_micros() / took_us;
        let bytes = (bytes as usize).clamp(GATHERED_BYTES_MIN, GATHERED_BYTES_MAX);
        self.window = None;
        self.gathering = Some(Gathering { reads: 0, last: now, bytes, is_late: false });
        Some(bytes)
    }

    /// Whether the socket waits for more than a byte.
    pub(super) fn is_waiting(&self) -> bool {
        self.gathering.as_ref().is_some_and(|gathering| !gathering.is_late)
    }

    /// The tick is over: the socket waits no longer.
    pub(super) fn late(&mut self) {
        if let Some(gathering) = &mut self.gathering {
            gathering.is_late = true;
        }
    }

    /// From now on each read is made at once.
    pub(super) fn end(&mut self) {
        let Some(gathering) = self.gathering.take() else { return };
        let wanted =
            if gathering.reads >= READS_WORTH { READS_AGAIN } else { self.reads_wanted.max(READS_WANTED / 2) * 2 };
        self.reads_wanted = wanted.min(READS_WANTED_MAX);
    }

    fn go_on(&mut self, now: Instant, read: Read) -> Option<usize> {
        let gathering = self.gathering.as_mut()?;
        let took = now.saturating_duration_since(std::mem::replace(&mut gathering.last, now));
        gathering.reads = gathering.reads.saturating_add(1);
        if gathering.is_late && read.messages < MESSAGES_WORTH {
            self.end();
            return None;
        }
        let bytes = if std::mem::take(&mut gathering.is_late) {
            read.bytes / 3
        } else if took < GATHERING / 2 {
            gathering.bytes * 2
        } else {
            return None;
        };
        gathering.bytes = bytes.clamp(GATHERED_BYTES_MIN, GATHERED_BYTES_MAX);
        Some(gathering.bytes)
    }
}

impl Default for Departures {
    fn default() -> Self {
        Self { began: None, writes: 0, writes_wanted: WRITES_WANTED, published: 0, ticks: None }
    }
}

impl Departures {
    /// Output is written; `published` counts publications. Whether callers are relied on from now on to say when they
    /// are done.
    pub(super) fn write(&mut self, now: Instant, published: u64) -> bool {
        if self.ticks.is_some() {
            return false;
        }
        let is_in_window = self.began.is_some_and(|began| now.saturating_duration_since(began) <= WINDOW);
        if !is_in_window {
            (self.began, self.writes, self.published) = (Some(now), 0, published);
        }
        self.writes += 1;
        let many = u64::from(self.writes) * PUBLICATIONS_PER_WRITE;
        if self.writes < self.writes_wanted || published - self.published < many {
            return false;
        }
        (self.began, self.published, self.ticks) = (None, published, Some(0));
        true
    }

    /// Another tick is over; whether enough was published in it to go on.
    pub(super) fn tick(&mut self, published: u64) -> bool {
        let Some(ticks) = &mut self.ticks else { return false };
        *ticks = ticks.saturating_add(1);
        let goes_on = published - self.published >= PUBLICATIONS_PER_TICK;
        if !goes_on {
            let was_worth = *ticks > TICKS_WORTH;
            self.writes_wanted =
                if was_worth { WRITES_WANTED } else { (self.writes_wanted * 2).min(WRITES_WANTED_MAX) };
            self.ticks = None;
        }
        self.published = published;
        goes_on
    }
}

/// How long something may wait for others: one tick of tokio's timers.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// In this time so many reads, or writes, are many.
const WINDOW: Duration = Duration::from_millis(2);

/// Small reads in a window before packets are gathered: as many a second cost an eighth of a processor.
const READS_WANTED: u32 = 12;

/// The same, soon after it was worth it.
const READS_AGAIN: u32 = 3;

/// The same, after guesses that were wrong.
const READS_WANTED_MAX: u32 = 16 * READS_WANTED;

/// Gathered reads that make up for the tick at their end.
const READS_WORTH: u32 = 3;

/// Messages that are worth the tick that they took to come.
const MESSAGES_WORTH: u64 = 8;

/// What is waited for comes in about this time.
const GATHERING: Duration = Duration::from_micros(500);

/// A read of this size or more is worth its wake.
const SMALL_BYTES: usize = 2048;

const GATHERED_BYTES_MIN: usize = 128;
const GATHERED_BYTES_MAX: usize = 16 * 1024;

/// Writes in a window before wakes are spared.
const WRITES_WANTED: u32 = 4;

/// Publications in each of them, on average: one is what somebody does who waits for an answer.
const PUBLICATIONS_PER_WRITE: u64 = 3;

/// Publications in a tick, below which wakes are not spared any more.
const PUBLICATIONS_PER_TICK: u64 = 16;

/// Ticks that show that it was worth it.
const TICKS_WORTH: u32 = 4;

/// Writes wanted after guesses that were wrong.
const WRITES_WANTED_MAX: u32 = 64 * WRITES_WANTED;

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads of `bytes` each, `apart` from each other; after how many of them gathering began, and with how many bytes.
    fn gathering_after(arrivals: &mut Arrivals, bytes: usize, apart: Duration, says: bool) -> Option<(u32, usize)> {
        let start = Instant::now();
        (0..10_000).find_map(|number| {
            let said = if says { u64::from(number) } else { 0 };
            let read = Read { bytes, messages: bytes as u64 / 32, said };
            arrivals.read(start + apart * number, read).map(|wait| (number + 1, wait))
        })
    }

    #[test]
    fn a_dense_stream_of_small_reads_is_gathered_by_its_rate() {
        let mut arrivals = Arrivals::default();
        let (reads, wait) = gathering_after(&mut arrivals, 32, Duration::from_micros(8), false).unwrap();
        assert_eq!(reads, READS_WANTED);
        // 32 bytes in 8 us are 2,000 in half a millisecond.
        assert!((1_900..2_300).contains(&wait), "{wait}");
        assert!(arrivals.is_waiting());
    }

    #[test]
    fn slow_large_and_answered_reads_are_not() {
        for (bytes, apart_us, says) in [(32, 200, false), (64 * 1024, 8, false), (32, 8, true)] {
            let mut arrivals = Arrivals::default();
            let gathering = gathering_after(&mut arrivals, bytes, Duration::from_micros(apart_us), says);
            assert_eq!(gathering, None, "{bytes} bytes each {apart_us} us");
        }
    }

    #[test]
    fn what_is_waited_for_follows_the_rate() {
        let mut arrivals = Arrivals::default();
        gathering_after(&mut arrivals, 32, Duration::from_micros(100), false).unwrap();
        let now = Instant::now() + Duration::from_secs(1);
        let read = Read { bytes: 300, messages: 10, said: 0 };
        assert_eq!(arrivals.read(now, read), None);
        assert_eq!(arrivals.read(now + GATHERING / 4, read), Some(2 * 174));
        assert_eq!(arrivals.read(now + GATHERING, read), None);
        arrivals.late();
        assert!(!arrivals.is_waiting());
        assert_eq!(arrivals.read(now + GATHERING * 4, read), Some(GATHERED_BYTES_MIN));
        arrivals.late();
        assert_eq!(arrivals.read(now + GATHERING * 8, Read { messages: 1, ..read }), None);
        assert!(!arrivals.is_waiting());
        // It was worth it, and is taken up again soon.
        assert_eq!(gathering_after(&mut arrivals, 32, Duration::from_micros(8), false).unwrap().0, READS_AGAIN);
    }

    #[test]
    fn each_wrong_guess_makes_the_next_one_harder() {
        let mut arrivals = Arrivals::default();
        for factor in [1, 2, 4, 8, 16, 16] {
            let (reads, _) = gathering_after(&mut arrivals, 32, Duration::from_micros(8), false).unwrap();
            assert_eq!(reads, READS_WANTED * factor);
            arrivals.end();
        }
    }

    #[test]
    fn wakes_are_spared_for_streams_and_not_for_exchanges() {
        let (now, apart) = (Instant::now(), Duration::from_micros(50));
        let mut exchange = Departures::default();
        assert!((1..1_000).all(|number| !exchange.write(now + apart * number, u64::from(number))));
        let mut stream = Departures::default();
        let began = (1..100).find(|number| stream.write(now + apart * *number, u64::from(number * 10)));
        assert_eq!(began, Some(WRITES_WANTED));
        assert!(stream.tick(100));
        assert!(!stream.tick(101));
        assert!(!stream.write(now + apart * 100, 110));
    }
}
