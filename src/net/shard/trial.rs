//! Whether a shard is better off with a thread of its own: found out by a *trial*, which compares what is done a second.
//!
//! A second thread may get less done than one: messages cross then, which costs more where each is looked up among many
//! filters, and whoever makes the load may need the same processors. No thread's load tells that in advance. So when a
//! saturated host gives a shard back it looks for some windows at how much all shards get done, and *recalls* the shard
//! unless that is more than before. Where clients wait for each other (a closed loop), more done is better. Where they go by
//! the clock (an open loop), as much is done either way while one thread suffices, for less; and more with two from then on,
//! so that the shard stays apart.
//!
//! No verdict is for ever, since loads change: after a pause, which doubles as long as verdicts are the same, the other
//! way is looked at once more.

use std::time::{Duration, Instant};

use super::runner::Lodging;

/// What the host makes of what it sees; it looks once a window.
#[derive(Debug)]
pub(super) struct Trials {
    when: Lodging,
    stage: Stage,
    /// The end of the last window.
    last: Mark,
    /// How much was done a second while the host was saturated, until a shard was to be given back.
    before: u64,
    /// What the trial before this one found.
    better: Option<Better>,
    /// How long that holds, and until when.
    pause: Duration,
    until: Instant,
}

/// How many packets the shards had received and sent, together, at some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) at: Instant,
    pub(super) packets: u64,
}

/// What the host is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    Stay,
    /// Give the busiest lodger back, and say so by [`Trials::begin`].
    GiveBack,
    /// Have this shard lodge again.
    Recall(usize),
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// A shard has come in this window, which therefore tells of neither way.
    Arrival,
    /// Nothing is tried; in how many windows the host has been saturated, and when the first of them began.
    Watching { windows: u32, since: Mark },
    /// A shard has been given back so many windows ago; how much was done a second before, and when things had settled.
    Trying { shard: usize, windows: u32, before: u64, from: Option<Mark> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    Apart,
    Together,
}

impl Trials {
    pub(super) fn new(when: Lodging, now: Instant) -> Self {
        Self {
            when,
            stage: Stage::Arrival,
            last: Mark { at: now, packets: 0 },
            before: 0,
            better: None,
            pause: Duration::ZERO,
            until: now,
        }
    }

    /// At the end of a window: the thousandths of it that the host was busy, and what was done by now.
    pub(super) fn look(&mut self, load: u32, now: Mark) -> Advice {
        self.last = now;
        match self.stage {
            Stage::Arrival => self.watch(),
            Stage::Watching { .. } if load < self.when.saturated || self.is_settled(Better::Together, now.at) => {
                self.watch();
            }
            Stage::Watching { windows, since } => {
                let windows = windows + 1;
                self.stage = Stage::Watching { windows, since };
                if windows == MEASURED_WINDOWS {
                    self.watch();
                    self.before = since.per_second_until(now);
                    return Advice::GiveBack;
                }
            }
            Stage::Trying { shard, windows, before, from } => {
                let windows = windows + 1;
                let from = from.or((windows == SETTLING_WINDOWS).then_some(now));
                self.stage = Stage::Trying { shard, windows, before, from };
                let after = from.map_or(0, |from| from.per_second_until(now));
                if after / 2 > before {
                    // More than a second thread can do.
                    self.end_early(now.at);
                } else if let Some(better) = self.judge(windows, before, after) {
                    tracing::debug!(shard, before, after, ?better, "packets a second on one thread, and with one more");
                    self.end(better, now.at);
                    if better == Better::Together {
                        return Advice::Recall(shard);
                    }
                }
            }
        }
        Advice::Stay
    }

    /// The host has followed [`Advice::GiveBack`].
    pub(super) fn begin(&mut self, shard: usize) {
        self.stage = Stage::Trying { shard, windows: 0, before: self.before, from: None };
    }

    /// A shard lodges. If that is the one on trial it has become idle, and nobody knows what would have come out.
    pub(super) fn note_arrival(&mut self, arrived: usize, now: Instant) {
        match self.stage {
            Stage::Trying { shard, .. } if shard != arrived => return,
            Stage::Trying { .. } => (self.better, self.until) = (Some(Better::Together), now + self.when.pause_min),
            Stage::Arrival | Stage::Watching { .. } => {}
        }
        self.stage = Stage::Arrival;
    }

    /// Whether the host has to look once a window, even if it has nothing else to do.
    pub(super) fn is_trying(&self) -> bool {
        matches!(self.stage, Stage::Trying { .. })
    }

    /// Whether a shard may lodge that would not save much, so that the next trial compares anew.
    pub(super) fn may_try_together(&self, now: Instant) -> bool {
        !self.is_trying() && now >= self.until
    }

    /// Begins to watch, from the end of the last window on.
    fn watch(&mut self) {
        self.stage = Stage::Watching { windows: 0, since: self.last };
    }

    fn is_settled(&self, better: Better, now: Instant) -> bool {
        self.better == Some(better) && now < self.until
    }

    /// What a trial has shown: after all of its windows, or as soon as it is clear that less is done.
    fn judge(&self, windows: u32, before: u64, after: u64) -> Option<Better> {
        let share = u128::from(after) * 1000;
        let enough = u128::from(before) * u128::from(self.when.enough);
        if windows >= TRIAL_WINDOWS {
            Some(if share >= enough { Better::Apart } else { Better::Together })
        } else {
            (windows > SETTLING_WINDOWS && share < enough / 4 * 3).then_some(Better::Together)
        }
    }

    /// Notes a verdict; one that is old says nothing of this load any more.
    fn end(&mut self, better: Better, now: Instant) {
        let is_same = self.better == Some(better) && now <= self.until + self.pause;
        let pause = if is_same { self.pause * 2 } else { Duration::ZERO };
        self.pause = pause.max(self.when.pause_min).min(self.when.pause_max);
        (self.better, self.until) = (Some(better), now + self.pause);
        self.watch();
    }

    /// The load is another than before, so nothing was found out. The shard stays where it is until that may be compared.
    fn end_early(&mut self, now: Instant) {
        (self.better, self.until) = (None, now);
        self.watch();
    }
}

impl Mark {
    fn per_second_until(self, later: Self) -> u64 {
        let packets = u128::from(later.packets.saturating_sub(self.packets));
        let nanos = later.at.saturating_duration_since(self.at).as_nanos().max(1);
        (packets * 1_000_000_000 / nanos).try_into().unwrap_or(u64::MAX)
    }
}

/// Host's windows in which a shard that was given back does not count yet: its caches are those of the other thread.
const SETTLING_WINDOWS: u32 = 1;

/// Windows that count, before and after. One alone has as much of the clients' pace in it as of what there is to find out.
const MEASURED_WINDOWS: u32 = 4;
const TRIAL_WINDOWS: u32 = SETTLING_WINDOWS + MEASURED_WINDOWS;

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with invented figures.
    struct Host {
        trials: Trials,
        now: Mark,
        /// Whether the shard has been given back.
        is_apart: bool,
    }

    impl Host {
        fn new() -> Self {
            let at = Instant::now();
            let when = Lodging { pause_max: Duration::from_secs(4), ..Lodging::default() };
            Self { trials: Trials::new(when, at), now: Mark { at, packets: 0 }, is_apart: false }
        }

        /// A window of 50 ms with so much load and so many packets; follows the advice.
        fn window(&mut self, load: u32, packets: u64) -> Advice {
            self.now = Mark { at: self.now.at + WINDOW, packets: self.now.packets + packets };
            let advice = self.trials.look(load, self.now);
            match advice {
                Advice::Stay => {}
                Advice::GiveBack => {
                    self.is_apart = true;
                    self.trials.begin(SHARD);
                }
                Advice::Recall(shard) => {
                    assert_eq!(shard, SHARD);
                    self.lodge();
                }
            }
            advice
        }

        fn lodge(&mut self) {
            self.is_apart = false;
            self.trials.note_arrival(SHARD, self.now.at);
        }

        /// Saturated windows, with so many packets on one thread and on two, until the advice is another than to stay.
        fn windows_until(&mut self, advice: Advice, together: u64, apart: u64) -> u32 {
            for windows in 1..=WINDOWS_MAX {
                let packets = if self.is_apart { apart } else { together };
                match self.window(SATURATED, packets) {
                    Advice::Stay => {}
                    other => {
                        assert_eq!(other, advice);
                        return windows;
                    }
                }
            }
            panic!("{advice:?} was never the advice");
        }

        fn rest(&mut self, windows: u32) {
            for _ in 0..windows {
                assert_eq!(self.window(0, 0), Advice::Stay);
            }
        }

        fn may_try(&self) -> bool {
            self.trials.may_try_together(self.now.at)
        }
    }

    const WINDOW: Duration = Duration::from_millis(50);
    const SECOND: u32 = 20;
    const WINDOWS_MAX: u32 = 60 * SECOND;
    const SATURATED: u32 = 900;
    const SHARD: usize = 3;

    #[test]
    fn a_shard_is_given_back_after_some_windows_in_all_of_which_the_host_was_saturated() {
        let mut host = Host::new();
        assert_eq!(host.window(SATURATED, 100), Advice::Stay, "in that one the shard came");
        for _ in 0..10 {
            for _ in 1..MEASURED_WINDOWS {
                assert_eq!(host.window(SATURATED, 100), Advice::Stay);
            }
            assert_eq!(host.window(800, 100), Advice::Stay);
        }
        assert_eq!(host.windows_until(Advice::GiveBack, 100, 0), MEASURED_WINDOWS);
    }

    #[test]
    fn with_clearly_less_done_it_is_recalled_at_once() {
        let mut host = Host::new();
        host.windows_until(Advice::GiveBack, 33_900, 0);
        assert_eq!(host.windows_until(Advice::Recall(SHARD), 0, 21_500), 2);
    }

    #[test]
    fn with_somewhat_less_done_or_as_much_it_is_recalled_at_the_end() {
        for apart in [90, 100, 102] {
            let mut host = Host::new();
            host.windows_until(Advice::GiveBack, 100, 0);
            assert_eq!(host.windows_until(Advice::Recall(SHARD), 0, apart), TRIAL_WINDOWS);
        }
    }

    #[test]
    fn what_is_done_before_things_have_settled_does_not_count() {
        let mut host = Host::new();
        host.windows_until(Advice::GiveBack, 100, 0);
        assert_eq!(host.window(SATURATED, 0), Advice::Stay);
        for _ in 0..MEASURED_WINDOWS {
            assert_eq!(host.window(SATURATED, 110), Advice::Stay);
        }
    }

    #[test]
    fn with_more_done_it_stays() {
        for apart in [104, 180] {
            let mut host = Host::new();
            host.windows_until(Advice::GiveBack, 100, 0);
            for _ in 0..TRIAL_WINDOWS {
                assert!(host.trials.is_trying());
                assert_eq!(host.window(500, apart), Advice::Stay);
            }
            assert!(!host.trials.is_trying());
            assert!(!host.may_try(), "for a while");
            host.rest(SECOND);
            assert!(host.may_try());
        }
    }

    #[test]
    fn the_next_shard_follows_one_that_did_well() {
        let mut host = Host::new();
        host.windows_until(Advice::GiveBack, 100, 0);
        assert_eq!(host.windows_until(Advice::GiveBack, 0, 150), TRIAL_WINDOWS + MEASURED_WINDOWS);
    }

    #[test]
    fn the_pause_doubles_while_trials_fail_and_begins_anew_after_one_that_does_not() {
        let mut host = Host::new();
        host.windows_until(Advice::GiveBack, 100, 60);
        for seconds in [1, 2, 4, 4] {
            host.windows_until(Advice::Recall(SHARD), 100, 60);
            let windows = host.windows_until(Advice::GiveBack, 100, 60);
            assert!(
                (seconds * SECOND..=seconds * SECOND + MEASURED_WINDOWS).contains(&windows),
                "{seconds} s, {windows} windows"
            );
        }
        // Now it does well, and lodges again because there is little to do.
        for _ in 0..TRIAL_WINDOWS {
            host.window(SATURATED, 150);
        }
        host.lodge();
        host.windows_until(Advice::GiveBack, 100, 60);
        host.windows_until(Advice::Recall(SHARD), 100, 60);
        assert!(host.windows_until(Advice::GiveBack, 100, 60) <= SECOND + MEASURED_WINDOWS);
    }

    #[test]
    fn a_verdict_of_long_ago_says_nothing_of_this_load() {
        let mut host = Host::new();
        host.windows_until(Advice::GiveBack, 100, 60);
        for _ in 0..3 {
            host.windows_until(Advice::Recall(SHARD), 100, 60);
            host.windows_until(Advice::GiveBack, 100, 60);
        }
        host.windows_until(Advice::Recall(SHARD), 100, 60);
        host.rest(8 * SECOND + 1);
        assert_eq!(host.windows_until(Advice::GiveBack, 100, 60), MEASURED_WINDOWS, "at once");
        host.windows_until(Advice::Recall(SHARD), 100, 60);
        assert!(host.windows_until(Advice::GiveBack, 100, 60) <= SECOND + MEASURED_WINDOWS);
    }

    #[test]
    fn a_trial_ends_without_a_verdict_when_its_shard_lodges_by_itself() {
        let mut host = Host::new();
        host.windows_until(Advice::GiveBack, 100, 60);
        host.window(SATURATED, 60);
        host.lodge();
        assert!(!host.trials.is_trying());
        let windows = host.windows_until(Advice::GiveBack, 100, 60);
        assert!((SECOND..=SECOND + MEASURED_WINDOWS).contains(&windows), "not at once again: {windows} windows");
        // Another's arrival is nothing to it.
        host.trials.note_arrival(SHARD + 1, host.now.at);
        assert!(host.trials.is_trying());
    }

    #[test]
    fn a_host_that_did_nothing_before_takes_nothing_back() {
        let mut host = Host::new();
        host.windows_until(Advice::GiveBack, 0, 0);
        for _ in 0..TRIAL_WINDOWS {
            assert_eq!(host.window(SATURATED, 0), Advice::Stay);
        }
    }

    #[test]
    fn with_more_than_twice_as_much_done_the_load_is_another_and_may_be_compared_at_once() {
        let mut host = Host::new();
        // A hundred thousand subscriptions, and then the messages begin.
        host.windows_until(Advice::GiveBack, 100, 0);
        assert_eq!(host.window(SATURATED, 100), Advice::Stay);
        assert!(!host.may_try());
        assert_eq!(host.window(SATURATED, 300), Advice::Stay);
        assert!(host.may_try());
        host.lodge();
        assert_eq!(host.windows_until(Advice::GiveBack, 400, 0), 1 + MEASURED_WINDOWS, "one in which it came");
        host.windows_until(Advice::Recall(SHARD), 0, 300);
    }
}
