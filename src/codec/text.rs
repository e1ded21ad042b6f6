//! A UTF-8 encoded string of the wire, sharing the buffer it came in.

use std::{borrow::Borrow, fmt, ops::Deref};

use bytes::Bytes;

/// A valid MQTT UTF-8 string (section 1.5.4): well-formed, no U+0000, at most 65,535 bytes. Cloning shares.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
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
        (bytes.len() <= usize::from(u16::MAX) && is_valid(&bytes)).then_some(Self(bytes))
    }

    /// The bytes, shared.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The text.
    #[inline]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when it was made")
    }
}

/// Whether `bytes` may stand in a UTF-8 encoded string [MQTT-1.5.4-1] [MQTT-1.5.4-2].
#[inline]
pub(crate) fn is_valid(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && !bytes.contains(&0)
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl TryFrom<&str> for Text {
    type Error = InvalidText;

    fn try_from(text: &str) -> Result<Self, InvalidText> {
        Self::from_utf8(Bytes::copy_from_slice(text.as_bytes())).ok_or(InvalidText)
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
