//! Outgoing bytes of one connection: small packets copied into one buffer, large payloads shared between the copies.
//!
//! An idle connection holds no buffer: it comes from the shard's [`BlockPool`] with the first byte and goes back with
//! the last. One buffer, and not a chain of blocks, so that a tick's worth of small packets is one slice for the
//! kernel, and the few bytes before each large payload do not cost a block of their own.

use std::{collections::VecDeque, io::IoSlice};

use bytes::Bytes;

/// Unsent bytes, in order.
#[derive(Debug, Default)]
pub struct Outbox {
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
        self.len
    }

    /// Whether nothing is left to send.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `slices` with what is to be written next; returns how many were filled.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut slots = slices.iter_mut();
        let mut filled = 0;
        let mut fill = |bytes: Option<&'a [u8]>| {
            let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return true };
            let Some(slot) = slots.next() else { return false };
            *slot = IoSlice::new(bytes);
            filled += 1;
            true
        };
        let (mut at, mut skip) = (self.copied_written, self.shared_written);
        for insert in &self.shared {
            if !fill(self.copied.get(at..insert.at)) || !fill(insert.bytes.get(skip..)) {
                return filled;
            }
            (at, skip) = (insert.at, 0);
        }
        fill(self.copied.get(at..));
        filled
    }

    /// `bytes` more bytes have been written.
    pub fn advance(&mut self, bytes: usize) {
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

    /// Appends a copy of `bytes`.
    #[inline]
    pub(crate) fn push_copy(&mut self, pool: &mut BlockPool, bytes: &[u8]) {
        self.buffer(pool).extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends what `write` writes; how many bytes that was.
    #[inline]
    pub(crate) fn push_with(&mut self, pool: &mut BlockPool, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let buffer = self.buffer(pool);
        let before = buffer.len();
        write(buffer);
        let added = buffer.len() - before;
        self.len += added;
        added
    }

    /// Appends shared bytes.
    pub(crate) fn push_shared(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        self.shared.push_back(Insert { at: self.copied.len(), bytes });
    }

    /// Gives an empty outbox's buffer back to the pool.
    pub(crate) fn reclaim(&mut self, pool: &mut BlockPool) {
        if self.len > 0 {
            return;
        }
        let buffer = std::mem::take(self).copied;
        if buffer.capacity() > 0 {
            pool.give(buffer);
        }
    }

    #[inline]
    fn buffer(&mut self, pool: &mut BlockPool) -> &mut Vec<u8> {
        if self.copied.capacity() == 0 {
            self.copied = pool.take();
        }
        &mut self.copied
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

/// Free blocks of a shard.
#[derive(Debug, Default)]
pub(crate) struct BlockPool {
    free: Vec<Vec<u8>>,
}

impl BlockPool {
    fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES))
    }

    fn give(&mut self, mut block: Vec<u8>) {
        if self.free.len() < POOL_BLOCKS_MAX && block.capacity() <= 4 * BLOCK_BYTES {
            block.clear();
            self.free.push(block);
        }
    }
}

/// Enough for hundreds of small packets, so that one write carries a tick's worth.
const BLOCK_BYTES: usize = 16 << 10;

/// Free blocks a shard keeps: 16 MiB at most.
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
        assert!(outbox.copied.is_empty());
    }

    #[test]
    fn an_empty_outbox_gives_its_block_back() {
        let mut pool = BlockPool::default();
        let mut outbox = Outbox::default();
        outbox.push_copy(&mut pool, b"x");
        outbox.advance(1);
        outbox.reclaim(&mut pool);
        assert_eq!((pool.free.len(), outbox.copied.capacity()), (1, 0));
    }
}
