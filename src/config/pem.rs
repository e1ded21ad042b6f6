//! Certificates and keys as they are named: a file, or the PEM text itself.

use std::{borrow::Cow, fmt, fs, io, path::PathBuf, sync::Arc};

/// Where PEM text comes from. Text that has a line `-----BEGIN` is taken for PEM, all other for the path of a file.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file, read when the listener is bound or the client is made.
    File(PathBuf),
    /// The text.
    Text(Arc<str>),
}

impl Pem {
    /// The text; read from the file if it is one.
    pub fn read(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::File(path) => fs::read(path).map(Cow::Owned),
            Self::Text(text) => Ok(Cow::Borrowed(text.as_bytes())),
        }
    }
}

impl From<&str> for Pem {
    fn from(text: &str) -> Self {
        if text.contains(BEGIN) { Self::Text(text.into()) } else { Self::File(text.into()) }
    }
}

impl From<String> for Pem {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// What to call it. Text may hold a key, and is not shown.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text(_) => f.write_str("the PEM text given"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({self})")
    }
}

const BEGIN: &str = "-----BEGIN";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_a_path_and_never_shown() {
        assert_eq!(Pem::from("server.pem"), Pem::File("server.pem".into()));
        let key = Pem::from("-----BEGIN PRIVATE KEY-----\nsecret\n");
        assert!(matches!(&key, Pem::Text(_)));
        assert!(!format!("{key} {key:?}").contains("secret"));
        assert!(key.read().unwrap().starts_with(b"-----BEGIN"));
        assert!(Pem::from("nowhere/server.pem").read().is_err());
    }
}
