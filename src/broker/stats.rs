//! Plain counters of a shard. They are summed and published by `sys`, shells and handles.

use super::reasons::{DropReason, EndReason};
use crate::codec::Text;

/// What a shard has done and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections with a completed CONNECT.
    pub clients_connected: u64,
    /// Sessions whose client is away.
    pub clients_disconnected: u64,
    /// Greatest number of connected clients so far.
    pub clients_maximum: u64,
    /// Sessions that ended by expiry.
    pub sessions_expired: u64,
    /// Connections accepted.
    pub connections_opened: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes handed to transports.
    pub bytes_sent: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// PUBLISH packets received.
    pub publish_received: u64,
    /// PUBLISH packets sent.
    pub publish_sent: u64,
    /// Payload bytes of PUBLISH packets received.
    pub publish_bytes_received: u64,
    /// Payload bytes of PUBLISH packets sent.
    pub publish_bytes_sent: u64,
    /// Subscriptions held by sessions.
    pub subscriptions: u64,
    /// Of those, shared ones.
    pub shared_subscriptions: u64,
    /// Retained messages (of the whole broker).
    pub retained_messages: u64,
    /// Messages in session queues.
    pub messages_queued: u64,
    /// Messages in flight to clients.
    pub messages_inflight: u64,
    /// Bytes in outboxes and session queues.
    pub bytes_held: u64,
    /// Messages dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
    /// Connections ended, by [`EndReason`].
    pub ended: [u64; EndReason::COUNT],
    /// The clients for which most is held, the greatest first; [`HOLDERS_MAX`] at most.
    pub holders: Vec<Holder>,
}

/// A client for which something is held: unsent, or queued.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Client identifier.
    pub client_id: Text,
    /// Bytes.
    pub bytes: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            clients_connected: 0,
            clients_disconnected: 0,
            clients_maximum: 0,
            sessions_expired: 0,
            connections_opened: 0,
            bytes_received: 0,
            bytes_sent: 0,
            packets_received: 0,
            packets_sent: 0,
            publish_received: 0,
            publish_sent: 0,
            publish_bytes_received: 0,
            publish_bytes_sent: 0,
            subscriptions: 0,
            shared_subscriptions: 0,
            retained_messages: 0,
            messages_queued: 0,
            messages_inflight: 0,
            bytes_held: 0,
            dropped: [0; DropReason::COUNT],
            ended: [0; EndReason::COUNT],
            holders: Vec::new(),
        }
    }
}

impl Stats {
    /// Messages dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize).copied().unwrap_or_default()
    }

    /// Messages dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Connections ended for this reason.
    pub fn ended(&self, reason: EndReason) -> u64 {
        self.ended.get(reason as usize).copied().unwrap_or_default()
    }

    /// Adds another shard's counters. Retained messages belong to the whole broker and are not added.
    pub fn add(&mut self, other: &Self) {
        self.clients_connected += other.clients_connected;
        self.clients_disconnected += other.clients_disconnected;
        // Each shard notes the count of all.
        self.clients_maximum = self.clients_maximum.max(other.clients_maximum);
        self.sessions_expired += other.sessions_expired;
        self.connections_opened += other.connections_opened;
        self.bytes_received += other.bytes_received;
        self.bytes_sent += other.bytes_sent;
        self.packets_received += other.packets_received;
        self.packets_sent += other.packets_sent;
        self.publish_received += other.publish_received;
        self.publish_sent += other.publish_sent;
        self.publish_bytes_received += other.publish_bytes_received;
        self.publish_bytes_sent += other.publish_bytes_sent;
        self.subscriptions += other.subscriptions;
        self.shared_subscriptions += other.shared_subscriptions;
        self.retained_messages = self.retained_messages.max(other.retained_messages);
        self.messages_queued += other.messages_queued;
        self.messages_inflight += other.messages_inflight;
        self.bytes_held += other.bytes_held;
        for (sum, more) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += more;
        }
        for (sum, more) in self.ended.iter_mut().zip(other.ended) {
            *sum += more;
        }
        for holder in &other.holders {
            self.note_holder(holder.bytes, || holder.client_id.clone());
        }
    }

    /// Takes a client in among those for which most is held, if it is one.
    pub(crate) fn note_holder(&mut self, bytes: u64, client_id: impl FnOnce() -> Text) {
        let at = self.holders.partition_point(|holder| holder.bytes >= bytes);
        if bytes > 0 && at < HOLDERS_MAX {
            self.holders.insert(at, Holder { client_id: client_id(), bytes });
            self.holders.truncate(HOLDERS_MAX);
        }
    }

    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        if let Some(counter) = self.dropped.get_mut(reason as usize) {
            *counter += 1;
        }
    }

    pub(crate) fn count_end(&mut self, reason: EndReason) {
        if let Some(counter) = self.ended.get_mut(reason as usize) {
            *counter += 1;
        }
    }
}

/// Clients named by what is held for them: as many as are read at a glance.
pub const HOLDERS_MAX: usize = 8;
