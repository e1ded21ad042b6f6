//! Cutting one packet out of a stream of bytes: fixed header and remaining length.

use bytes::Bytes;

use super::DecodeError;

/// One whole packet, not yet decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// First byte: packet type and flags.
    pub header: u8,
    /// All that follows the remaining length.
    pub body: &'a [u8],
}

/// What the start of the input holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut<'a> {
    /// A packet, and how many bytes of the input it took (header included).
    Frame(Frame<'a>, usize),
    /// No whole packet yet; at least this many more bytes are needed.
    NeedMore(usize),
}

/// Where the bytes of a frame live, so that decoded payloads and strings are shared if they can be, else copied.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// The frame borrows from this buffer: slices of it are shared without copying.
    Shared(&'a Bytes),
    /// The frame lies in scratch memory: what is kept is copied once.
    Scratch,
}

impl Source<'_> {
    /// `part`, which must lie inside the frame, as `Bytes`.
    #[inline]
    pub fn take(&self, part: &[u8]) -> Bytes {
        match self {
            _ if part.is_empty() => Bytes::new(),
            Self::Shared(whole) => whole.slice_ref(part),
            Self::Scratch => Bytes::copy_from_slice(part),
        }
    }
}

/// Finds the packet at the start of `input`. Fails with `PacketTooLarge` as soon as the header shows that the packet
/// exceeds `packet_bytes_max`, and with `MalformedRemainingLength` when the length does not end within four bytes.
#[inline]
pub fn cut(input: &[u8], packet_bytes_max: u32) -> Result<Cut<'_>, DecodeError> {
    let _ = (input, packet_bytes_max);
    todo!("codec helper")
}
