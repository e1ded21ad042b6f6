//! Outgoing bytes of one connection: small packets copied into one buffer, large payloads shared between the copies.
//!
//! An idle connection holds no buffer: it comes from the shard's [`BlockPool`] with the first byte and goes back with
//! the last. One buffer, and not a chain of blocks, so that a tick's worth of small packets is one slice for the
//! kernel, and the few bytes before each large payload do not cost a block of their own.

use std::{collections::VecDeque, io::IoSlice};

use bytes::Bytes;

/// Unsent bytes, in order. While there are none it is one word.
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Unsent>>);

/// What there is to send.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    copied: Vec<u8>,
    /// Bytes of `copied` that are written already.
    copied_written: usize,
    shared: VecDeque<Insert>,
    /// Bytes of the first of `shared` that are written already.
    shared_written: usize,
    len: usize,
}

/// Shared bytes that come before `copied[at]`.
#[derive(Debug)]
struct Insert {
    at: usize,
    bytes: Bytes,
}

impl Outbox {
    /// Unsent bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |unsent| unsent.len)
    }

    /// Whether nothing is left to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `slices` with what is to be written next; returns how many were filled.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let Some(unsent) = &self.0 else { return 0 };
        let mut slots = slices.iter_mut();
        let mut filled = 0;
        let mut fill = |bytes: Option<&'a [u8]>| {
            let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return true };
            let Some(slot) = slots.next() else { return false };
            *slot = IoSlice::new(bytes);
            filled += 1;
            true
        };
        let (mut at, mut skip) = (unsent.copied_written, unsent.shared_written);
        for insert in &unsent.shared {
            if !fill(unsent.copied.get(at..insert.at)) || !fill(insert.bytes.get(skip..)) {
                return filled;
            }
            (at, skip) = (insert.at, 0);
        }
        fill(unsent.copied.get(at..));
        filled
    }

    /// `bytes` more bytes have been written.
    pub fn advance(&mut self, bytes: usize) {
        if let Some(unsent) = &mut self.0 {
            unsent.advance(bytes);
        }
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub(crate) fn push_copy(&mut self, pool: &mut BlockPool, bytes: &[u8]) {
        let unsent = self.unsent(pool);
        unsent.copied.extend_from_slice(bytes);
        unsent.len += bytes.len();
    }

    /// Appends what `write` writes; how many bytes that was.
    #[inline]
    pub(crate) fn push_with(&mut self, pool: &mut BlockPool, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let unsent = self.unsent(pool);
        let before = unsent.copied.len();
        write(&mut unsent.copied);
        let added = unsent.copied.len() - before;
        unsent.len += added;
        added
    }

    /// Appends shared bytes.
    pub(crate) fn push_shared(&mut self, bytes: Bytes) {
        let unsent = self.0.get_or_insert_default();
        unsent.len += bytes.len();
        unsent.shared.push_back(Insert { at: unsent.copied.len(), bytes });
    }

    /// Gives an empty outbox's buffer back to the pool.
    pub(crate) fn reclaim(&mut self, pool: &mut BlockPool) {
        if let Some(unsent) = self.0.take_if(|unsent| unsent.len == 0) {
            pool.give(unsent);
        }
    }

    #[inline]
    fn unsent(&mut self, pool: &mut BlockPool) -> &mut Unsent {
        self.0.get_or_insert_with(|| pool.take())
    }
}

impl Unsent {
    fn advance(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.len, "no more can be written than was there");
        self.len -= bytes.min(self.len);
        let mut left = bytes;
        while let Some(insert) = self.shared.front() {
            let before = insert.at - self.copied_written;
            let unsent = insert.bytes.len() - self.shared_written;
            if left < before {
                break;
            }
            self.copied_written = insert.at;
            left -= before;
            if left < unsent {
                self.shared_written += left;
                return;
            }
            left -= unsent;
            self.shared_written = 0;
            self.shared.pop_front();
        }
        self.copied_written += left;
        self.compact();
    }

    /// Gives up the written part of the buffer when it is the greater one: each byte is moved once at most on average.
    fn compact(&mut self) {
        let written = self.copied_written;
        if written == self.copied.len() && self.shared.is_empty() {
            self.copied.clear();
        } else if written >= BLOCK_BYTES && written > self.copied.len() / 2 {
            self.copied.drain(..written);
            self.shared.iter_mut().for_each(|insert| insert.at -= written);
        } else {
            return;
        }
        self.copied_written = 0;
    }
}

/// Free buffers of a shard.
#[derive(Debug, Default)]
pub(crate) struct BlockPool {
    /// Boxed, as they are handed out: an outbox at rest is to be one word.
    #[allow(clippy::vec_box)]
    free: Vec<Box<Unsent>>,
    /// The fewest that were free since the pool was last trimmed: so many were not needed.
    unneeded: usize,
}

impl BlockPool {
    /// Gives back half of what was not needed lately.
    pub(crate) fn trim(&mut self) {
        let keep = self.free.len() - self.unneeded.min(self.free.len()).div_ceil(2);
        self.free.drain(..self.free.len() - keep);
        self.free.shrink_to(keep * 2);
        self.unneeded = keep;
    }

    #[allow(clippy::unnecessary_box_returns)] // it goes from the pool to an outbox in its place in memory
    fn take(&mut self) -> Box<Unsent> {
        let block = self.free.pop();
        self.unneeded = self.unneeded.min(self.free.len());
        block.unwrap_or_else(|| Box::new(Unsent { copied: Vec::with_capacity(BLOCK_BYTES_MIN), ..Unsent::default() }))
    }

    fn give(&mut self, mut block: Box<Unsent>) {
        if self.free.len() < POOL_BLOCKS_MAX && block.copied.capacity() <= BLOCK_BYTES_MAX {
            block.copied.clear();
            block.shared = VecDeque::new();
            (block.copied_written, block.shared_written) = (0, 0);
            self.free.push(block);
        }
    }
}

/// Written bytes that are worth giving up before the rest is written.
const BLOCK_BYTES: usize = 16 << 10;

/// A new buffer: a few small packets. It grows with what is sent, and stays so for whoever has it next.
const BLOCK_BYTES_MIN: usize = 256;

/// Hundreds of small packets, so that one write carries a tick's worth; a greater buffer is not kept.
const BLOCK_BYTES_MAX: usize = 4 * BLOCK_BYTES;

/// Free buffers a shard keeps.
const POOL_BLOCKS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn content(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = outbox.io_slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn bytes_come_out_in_order_whatever_the_write_sizes() {
        let mut pool = BlockPool::default();
        let mut outbox = Outbox::default();
        outbox.push_copy(&mut pool, b"ab");
        outbox.push_shared(Bytes::from_static(b"cdef"));
        outbox.push_copy(&mut pool, b"gh");
        assert_eq!(content(&outbox), b"abcdefgh");
        for (step, left) in [(1, "bcdefgh"), (3, "efgh"), (2, "gh"), (1, "h"), (1, "")] {
            outbox.advance(step);
            assert_eq!(content(&outbox), left.as_bytes());
            assert_eq!(outbox.len(), left.len());
        }
        outbox.push_copy(&mut pool, b"again");
        assert_eq!(content(&outbox), b"again");
    }

    #[test]
    fn a_long_backlog_is_compacted_without_losing_its_place() {
        let mut pool = BlockPool::default();
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for n in 0..200u8 {
            let small = vec![n; 500];
            outbox.push_copy(&mut pool, &small);
            outbox.push_shared(Bytes::from(vec![n ^ 0xFF; 300]));
            expected.extend(small);
            expected.extend(vec![n ^ 0xFF; 300]);
        }
        let mut written = Vec::new();
        while !outbox.is_empty() {
            let front = content(&outbox);
            let step = front.len().min(777);
            written.extend_from_slice(&front[..step]);
            outbox.advance(step);
        }
        assert_eq!(written, expected);
        assert!(outbox.0.as_ref().is_none_or(|unsent| unsent.copied.is_empty()));
    }

    #[test]
    fn an_empty_outbox_gives_its_block_back() {
        let mut pool = BlockPool::default();
        let mut outbox = Outbox::default();
        outbox.push_copy(&mut pool, b"x");
        outbox.advance(1);
        outbox.reclaim(&mut pool);
        assert!(outbox.0.is_none());
        assert_eq!(pool.free.len(), 1);
    }

    #[test]
    fn buffers_that_are_not_needed_go_back_by_and_by() {
        let mut pool = BlockPool::default();
        let mut outboxes: Vec<Outbox> = (0..100).map(|_| Outbox::default()).collect();
        let mut burst = |pool: &mut BlockPool, count: usize| {
            outboxes[..count].iter_mut().for_each(|outbox| outbox.push_copy(pool, b"x"));
            for outbox in &mut outboxes[..count] {
                outbox.advance(1);
                outbox.reclaim(pool);
            }
        };
        burst(&mut pool, 100);
        pool.trim();
        assert_eq!(pool.free.len(), 100, "all of them were needed");
        for _ in 0..20 {
            burst(&mut pool, 10);
            pool.trim();
        }
        assert!((10..=12).contains(&pool.free.len()), "{}", pool.free.len());
    }
}
