//! Messages of a resumed session that came before anybody subscribed to them.
//!
//! A server sends what a session has missed right after CONNACK; the application's subscriptions follow a moment
//! later. What comes in between waits here, in order, and moves into the mailbox of the first subscription it matches.
//! For a short while it also stays unacknowledged, so that such a subscription can still acknowledge by its own
//! policy. Then it is acknowledged, for acknowledgements leave in order [MQTT-4.6.0-2] and would keep back those of
//! every other message.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::Message;
use crate::session::client::AckHandle;

/// Messages that match no subscription yet.
#[derive(Debug, Default)]
pub(super) struct Held {
    messages: VecDeque<Message>,
    bytes: usize,
    /// How many of them, from the front, are acknowledged or need not be.
    acknowledged: usize,
    intake: Intake,
}

/// What becomes of a message that matches nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Intake {
    /// It is kept until it is known whether the session was there before: CONNACK may have come in the same read.
    #[default]
    Undecided,
    /// It is dropped.
    Closed,
    /// It is kept, and until then not acknowledged.
    Grace(Instant),
    /// It is kept and acknowledged.
    Prompt,
}

impl Held {
    /// A connection has begun. Only a session that was there before can have subscriptions nobody here knows of.
    /// Returns how many messages were dropped.
    pub(super) fn connected(&mut self, now: Instant, session_present: bool, released: &mut Vec<AckHandle>) -> u64 {
        if session_present {
            self.intake = Intake::Grace(now + GRACE);
            return 0;
        }
        self.intake = Intake::Closed;
        let kept = self.acknowledged.min(self.messages.len());
        let strays = self.messages.split_off(kept);
        self.bytes -= strays.iter().map(Message::cost_bytes).sum::<usize>();
        released.extend(strays.iter().filter_map(Message::ack_handle));
        strays.len() as u64
    }

    /// The connection is gone: the server sends again what it has no acknowledgement for. QoS 2 messages stay, as the
    /// session will not hand them out twice.
    pub(super) fn connection_lost(&mut self) {
        self.intake = Intake::Undecided;
        let mut at = 0;
        let acknowledged = self.acknowledged;
        self.messages.retain(|message| {
            at += 1;
            at <= acknowledged || message.ack_handle().is_none_or(|handle| handle.is_exactly_once())
        });
        self.bytes = self.messages.iter().map(Message::cost_bytes).sum();
    }

    /// Keeps a message if there is a reason to. Returns how many messages were dropped, this one or the oldest; what is
    /// to be acknowledged goes to `released`.
    pub(super) fn push(&mut self, message: Message, released: &mut Vec<AckHandle>) -> u64 {
        if matches!(self.intake, Intake::Closed | Intake::Prompt) {
            released.extend(message.ack_handle());
        }
        match self.intake {
            Intake::Closed => return 1,
            Intake::Prompt => self.acknowledged += 1,
            Intake::Undecided | Intake::Grace(_) => {}
        }
        self.bytes += message.cost_bytes();
        self.messages.push_back(message);
        let mut dropped = 0;
        while self.messages.len() > MESSAGES_MAX || (self.bytes > BYTES_MAX && self.messages.len() > 1) {
            self.drop_oldest(released);
            dropped += 1;
        }
        dropped
    }

    /// Takes out what `matches`, in order. The flag says whether the message still wants an acknowledgement.
    pub(super) fn claim(&mut self, matches: impl Fn(&str) -> bool) -> Vec<(Message, bool)> {
        let (mut claimed, mut acknowledged) = (Vec::new(), 0);
        for (at, message) in std::mem::take(&mut self.messages).into_iter().enumerate() {
            let is_acknowledged = at < self.acknowledged;
            if matches(message.topic()) {
                self.bytes -= message.cost_bytes();
                claimed.push((message, !is_acknowledged));
            } else {
                self.messages.push_back(message);
                acknowledged += usize::from(is_acknowledged);
            }
        }
        self.acknowledged = acknowledged;
        claimed
    }

    /// When [`Self::release`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.intake {
            Intake::Grace(end) => Some(end),
            _ => None,
        }
    }

    /// Gives up what is to be acknowledged now, because it has waited long enough for a subscription.
    pub(super) fn release(&mut self, now: Instant, released: &mut Vec<AckHandle>) {
        if self.deadline().is_some_and(|end| end <= now) {
            self.intake = Intake::Prompt;
            let waited = self.messages.iter().skip(self.acknowledged);
            released.extend(waited.filter_map(Message::ack_handle));
            self.acknowledged = self.messages.len();
        }
    }

    fn drop_oldest(&mut self, released: &mut Vec<AckHandle>) {
        let Some(oldest) = self.messages.pop_front() else { return };
        self.bytes -= oldest.cost_bytes();
        match self.acknowledged {
            0 => released.extend(oldest.ack_handle()),
            _ => self.acknowledged -= 1,
        }
    }
}

/// How long messages stay unacknowledged after CONNACK.
const GRACE: Duration = Duration::from_secs(2);

/// Messages kept, as many as in a mailbox by default; beyond, the oldest go.
const MESSAGES_MAX: usize = 65_536;

/// Bytes kept, as many as in a mailbox by default.
const BYTES_MAX: usize = 64 << 20;
