//! The client's side of the upgrade: the request, and the proof that the server understood it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::handshake::{HEAD_BYTES_MAX, HEADERS_MAX, Headers, accept_for, excerpt};
use super::{ConnectError, Subprotocol};

/// Waits for the answer to an upgrade request.
#[derive(Debug)]
pub struct WsClient {
    accept: String,
    protocol: Subprotocol,
    head: Vec<u8>,
}

/// What the response's bytes so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientHandshake {
    /// The response is not complete; all of the input was taken.
    NeedMore,
    /// Upgraded.
    Done {
        /// Bytes of *this* input that belonged to the response; the rest are the first frames.
        consumed: usize,
    },
}

impl WsClient {
    /// The machine and the request to write. `authority` is `host` or `host:port`, `path` may have a query, `nonce`
    /// must be random.
    pub fn new(
        authority: &str,
        path: &str,
        protocol: Subprotocol,
        nonce: [u8; 16],
    ) -> Result<(Self, Vec<u8>), ConnectError> {
        for (what, value) in [("host", authority), ("path", path)] {
            // A space or line end would let the value write headers of its own.
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ConnectError::Request { what, value: excerpt(value) });
            }
        }
        let key = STANDARD.encode(nonce);
        let slash = if path.starts_with('/') { "" } else { "/" };
        let request = format!(
            "GET {slash}{path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            protocol.as_str()
        );
        Ok((Self { accept: accept_for(key.as_bytes()), protocol, head: Vec::new() }, request.into_bytes()))
    }

    /// Takes the next bytes read. Not to be called again after `Done` or an error.
    pub fn handshake(&mut self, input: &[u8]) -> Result<ClientHandshake, ConnectError> {
        let before = self.head.len();
        self.head.extend_from_slice(&input[..input.len().min(HEAD_BYTES_MAX - before)]);
        match self.judge()? {
            Some(len) => {
                self.head = Vec::new();
                Ok(ClientHandshake::Done { consumed: len - before })
            }
            None if self.head.len() < HEAD_BYTES_MAX => Ok(ClientHandshake::NeedMore),
            None => Err(ConnectError::HeadTooLarge { max: HEAD_BYTES_MAX }),
        }
    }

    /// Parses and checks the response (RFC 6455 section 4.1): its length once it is complete.
    fn judge(&self) -> Result<Option<usize>, ConnectError> {
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut storage);
        let len = match response.parse(&self.head).map_err(ConnectError::NotHttp)? {
            httparse::Status::Complete(len) => len,
            httparse::Status::Partial => return Ok(None),
        };
        let status = response.code.expect("a complete response has a status");
        if status != 101 {
            let body = String::from_utf8_lossy(&self.head[len..]);
            let reason = excerpt(response.reason.unwrap_or_default());
            return Err(ConnectError::Status {
                status,
                reason,
                body: excerpt(body.lines().next().unwrap_or_default()),
            });
        }
        let headers = Headers(response.headers);
        let wrong = |header, expected: &str| {
            let found = excerpt(&headers.joined(header).unwrap_or_default());
            Err(ConnectError::Header { header, found, expected: expected.to_owned() })
        };
        if !headers.has_token("Upgrade", "websocket") {
            return wrong("Upgrade", "websocket");
        }
        if !headers.has_token("Connection", "upgrade") {
            return wrong("Connection", "Upgrade");
        }
        if headers.once("Sec-WebSocket-Accept") != Some(self.accept.as_bytes()) {
            return wrong("Sec-WebSocket-Accept", &self.accept);
        }
        // [MQTT-6.0.0-4] the server must name the subprotocol that was asked for.
        if headers.once("Sec-WebSocket-Protocol") != Some(self.protocol.as_str().as_bytes()) {
            return wrong("Sec-WebSocket-Protocol", self.protocol.as_str());
        }
        // No extension was offered, so none may be in use: its bits would be misread.
        if headers.all("Sec-WebSocket-Extensions").next().is_some() {
            return wrong("Sec-WebSocket-Extensions", "");
        }
        Ok(Some(len))
    }
}
