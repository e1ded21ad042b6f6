//! Where a broker listens: what to bind, how to bind it, and how connections come in.

mod accept;
mod bind;
mod url;

use std::{sync::Arc, sync::atomic::AtomicUsize};

pub(crate) use accept::{Acceptor, Admission, Permit};
pub use bind::BindError;
pub(crate) use bind::{ListenSocket, SocketFile, bind};
pub use url::{ListenerUrl, ListenerUrlError};

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
}

impl ListenerConfig {
    /// A listener with the defaults.
    pub fn new(url: ListenerUrl) -> Self {
        Self { url, max_connections: 0, backlog: BACKLOG, reuse_port: None }
    }
}

impl From<ListenerUrl> for ListenerConfig {
    fn from(url: ListenerUrl) -> Self {
        Self::new(url)
    }
}

/// What the connections of one listener share, whichever shard accepted them.
#[derive(Debug)]
pub(crate) struct ListenerInfo {
    /// The URL with its real port; what [`crate::broker::Peer`] tells hooks and events.
    pub(crate) name: Arc<str>,
    /// The WebSocket path, or `None` for plain MQTT.
    pub(crate) ws_path: Option<Arc<str>>,
    pub(crate) max_connections: usize,
    pub(crate) connections: AtomicUsize,
}

/// Room for a fleet that reconnects at once, while a shard is busy with the first of it.
const BACKLOG: u32 = 1024;
