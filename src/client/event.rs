//! The life of a connection as a stream of events.

use std::{sync::Arc, time::Duration};

use tokio::sync::broadcast;

use super::Error;
use crate::session::client::Connected;

/// What happened to the connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ClientEvent {
    /// An attempt begins.
    Connecting {
        /// The server's address.
        server: Arc<str>,
    },
    /// CONNACK came.
    Connected {
        /// The server's address.
        server: Arc<str>,
        /// What it said.
        connected: Arc<Connected>,
    },
    /// The connection ended, or an attempt failed.
    Disconnected {
        /// Why; `None` if this client asked for it.
        reason: Option<Error>,
        /// When the next attempt begins; `None`: there is none.
        retry_in: Option<Duration>,
    },
    /// Enhanced authentication was repeated with success.
    Reauthenticated,
}

/// Whether there is a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// There is none, and none is sought.
    Disconnected,
    /// The first one is being made.
    Connecting,
    /// There is one.
    Connected,
    /// It was lost, and another is sought.
    Reconnecting,
}

/// The events since it was made, in order.
#[derive(Debug)]
pub struct EventStream {
    receiver: broadcast::Receiver<ClientEvent>,
}

/// Where the events of a client go. One made before the client lets its readers miss none.
#[derive(Debug, Clone)]
pub struct EventSource {
    sender: broadcast::Sender<ClientEvent>,
}

impl EventSource {
    /// A source that keeps so many events for a reader that lags.
    pub fn new(events_max: usize) -> Self {
        Self { sender: broadcast::channel(events_max.max(1)).0 }
    }

    /// The events from now on.
    pub fn stream(&self) -> EventStream {
        EventStream::new(self.sender.subscribe())
    }

    pub(super) fn send(&self, event: ClientEvent) {
        // Without a reader there is nobody to tell.
        let _ = self.sender.send(event);
    }
}

impl EventStream {
    fn new(receiver: broadcast::Receiver<ClientEvent>) -> Self {
        Self { receiver }
    }

    /// The next event, or `None` when the client has ended. A reader that lags loses the oldest.
    pub async fn recv(&mut self) -> Option<ClientEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
