//! Accepting: in bounded bites, within the listener's limit, and patiently when descriptors run out.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token};

use super::{ListenerInfo, bind::ListenSocket};
use crate::{
    broker::{Address, Peer},
    net::{
        tls::TlsStream,
        transport::{Stream, Transport},
    },
};

/// One shard's socket of a listener.
#[derive(Debug)]
pub(crate) struct Acceptor {
    socket: ListenSocket,
    info: Arc<ListenerInfo>,
    /// This is the listener's only socket; its connections go to all shards in turn.
    deals_out: bool,
    /// When to try again after descriptors ran out. There is no new edge for what waits in the backlog.
    pub(crate) retry_at: Option<Instant>,
    backoff: Duration,
    warned_at: Option<Instant>,
}

/// What one attempt brought.
#[derive(Debug)]
pub(crate) enum Admission {
    /// A connection.
    Connection(Transport, Peer),
    /// One over the listener's limit, closed at once.
    Refused,
    /// One that failed before it was accepted.
    Failed,
    /// None waits.
    Empty,
    /// No descriptor or memory for more; try at [`Acceptor::retry_at`]. `warn` once in a while, not each time.
    Exhausted { warn: bool },
}

impl Acceptor {
    /// Registers the socket.
    pub(crate) fn new(
        socket: ListenSocket,
        info: Arc<ListenerInfo>,
        deals_out: bool,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut acceptor = Self { socket, info, deals_out, retry_at: None, backoff: BACKOFF_MIN, warned_at: None };
        match &mut acceptor.socket {
            ListenSocket::Tcp(socket) => registry.register(socket, token, Interest::READABLE)?,
            ListenSocket::Unix(socket) => registry.register(socket, token, Interest::READABLE)?,
        }
        Ok(acceptor)
    }

    /// The listener.
    pub(crate) fn info(&self) -> &ListenerInfo {
        &self.info
    }

    /// Whether its connections go to all shards in turn.
    pub(crate) fn deals_out(&self) -> bool {
        self.deals_out
    }

    /// Takes one connection from the backlog.
    pub(crate) fn accept(&mut self, now: Instant) -> Admission {
        let accepted = match &self.socket {
            ListenSocket::Tcp(socket) => socket.accept().map(|(stream, address)| {
                // Acknowledgements are small and must not wait for one another. A failure means the peer is gone.
                // Linux has it from the listening socket.
                if !cfg!(target_os = "linux") {
                    let _ = stream.set_nodelay(true);
                }
                (Stream::from(stream), Address::from(address))
            }),
            ListenSocket::Unix(socket) => {
                socket.accept().map(|(stream, _)| (Stream::from(stream), Address::from("unix")))
            }
        };
        match accepted {
            Ok((stream, address)) => {
                self.backoff = BACKOFF_MIN;
                let Some(permit) = Permit::take(&self.info) else { return Admission::Refused };
                let Ok(stream) = self.secure(stream) else { return Admission::Failed };
                let transport = Transport::new(stream, self.info.ws_path.clone(), Some(permit));
                Admission::Connection(transport, Peer { address, listener: Arc::clone(&self.info.name) })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Admission::Empty,
            Err(error) if is_exhaustion(&error) => {
                let warn = self.warned_at.is_none_or(|at| now >= at + WARN_INTERVAL);
                if warn {
                    self.warned_at = Some(now);
                }
                self.retry_at = Some(now + self.backoff);
                self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                Admission::Exhausted { warn }
            }
            // The connection in question failed (accept(2) passes such errors on); the next one may be fine.
            Err(_) => Admission::Failed,
        }
    }
}

impl Acceptor {
    /// Has TLS spoken on it, if the listener does.
    fn secure(&self, stream: Stream) -> io::Result<Stream> {
        match (stream, &self.info.tls) {
            (Stream::Tcp(socket), Some(tls)) => Ok(Stream::Tls(Box::new(TlsStream::new(socket, tls)?))),
            (stream, _) => Ok(stream),
        }
    }
}

/// A connection's place under its listener's limit; given back on drop.
#[derive(Debug)]
pub(crate) struct Permit(Arc<ListenerInfo>);

impl Permit {
    fn take(info: &Arc<ListenerInfo>) -> Option<Self> {
        let before = info.connections.fetch_add(1, Ordering::Relaxed);
        let permit = Self(Arc::clone(info));
        (info.max_connections == 0 || before < info.max_connections).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the system is out of something that other connections will give back.
fn is_exhaustion(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| EXHAUSTED.contains(&code)) || error.kind() == io::ErrorKind::OutOfMemory
}

/// EMFILE and ENFILE on every Unix, ENOBUFS on Linux.
const EXHAUSTED: [i32; 3] = [24, 23, 105];

/// The first wait; doubled up to [`BACKOFF_MAX`] while nothing can be accepted.
const BACKOFF_MIN: Duration = Duration::from_millis(10);

/// The longest wait: a client's connection attempt lasts longer than this.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Running out lasts, or comes and goes with every connection; one line a minute says it.
const WARN_INTERVAL: Duration = Duration::from_mins(1);
