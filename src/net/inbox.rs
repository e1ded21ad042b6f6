//! What other threads want of a shard: bounded where it can grow with traffic, in the order it was sent.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    auth::Verdict,
    broker::{ConnId, Envelope, Handoff, Peer, Shard},
    net::{shard::Probe, transport::Transport},
};

/// Something to be done on a shard's state by whoever holds it.
pub(crate) type Command = Box<dyn FnOnce(&mut Shard, Instant) + Send>;

/// One thing in an inbox.
pub(crate) enum Item {
    /// Messages from another shard.
    Envelopes(Vec<Envelope>),
    /// A connection whose client is at home here.
    Handoff(Box<(Transport, Handoff)>),
    /// A connection that another shard's listener accepted, or an in-process one.
    Accepted(Box<(Transport, Peer)>),
    /// A duplex has something to read, or room to write.
    Duplex {
        /// The connection.
        conn: ConnId,
        /// Room to write; else something to read.
        writable: bool,
    },
    /// Something came to the host's readiness source for the connection at this index, while the host did not run its shard.
    Stray(usize),
    /// Nobody looks at the host's source any more.
    Strays,
    /// The answer of an authenticator that had to wait.
    Verdict(u64, Verdict),
    /// The answers of an authorizer that had to wait.
    Permits(u64, Vec<bool>),
    /// The store has committed something this shard may be waiting for.
    Committed,
    /// From a handle.
    Command(Command),
    /// Tell whether there is anything left to do, after a look at every source of work.
    Probe(oneshot::Sender<Probe>),
    /// The inbox of another shard has room again.
    Room,
    /// Stop accepting, publish the wills; be done with everything by then.
    Shutdown(Instant),
    /// All shards have published their wills: say goodbye, flush, end.
    Goodbye,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Envelopes(_) => "Envelopes",
            Self::Handoff(_) => "Handoff",
            Self::Accepted(_) => "Accepted",
            Self::Duplex { .. } => "Duplex",
            Self::Stray(_) => "Stray",
            Self::Strays => "Strays",
            Self::Verdict(..) => "Verdict",
            Self::Permits(..) => "Permits",
            Self::Committed => "Committed",
            Self::Command(_) => "Command",
            Self::Probe(_) => "Probe",
            Self::Room => "Room",
            Self::Shutdown(_) => "Shutdown",
            Self::Goodbye => "Goodbye",
        })
    }
}

/// The inbox of one shard.
///
/// Envelopes are bounded in number of messages and bytes, commands in number. The rest needs no bound of its own: there is
/// at most one of each for every connection, deferred CONNECT or shard.
#[derive(Debug)]
pub(crate) struct Inbox {
    content: Mutex<Content>,
    messages_max: usize,
}

#[derive(Debug, Default)]
struct Content {
    items: VecDeque<Item>,
    messages: usize,
    envelope_bytes: usize,
    commands: usize,
    /// Connections of which something came to the host's readiness source, while the host did not run their shard.
    strays: HashSet<usize>,
    /// Shards whose batch was sent back, to be told when there is room.
    waiting: Vec<usize>,
}

impl Inbox {
    /// An empty inbox for so many messages.
    pub(crate) fn new(messages_max: usize) -> Self {
        Self { content: Mutex::default(), messages_max }
    }

    /// Adds what is bounded elsewhere.
    pub(crate) fn push(&self, item: Item) {
        self.content.lock().items.push_back(item);
    }

    /// Adds an [`Item::Stray`]: one for each connection, however often something comes for it.
    pub(crate) fn push_stray(&self, index: usize) {
        self.content.lock().strays.insert(index);
    }

    /// Adds a batch from shard `from`, or gives it back when there is no room; then an [`Item::Room`] will follow.
    pub(crate) fn push_envelopes(&self, batch: Vec<Envelope>, from: usize) -> Result<(), Vec<Envelope>> {
        let bytes: usize = batch.iter().map(envelope_bytes).sum();
        let messages: usize = batch.iter().map(Envelope::messages).sum();
        let mut content = self.content.lock();
        // An empty inbox takes any batch, so that one larger than the bound gets through.
        let is_full =
            content.messages + messages > self.messages_max || content.envelope_bytes + bytes > ENVELOPE_BYTES_MAX;
        if is_full && content.messages > 0 {
            if !content.waiting.contains(&from) {
                content.waiting.push(from);
            }
            return Err(batch);
        }
        content.messages += messages;
        content.envelope_bytes += bytes;
        content.items.push_back(Item::Envelopes(batch));
        Ok(())
    }

    /// Adds a command, or gives it back when there are too many.
    pub(crate) fn push_command(&self, command: Command) -> Result<(), Command> {
        let mut content = self.content.lock();
        if content.commands >= COMMANDS_MAX {
            return Err(command);
        }
        content.commands += 1;
        content.items.push_back(Item::Command(command));
        Ok(())
    }

    /// Takes everything into `items`, which must be empty, and those to be told of room into `waiting`.
    pub(crate) fn take(&self, items: &mut VecDeque<Item>, waiting: &mut Vec<usize>) {
        debug_assert!(items.is_empty(), "what was taken before is done before more is taken");
        let mut content = self.content.lock();
        std::mem::swap(&mut content.items, items);
        items.extend(std::mem::take(&mut content.strays).into_iter().map(Item::Stray));
        waiting.append(&mut content.waiting);
        content.messages = 0;
        content.envelope_bytes = 0;
        content.commands = 0;
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        let content = std::mem::take(&mut *self.content.lock());
        drop(content);
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        let content = self.content.lock();
        content.items.is_empty() && content.strays.is_empty()
    }
}

fn envelope_bytes(envelope: &Envelope) -> usize {
    match envelope {
        Envelope::Publish(message) | Envelope::Shared { message, .. } | Envelope::Durable { message, .. } => {
            message.bytes()
        }
        Envelope::Run(run) | Envelope::SharedRun { run, .. } => size_of::<Envelope>() + run.bytes(),
        Envelope::Stored { .. } => size_of::<Envelope>(),
    }
}

/// Topics and payloads that wait for one shard at most; two ticks' worth of a saturated neighbour.
const ENVELOPE_BYTES_MAX: usize = 64 << 20;

/// Commands of handles that wait for one shard at most.
const COMMANDS_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{broker::Message, codec::TopicName};

    fn batch(count: usize) -> Vec<Envelope> {
        let message = std::sync::Arc::new(Message::new(TopicName::new("a").unwrap(), Bytes::new()));
        (0..count).map(|_| Envelope::Publish(std::sync::Arc::clone(&message))).collect()
    }

    #[test]
    fn a_full_inbox_gives_batches_back_and_tells_of_room() {
        let inbox = Inbox::new(4);
        assert!(inbox.push_envelopes(batch(9), 1).is_ok(), "an empty inbox takes any batch");
        assert_eq!(inbox.push_envelopes(batch(1), 2).unwrap_err().len(), 1);
        assert_eq!(inbox.push_envelopes(batch(2), 2).unwrap_err().len(), 2);
        inbox.push(Item::Room);
        let (mut items, mut waiting) = (VecDeque::new(), Vec::new());
        inbox.take(&mut items, &mut waiting);
        assert_eq!((items.len(), waiting), (2, vec![2]));
        assert!(inbox.is_empty());
        assert!(inbox.push_envelopes(batch(4), 2).is_ok());
    }

    #[test]
    fn a_stray_is_told_of_once() {
        let inbox = Inbox::new(1);
        for index in [7, 7, 8, 7] {
            inbox.push_stray(index);
        }
        assert!(!inbox.is_empty());
        let (mut items, mut waiting) = (VecDeque::new(), Vec::new());
        inbox.take(&mut items, &mut waiting);
        let mut strays: Vec<_> =
            items.iter().filter_map(|item| if let Item::Stray(at) = item { Some(*at) } else { None }).collect();
        strays.sort_unstable();
        assert_eq!(strays, [7, 8]);
        assert!(inbox.is_empty());
    }

    #[test]
    fn commands_are_bounded() {
        let inbox = Inbox::new(1);
        for _ in 0..COMMANDS_MAX {
            assert!(inbox.push_command(Box::new(|_, _| ())).is_ok());
        }
        assert!(inbox.push_command(Box::new(|_, _| ())).is_err());
    }
}
