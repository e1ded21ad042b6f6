//! The wire format of Protocol Buffers, as far as Sparkplug B needs it: fields by number, without copies.

use crate::telemetry::DecodeError;

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire<'a> {
    /// `uint32`, `uint64`, `bool`.
    Varint(u64),
    /// `double`.
    Fixed64(u64),
    /// `float`.
    Fixed32(u32),
    /// `string`, `bytes` and messages.
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field and its number; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(DecodeError(format!("wire type {other} of a protocol buffer is not known"))),
        };
        Ok(Some((tag >> 3, wire)))
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::new("a number of a protocol buffer has more than ten bytes"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many bytes were taken"))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| DecodeError::new("the protocol buffer ends within a field"))?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Wire<'a> {
    pub(super) fn as_u64(self) -> Option<u64> {
        if let Self::Varint(value) = self { Some(value) } else { None }
    }

    pub(super) fn as_bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(value) = self { Some(value) } else { None }
    }

    pub(super) fn as_text(self) -> Option<&'a str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_and_a_cut_message_is_refused() {
        let message = [0x08, 0xac, 0x02, 0x12, 0x02, b'h', b'i', 0x1d, 0, 0, 0x80, 0x3f];
        let mut fields = Fields::new(&message);
        assert_eq!(fields.next(), Ok(Some((1, Wire::Varint(300)))));
        assert_eq!(fields.next(), Ok(Some((2, Wire::Bytes(b"hi")))));
        assert_eq!(fields.next(), Ok(Some((3, Wire::Fixed32(1.0_f32.to_bits())))));
        assert_eq!(fields.next(), Ok(None));
        for end in [1, 2, 4, 6, 8, 11] {
            let mut fields = Fields::new(&message[..end]);
            while let Ok(field) = fields.next() {
                assert!(field.is_some(), "a message cut at {end} was taken for a whole one");
                if end == 2 || fields.rest.is_empty() {
                    break;
                }
            }
        }
        assert!(Fields::new(&[0xff; 11]).next().is_err());
    }
}
