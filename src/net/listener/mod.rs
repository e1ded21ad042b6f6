//! Where a broker listens: what to bind, how to bind it, and how connections come in.

mod accept;
mod bind;

use std::{sync::Arc, sync::atomic::AtomicUsize};

pub(crate) use accept::{Acceptor, Admission, Permit};
pub use bind::BindError;
pub(crate) use bind::{ListenSocket, SocketFile, bind};

use super::tls::Tls;

pub use crate::config::{ListenerConfig, ListenerTls, ListenerUrl, ListenerUrlError, Pem};

/// What the connections of one listener share, whichever shard accepted them.
#[derive(Debug)]
pub(crate) struct ListenerInfo {
    /// The URL with its real port; what [`crate::broker::Peer`] tells hooks and events.
    pub(crate) name: Arc<str>,
    /// The WebSocket path, or `None` for plain MQTT.
    pub(crate) ws_path: Option<Arc<str>>,
    /// Certificates, if TLS is spoken.
    pub(crate) tls: Option<Tls>,
    pub(crate) max_connections: usize,
    pub(crate) connections: AtomicUsize,
}
