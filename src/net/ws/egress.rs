//! The way out: one binary frame around each whole flush, and replies only between frames.
//!
//! A frame's length is promised before its payload is written, and a socket may take half of it. So the promise is
//! state: until it is kept, a pong that falls due has to wait, and the outbox must not drop what was promised. The
//! header itself is not kept: until it has left, nothing of the payload has, so the promise says what it was.

use super::{FrameHeader, Role};

/// What is promised, and the reply that waits.
#[derive(Debug, Default)]
pub struct WsEgress {
    reply: Option<Box<Reply>>,
    /// Outbox bytes that the current frame's header has promised.
    frame_left: u32,
    /// The current frame's masking key, at the client.
    mask: Option<[u8; 4]>,
    /// Bytes of the current frame's header still to write.
    header_left: u8,
}

/// What to write now, in one vectored write: `reply`, or `header` and then `payload` bytes of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flush<'a> {
    /// A control frame, or the rest of it.
    pub reply: &'a [u8],
    /// The frame's header, or the rest of it.
    pub header: FrameHeader,
    /// How many of the outbox's bytes belong to the frame. More may have joined it since: they are the next frame.
    pub payload: usize,
    /// The frame begins with this call: the moment for the client to mask the payload, once.
    pub begins: bool,
}

impl Flush<'_> {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.reply.is_empty() && self.payload == 0
    }
}

impl WsEgress {
    /// Nothing promised, nothing waiting.
    pub const fn new() -> Self {
        Self { reply: None, frame_left: 0, mask: None, header_left: 0 }
    }

    /// Queues a whole control frame, as [`super::WsCodec`] made it; an empty one is none. A pong leaves before the next
    /// frame, a close after all of the outbox, so that a DISCONNECT in it arrives. A reply that has not begun to leave
    /// is superseded by the next: the last pong answers all pings, and a close ends all. So at most two are kept.
    pub fn queue_reply(&mut self, frame: &[u8]) {
        if frame.is_empty() {
            return;
        }
        let reply = self.reply.get_or_insert_default();
        let slot = if reply.written > 0 { &mut reply.next } else { &mut reply.frame };
        slot.clear();
        slot.extend_from_slice(frame);
    }

    /// What to write with `pending` bytes in the outbox. With nothing promised, all of them become one frame, under
    /// `key` at the client.
    ///
    /// Repeat until the socket is full or the flush is empty: replies and frames are separate writes.
    pub fn flush<R: Role>(&mut self, pending: usize, key: R::Key) -> Flush<'_> {
        debug_assert!(pending >= self.frame_left as usize, "promised bytes must stay in the outbox");
        let mut begins = false;
        if self.frame_left == 0 {
            if self.reply.as_ref().is_some_and(|reply| pending == 0 || reply.goes_first()) {
                let reply = self.reply.as_ref().map_or(&[][..], |reply| reply.rest());
                return Flush { reply, header: FrameHeader::EMPTY, payload: 0, begins };
            }
            // A flush is bounded by its outbox; one of more than 4 GiB would be two frames.
            self.frame_left = u32::try_from(pending).unwrap_or(u32::MAX);
            self.mask = R::mask(key);
            begins = pending > 0;
            self.header_left = if begins { self.header().as_bytes().len() as u8 } else { 0 };
        }
        let payload = self.frame_left as usize;
        Flush { reply: &[], header: self.header().last(self.header_left), payload, begins }
    }

    /// Notes that the socket took `written` bytes of the last [`flush`](Self::flush); returns how many of them were
    /// the outbox's.
    pub fn advance(&mut self, written: usize) -> usize {
        if self.frame_left == 0 {
            self.advance_reply(written);
            return 0;
        }
        let header = written.min(usize::from(self.header_left));
        self.header_left -= header as u8;
        let payload = written - header;
        debug_assert!(payload <= self.frame_left as usize, "a write cannot take more than it was given");
        self.frame_left -= payload as u32;
        payload
    }

    /// Whether there is something to write although the outbox may be empty.
    pub fn is_waiting(&self) -> bool {
        self.reply.is_some()
    }

    fn header(&self) -> FrameHeader {
        FrameHeader::binary(self.frame_left as usize, self.mask)
    }

    fn advance_reply(&mut self, written: usize) {
        let Some(reply) = &mut self.reply else { return };
        reply.written += written;
        debug_assert!(reply.written <= reply.frame.len(), "a write cannot take more than it was given");
        if reply.written < reply.frame.len() {
            return;
        }
        if reply.next.is_empty() {
            self.reply = None;
        } else {
            **reply = Reply { frame: std::mem::take(&mut reply.next), ..Reply::default() };
        }
    }
}

/// Exists only from a reply until it is written.
#[derive(Debug, Default)]
struct Reply {
    frame: Vec<u8>,
    written: usize,
    /// What fell due while `frame` was half written.
    next: Vec<u8>,
}

impl Reply {
    fn rest(&self) -> &[u8] {
        &self.frame[self.written..]
    }

    /// Whether it must or may leave before the outbox: it has begun, or it is not a close.
    fn goes_first(&self) -> bool {
        self.written > 0 || self.frame.first().is_some_and(|first| first & 0x0F != CLOSE)
    }
}

const CLOSE: u8 = 0x8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ws::{Client, Server};

    /// Lets the socket take up to `room` bytes of what is due, moves them to `wire`; returns whether it was all.
    fn write(egress: &mut WsEgress, outbox: &mut Vec<u8>, room: usize, wire: &mut Vec<u8>) -> bool {
        let flush = egress.flush::<Server>(outbox.len(), ());
        let due = [flush.reply, flush.header.as_bytes(), &outbox[..flush.payload]].concat();
        let written = due.len().min(room);
        wire.extend_from_slice(&due[..written]);
        let taken = egress.advance(written);
        outbox.drain(..taken);
        written == due.len()
    }

    #[test]
    fn a_flush_is_one_frame_and_a_pong_waits_for_its_end() {
        let (mut egress, mut outbox, mut wire) = (WsEgress::new(), b"0123456789".to_vec(), Vec::new());
        assert!(!write(&mut egress, &mut outbox, 1, &mut wire));
        assert!(!write(&mut egress, &mut outbox, 5, &mut wire));
        egress.queue_reply(&[0x8A, 0]);
        outbox.extend_from_slice(b"abc");
        assert!(write(&mut egress, &mut outbox, 100, &mut wire));
        assert!(write(&mut egress, &mut outbox, 100, &mut wire));
        assert!(!egress.is_waiting());
        assert!(write(&mut egress, &mut outbox, 100, &mut wire));
        assert_eq!(wire, b"\x82\x0a0123456789\x8a\x00\x82\x03abc");
        assert!(egress.flush::<Server>(0, ()).is_empty());
    }

    #[test]
    fn the_newest_reply_wins_unless_one_has_begun() {
        let (mut egress, mut outbox, mut wire) = (WsEgress::new(), Vec::new(), Vec::new());
        egress.queue_reply(b"\x8a\x01a");
        egress.queue_reply(b"\x8a\x01b");
        assert!(!write(&mut egress, &mut outbox, 2, &mut wire));
        egress.queue_reply(b"\x8a\x01c");
        egress.queue_reply(b"\x88\x00");
        while egress.is_waiting() {
            write(&mut egress, &mut outbox, 1, &mut wire);
        }
        assert_eq!(wire, b"\x8a\x01b\x88\x00");
    }

    #[test]
    fn a_close_follows_the_last_of_the_outbox() {
        let (mut egress, mut outbox, mut wire) = (WsEgress::new(), b"xy".to_vec(), Vec::new());
        egress.queue_reply(b"\x88\x00");
        while egress.is_waiting() {
            write(&mut egress, &mut outbox, 100, &mut wire);
        }
        assert_eq!(wire, b"\x82\x02xy\x88\x00");
    }

    #[test]
    fn the_clients_header_survives_a_split_and_asks_for_masking_once() {
        let mut egress = WsEgress::new();
        let flush = egress.flush::<Client>(2, [1, 2, 3, 4]);
        assert_eq!((flush.header.as_bytes(), flush.begins), (&[0x82, 0x82, 1, 2, 3, 4][..], true));
        egress.advance(3);
        let flush = egress.flush::<Client>(2, [9; 4]);
        assert_eq!((flush.header.as_bytes(), flush.begins), (&[2, 3, 4][..], false));
    }
}
