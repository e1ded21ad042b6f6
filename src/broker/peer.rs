//! Where a connection comes from.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// Where a connection comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Address of the peer.
    pub address: Address,
    /// Listener it came in on, as its URL.
    pub listener: Arc<str>,
}

/// An address, written out when somebody wants to read it: most are never looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Of TCP over IPv4.
    V4 {
        /// Host.
        ip: Ipv4Addr,
        /// Port.
        port: u16,
    },
    /// Any other (`[::1]:53412`, `unix`, `memory`).
    Text(Arc<str>),
}

impl Peer {
    /// One of this process who looks on: nothing is refused to it, and it is not one of the clients.
    #[cfg(feature = "net")]
    pub(crate) fn observer() -> Self {
        Self { address: OBSERVER.into(), listener: OBSERVER.into() }
    }

    /// Whether it is such a one.
    pub(crate) fn is_observer(&self) -> bool {
        *self.listener == *OBSERVER
    }
}

impl Address {
    /// As text, shared where it is kept as text.
    pub fn to_text(&self) -> Arc<str> {
        match self {
            Self::V4 { .. } => self.to_string().into(),
            Self::Text(text) => Arc::clone(text),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4 { ip, port } => write!(f, "{ip}:{port}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::V4 { ip: *v4.ip(), port: v4.port() },
            SocketAddr::V6(_) => Self::Text(address.to_string().into()),
        }
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// The listener of observers. Those of others are URLs, or "memory".
const OBSERVER: &str = "tap";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_were_given_and_take_two_words() {
        for text in ["127.0.0.1:53412", "[::1]:53412"] {
            let address = Address::from(text.parse::<SocketAddr>().unwrap());
            assert_eq!((address.to_string().as_str(), &*address.to_text()), (text, text));
        }
        assert_eq!(&*Address::from("memory").to_text(), "memory");
        assert_eq!(size_of::<Address>(), 16);
    }
}
