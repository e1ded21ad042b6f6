//! The assembled broker: listeners, shards on threads, and handles to them.
//!
//! ```
//! use ferromq::{net::listener::ListenerUrl, server::Broker};
//!
//! let url: ListenerUrl = "tcp://127.0.0.1:0".parse()?;
//! let broker = Broker::builder().listen(url).start()?;
//! println!("listening on {}", broker.listeners()[0]);
//! broker.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod handle;

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

pub use builder::{BrokerBuilder, StartError};
pub use handle::{BrokerHandle, PublishError};

use crate::net::{
    duplex::Duplex,
    listener::{ListenerUrl, SocketFile},
    shard::Shards,
};
use crate::store::Store;

/// A running broker. There may be several in a process; they share nothing.
///
/// Dropping it ends it like [`Self::shutdown`], but more hastily.
#[derive(Debug)]
pub struct Broker {
    handle: BrokerHandle,
    listeners: Vec<ListenerUrl>,
    threads: Vec<JoinHandle<()>>,
    /// Removed when the broker is gone.
    socket_files: Vec<SocketFile>,
    drain_timeout: Duration,
    /// Closed when nobody submits to it any more.
    store: Option<Arc<dyn Store>>,
}

impl Broker {
    /// What a broker is made from.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// Where it listens, with real addresses and ports.
    pub fn listeners(&self) -> &[ListenerUrl] {
        &self.listeners
    }

    /// A handle, to be cloned and kept wherever it is needed; it does not keep the broker running.
    pub fn handle(&self) -> BrokerHandle {
        self.handle.clone()
    }

    /// A connection from inside the process, without sockets: the peer's end of it, on which to speak MQTT.
    pub fn connect_memory(&self) -> io::Result<Duplex> {
        self.handle.connect_memory()
    }

    /// Ends it: no more connections, wills published, clients told, what is unsent sent as far as the drain timeout
    /// allows; returns when all of its threads have ended.
    pub fn shutdown(mut self) {
        self.stop(self.drain_timeout);
    }

    fn stop(&mut self, drain_timeout: Duration) {
        if self.threads.is_empty() {
            return;
        }
        self.shards().begin_shutdown(self.shards().now() + drain_timeout);
        for thread in self.threads.drain(..) {
            // A hook that owns the broker may drop it on a shard's own thread, which ends when the hook returns.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a shard's thread panicked");
            }
        }
        self.socket_files.clear();
        if let Some(store) = self.store.take() {
            store.close();
        }
    }

    fn shards(&self) -> &Arc<Shards> {
        self.handle.shards()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop(self.drain_timeout.min(DROP_DRAIN_TIMEOUT));
    }
}

/// A broker that is dropped tells its clients, and does not wait for slow ones.
const DROP_DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
