//! A UTF-8 encoded string of the wire, sharing the buffer it came in.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::Source;

/// A valid MQTT UTF-8 string (section 1.5.4): well-formed, no U+0000, at most 65,535 bytes. Cloning shares.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Text(Bytes);

impl Text {
    /// The empty string.
    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// A string literal, without a copy. It must not hold U+0000.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// `bytes`, if they are a valid MQTT UTF-8 string.
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        (bytes.len() <= BYTES_MAX && is_valid(&bytes)).then_some(Self(bytes))
    }

    /// `text`, which lies in a frame and has passed the reader's checks.
    pub(super) fn from_checked(text: &str, source: Source<'_>) -> Self {
        debug_assert!(text.len() <= BYTES_MAX && is_valid(text.as_bytes()), "the reader has checked it");
        Self(source.take(text.as_bytes()))
    }

    /// The bytes, shared.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The text.
    #[inline]
    #[allow(unsafe_code)]
    pub fn as_str(&self) -> &str {
        debug_assert!(std::str::from_utf8(&self.0).is_ok(), "checked when it was made");
        // SAFETY: every constructor takes a `&str` or checks with `is_valid`, the field is private, and `Bytes` is
        // immutable while shared; so the bytes are well-formed UTF-8. Checking again would cost each look at a topic
        // a pass over it.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }
}

/// A string and bytes behind it, in one piece; short ones without memory of their own.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TextAnd {
    bytes: SmallVec<[u8; INLINE_BYTES]>,
    text_len: u32,
}

impl TextAnd {
    /// Copies of a string, of at most 65,535 bytes, and of what is to stand behind it.
    #[inline]
    pub(crate) fn new(text: &str, behind: [&[u8]; 2]) -> Self {
        let [first, second] = behind;
        let parts = [text.as_bytes(), first, second];
        let len = parts.iter().map(|part| part.len()).sum();
        let bytes = if len <= INLINE_BYTES {
            let mut inline = [0; INLINE_BYTES];
            let mut rest = inline.as_mut_slice();
            for part in parts {
                let (start, behind) = rest.split_at_mut(part.len());
                start.copy_from_slice(part);
                rest = behind;
            }
            SmallVec::from_buf_and_len(inline, len)
        } else {
            SmallVec::from_vec(parts.concat())
        };
        Self { bytes, text_len: text.len() as u32 }
    }

    /// The string.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) fn text(&self) -> &str {
        let text = self.bytes.get(..self.text_len as usize).unwrap_or_default();
        debug_assert!(std::str::from_utf8(text).is_ok(), "it was a string when it came in");
        // SAFETY: `new` alone makes one of these, and puts a `&str` of `text_len` bytes there; nothing changes them.
        unsafe { std::str::from_utf8_unchecked(text) }
    }

    /// The bytes behind it.
    #[inline]
    pub(crate) fn behind(&self) -> &[u8] {
        self.bytes.get(self.text_len as usize..).unwrap_or_default()
    }
}

impl fmt::Debug for TextAnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TextAnd").field(&self.text()).field(&self.behind().len()).finish()
    }
}

/// Room for a topic and a reading of a sensor.
const INLINE_BYTES: usize = 96;

/// Whether `bytes` may stand in a UTF-8 encoded string [MQTT-1.5.4-1] [MQTT-1.5.4-2].
#[inline]
pub(crate) fn is_valid(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && !bytes.contains(&0)
}

/// Whether `text` holds a code point that section 1.5.4 advises against: control characters (U+0000 to U+001F, U+007F to
/// U+009F) and noncharacters (U+FDD0 to U+FDEF, and the last two of each plane).
#[inline]
pub(crate) fn has_disallowed(text: &str) -> bool {
    let suspect = |byte: u8| byte < 0x20 || byte == 0x7F || byte == C1_LEAD || byte >= NONCHARACTER_LEAD;
    text.bytes().any(suspect) && text.chars().any(is_disallowed)
}

fn is_disallowed(character: char) -> bool {
    let code = u32::from(character);
    character.is_control() || code & 0xFFFE == 0xFFFE || (0xFDD0..=0xFDEF).contains(&code)
}

/// `bytes` as a string, if they are printable ASCII without + and #, as nearly all are: then there is nothing more to
/// check, neither as UTF-8 nor as a topic name.
#[inline]
#[allow(unsafe_code)]
pub(super) fn plain(bytes: &[u8]) -> Option<&str> {
    if !is_plain(bytes) {
        return None;
    }
    debug_assert!(bytes.is_ascii(), "bytes above 0x7E are suspect");
    // SAFETY: `is_plain` looks at every byte, and refuses 0x7F and all above. So all are ASCII, which is well-formed UTF-8.
    Some(unsafe { std::str::from_utf8_unchecked(bytes) })
}

/// Looks at each byte, eight at a time; the last eight overlap those before them.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else { return bytes.iter().all(|&byte| !is_suspect([byte; 8])) };
    !is_suspect(*last) && !bytes.as_chunks::<8>().0.iter().copied().any(is_suspect)
}

/// Whether one of eight bytes is anything but printable ASCII without + and #. What is added up and taken away stays in its
/// byte, or is carried on from one that is suspect itself (Hacker's Delight, section 6-1).
#[inline]
const fn is_suspect(bytes: [u8; 8]) -> bool {
    let word = u64::from_ne_bytes(bytes);
    // + and # differ in one bit.
    let (wildcard, delete) = ((word | (EACH * 0x08)) ^ (EACH * b'+' as u64), word ^ (EACH * 0x7F));
    let control = word.wrapping_sub(EACH * b' ' as u64) & !word;
    (word | control | zero(wildcard) | zero(delete)) & (EACH * 0x80) != 0
}

/// Sets the highest bit of the lowest byte that is zero; of those above it perhaps.
#[inline]
const fn zero(word: u64) -> u64 {
    word.wrapping_sub(EACH) & !word
}

/// One in each byte of a word.
const EACH: u64 = 0x0101_0101_0101_0101;

/// The length before a string takes two bytes.
const BYTES_MAX: usize = 65_535;

/// First byte of U+0080 to U+00BF, the C1 control characters among them.
const C1_LEAD: u8 = 0xC2;

/// Least first byte of a noncharacter, that of U+FDD0.
const NONCHARACTER_LEAD: u8 = 0xEF;

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// As `str` hashes, which `Borrow<str>` promises; `Bytes` hashes differently.
impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl TryFrom<&str> for Text {
    type Error = InvalidText;

    fn try_from(text: &str) -> Result<Self, InvalidText> {
        Self::from_utf8(Bytes::copy_from_slice(text.as_bytes())).ok_or(InvalidText)
    }
}

impl TryFrom<String> for Text {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        Self::from_utf8(Bytes::from(text)).ok_or(InvalidText)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text holds U+0000 or is longer than 65,535 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an MQTT string must not hold U+0000 and must not exceed 65,535 bytes")]
pub struct InvalidText;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn text_is_found_by_str_in_a_map() {
        let map = HashMap::from([(Text::from_static("plant/1"), 7)]);
        assert_eq!(map.get("plant/1"), Some(&7));
    }

    #[test]
    fn null_bad_utf8_and_too_long_are_refused() {
        assert!(Text::try_from("a\0b").is_err());
        assert!(Text::from_utf8(Bytes::from_static(&[0xED, 0xA0, 0x80])).is_none());
        assert!(Text::from_utf8(Bytes::from_static(&[0xC3])).is_none());
        assert!(Text::try_from("x".repeat(65_536)).is_err());
        assert_eq!(Text::try_from("x".repeat(65_535)).unwrap().len(), 65_535);
    }

    #[test]
    fn plain_text_is_told_from_other_text_at_every_length() {
        for len in 0..80 {
            let text = "a/~ ".chars().cycle().take(len).collect::<String>();
            assert_eq!(plain(text.as_bytes()), Some(text.as_str()));
            for at in 0..len {
                for odd in [b'+', b'#', 0x00, 0x1F, 0x7F, 0x80, 0xC3, 0xFF] {
                    let mut bytes = text.clone().into_bytes();
                    bytes[at] = odd;
                    assert_eq!(plain(&bytes), None, "0x{odd:02X} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn control_characters_and_noncharacters_are_told_from_their_neighbours() {
        let disallowed = ["\0", "\u{1}", "a\u{1F}", "\u{7F}b", "\u{80}", "\u{9F}", "\u{FDD0}", "\u{FDEF}", "\u{FFFE}"];
        for text in disallowed.into_iter().chain(["a\u{FFFF}", "\u{1FFFE}", "\u{10FFFF}"]) {
            assert!(has_disallowed(text), "{text:?}");
        }
        for text in ["", " ", "~", "\u{A0}", "\u{BF}", "é", "\u{FDCF}", "\u{FDF0}", "\u{FFFD}", "\u{2A6D4}", "😀"] {
            assert!(!has_disallowed(text), "{text:?}");
        }
    }
}
