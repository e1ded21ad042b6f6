//! `settled()`: that nothing is under way between a broker and its clients, those in this process to the last byte.
//!
//! The broker alone knows what it has received and what is unacknowledged. A message of QoS 0 that a client of this
//! process was given to publish, or was sent, it cannot know of: that is asked of the clients themselves.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;

use super::core::Core;
use crate::{
    client::{Client, Error},
    server::BrokerHandle,
};

/// The clients of this process that connect by an in-memory pipe.
#[derive(Default)]
pub(crate) struct Guests(Mutex<List>);

#[derive(Default)]
struct List {
    cores: Vec<Weak<Core>>,
    /// At this length those that are gone are taken out.
    prune_at: usize,
}

impl Guests {
    pub(crate) fn add(&self, core: &Arc<Core>) {
        let mut list = self.0.lock();
        if list.cores.len() >= list.prune_at {
            list.cores.retain(|core| core.strong_count() > 0);
            list.prune_at = list.cores.len() * 2 + GUESTS_MIN;
        }
        list.cores.push(Arc::downgrade(core));
    }

    /// Those that have been connected and not been disconnected.
    pub(crate) fn connected(&self) -> Vec<Client> {
        let cores: Vec<_> = self.0.lock().cores.iter().filter_map(Weak::upgrade).collect();
        cores.iter().filter_map(|core| core.peek()).collect()
    }
}

/// Waits until nothing is under way. If it takes longer than `timeout`, the error says what still is.
pub(crate) async fn settled(
    handle: BrokerHandle,
    guests: impl Fn() -> Vec<Client>,
    timeout: Option<Duration>,
) -> Result<(), Error> {
    let waiting = async {
        loop {
            at_rest(&guests()).await;
            handle.settled().await;
            // What the broker has sent is in the pipes at least; and who got it may have answered.
            at_rest(&guests()).await;
            if handle.is_settled_async().await {
                return;
            }
        }
    };
    let Some(after) = timeout else {
        waiting.await;
        return Ok(());
    };
    if tokio::time::timeout(after, waiting).await.is_ok() {
        return Ok(());
    }
    let doing = match under_way(&handle, &guests()).await {
        found if found.is_empty() => "settling".to_owned(),
        found => format!("settling ({})", found.join(", ")),
    };
    Err(Error::Timeout { doing, after })
}

async fn at_rest(clients: &[Client]) {
    for client in clients {
        client.at_rest().await;
    }
}

/// What is not settled, in words.
async fn under_way(handle: &BrokerHandle, guests: &[Client]) -> Vec<String> {
    let infos = handle.clients_async().await.into_iter();
    let busy = infos.filter(|info| info.is_connected && info.queued + info.inflight > 0);
    let mut found: Vec<_> = busy
        .map(|info| format!("{:?}: {} unacknowledged, {} queued", info.client_id, info.inflight, info.queued))
        .take(TOLD_MAX)
        .collect();
    for client in guests {
        if found.len() >= TOLD_MAX {
            break;
        }
        if tokio::time::timeout(REST_TIMEOUT, client.at_rest()).await.is_err() {
            found.push(format!("{:?}: a full mailbox, or a full pipe", client.client_id()));
        }
    }
    found
}

/// Clients that an error tells of.
const TOLD_MAX: usize = 8;

/// How long a client that has nothing to do takes to say so, at most.
const REST_TIMEOUT: Duration = Duration::from_millis(20);

/// Entries below which nothing is taken out.
const GUESTS_MIN: usize = 16;
