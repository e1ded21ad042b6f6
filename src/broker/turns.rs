//! Turns: subscriptions that are made or end by the thousand are worked off some in each turn of the shard, so that others
//! have theirs. One filter costs as much as a message or several, and one packet may hold very many.
//!
//! All that is handled at one moment is one turn. What has to wait for the next keeps its connection waiting, so that
//! nothing overtakes it, and a deadline that is due at once has the shell come back.

use std::{collections::VecDeque, time::Instant, vec};

use super::{shard::Shard, slots::ConnId, subscribe::Filters, timers::Timer};
use crate::router::SessionKey;

/// What is left of the present turn, and who waits for the next.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// When the present turn began.
    at: Option<Instant>,
    filters_left: usize,
    /// One task for each connection or ended session at most.
    waiting: VecDeque<Task>,
    is_armed: bool,
}

/// What a turn did not suffice for.
#[derive(Debug)]
enum Task {
    /// The rest of a SUBSCRIBE or UNSUBSCRIBE.
    Filters(ConnId, Box<Filters>),
    /// Filters of a session that has ended.
    Forget(SessionKey, vec::IntoIter<Box<str>>),
}

impl Turns {
    /// Whether nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether one more filter may be handled now; it is counted.
    pub(super) fn take_filter(&mut self, now: Instant) -> bool {
        if self.at != Some(now) {
            self.begin(now);
        }
        let may = self.filters_left > 0;
        self.filters_left -= usize::from(may);
        may
    }

    fn begin(&mut self, now: Instant) {
        (self.at, self.filters_left) = (Some(now), FILTERS_PER_TURN);
    }
}

impl Shard {
    /// The rest of a packet waits for the next turn, and its connection with it.
    pub(super) fn await_turn(&mut self, now: Instant, id: ConnId, rest: Box<Filters>) {
        let Some(conn) = self.wire.conns.get_mut(id) else { return };
        conn.awaits_turn = true;
        self.turns.waiting.push_back(Task::Filters(id, rest));
        self.arm_turn(now);
    }

    /// Takes a session that has ended out of the lists of those who want something: now, or as far as this turn goes.
    pub(super) fn forget_filters(&mut self, now: Instant, key: SessionKey, mut filters: vec::IntoIter<Box<str>>) {
        while !filters.as_slice().is_empty() {
            if !self.turns.take_filter(now) {
                self.turns.waiting.push_back(Task::Forget(key, filters));
                return self.arm_turn(now);
            }
            if let Some(filter) = filters.next() {
                self.remove_local(key, &filter);
            }
        }
    }

    /// A new turn, for those who wait.
    pub(super) fn take_turn(&mut self, now: Instant) {
        self.turns.is_armed = false;
        self.turns.begin(now);
        while self.turns.filters_left > 0
            && let Some(task) = self.turns.waiting.pop_front()
        {
            match task {
                Task::Forget(key, filters) => self.forget_filters(now, key, filters),
                Task::Filters(id, rest) => {
                    let Some(conn) = self.wire.conns.get_mut(id) else { continue };
                    conn.awaits_turn = false;
                    self.handle_filters(now, id, rest);
                    if self.wire.conns.get(id).is_some_and(|conn| !conn.awaits_turn) {
                        self.go_on(now, id);
                    }
                }
            }
        }
        if !self.turns.is_idle() {
            self.arm_turn(now);
        }
    }

    fn arm_turn(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.turns.is_armed, true) {
            self.wire.timers.arm(now, Timer::Turn);
        }
    }
}

/// Filters that are subscribed to or given up in one turn: a fraction of a millisecond.
const FILTERS_PER_TURN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_a_moment() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let mut taken = |now| (0..2 * FILTERS_PER_TURN).filter(|_| turns.take_filter(now)).count();
        assert_eq!((taken(start), taken(start)), (FILTERS_PER_TURN, 0));
        assert_eq!(taken(start + std::time::Duration::from_nanos(1)), FILTERS_PER_TURN);
    }
}
