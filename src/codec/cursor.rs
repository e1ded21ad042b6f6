//! Checked reads and writes of the wire's data types (section 1.5).
//!
//! A [`Reader`] never looks past its slice: whatever is missing becomes a `DecodeError` that names the field. Writes
//! append to a `Vec<u8>` and cannot fail, because lengths are checked when sizes are computed, before the first byte.

use std::num::NonZeroU16;

use super::{DecodeError, EncodeError, Limits, PacketId, ReasonCode, text, topic};

/// The faults a field can have, each as a finished sentence, so that an error costs no allocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) cut: &'static str,
    pub(super) utf8: &'static str,
    pub(super) disallowed: &'static str,
    pub(super) varint: &'static str,
    pub(super) invalid: &'static str,
    pub(super) zero: &'static str,
    pub(super) trailing: &'static str,
}

/// A [`Field`] from the field's name.
macro_rules! field {
    ($($name:tt)+) => {{
        const FIELD: $crate::codec::cursor::Field = $crate::codec::cursor::Field {
            cut: concat!($($name)+, " is cut short"),
            utf8: concat!($($name)+, " is not well-formed UTF-8 or holds U+0000"),
            disallowed: concat!($($name)+, " holds a control character or a noncharacter"),
            varint: concat!($($name)+, " is a variable byte integer of more bytes than it needs, or than four"),
            invalid: concat!($($name)+, " is not a valid one"),
            zero: concat!($($name)+, " is 0"),
            trailing: concat!($($name)+, " is followed by bytes that belong to nothing"),
        };
        &FIELD
    }};
}
pub(super) use field;

/// What is left to read of a packet's body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[inline]
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all is read.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left, without reading it.
    #[inline]
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    #[inline]
    pub(super) fn take(&mut self, len: usize, field: &Field) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::malformed(field.cut))?;
        self.rest = rest;
        Ok(taken)
    }

    /// One byte.
    #[inline]
    pub(super) fn u8(&mut self, field: &Field) -> Result<u8, DecodeError> {
        let [byte] = self.array(field)?;
        Ok(byte)
    }

    /// Two byte integer.
    #[inline]
    pub(super) fn u16(&mut self, field: &Field) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    /// Four byte integer.
    #[inline]
    pub(super) fn u32(&mut self, field: &Field) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Variable byte integer, in its shortest form only [MQTT-1.5.5-1].
    #[inline]
    pub(super) fn varint(&mut self, field: &Field) -> Result<u32, DecodeError> {
        match varint(self.rest) {
            Varint::Value { value, len, minimal: true } => {
                self.rest = self.rest.get(len..).unwrap_or_default();
                Ok(value)
            }
            Varint::Value { .. } | Varint::Endless => Err(DecodeError::malformed(field.varint)),
            Varint::Cut => Err(DecodeError::malformed(field.cut)),
        }
    }

    /// Binary data: two bytes of length, then as many bytes.
    #[inline]
    pub(super) fn binary(&mut self, field: &Field) -> Result<&'a [u8], DecodeError> {
        let len = self.u16(field)?;
        self.take(usize::from(len), field)
    }

    /// UTF-8 string [MQTT-1.5.4-1] [MQTT-1.5.4-2].
    #[inline]
    pub(super) fn text(&mut self, field: &Field) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(field)?;
        match text::plain(bytes) {
            Some(text) => Ok(text),
            None => odd_text(bytes).ok_or(DecodeError::malformed(field.utf8)),
        }
    }

    /// UTF-8 string that names somebody. The code points that section 1.5.4 leaves to the receiver are refused here, for
    /// the reasons of section 5.4.9: names end up in logs and access rules.
    pub(super) fn identifier(&mut self, field: &Field) -> Result<&'a str, DecodeError> {
        let text = self.text(field)?;
        if text::has_disallowed(text) { Err(DecodeError::malformed(field.disallowed)) } else { Ok(text) }
    }

    /// Topic name.
    #[inline]
    pub(super) fn topic_name(&mut self, field: &Field, limits: &Limits) -> Result<&'a str, DecodeError> {
        topic::decode_name(self.binary(field)?, field, limits)
    }

    /// Topic filter.
    pub(super) fn topic_filter(&mut self, field: &Field, limits: &Limits) -> Result<&'a str, DecodeError> {
        let filter = std::str::from_utf8(self.binary(field)?).map_err(|_| DecodeError::malformed(field.utf8))?;
        topic::check_filter(filter, limits).map_err(|fault| fault.in_filter(field))?;
        Ok(filter)
    }

    /// Packet identifier; zero is a protocol error [MQTT-2.2.1-3], in 3.1.1 [MQTT-2.3.1-1].
    #[inline]
    pub(super) fn packet_id(&mut self, field: &Field) -> Result<PacketId, DecodeError> {
        NonZeroU16::new(self.u16(field)?).ok_or(DecodeError::protocol(field.zero))
    }

    /// Fails unless all is read.
    #[inline]
    pub(super) fn finish(&self, last: &Field) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::malformed(last.trailing)) }
    }

    fn array<const N: usize>(&mut self, field: &Field) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::malformed(field.cut))?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// A string that is not plain ASCII.
#[cold]
fn odd_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|_| !bytes.contains(&0))
}

/// What stands where a variable byte integer should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Varint {
    /// A value and the bytes it took; `minimal` if fewer would not have done.
    Value { value: u32, len: usize, minimal: bool },
    /// The input ends first.
    Cut,
    /// The fourth byte announces a fifth.
    Endless,
}

/// Reads a variable byte integer from the start of `bytes`.
#[inline]
pub(super) fn varint(bytes: &[u8]) -> Varint {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Varint::Value { value, len: at + 1, minimal: byte != 0 || at == 0 };
        }
    }
    if bytes.len() < VARINT_BYTES_MAX { Varint::Cut } else { Varint::Endless }
}

/// Bytes that the variable byte integer of `value` takes.
#[inline]
pub(super) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Bytes of a string or binary field with its length, or why it does not fit.
#[inline]
pub(super) const fn field_len(len: usize, what: &'static str) -> Result<usize, EncodeError> {
    if len > FIELD_BYTES_MAX {
        return Err(EncodeError::TooLong { what, len, max: FIELD_BYTES_MAX });
    }
    Ok(2 + len)
}

/// Appends a two byte integer.
#[inline]
pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a four byte integer.
#[inline]
pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a variable byte integer; `value` is at most [`VARINT_MAX`].
#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    debug_assert!(value <= VARINT_MAX, "checked when the sizes were computed");
    while value > 0x7F {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a string or binary field; `bytes` has passed [`field_len`].
#[inline]
pub(super) fn put_field(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= FIELD_BYTES_MAX, "checked when the sizes were computed");
    put_u16(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

/// A violation with a code of its own.
pub(super) const fn violation(reason: ReasonCode, what: &'static str) -> DecodeError {
    DecodeError::Violation { reason, what }
}

/// Greatest variable byte integer, and so the greatest remaining length (section 1.5.5).
pub(super) const VARINT_MAX: usize = 268_435_455;

/// A variable byte integer takes at most four bytes (section 1.5.5).
const VARINT_BYTES_MAX: usize = 4;

/// Strings and binary data have a length of two bytes (sections 1.5.4 and 1.5.6).
const FIELD_BYTES_MAX: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 1-1 of the specification: the limits of each length.
    const LIMITS: &[(u32, &[u8])] = &[
        (0, &[0x00]),
        (127, &[0x7F]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xFF, 0x7F]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xFF, 0xFF, 0x7F]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
        (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
    ];

    #[test]
    fn variable_byte_integers_are_those_of_table_1_1() {
        for &(value, bytes) in LIMITS {
            let mut out = Vec::new();
            put_varint(&mut out, value as usize);
            assert_eq!(out, bytes);
            assert_eq!(varint_len(value as usize), bytes.len());
            assert_eq!(varint(bytes), Varint::Value { value, len: bytes.len(), minimal: true });
        }
    }

    #[test]
    fn variable_byte_integers_report_every_way_to_be_wrong() {
        assert_eq!(varint(&[]), Varint::Cut);
        assert_eq!(varint(&[0x80, 0x80, 0x80]), Varint::Cut);
        assert_eq!(varint(&[0x80, 0x80, 0x80, 0x80]), Varint::Endless);
        assert_eq!(varint(&[0x80, 0x00]), Varint::Value { value: 0, len: 2, minimal: false });
        assert_eq!(varint(&[0xFF, 0x00]), Varint::Value { value: 127, len: 2, minimal: false });
    }

    #[test]
    fn reads_stop_at_the_end_and_name_the_field() {
        let mut reader = Reader::new(&[0, 3, b'a', b'b']);
        let error = reader.text(field!("name")).unwrap_err();
        assert_eq!(error.reason(), ReasonCode::MalformedPacket);
        assert_eq!(error.to_string(), "name is cut short (malformed packet 0x81)");
    }

    #[test]
    fn strings_refuse_null_and_surrogates_and_keep_the_byte_order_mark() {
        let read = |bytes: &'static [u8]| Reader::new(bytes).text(field!("text")).map_err(|error| error.reason());
        assert_eq!(read(&[0, 1, 0]), Err(ReasonCode::MalformedPacket));
        assert_eq!(read(&[0, 3, 0xED, 0xA0, 0x80]), Err(ReasonCode::MalformedPacket));
        // [MQTT-1.5.4-3]: U+FEFF is a character like any other.
        assert_eq!(read(&[0, 3, 0xEF, 0xBB, 0xBF]), Ok("\u{FEFF}"));
    }
}
