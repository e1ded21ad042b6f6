//! Outgoing bytes of one connection: small packets copied into pooled blocks, large payloads shared.
//!
//! An idle connection holds no block. Blocks come from the shard's [`BlockPool`] and go back when they are written.

use std::{collections::VecDeque, io::IoSlice};

use bytes::Bytes;

/// Unsent bytes, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are written already.
    written: usize,
    len: usize,
}

#[derive(Debug)]
enum Chunk {
    Block(Vec<u8>),
    Shared(Bytes),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Block(block) => block,
            Self::Shared(bytes) => bytes,
        }
    }
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
        let mut count = 0;
        for (slot, chunk) in slices.iter_mut().zip(&self.chunks) {
            let bytes = chunk.as_slice();
            *slot = IoSlice::new(if count == 0 { bytes.get(self.written..).unwrap_or(&[]) } else { bytes });
            count += 1;
        }
        count
    }

    /// `bytes` more bytes have been written.
    pub fn advance(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.len, "no more can be written than was there");
        self.len -= bytes.min(self.len);
        let mut left = bytes + self.written;
        while let Some(chunk) = self.chunks.front() {
            let len = chunk.as_slice().len();
            if left < len {
                break;
            }
            left -= len;
            if self.chunks.len() == 1
                && let Some(Chunk::Block(block)) = self.chunks.front_mut()
            {
                // The block is kept for a moment: `reclaim` gives it back once the flush is over.
                block.clear();
                left = 0;
                break;
            }
            self.chunks.pop_front();
        }
        self.written = left;
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub(crate) fn push_copy(&mut self, pool: &mut BlockPool, bytes: &[u8]) {
        self.block(pool, bytes.len()).extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends what `write` writes.
    #[inline]
    pub(crate) fn push_with(&mut self, pool: &mut BlockPool, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let block = self.block(pool, 0);
        let before = block.len();
        write(block);
        let added = block.len() - before;
        self.len += added;
        added
    }

    /// Appends shared bytes.
    pub(crate) fn push_shared(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        self.chunks.push_back(Chunk::Shared(bytes));
    }

    /// Gives an empty outbox's block back to the pool.
    pub(crate) fn reclaim(&mut self, pool: &mut BlockPool) {
        if self.len > 0 {
            return;
        }
        for chunk in self.chunks.drain(..) {
            if let Chunk::Block(block) = chunk {
                pool.give(block);
            }
        }
        self.written = 0;
        if self.chunks.capacity() > 0 {
            self.chunks = VecDeque::new();
        }
    }

    /// The block to append to: the last one if it has room, else one from the pool.
    #[inline]
    fn block(&mut self, pool: &mut BlockPool, bytes: usize) -> &mut Vec<u8> {
        let fits = matches!(self.chunks.back(), Some(Chunk::Block(block)) if block.len() + bytes <= BLOCK_BYTES);
        if !fits {
            self.chunks.push_back(Chunk::Block(pool.take()));
        }
        match self.chunks.back_mut() {
            Some(Chunk::Block(block)) => block,
            _ => unreachable!("a block was pushed if the last chunk was none"),
        }
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
    fn an_empty_outbox_gives_its_block_back() {
        let mut pool = BlockPool::default();
        let mut outbox = Outbox::default();
        outbox.push_copy(&mut pool, b"x");
        outbox.advance(1);
        outbox.reclaim(&mut pool);
        assert_eq!((pool.free.len(), outbox.chunks.capacity()), (1, 0));
    }
}
