//! Where a broker listens: `tcp://host:port`, `tls://`, `ws://host:port/path`, `wss://`, `unix:///path`, and how each is bound.
//!
//! Free of serde, so that sockets can be opened without the feature `config`.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
};

use super::Pem;

/// One listener, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where to listen.
    pub url: ListenerUrl,
    /// Connections of this listener at one time, 0 for no limit. Default 0. One more is accepted and closed at once.
    pub max_connections: usize,
    /// Connections the kernel completes ahead of us. Default 1024; the kernel has its own maximum.
    pub backlog: u32,
    /// One socket for each shard, so that the kernel spreads connections. `None`, the default, does it where that
    /// works well: TCP on Linux, more than one shard. `Some(false)` accepts on the first shard and deals out.
    pub reuse_port: Option<bool>,
    /// What `tls://` and `wss://` need; others have none.
    pub tls: Option<ListenerTls>,
}

/// How a listener proves who it is, and whom it asks the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// The server's certificate, followed by those between it and a trusted one.
    pub cert: Pem,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: Pem,
    /// Clients must show a certificate that one of these has signed. `None`, the default, asks for none.
    pub client_ca: Option<Pem>,
}

impl ListenerConfig {
    /// A listener with the defaults.
    pub fn new(url: ListenerUrl) -> Self {
        Self { url, max_connections: 0, backlog: BACKLOG, reuse_port: None, tls: None }
    }
}

impl From<ListenerUrl> for ListenerConfig {
    fn from(url: ListenerUrl) -> Self {
        Self::new(url)
    }
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenerUrl {
    /// MQTT over TCP: `tcp://host:port` or `mqtt://host:port`; over TLS: `tls://host:port` or `mqtts://host:port`.
    Tcp {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// Port; 0 lets the system choose.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// MQTT in WebSocket frames: `ws://host:port/path`; over TLS: `wss://host:port/path`.
    Ws {
        /// A name or an address, IPv6 without brackets.
        host: String,
        /// Port; 0 lets the system choose.
        port: u16,
        /// Path of the endpoint, with its slash.
        path: String,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// MQTT over a Unix stream socket: `unix:///path`.
    Unix {
        /// Path of the socket file.
        path: PathBuf,
    },
}

impl ListenerUrl {
    /// `tcp://127.0.0.1:port`: what `--port` and no listener at all (1883) stand for.
    pub fn local(port: u16) -> Self {
        Self::Tcp { host: "127.0.0.1".to_owned(), port, tls: false }
    }

    /// Whether TLS is spoken, so that a certificate is needed.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. } | Self::Ws { tls: true, .. })
    }

    /// The port, if it is a network listener.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port, .. } | Self::Ws { port, .. } => Some(*port),
            Self::Unix { .. } => None,
        }
    }

    /// The same listener at the address and port it was really bound to.
    #[must_use]
    pub fn at(&self, ip: IpAddr, real_port: u16) -> Self {
        let mut real = self.clone();
        if let Self::Tcp { host, port, .. } | Self::Ws { host, port, .. } = &mut real {
            *host = ip.to_string();
            *port = real_port;
        }
        real
    }
}

impl fmt::Display for ListenerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => {
                write!(f, "{}://{}:{port}", if *tls { "tls" } else { "tcp" }, Bracketed(host))
            }
            Self::Ws { host, port, path, tls } => {
                write!(f, "{}://{}:{port}{path}", if *tls { "wss" } else { "ws" }, Bracketed(host))
            }
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
        }
    }
}

impl FromStr for ListenerUrl {
    type Err = ListenerUrlError;

    fn from_str(url: &str) -> Result<Self, ListenerUrlError> {
        parse(url).map_err(|fault| ListenerUrlError { url: url.to_owned(), fault })
    }
}

/// Why a text is no listener URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("listener URL {url:?}: {fault}")]
pub struct ListenerUrlError {
    url: String,
    fault: Fault,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("it has no scheme; write tcp://host:port, ws://host:port/path or unix:///path")]
    NoScheme,
    #[error("its scheme is not known; write tcp://, tls://, ws://, wss:// or unix://")]
    Scheme,
    #[error("it has no host; write 0.0.0.0 for every interface, 127.0.0.1 for this machine only")]
    NoHost,
    #[error("its host is not valid; an IPv6 address stands in brackets, as in tcp://[::1]:1883")]
    Host,
    #[error("its port is not a number from 0 to 65535")]
    Port,
    #[error("only ws:// and wss:// have a path after the port")]
    NoPath,
    #[error("its path may have visible ASCII characters only, and neither query nor fragment")]
    Path,
    #[error("a Unix socket needs an absolute path, as in unix:///run/ferromq.sock")]
    UnixPath,
    #[error("a Unix socket's path has at most {UNIX_PATH_BYTES_MAX} bytes and no zero byte")]
    UnixPathLength,
}

fn parse(url: &str) -> Result<ListenerUrl, Fault> {
    let (scheme, rest) = url.split_once("://").ok_or(Fault::NoScheme)?;
    match scheme {
        "tcp" | "mqtt" | "tls" | "mqtts" | "ssl" => {
            let tls = !matches!(scheme, "tcp" | "mqtt");
            let authority = rest.strip_suffix('/').unwrap_or(rest);
            if authority.contains('/') {
                return Err(Fault::NoPath);
            }
            let (host, port) = split_authority(authority, if tls { TLS_PORT } else { TCP_PORT })?;
            Ok(ListenerUrl::Tcp { host, port, tls })
        }
        "ws" | "wss" => {
            let tls = scheme == "wss";
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let (host, port) = split_authority(authority, if tls { WSS_PORT } else { WS_PORT })?;
            if path.contains(['?', '#']) || !path.chars().all(|c| c.is_ascii_graphic()) {
                return Err(Fault::Path);
            }
            let path = if path.is_empty() { WS_PATH } else { path };
            Ok(ListenerUrl::Ws { host, port, path: path.to_owned(), tls })
        }
        "unix" if !rest.starts_with('/') || rest.ends_with('/') => Err(Fault::UnixPath),
        "unix" if rest.len() > UNIX_PATH_BYTES_MAX || rest.contains('\0') => Err(Fault::UnixPathLength),
        "unix" => Ok(ListenerUrl::Unix { path: PathBuf::from(rest) }),
        _ => Err(Fault::Scheme),
    }
}

fn split_authority(authority: &str, default_port: u16) -> Result<(String, u16), Fault> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(Fault::Host)?;
        // A zone such as fe80::1%eth0 belongs to the address.
        let (address, zone) = host.split_once('%').unwrap_or((host, "0"));
        if address.parse::<Ipv6Addr>().is_err() || !is_name(zone) {
            return Err(Fault::Host);
        }
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(Fault::Host),
        }
    } else {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        match host {
            "" => return Err(Fault::NoHost),
            host if !is_name(host) => return Err(Fault::Host),
            host => (host, port),
        }
    };
    let port = match port {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().map_err(|_| Fault::Port)?,
        Some(_) => return Err(Fault::Port),
        None => default_port,
    };
    Ok((host.to_owned(), port))
}

fn is_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

struct Bracketed<'a>(&'a str);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

/// Registered for MQTT.
pub const TCP_PORT: u16 = 1883;

/// Registered for MQTT over TLS.
pub const TLS_PORT: u16 = 8883;

/// Where most brokers offer MQTT over WebSocket and TLS; 443 would need privileges.
const WSS_PORT: u16 = 8084;

/// Where most brokers offer MQTT over WebSocket; 80 would need privileges.
pub const WS_PORT: u16 = 8083;

/// What clients use when they are given no path.
const WS_PATH: &str = "/mqtt";

/// Room for a fleet that reconnects at once, while a shard is busy with the first of it.
const BACKLOG: u32 = 1024;

/// `sun_path` on Linux without its closing zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_back_as_they_were_written() {
        for url in [
            "tcp://127.0.0.1:1883",
            "tcp://[::]:0",
            "tcp://[fe80::1%eth0]:1883",
            "tcp://localhost:18830",
            "ws://[::1]:8080/mqtt",
            "ws://broker.example.com:80/a/b",
            "tls://0.0.0.0:8883",
            "wss://[::]:443/mqtt",
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
            ("ws://host", "ws://host:8083/mqtt"),
            ("ws://host:81/", "ws://host:81/"),
            ("mqtts://host", "tls://host:8883"),
            ("wss://host", "wss://host:8084/mqtt"),
        ] {
            assert_eq!(short.parse::<ListenerUrl>().unwrap().to_string(), long);
        }
    }

    #[test]
    fn faults_say_what_to_write() {
        let long = format!("unix:///{}", "x".repeat(107));
        for (url, words) in [
            ("localhost:1883", "no scheme"),
            ("http://host", "not known"),
            ("tcp://:1883", "no host"),
            ("tcp://", "no host"),
            ("tcp://::1:1883", "brackets"),
            ("tcp://[::1:1883", "brackets"),
            ("tcp://[localhost]:1883", "brackets"),
            ("tcp://[::1%]:1883", "brackets"),
            ("tcp://[::1]x", "brackets"),
            ("tcp://ho st:1", "not valid"),
            ("tcp://user@host:1", "not valid"),
            ("tls://host:1/mqtt", "only ws://"),
            ("tcp://host:65536", "port"),
            ("tcp://host:+1", "port"),
            ("tcp://host:", "port"),
            ("ws://host/a?b", "path"),
            ("ws://host/a b", "path"),
            ("unix://relative", "absolute"),
            ("unix:///", "absolute"),
            (long.as_str(), "107 bytes"),
        ] {
            let error = url.parse::<ListenerUrl>().unwrap_err().to_string();
            assert!(error.contains(words), "{url}: {error}");
        }
    }

    #[test]
    fn the_bound_address_replaces_the_wish() {
        let url: ListenerUrl = "ws://localhost:0/x".parse().unwrap();
        assert_eq!(url.at(IpAddr::from([127, 0, 0, 1]), 7).to_string(), "ws://127.0.0.1:7/x");
    }
}
