//! Listener URLs: `tcp://host:port`, `ws://host:port/path`, `unix:///path`.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenerUrl {
    /// MQTT over TCP: `tcp://host:port` or `mqtt://host:port`.
    Tcp {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// Port; 0 lets the system choose.
        port: u16,
    },
    /// MQTT in WebSocket frames: `ws://host:port/path`.
    Ws {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// Port; 0 lets the system choose.
        port: u16,
        /// Path of the endpoint, with its slash.
        path: String,
    },
    /// MQTT over a Unix stream socket: `unix:///path`.
    Unix {
        /// Path of the socket file.
        path: PathBuf,
    },
}

impl ListenerUrl {
    /// The port, if it is a network listener.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port, .. } | Self::Ws { port, .. } => Some(*port),
            Self::Unix { .. } => None,
        }
    }

    /// The same listener at the address and port it was really bound to.
    pub(crate) fn at(&self, ip: IpAddr, real_port: u16) -> Self {
        let mut real = self.clone();
        match &mut real {
            Self::Tcp { host, port } | Self::Ws { host, port, .. } => {
                *host = ip.to_string();
                *port = real_port;
            }
            Self::Unix { .. } => {}
        }
        real
    }
}

impl fmt::Display for ListenerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "tcp://{}:{port}", Bracketed(host)),
            Self::Ws { host, port, path } => write!(f, "ws://{}:{port}{path}", Bracketed(host)),
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
        }
    }
}

impl FromStr for ListenerUrl {
    type Err = ListenerUrlError;

    fn from_str(url: &str) -> Result<Self, ListenerUrlError> {
        let fault = |kind: Fault| ListenerUrlError { url: url.to_owned(), kind };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| fault(Fault::NoScheme))?;
        match scheme {
            "tcp" | "mqtt" => {
                let authority = rest.strip_suffix('/').unwrap_or(rest);
                let (host, port) = split_authority(authority, TCP_PORT).map_err(fault)?;
                Ok(Self::Tcp { host, port })
            }
            "ws" => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let (host, port) = split_authority(authority, WS_PORT).map_err(fault)?;
                if path.contains(['?', '#']) || !path.chars().all(|c| c.is_ascii_graphic()) {
                    return Err(fault(Fault::Path));
                }
                let path = if path.is_empty() { WS_PATH } else { path };
                Ok(Self::Ws { host, port, path: path.to_owned() })
            }
            "unix" if rest.starts_with('/') && rest.len() > 1 => Ok(Self::Unix { path: PathBuf::from(rest) }),
            "unix" => Err(fault(Fault::UnixPath)),
            _ => Err(fault(Fault::Scheme)),
        }
    }
}

/// Why a text is no listener URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("listener URL {url:?}: {kind}")]
pub struct ListenerUrlError {
    url: String,
    kind: Fault,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("it has no scheme; write tcp://host:port, ws://host:port/path or unix:///path")]
    NoScheme,
    #[error("its scheme is not known; write tcp://, mqtt://, ws:// or unix://")]
    Scheme,
    #[error("it has no host; write 0.0.0.0 for every interface, 127.0.0.1 for this machine only")]
    NoHost,
    #[error("its host is not valid; an IPv6 address stands in brackets, as in tcp://[::1]:1883")]
    Host,
    #[error("its port is not a number from 0 to 65535")]
    Port,
    #[error("its path may have visible ASCII characters only, and neither query nor fragment")]
    Path,
    #[error("a Unix socket needs an absolute path, as in unix:///run/ferromq.sock")]
    UnixPath,
}

struct Bracketed<'a>(&'a str);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

fn split_authority(authority: &str, default_port: u16) -> Result<(String, u16), Fault> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(Fault::Host)?;
            // A zone such as fe80::1%eth0 belongs to the address.
            let address = host.split('%').next().unwrap_or_default();
            address.parse::<std::net::Ipv6Addr>().map_err(|_| Fault::Host)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(Fault::Host),
            }
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err(Fault::NoHost);
    }
    let is_name = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !is_name && !authority.starts_with('[') {
        return Err(Fault::Host);
    }
    let port = match port {
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().map_err(|_| Fault::Port)?,
        Some(_) => return Err(Fault::Port),
        None => default_port,
    };
    Ok((host.to_owned(), port))
}

/// Registered for MQTT.
const TCP_PORT: u16 = 1883;

/// Registered for HTTP, which a WebSocket begins as.
const WS_PORT: u16 = 80;

/// What clients use when they are given no path.
const WS_PATH: &str = "/mqtt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_back_as_they_were_written() {
        for url in [
            "tcp://127.0.0.1:1883",
            "tcp://[::]:0",
            "tcp://localhost:18830",
            "ws://[::1]:8080/mqtt",
            "ws://broker.example.com:80/a/b",
            "unix:///run/ferromq.sock",
        ] {
            assert_eq!(url.parse::<ListenerUrl>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn absent_parts_have_defaults() {
        for (short, long) in [
            ("mqtt://host", "tcp://host:1883"),
            ("tcp://host:1/", "tcp://host:1"),
            ("tcp://[::1]", "tcp://[::1]:1883"),
            ("ws://host", "ws://host:80/mqtt"),
            ("ws://host:81/", "ws://host:81/"),
        ] {
            assert_eq!(short.parse::<ListenerUrl>().unwrap().to_string(), long);
        }
    }

    #[test]
    fn faults_say_what_to_write() {
        for (url, words) in [
            ("localhost:1883", "no scheme"),
            ("http://host", "not known"),
            ("tcp://:1883", "no host"),
            ("tcp://::1:1883", "brackets"),
            ("tcp://[::1:1883", "brackets"),
            ("tcp://[::1]x", "brackets"),
            ("tcp://ho st:1", "not valid"),
            ("tcp://host:65536", "port"),
            ("tcp://host:+1", "port"),
            ("tcp://host:", "port"),
            ("ws://host/a?b", "path"),
            ("unix://relative", "absolute"),
            ("unix:///", "absolute"),
        ] {
            let error = url.parse::<ListenerUrl>().unwrap_err().to_string();
            assert!(error.contains(words), "{url}: {error}");
        }
    }
}
