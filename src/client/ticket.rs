//! Who waits for which publication: a slab of tickets, and the sink for those that are numbered by the caller.

use std::{
    fmt,
    task::{Context, Poll, Waker},
};

use super::{Error, PublishAck};
use crate::session::client::{RequestError, Token};

/// Takes the outcomes of publications that were [submitted](super::Client::submit) with a number, many at once.
/// Called on the client's task or on the thread that publishes, with no lock held: it must be short.
pub trait CompletionSink: Send + Sync + fmt::Debug {
    /// These are done. The sink takes them out of `batch`.
    fn complete(&self, batch: &mut Vec<Completion>);

    /// There is room again after a publication was refused with [`RequestError::QueueFull`].
    fn room(&self) {}
}

/// The outcome of one submitted publication.
#[derive(Debug)]
pub struct Completion {
    /// The number it was submitted with.
    pub number: u64,
    /// Acknowledged by the server, or why not.
    pub result: Result<PublishAck, Error>,
}

/// Whom a publication's outcome goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recipient {
    Nobody,
    Ticket(TicketId),
    Sink(u64),
}

/// Names a ticket of the slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TicketId(u32);

/// All tickets of a client.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    /// Publications of this ticket that are not finished.
    left: usize,
    is_abandoned: bool,
    failed: Option<RequestError>,
    ack: Option<PublishAck>,
    waker: Option<Waker>,
}

impl Recipient {
    /// As the number the session carries: two bits say what it is.
    pub(super) const fn token(self) -> Token {
        match self {
            Self::Nobody => 0,
            Self::Ticket(TicketId(id)) => TICKET | id as u64,
            Self::Sink(number) => SINK | number & NUMBER_MAX,
        }
    }

    pub(super) const fn of(token: Token) -> Self {
        match token & !NUMBER_MAX {
            TICKET => Self::Ticket(TicketId(token as u32)),
            SINK => Self::Sink(token & NUMBER_MAX),
            _ => Self::Nobody,
        }
    }
}

impl Tickets {
    /// A ticket for one publication.
    pub(super) fn open(&mut self) -> TicketId {
        let slot = Slot { left: 1, is_abandoned: false, failed: None, ack: None, waker: None };
        let Some(id) = self.free.pop() else {
            self.slots.push(slot);
            return TicketId(self.slots.len() as u32 - 1);
        };
        if let Some(place) = self.slots.get_mut(id as usize) {
            *place = slot;
        }
        TicketId(id)
    }

    /// One more publication belongs to the ticket.
    pub(super) fn extend(&mut self, id: TicketId) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            slot.left += 1;
        }
    }

    /// One publication less belongs to the ticket than was said. Its holder is here: nobody has to be woken.
    pub(super) fn shorten(&mut self, id: TicketId) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            slot.left = slot.left.saturating_sub(1);
        }
    }

    /// The ticket was never used.
    pub(super) fn cancel(&mut self, id: TicketId) {
        self.free.push(id.0);
    }

    /// One publication of the ticket is finished; who is to be woken.
    pub(super) fn complete(&mut self, id: TicketId, result: Result<PublishAck, RequestError>) -> Option<Waker> {
        let slot = self.slots.get_mut(id.0 as usize)?;
        slot.left = slot.left.saturating_sub(1);
        match result {
            // The first refusal is the one to tell.
            Ok(ack) if !slot.ack.as_ref().is_some_and(|known| known.reason.is_error()) => slot.ack = Some(ack),
            Ok(_) => {}
            Err(error) => {
                slot.failed.get_or_insert(error);
            }
        }
        if slot.left > 0 {
            return None;
        }
        let waker = slot.waker.take();
        if slot.is_abandoned {
            self.free.push(id.0);
        }
        waker
    }

    pub(super) fn poll(&mut self, id: TicketId, cx: &mut Context<'_>) -> Poll<Result<PublishAck, RequestError>> {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else { return Poll::Ready(Err(RequestError::Closed)) };
        if slot.left > 0 {
            slot.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.free.push(id.0);
        let ack = slot.ack.take().unwrap_or_else(PublishAck::success);
        Poll::Ready(slot.failed.take().map_or(Ok(ack), Err))
    }

    /// Nobody waits any more.
    pub(super) fn abandon(&mut self, id: TicketId) {
        let Some(slot) = self.slots.get_mut(id.0 as usize) else { return };
        slot.is_abandoned = true;
        slot.waker = None;
        if slot.left == 0 {
            self.free.push(id.0);
        }
    }
}

/// Numbers of submitted publications have 62 bits.
const NUMBER_MAX: u64 = (1 << 62) - 1;
const TICKET: u64 = 1 << 62;
const SINK: u64 = 2 << 62;
