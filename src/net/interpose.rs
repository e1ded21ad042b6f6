//! Where something can stand between connections and shards: only a broker that was asked for it has one.

use std::{fmt, sync::Arc};

use tokio::io::DuplexStream;

use super::{duplex::DuplexEnd, tls::Tls};
use crate::broker::Peer;

/// Takes connections before the shards do.
pub(crate) trait Interposer: Send + Sync + fmt::Debug {
    /// Takes a connection and gives what the shard gets in its place; `None` if it was refused. `is_mqtt` is false for
    /// WebSocket, whose upgrade the shard does.
    fn interpose(self: Arc<Self>, near: Near, peer: &Peer, is_mqtt: bool) -> Option<DuplexEnd>;

    /// Whether nothing that it has taken is yet to be passed on.
    fn is_quiet(&self) -> bool;
}

/// The client's side of a connection.
#[derive(Debug)]
pub(crate) enum Near {
    /// TCP, without blocking.
    Tcp(std::net::TcpStream),
    /// TCP, without blocking, on which TLS is to be spoken.
    Tls(std::net::TcpStream, Tls),
    /// Unix stream socket, without blocking.
    Unix(std::os::unix::net::UnixStream),
    /// In-process pipe.
    Memory(DuplexStream),
}
