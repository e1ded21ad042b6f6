//! MQTT over WebSocket (RFC 6455; MQTT 5.0 section 6) as a pure byte transformer.
//!
//! No sockets, no clock, no randomness of its own: a broker shard and the client's task feed it what they read and
//! write what it hands back, so every split and every fault is testable without IO. Three small machines:
//!
//! - [`WsServer`] and [`WsClient`] do the HTTP upgrade and are dropped when it is done;
//! - [`WsCodec`] turns what was read into the MQTT byte stream, in place;
//! - [`WsEgress`] cuts an outbox into frames, one for each whole flush, and keeps replies to control frames between them.
//!
//! The last two are all that an open connection keeps: 48 bytes while nothing is half-read or half-written.

mod client;
mod egress;
mod error;
mod frames;
mod handshake;

pub use client::{ClientHandshake, WsClient};
pub use egress::{Flush, WsEgress};
pub use error::{ConnectError, FrameError, Refusal};
pub use frames::{Closed, Decoded, FRAME_BYTES_MAX, FrameHeader, WsCodec, apply_mask, encode_header};
pub use handshake::{Handshake, Upgrade, WsServer};

/// Which end of the connection this is: it decides who masks.
pub trait Role: sealed::Sealed {
    /// What one outgoing frame needs: a fresh random masking key at the client, nothing at the server.
    type Key: Copy;

    /// Whether the frames that arrive here must be masked.
    #[doc(hidden)]
    const PEER_MASKS: bool;

    /// The key to mask an outgoing frame with.
    #[doc(hidden)]
    fn mask(key: Self::Key) -> Option<[u8; 4]>;
}

/// The broker's end: reads masked frames, writes unmasked ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server;

/// The client's end: reads unmasked frames, writes masked ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client;

impl Role for Server {
    type Key = ();
    const PEER_MASKS: bool = true;

    fn mask((): ()) -> Option<[u8; 4]> {
        None
    }
}

impl Role for Client {
    type Key = [u8; 4];
    const PEER_MASKS: bool = false;

    fn mask(key: [u8; 4]) -> Option<[u8; 4]> {
        Some(key)
    }
}

/// The name under which MQTT is negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subprotocol {
    /// `mqtt`: 3.1.1 and 5.0. [MQTT-6.0.0-3]
    Mqtt,
    /// `mqttv3.1`: what clients of 3.1 asked for before there was a standard.
    MqttV31,
}

impl Subprotocol {
    /// The token on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::MqttV31 => "mqttv3.1",
        }
    }
}

mod sealed {
    /// Closes [`super::Role`] to other crates: RFC 6455 knows two ends.
    pub trait Sealed {}
    impl Sealed for super::Server {}
    impl Sealed for super::Client {}
}
