//! Packed structs: fields of fixed places, by the letters of Python's `struct` module.

use std::slice;

use crate::telemetry::{
    DecodeError, TelemetryError,
    column::{Context, Record, Scalar},
};

use super::end_row;

/// The layout of a payload, such as `<ffI`. A payload that holds several of them is several rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    is_little: bool,
    /// Pad bytes have no name.
    fields: Vec<(Option<String>, Code)>,
    size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Pad,
    Bool,
    Int(usize),
    UInt(usize),
    Half,
    Single,
    Double,
    /// So many bytes of text, ended by a zero if it is shorter.
    Text(usize),
}

impl Packed {
    /// Reads a format: `<`, `>` or `!` and letters with counts; fields are called `names`, or `f0`, `f1` and so on.
    pub fn parse(format: &str, names: &[String]) -> Result<Self, TelemetryError> {
        let fault = |what: String| TelemetryError::Settings(format!("packed struct {format:?}: {what}"));
        let mut letters = format.chars();
        let is_little = match letters.next() {
            Some('<') => true,
            Some('>' | '!') => false,
            Some('=') => cfg!(target_endian = "little"),
            _ => return Err(fault("it must begin with <, > or !: native alignment differs between machines".into())),
        };
        let codes = codes(letters).map_err(fault)?;
        let count = codes.iter().filter(|code| **code != Code::Pad).count();
        if count == 0 {
            return Err(fault("it has no field".into()));
        }
        let size: usize = codes.iter().map(|code| code.size()).sum();
        if size == 0 {
            return Err(fault("its fields have no bytes".into()));
        }
        if !names.is_empty() && names.len() != count {
            return Err(fault(format!("it has {count} fields, and {} names were given", names.len())));
        }
        let mut named = 0;
        let fields = codes.into_iter().map(|code| {
            let name = (code != Code::Pad).then(|| {
                named += 1;
                names.get(named - 1).cloned().unwrap_or_else(|| format!("f{}", named - 1))
            });
            (name, code)
        });
        Ok(Self { is_little, fields: fields.collect(), size })
    }

    /// Bytes of one row.
    pub fn size(&self) -> usize {
        self.size
    }

    pub(super) fn decode(
        &self,
        payload: &[u8],
        record: &mut Record,
        row: usize,
        context: &mut Context,
    ) -> Result<usize, DecodeError> {
        let rows = payload.chunks_exact(self.size);
        if payload.is_empty() || !rows.remainder().is_empty() {
            let message = format!("{} bytes are no multiple of the struct's {}", payload.len(), self.size);
            return Err(DecodeError(message));
        }
        let mut count = 0;
        for bytes in rows {
            let mut rest = bytes;
            for (name, code) in &self.fields {
                let (field, after) = rest.split_at(code.size());
                rest = after;
                if let Some(name) = name {
                    record.push(name, row + count, Some(code.read(field, self.is_little)?), context);
                }
            }
            count += end_row(record, row + count, context)?;
        }
        Ok(count)
    }
}

impl Code {
    fn size(self) -> usize {
        match self {
            Self::Pad | Self::Bool => 1,
            Self::Half => 2,
            Self::Single => 4,
            Self::Double => 8,
            Self::Int(size) | Self::UInt(size) | Self::Text(size) => size,
        }
    }

    /// Reads a field from exactly its bytes.
    fn read(self, bytes: &[u8], is_little: bool) -> Result<Scalar<'_>, DecodeError> {
        let bits = |bytes: &[u8]| {
            let fold = |bits: u64, byte: &u8| bits << 8 | u64::from(*byte);
            if is_little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) }
        };
        Ok(match self {
            Self::Pad => unreachable!("pad bytes have no name"),
            Self::Bool => Scalar::Bool(bits(bytes) != 0),
            Self::Int(size) => {
                let unused = 64 - 8 * size as u32;
                Scalar::Int((bits(bytes) << unused).cast_signed() >> unused)
            }
            Self::UInt(_) => {
                let value = bits(bytes);
                i64::try_from(value).map_or(Scalar::UInt(value), Scalar::Int)
            }
            Self::Half => Scalar::Float(f64::from(half::f16::from_bits(bits(bytes) as u16))),
            Self::Single => Scalar::Float(f64::from(f32::from_bits(bits(bytes) as u32))),
            Self::Double => Scalar::Float(f64::from_bits(bits(bytes))),
            Self::Text(_) => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                let text = bytes.get(..end).unwrap_or_default();
                Scalar::Text(std::str::from_utf8(text).map_err(DecodeError::new)?)
            }
        })
    }
}

fn codes(letters: std::str::Chars<'_>) -> Result<Vec<Code>, String> {
    let (mut codes, mut count): (Vec<Code>, Option<usize>) = (Vec::new(), None);
    for letter in letters.filter(|letter| !letter.is_ascii_whitespace()) {
        if let Some(digit) = letter.to_digit(10) {
            count = Some(count.unwrap_or_default().saturating_mul(10).saturating_add(digit as usize));
            continue;
        }
        let repeat = count.take().unwrap_or(1);
        let code = match letter {
            'x' => Code::Pad,
            '?' => Code::Bool,
            'b' => Code::Int(1),
            'h' => Code::Int(2),
            'i' | 'l' => Code::Int(4),
            'q' => Code::Int(8),
            'B' | 'c' => Code::UInt(1),
            'H' => Code::UInt(2),
            'I' | 'L' => Code::UInt(4),
            'Q' => Code::UInt(8),
            'e' => Code::Half,
            'f' => Code::Single,
            'd' => Code::Double,
            's' => Code::Text(repeat),
            other => return Err(format!("{other:?} is no field; use one of x ? b B c h H i I l L q Q e f d s")),
        };
        let times = if letter == 's' { 1 } else { repeat };
        let bytes: usize = codes.iter().chain(slice::from_ref(&code)).map(|code| code.size()).sum();
        if codes.len().saturating_add(times) > FIELDS_MAX || bytes > BYTES_MAX {
            return Err(format!("it has more than {FIELDS_MAX} fields or {BYTES_MAX} bytes"));
        }
        codes.extend(std::iter::repeat_n(code, times));
    }
    if count.is_some() { Err("a count is followed by no field".into()) } else { Ok(codes) }
}

/// Fields of a packed struct.
const FIELDS_MAX: usize = 1024;

/// Bytes of a packed struct.
const BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_as_pythons_struct_does() {
        let packed = Packed::parse("<2fIx3s?", &[]).unwrap();
        assert_eq!(packed.size(), 4 + 4 + 4 + 1 + 3 + 1);
        let names: Vec<_> = packed.fields.iter().filter_map(|(name, _)| name.as_deref()).collect();
        assert_eq!(names, ["f0", "f1", "f2", "f3", "f4"]);
    }

    #[test]
    fn formats_that_cannot_be_are_refused() {
        for (format, fault) in [
            ("ff", "must begin"),
            ("@ff", "native alignment"),
            ("<", "no field"),
            ("<0s", "no bytes"),
            ("<3", "followed by no field"),
            ("<P", "'P' is no field"),
            ("<99999f", "more than"),
            ("<9999999999999999999999s", "more than"),
        ] {
            let error = Packed::parse(format, &[]).unwrap_err().to_string();
            assert!(error.contains(fault), "{format}: {error}");
        }
        assert!(Packed::parse("<ff", &["a".into()]).unwrap_err().to_string().contains("2 fields"));
    }

    #[test]
    fn fields_have_their_sign_and_their_byte_order() {
        assert_eq!(Code::Int(2).read(&[0xfe, 0xff], true), Ok(Scalar::Int(-2)));
        assert_eq!(Code::UInt(4).read(&[0, 0, 1, 0], false), Ok(Scalar::Int(256)));
        assert_eq!(Code::UInt(8).read(&[0xff; 8], true), Ok(Scalar::UInt(u64::MAX)));
        assert_eq!(Code::Half.read(&[0x00, 0x3c], true), Ok(Scalar::Float(1.0)));
        assert_eq!(Code::Single.read(&1.5_f32.to_be_bytes(), false), Ok(Scalar::Float(1.5)));
        assert_eq!(Code::Text(4).read(b"ab\0\0", true), Ok(Scalar::Text("ab")));
    }
}
