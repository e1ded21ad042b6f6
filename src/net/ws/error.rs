//! Why an upgrade is refused or a WebSocket connection ends, with the status or close code that tells the peer.

/// Why the server does not upgrade; the text is the body of the response.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request line and headers do not end in time.
    #[error("the request head exceeds {max} bytes")]
    HeadTooLarge {
        /// The limit.
        max: usize,
    },
    /// More header lines than are looked at.
    #[error("the request has more than {max} headers")]
    TooManyHeaders {
        /// The limit.
        max: usize,
    },
    /// Not HTTP.
    #[error("not an HTTP request: {0}")]
    NotHttp(httparse::Error),
    /// A method other than GET.
    #[error("method {0} cannot open a WebSocket; use GET")]
    Method(String),
    /// HTTP/1.0, which has no upgrade.
    #[error("a WebSocket needs HTTP/1.1")]
    HttpVersion,
    /// A header that must be there once is absent or repeated.
    #[error("the request must have exactly one {0} header")]
    NotOnce(&'static str),
    /// A request body: what follows the head must be frames.
    #[error("an upgrade request has no body")]
    Body,
    /// Another path than this listener's.
    #[error("nothing at {path}; MQTT is at {expected}")]
    Path {
        /// The path asked for.
        path: String,
        /// The path that is served.
        expected: String,
    },
    /// A plain HTTP request.
    #[error("this is a WebSocket endpoint: the request needs \"Upgrade: websocket\"")]
    NoUpgrade,
    /// `Upgrade` without naming it in `Connection`.
    #[error("the request needs \"Connection: Upgrade\"")]
    NoConnectionUpgrade,
    /// Not version 13.
    #[error("WebSocket version {0:?} is not supported; use 13")]
    Version(String),
    /// A nonce that is not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    /// No subprotocol, or none that is MQTT. [MQTT-6.0.0-3]
    #[error("Sec-WebSocket-Protocol must offer \"mqtt\"; it offers {0:?}")]
    Protocol(String),
}

impl Refusal {
    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::HeadTooLarge { .. } | Self::TooManyHeaders { .. } => 431,
            Self::Method(_) => 405,
            Self::Path { .. } => 404,
            Self::NoUpgrade | Self::Version(_) => 426,
            Self::NotHttp(_)
            | Self::HttpVersion
            | Self::NotOnce(_)
            | Self::Body
            | Self::NoConnectionUpgrade
            | Self::Key
            | Self::Protocol(_) => 400,
        }
    }
}

/// Why the client's upgrade failed.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// A host or path with characters that cannot stand in a request head.
    #[error("{what} {value:?} cannot stand in an HTTP request")]
    Request {
        /// Which of the two.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The response head does not end in time.
    #[error("the response head exceeds {max} bytes")]
    HeadTooLarge {
        /// The limit.
        max: usize,
    },
    /// Not HTTP.
    #[error("not an HTTP response: {0}")]
    NotHttp(httparse::Error),
    /// Any status but 101; `body` is what came of the explanation with the head.
    #[error("the server answered {status} {reason}{}{body}", if body.is_empty() { "" } else { ": " })]
    Status {
        /// The HTTP status.
        status: u16,
        /// Its words.
        reason: String,
        /// First line of the body.
        body: String,
    },
    /// A header that proves the upgrade is absent or wrong.
    #[error("the server's {header} header is {found:?} instead of {expected:?}")]
    Header {
        /// Its name.
        header: &'static str,
        /// What it says.
        found: String,
        /// What it must say.
        expected: String,
    },
}

/// What a peer did that RFC 6455 or MQTT forbids inside an open WebSocket.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A client must mask. (RFC 6455 section 5.1)
    #[error("unmasked frame from a client")]
    Unmasked,
    /// A server must not. (RFC 6455 section 5.1)
    #[error("masked frame from a server")]
    Masked,
    /// Reserved bits without an extension that gives them meaning.
    #[error("reserved bits set without a negotiated extension")]
    ReservedBits,
    /// Opcode 3 to 7 or 11 to 15.
    #[error("reserved opcode {0:#x}")]
    Opcode(u8),
    /// MQTT travels in binary frames only. [MQTT-6.0.0-1]
    #[error("text frame; MQTT needs binary frames")]
    Text,
    /// FIN clear on close, ping or pong.
    #[error("fragmented control frame")]
    ControlFragmented,
    /// More than 125 bytes in close, ping or pong.
    #[error("control frame with more than 125 bytes")]
    ControlTooLong,
    /// Continuation with nothing to continue.
    #[error("continuation frame outside a fragmented message")]
    ContinuationUnexpected,
    /// A new message before the last one's final frame.
    #[error("new message inside a fragmented one")]
    ContinuationMissing,
    /// A length in more bytes than it needs, or with its top bit set.
    #[error("frame length not in its shortest form")]
    LengthNotMinimal,
    /// More than this side reads in one frame.
    #[error("frame of {len} bytes exceeds the limit of {max}")]
    FrameTooLarge {
        /// Payload bytes of the frame.
        len: u64,
        /// The limit.
        max: u32,
    },
    /// A close frame with one byte of payload.
    #[error("close frame with half a status code")]
    CloseTruncated,
    /// A status code that must not travel.
    #[error("close frame with invalid status code {0}")]
    CloseCode(u16),
    /// A close reason that is not UTF-8.
    #[error("close reason is not UTF-8")]
    CloseReason,
}

impl FrameError {
    /// The status code for the close frame.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::CloseReason => 1007,
            Self::FrameTooLarge { .. } => 1009,
            _ => 1002,
        }
    }
}
