//! Cutting one packet out of a stream of bytes: fixed header and remaining length.

use bytes::Bytes;

use super::{
    DecodeError, EncodeError, Version,
    cursor::{self, Varint},
};

/// One whole packet, not yet decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// First byte: packet type and flags.
    pub header: u8,
    /// All that follows the remaining length.
    pub body: &'a [u8],
    /// The remaining length took more bytes than it needs. MQTT 5 forbids that [MQTT-1.5.5-1], earlier versions do
    /// not; the version is known only to who decodes.
    pub overlong: bool,
}

impl<'a> Frame<'a> {
    /// A frame of a header byte and a body.
    pub const fn new(header: u8, body: &'a [u8]) -> Self {
        Self { header, body, overlong: false }
    }

    /// The four bits of flags beside the packet type.
    #[inline]
    pub(super) const fn flags(&self) -> u8 {
        self.header & 0x0F
    }

    /// Fails if the remaining length was not in its shortest form and `version` cares [MQTT-1.5.5-1].
    #[inline]
    pub(super) fn check_length(&self, version: Version) -> Result<(), DecodeError> {
        if self.overlong && version.is_v5() {
            return Err(DecodeError::malformed("the remaining length takes more bytes than it needs"));
        }
        Ok(())
    }
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
/// exceeds `packet_bytes_max`, and as malformed when the type is 0 or the length does not end within four bytes.
#[inline]
pub fn cut(input: &[u8], packet_bytes_max: u32) -> Result<Cut<'_>, DecodeError> {
    let Some((&header, after)) = input.split_first() else { return Ok(Cut::NeedMore(2)) };
    if header >> 4 == 0 {
        return Err(DecodeError::malformed("packet type 0 is reserved"));
    }
    let (body_len, length_len, minimal) = match cursor::varint(after) {
        Varint::Value { value, len, minimal } => (value, len, minimal),
        Varint::Cut => return Ok(Cut::NeedMore(1)),
        Varint::Endless => return Err(DecodeError::malformed("the remaining length does not end within four bytes")),
    };
    let len = 1 + length_len as u32 + body_len;
    if len > packet_bytes_max {
        return Err(DecodeError::PacketTooLarge { len, max: packet_bytes_max });
    }
    let whole = len as usize;
    match input.get(1 + length_len..whole) {
        Some(body) => Ok(Cut::Frame(Frame { header, body, overlong: !minimal }, whole)),
        None => Ok(Cut::NeedMore(whole - input.len())),
    }
}

/// Bytes of a whole packet whose body has `body_len` bytes.
#[inline]
pub const fn packet_len(body_len: usize) -> usize {
    1 + cursor::varint_len(body_len) + body_len
}

/// Appends the fixed header of a packet, after which `body_len` bytes follow.
#[inline]
pub(super) fn put_header(out: &mut Vec<u8>, header: u8, body_len: usize) -> Result<(), EncodeError> {
    if body_len > cursor::VARINT_MAX {
        return Err(EncodeError::TooLong { what: "packet", len: body_len, max: cursor::VARINT_MAX });
    }
    out.push(header);
    cursor::put_varint(out, body_len);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ReasonCode;

    const MAX: u32 = 268_435_460;

    #[test]
    fn a_frame_is_cut_only_when_whole_and_asks_for_what_is_missing() {
        assert_eq!(cut(&[], MAX), Ok(Cut::NeedMore(2)));
        assert_eq!(cut(&[0x40], MAX), Ok(Cut::NeedMore(1)));
        assert_eq!(cut(&[0x40, 2], MAX), Ok(Cut::NeedMore(2)));
        assert_eq!(cut(&[0x40, 2, 0], MAX), Ok(Cut::NeedMore(1)));
        assert_eq!(cut(&[0x40, 2, 0, 1, 0xC0], MAX), Ok(Cut::Frame(Frame::new(0x40, &[0, 1]), 4)));
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_at_its_header() {
        assert_eq!(cut(&[0x30, 0x09], 10), Err(DecodeError::PacketTooLarge { len: 11, max: 10 }));
        assert_eq!(cut(&[0x30, 0x08], 10), Ok(Cut::NeedMore(8)));
        let greatest = cut(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], MAX);
        assert_eq!(greatest, Ok(Cut::NeedMore(268_435_455)));
    }

    #[test]
    fn a_length_without_end_and_type_0_are_malformed() {
        for input in [&[0x30, 0x80, 0x80, 0x80, 0x80][..], &[0x00], &[0x0F, 0]] {
            assert_eq!(cut(input, MAX).unwrap_err().reason(), ReasonCode::MalformedPacket);
        }
    }

    #[test]
    fn a_longer_length_than_needed_is_noted_for_the_decoder() {
        let Ok(Cut::Frame(frame, 3)) = cut(&[0xC0, 0x80, 0x00], MAX) else { panic!("a whole packet") };
        assert!(frame.overlong);
        assert!(frame.check_length(Version::V3_1_1).is_ok());
        assert!(frame.check_length(Version::V5).is_err());
    }
}
