//! The server's side of the upgrade: one HTTP request in, 101 or a refusal that says what was wrong out.
//!
//! The head is kept only while it is incomplete; in the usual case it arrives in one read and is parsed where it lies.

use std::sync::Arc;

use base64::Engine;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD};

use super::{Refusal, Subprotocol};

/// Waits for the upgrade request on a fresh connection.
#[derive(Debug)]
pub struct WsServer {
    path: Arc<str>,
    head: Vec<u8>,
}

/// What the bytes so far amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// The request is not complete; all of the input was taken.
    NeedMore,
    /// Upgraded: write `response`, then everything is frames.
    Done {
        /// Bytes of *this* input that belonged to the request; the rest are the first frames.
        consumed: usize,
        /// The 101 response.
        response: Vec<u8>,
        /// What the request said.
        upgrade: Upgrade,
    },
    /// Not upgraded: write `response`, then close.
    Refuse {
        /// The 4xx response.
        response: Vec<u8>,
        /// The reason, typed.
        refusal: Refusal,
    },
}

/// The facts of an accepted upgrade request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The request's path, without the query.
    pub path: String,
    /// What follows `?`, if anything.
    pub query: Option<String>,
    /// `Host`.
    pub host: String,
    /// `Origin`: which web page opened the connection, as the browser says.
    pub origin: Option<String>,
    /// `X-Forwarded-For`, several headers joined with commas. Only as true as the proxy in front.
    pub forwarded_for: Option<String>,
    /// The subprotocol that was chosen.
    pub protocol: Subprotocol,
}

impl WsServer {
    /// A listener's upgrade endpoint at `path`.
    pub fn new(path: Arc<str>) -> Self {
        Self { path, head: Vec::new() }
    }

    /// Takes the next bytes read. Not to be called again after `Done` or `Refuse`.
    pub fn handshake(&mut self, input: &[u8]) -> Handshake {
        let before = self.head.len();
        let taken = &input[..input.len().min(HEAD_BYTES_MAX - before)];
        // A head that trickles in is parsed again only when a line ended: the first parse has seen that it is HTTP.
        let parsed = if before == 0 {
            judge(taken, &self.path)
        } else {
            self.head.extend_from_slice(taken);
            if taken.contains(&b'\n') { judge(&self.head, &self.path) } else { Ok(None) }
        };
        match parsed {
            Ok(Some(Accepted { len, key, upgrade })) => {
                let response = accepted(key, upgrade.protocol);
                self.head = Vec::new();
                Handshake::Done { consumed: len - before, response, upgrade }
            }
            Ok(None) if before + taken.len() < HEAD_BYTES_MAX => {
                if before == 0 {
                    self.head.extend_from_slice(taken);
                }
                Handshake::NeedMore
            }
            Ok(None) => refuse(Refusal::HeadTooLarge { max: HEAD_BYTES_MAX }),
            Err(refusal) => refuse(refusal),
        }
    }
}

/// Headers of a request or response, looked up without regard to case.
pub(super) struct Headers<'a, 'h>(pub(super) &'a [httparse::Header<'h>]);

impl<'a, 'h> Headers<'a, 'h> {
    /// All values under this name.
    pub(super) fn all(&self, name: &'static str) -> impl Iterator<Item = &'h [u8]> + use<'a, 'h> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// The one value under this name, or `None` if there are none or several.
    pub(super) fn once(&self, name: &'static str) -> Option<&'h [u8]> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// The elements of the comma-separated lists under this name.
    pub(super) fn tokens(&self, name: &'static str) -> impl Iterator<Item = &'h [u8]> + use<'a, 'h> {
        self.all(name).flat_map(|value| value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
    }

    /// Whether the list under this name has `token`, in any case.
    pub(super) fn has_token(&self, name: &'static str, token: &str) -> bool {
        self.tokens(name).any(|found| found.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// All values under this name as one text.
    pub(super) fn joined(&self, name: &'static str) -> Option<String> {
        let values: Vec<_> = self.all(name).map(String::from_utf8_lossy).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// `Sec-WebSocket-Accept` for a request's key as it was written.
pub(super) fn accept_for(key: &[u8]) -> String {
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1.digest().bytes())
}

/// A complete request that asks for what this endpoint offers.
struct Accepted<'h> {
    len: usize,
    key: &'h [u8],
    upgrade: Upgrade,
}

/// Parses and checks a request; `None` until it is complete.
fn judge<'h>(head: &'h [u8], path: &str) -> Result<Option<Accepted<'h>>, Refusal> {
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut storage);
    let len = match request.parse(head) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyHeaders { max: HEADERS_MAX }),
        Err(error) => return Err(Refusal::NotHttp(error)),
    };
    let headers = Headers(request.headers);
    let method = request.method.expect("a complete request has a method");
    if method != "GET" {
        return Err(Refusal::Method(excerpt(method)));
    }
    if request.version == Some(0) {
        return Err(Refusal::HttpVersion);
    }
    let host = headers.once("host").ok_or(Refusal::NotOnce("Host"))?;
    if headers.all("transfer-encoding").next().is_some() || headers.all("content-length").any(|len| len != b"0") {
        return Err(Refusal::Body);
    }
    let (found, query) = split_target(request.path.expect("a complete request has a target"));
    if found != path {
        return Err(Refusal::Path { path: excerpt(found), expected: path.to_owned() });
    }
    let (key, protocol) = check_upgrade(&headers)?;
    let upgrade = Upgrade {
        path: found.to_owned(),
        query: query.map(str::to_owned),
        host: String::from_utf8_lossy(host).into_owned(),
        origin: headers.joined("origin"),
        forwarded_for: headers.joined("x-forwarded-for"),
        protocol,
    };
    Ok(Some(Accepted { len, key, upgrade }))
}

/// The WebSocket part of the request (RFC 6455 section 4.2.1): the key and the subprotocol.
fn check_upgrade<'h>(headers: &Headers<'_, 'h>) -> Result<(&'h [u8], Subprotocol), Refusal> {
    if !headers.has_token("upgrade", "websocket") {
        return Err(Refusal::NoUpgrade);
    }
    if !headers.has_token("connection", "upgrade") {
        return Err(Refusal::NoConnectionUpgrade);
    }
    let version = headers.joined("sec-websocket-version").ok_or(Refusal::NotOnce("Sec-WebSocket-Version"))?;
    if version != "13" {
        return Err(Refusal::Version(excerpt(&version)));
    }
    let key = headers.once("sec-websocket-key").ok_or(Refusal::NotOnce("Sec-WebSocket-Key"))?;
    if LENIENT.decode(key).ok().is_none_or(|nonce| nonce.len() != 16) {
        return Err(Refusal::Key);
    }
    // [MQTT-6.0.0-4] the answer names a subprotocol that the client offered; the standard's name goes first.
    let offers = |protocol: Subprotocol| {
        headers.tokens("sec-websocket-protocol").any(|token| token == protocol.as_str().as_bytes())
    };
    let protocol = [Subprotocol::Mqtt, Subprotocol::MqttV31].into_iter().find(|&protocol| offers(protocol));
    match protocol {
        Some(protocol) => Ok((key, protocol)),
        None => Err(Refusal::Protocol(excerpt(&headers.joined("sec-websocket-protocol").unwrap_or_default()))),
    }
}

/// Path and query of a request target, which may be a whole URL (RFC 9112 section 3.2.2).
fn split_target(target: &str) -> (&str, Option<&str>) {
    let local = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    };
    (if path.is_empty() { "/" } else { path }, query)
}

/// The response that turns the connection into frames.
fn accepted(key: &[u8], protocol: Subprotocol) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        accept_for(key),
        protocol.as_str()
    )
    .into_bytes()
}

/// The response that explains and ends.
fn refuse(refusal: Refusal) -> Handshake {
    let (reason, extra) = match refusal.status() {
        404 => ("Not Found", ""),
        405 => ("Method Not Allowed", "Allow: GET\r\n"),
        426 => ("Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        431 => ("Request Header Fields Too Large", ""),
        _ => ("Bad Request", ""),
    };
    // `Upgrade` is a hop-by-hop header and must be named in `Connection` (RFC 9110 section 7.8).
    let connection = if refusal.status() == 426 { "Upgrade, close" } else { "close" };
    let body = format!("{refusal}\n");
    let response = format!(
        "HTTP/1.1 {} {reason}\r\n{extra}Connection: {connection}\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        refusal.status(),
        body.len()
    )
    .into_bytes();
    Handshake::Refuse { response, refusal }
}

/// The start of a peer's text, short enough for a log line.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARS_MAX).collect()
}

/// Request line and headers; browsers behind proxies with cookies stay below 4 KiB.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Header lines; browsers send about 15, a chain of proxies adds a dozen.
pub(super) const HEADERS_MAX: usize = 64;

/// Enough to recognise a wrong path or protocol.
const EXCERPT_CHARS_MAX: usize = 120;

/// Some clients write 24 random characters: the last one may carry bits that base64 has no use for.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_that_of_the_rfc() {
        assert_eq!(accept_for(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn targets_are_split_into_path_and_query() {
        for (target, path, query) in [
            ("/mqtt", "/mqtt", None),
            ("/mqtt?a=b", "/mqtt", Some("a=b")),
            ("/mqtt?next=http://x/y", "/mqtt", Some("next=http://x/y")),
            ("http://host:80/mqtt", "/mqtt", None),
            ("http://host", "/", None),
            ("http://host?q", "/", Some("q")),
            ("?q", "/", Some("q")),
        ] {
            assert_eq!(split_target(target), (path, query), "{target}");
        }
    }
}
