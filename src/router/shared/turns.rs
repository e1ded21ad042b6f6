//! Taking turns: whose turn it is in a group, and for how many messages.
//!
//! A turn is mostly one message. A member that is busy gets a few at once, since each visit to a session costs as much
//! as several messages. So turns go in rounds: all turns of a round have the same share, which is half of what most members
//! have under way when the round begins. When that much has not been under way for some milliseconds, another round begins
//! at once, with whoever is next: hence a burst to idle members is dealt out one by one, and all members get as much by
//! and by. Why not at once: members that are fast have little under way at one moment and much at the next.

use std::sync::atomic::{AtomicU64, Ordering};

/// What choosing writes, on a cache line of its own: the rest of a group is read by all shards.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Turns {
    /// A [`Turn`].
    turn: AtomicU64,
    /// When so much was under way last that the share of the round was right.
    justified_ms: AtomicU64,
    /// Sequence number of the member that a sticky group sticks to.
    pub(super) sticky: AtomicU64,
}

/// As one word, so that shards take turns without a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    /// How many turns have begun; modulo the number of members, whose is the next.
    begun: u32,
    /// Turns of this round that have not begun.
    round: u16,
    /// Messages of each turn of this round.
    share: u8,
    /// Messages that the turn that began last still has.
    left: u8,
}

impl Turns {
    pub(super) const fn new() -> Self {
        Self { turn: AtomicU64::new(0), justified_ms: AtomicU64::new(0), sticky: AtomicU64::new(STICKY_NONE) }
    }

    /// Whose turn it is among `count`, for one message.
    pub(super) fn next(&self, count: usize) -> usize {
        Turn::unpack(self.turn.fetch_add(ONE_TURN, Ordering::Relaxed)).begun as usize % count
    }

    /// Whose turn it is among `count`, and for how many of `wanted` messages, at `ms` milliseconds from some start.
    /// `under_way` looks how many messages most members have in flight, from that one on.
    pub(super) fn deal(
        &self,
        count: usize,
        wanted: usize,
        ms: u64,
        under_way: impl Fn(usize) -> usize,
    ) -> (usize, usize) {
        let mut packed = self.turn.load(Ordering::Relaxed);
        loop {
            let before = Turn::unpack(packed);
            let share = self.share(before, count, wanted, ms, &under_way);
            let (turn, dealt) = before.deal(count, wanted, share);
            match self.turn.compare_exchange_weak(packed, turn.pack(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return ((turn.begun.wrapping_sub(1)) as usize % count, dealt),
                Err(other) => packed = other,
            }
        }
    }

    /// How many messages a turn may have now.
    fn share(&self, turn: Turn, count: usize, wanted: usize, ms: u64, under_way: impl Fn(usize) -> usize) -> usize {
        let had = usize::from(turn.share.max(1));
        let lasts = ms.saturating_sub(self.justified_ms.load(Ordering::Relaxed));
        // One message is always right, and a round of them takes its course; several are right again and again.
        let is_settled = if had == 1 { !turn.begins_round() || wanted < SHARE_MIN } else { lasts == 0 };
        if is_settled {
            return had;
        }
        let share = share_for(under_way(turn.begun as usize % count));
        if share >= had {
            self.justified_ms.store(ms, Ordering::Relaxed);
            return share;
        }
        if lasts <= SHARE_MS_MAX { had } else { share }
    }
}

impl Turn {
    /// The turn that goes on or begins when messages are dealt out, and how many of them it takes.
    fn deal(mut self, count: usize, wanted: usize, share: usize) -> (Self, usize) {
        let share = u8::try_from(share.clamp(1, SHARE_MAX)).unwrap_or(1);
        if share < self.share {
            let had = self.share - self.left;
            (self.share, self.left, self.round) = (share, share.saturating_sub(had), 0);
        }
        if self.left == 0 {
            if self.begins_round() {
                self.share = share;
                self.round = u16::try_from(count).unwrap_or(u16::MAX);
            }
            self.round -= 1;
            self.begun = self.begun.wrapping_add(1);
            self.left = self.share;
        }
        let dealt = wanted.min(usize::from(self.left));
        self.left -= dealt as u8;
        (self, dealt)
    }

    const fn begins_round(self) -> bool {
        self.left == 0 && self.round == 0
    }

    fn pack(self) -> u64 {
        u64::from(self.begun) << 32 | u64::from(self.round) << 16 | u64::from(self.share) << 8 | u64::from(self.left)
    }

    fn unpack(packed: u64) -> Self {
        let [.., high, low, share, left] = packed.to_be_bytes();
        Self { begun: (packed >> 32) as u32, round: u16::from_be_bytes([high, low]), share, left }
    }
}

/// How many messages a turn may have when most members have so many under way: half of that, or one, since a few are no
/// less work than as many turns.
fn share_for(under_way: usize) -> usize {
    let half = (under_way / 2).min(SHARE_MAX);
    if half < SHARE_MIN { 1 } else { half }
}

/// What most of the members have at least, each of which has so many messages under way.
pub(super) fn most_have(under_way: &mut [u32]) -> usize {
    if under_way.is_empty() {
        return 0;
    }
    let middle = (under_way.len() - 1) / 2;
    *under_way.select_nth_unstable(middle).1 as usize
}

const ONE_TURN: u64 = 1 << 32;

/// Sequence number that no member has.
pub(super) const STICKY_NONE: u64 = u64::MAX;

/// A turn is one message, or from so many to so many.
const SHARE_MIN: usize = 5;
const SHARE_MAX: usize = 16;

/// How long a share outlives what it was right for, milliseconds: too short for anybody to wait for.
const SHARE_MS_MAX: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_a_word_and_comes_back_as_it_was() {
        let turn = Turn { begun: 0xFEDC_BA98, round: 0x1234, share: 16, left: 7 };
        assert_eq!(Turn::unpack(turn.pack()), turn);
        assert_eq!(Turn::unpack(turn.pack().wrapping_add(ONE_TURN)), Turn { begun: 0xFEDC_BA99, ..turn });
    }

    #[test]
    fn idle_members_take_turns_of_one_message_in_order() {
        let turns = Turns::new();
        let order: Vec<_> = (0..7).map(|_| turns.deal(3, 100, 0, |_| 0)).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2, 0].map(|at| (at, 1)));
    }

    #[test]
    fn a_share_lasts_for_a_round_and_a_turn_for_several_runs() {
        let turns = Turns::new();
        let dealt = [20, 4, 6, 9].map(|wanted| turns.deal(2, wanted, 0, |_| 16));
        assert_eq!(dealt, [(0, 8), (1, 4), (1, 4), (0, 8)]);
        // More is under way now, but the round is for eight.
        assert_eq!(turns.deal(2, 20, 1, |_| 40), (1, 8));
        assert_eq!(turns.deal(2, 20, 2, |_| 40), (0, 16));
    }

    #[test]
    fn a_burst_after_a_busy_time_is_spread_one_by_one() {
        for had in 1..16 {
            let turns = Turns::new();
            assert_eq!([16, had].map(|wanted| turns.deal(4, wanted, 5, |_| 32)), [(0, 16), (1, had)]);
            assert_eq!(turns.deal(4, 1, 15, |_| 0).0, 1, "for a moment a member counts as busy");
            let burst: Vec<_> = (0..8).map(|_| turns.deal(4, 8, 16, |_| 0)).collect();
            assert_eq!(burst, [2, 3, 0, 1, 2, 3, 0, 1].map(|at| (at, 1)), "after {had}");
        }
    }

    #[test]
    fn whatever_is_under_way_all_members_get_as_much_by_and_by() {
        let turns = Turns::new();
        let mut random = 1u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((random >> 33) % below) as usize
        };
        let (mut got, mut ms) = ([0usize; 7], 0);
        for _ in 0..100_000 {
            let (wanted, under_way) = (1 + draw(40), [0, 1, 10, 18, 32][draw(5)]);
            ms += [0, 0, 0, 1, 30u64][draw(5)];
            let (at, count) = turns.deal(7, wanted, ms, |_| under_way);
            assert!((1..=wanted.min(16)).contains(&count));
            got[at] += count;
        }
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        assert!(most - least < most / 20, "{got:?}");
    }

    #[test]
    fn a_share_is_half_of_what_most_members_have_under_way() {
        let share = |under_way: &[u32]| share_for(most_have(&mut under_way.to_vec()));
        assert_eq!(share(&[]), 1);
        assert_eq!(share(&[0, 0, 0]), 1);
        assert_eq!(share(&[9, 9, 9]), 1, "a few are not worth it");
        assert_eq!(share(&[10, 11, 12]), 5);
        assert_eq!(share(&[1000, 1000]), 16);
        assert_eq!(share(&[1000, 0]), 1, "one that is stuck says nothing of the other");
        assert_eq!(share(&[1000, 0, 1000, 0, 0]), 1);
    }
}
