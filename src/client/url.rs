//! Where a server is: `mqtt://host:port`, `mqtts://`, `ws://host:port/path`, `wss://`, `unix:///path`.

use std::{fmt, path::PathBuf, str::FromStr};

/// Address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerUrl {
    /// `mqtt://` or `tcp://`, port 1883 if none is named; `mqtts://`, `tls://` or `ssl://`, port 8883 if none is named.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// `unix://`.
    Unix {
        /// Path of the socket.
        path: PathBuf,
    },
    /// `ws://`, port 80 if none is named; `wss://`, port 443 if none is named.
    WebSocket {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// Path of the request, with its leading slash.
        path: String,
        /// Whether TLS is spoken.
        tls: bool,
    },
}

/// Why a text is no server address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} is no server address: {fault}; use mqtt://host:port, mqtts://host:port, ws://host:port/path, wss://host:port/path or unix:///path"
)]
pub struct InvalidUrl {
    url: String,
    fault: &'static str,
}

impl ServerUrl {
    /// Host and port as the `Host` header of HTTP names them; the path of a Unix socket.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } | Self::WebSocket { host, port, .. } => {
                format!("{}:{port}", Bracketed(host))
            }
            Self::Unix { path } => path.display().to_string(),
        }
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. } | Self::WebSocket { tls: true, .. })
    }
}

impl FromStr for ServerUrl {
    type Err = InvalidUrl;

    fn from_str(url: &str) -> Result<Self, InvalidUrl> {
        parse(url).map_err(|fault| InvalidUrl { url: url.to_owned(), fault })
    }
}

impl TryFrom<&str> for ServerUrl {
    type Error = InvalidUrl;

    fn try_from(url: &str) -> Result<Self, InvalidUrl> {
        url.parse()
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => {
                write!(f, "{}://{}:{port}", if *tls { "mqtts" } else { "mqtt" }, Bracketed(host))
            }
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
            Self::WebSocket { host, port, path, tls } => {
                write!(f, "{}://{}:{port}{path}", if *tls { "wss" } else { "ws" }, Bracketed(host))
            }
        }
    }
}

/// A host, with the brackets that an IPv6 address needs before a port.
struct Bracketed<'a>(&'a str);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

fn parse(url: &str) -> Result<ServerUrl, &'static str> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("mqtt", url));
    match scheme {
        "mqtt" | "tcp" | "mqtts" | "tls" | "ssl" => {
            let tls = !matches!(scheme, "mqtt" | "tcp");
            let (authority, path) = split_path(rest);
            if !matches!(path, "" | "/") {
                return Err("mqtt:// has no path");
            }
            let (host, port) = host_and_port(authority, if tls { MQTTS_PORT } else { MQTT_PORT })?;
            Ok(ServerUrl::Tcp { host, port, tls })
        }
        "ws" | "wss" => {
            let tls = scheme == "wss";
            let (authority, path) = split_path(rest);
            let (host, port) = host_and_port(authority, if tls { HTTPS_PORT } else { HTTP_PORT })?;
            let path = if path.is_empty() { DEFAULT_WS_PATH } else { path };
            Ok(ServerUrl::WebSocket { host, port, path: path.to_owned(), tls })
        }
        "unix" if rest.is_empty() => Err("the path is missing"),
        "unix" => Ok(ServerUrl::Unix { path: PathBuf::from(rest) }),
        _ => Err("the scheme is not known"),
    }
}

fn split_path(rest: &str) -> (&str, &str) {
    rest.find('/').map_or((rest, ""), |at| rest.split_at(at))
}

fn host_and_port(authority: &str, default_port: u16) -> Result<(String, u16), &'static str> {
    if authority.contains('@') {
        return Err("user name and password belong in the options");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
            let port =
                if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or("the port is no number")?) };
            (host, port)
        }
        None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err("the host is missing");
    }
    if host.contains(':') && !authority.starts_with('[') {
        return Err("an IPv6 address needs brackets");
    }
    let port = match port {
        None => default_port,
        Some(port) => port.parse().map_err(|_| "the port is no number up to 65535")?,
    };
    Ok((host.to_owned(), port))
}

const MQTT_PORT: u16 = 1883;
const MQTTS_PORT: u16 = 8883;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
const DEFAULT_WS_PATH: &str = "/mqtt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_defaults_and_written_back() {
        for (text, written) in [
            ("localhost", "mqtt://localhost:1883"),
            ("mqtt://h/", "mqtt://h:1883"),
            ("tcp://10.0.0.1:99", "mqtt://10.0.0.1:99"),
            ("mqtt://[::1]:7", "mqtt://[::1]:7"),
            ("mqtt://[::1]", "mqtt://[::1]:1883"),
            ("ws://h:8083/x/y", "ws://h:8083/x/y"),
            ("ws://h", "ws://h:80/mqtt"),
            ("mqtts://h", "mqtts://h:8883"),
            ("ssl://h:7", "mqtts://h:7"),
            ("wss://h", "wss://h:443/mqtt"),
            ("unix:///tmp/s", "unix:///tmp/s"),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_fault() {
        for (text, fault) in [
            ("mqtt://", "host is missing"),
            ("mqtt://h:x", "port is no number"),
            ("mqtt://h:70000", "port is no number"),
            ("mqtt://::1", "needs brackets"),
            ("mqtt://[::1", "not closed"),
            ("mqtt://u:p@h", "belong in the options"),
            ("mqtt://h/p", "no path"),
            ("http://h", "scheme is not known"),
            ("unix://", "path is missing"),
        ] {
            let error = text.parse::<ServerUrl>().unwrap_err().to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}
