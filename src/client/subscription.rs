//! A subscription: its mailbox, and what ends it.

use std::{collections::VecDeque, future::poll_fn, sync::Arc};

use parking_lot::Mutex;
use tracing::debug;

use super::{
    AckPolicy, Client, Error, MailboxOptions, Message, ReadyHook, dispatch::MailboxId, mailbox::Mailbox, state::Inner,
};
use crate::{
    clock,
    codec::{PacketType, Properties, ReasonCode, Subscription as FilterAndOptions, TopicFilter},
    session::client::{AckHandle, Reply, RequestError, SubscribeRequest},
};

/// Messages of some filters, in a bounded mailbox. Dropping it unsubscribes. It keeps the client alive.
#[derive(Debug)]
pub struct Subscription {
    core: Core,
    reasons: Vec<ReasonCode>,
    properties: Properties,
    /// With [`AckPolicy::Processed`]: the message that is being processed.
    processing: Option<AckHandle>,
    /// Messages taken out of the mailbox and not yet handed out: one lock for many.
    batch: Mutex<VecDeque<Message>>,
}

/// The part that undoes a subscription when it goes, made before the server is asked.
#[derive(Debug)]
struct Core {
    client: Client,
    mailbox: Arc<Mailbox>,
    id: MailboxId,
    is_open: bool,
}

impl Subscription {
    pub(super) async fn make(
        client: &Client,
        mut request: SubscribeRequest,
        options: MailboxOptions,
    ) -> Result<Self, Error> {
        let filters: Vec<TopicFilter> = request.subscriptions.iter().map(|part| part.filter.clone()).collect();
        let mailbox = Mailbox::new(options);
        let inner = client.inner();
        // The mailbox is in place before the server can send the first message.
        let (id, asked) = inner.with(|state| {
            for part in request.subscriptions.iter_mut().filter(|part| state.dispatch.is_used(&part.filter)) {
                state.session.widen(part);
            }
            let id = state.dispatch.add(Arc::clone(&mailbox), &filters);
            let asked = state.check_alive().and_then(|()| {
                let (token, reply) = state.expect_reply();
                state.session.subscribe(request, token)?;
                Ok(reply)
            });
            (id, asked)
        });
        let core = Core { client: client.clone(), mailbox, id, is_open: true };
        let Reply { reasons, properties } = inner.reply(asked?, || describe("subscribing to", &filters)).await?;
        if let Some(reason) = all_refused(&reasons) {
            let what = describe("the subscription", &filters);
            return Err(Error::Refused { packet: PacketType::Subscribe, what, reason, properties });
        }
        debug!(?filters, ?reasons, "subscribed");
        Ok(Self { core, reasons, properties, processing: None, batch: Mutex::default() })
    }

    /// The mailbox of messages that match no filter, as a subscription of no filters.
    pub(super) fn unmatched(client: &Client) -> Option<Self> {
        let (id, mailbox) = client.inner().unmatched.lock().take()?;
        let core = Core { client: client.clone(), mailbox, id, is_open: true };
        Some(Self {
            core,
            reasons: Vec::new(),
            properties: Properties::new(),
            processing: None,
            batch: Mutex::default(),
        })
    }

    /// The next message, or `None` when the subscription or the client has ended; [`Self::failure`] says why. With
    /// [`AckPolicy::Processed`] this acknowledges the message given before. Cancelling it loses nothing.
    pub async fn recv(&mut self) -> Option<Message> {
        self.processed();
        if let Some(message) = self.batch.get_mut().pop_front() {
            return self.hand_out(Some(message));
        }
        let (mailbox, batch) = (&self.core.mailbox, self.batch.get_mut());
        let message = poll_fn(|cx| mailbox.poll_next(cx, batch)).await;
        self.hand_out(message)
    }

    /// The next message, if one is there.
    pub fn try_recv(&mut self) -> Option<Message> {
        self.processed();
        let message = self.batch.get_mut().pop_front().or_else(|| self.core.mailbox.try_next());
        self.hand_out(message)
    }

    /// The next messages, at least one and at most `max`; nothing is added when the subscription has ended.
    pub async fn recv_many(&mut self, into: &mut Vec<Message>, max: usize) -> usize {
        let Some(first) = self.recv().await else { return 0 };
        into.push(first);
        1 + self.drain_into(into, max.saturating_sub(1))
    }

    /// Moves up to `max` waiting messages to the end of `into`; how many. Acknowledging them is up to the caller,
    /// unless the policy is [`AckPolicy::Auto`].
    pub fn drain_into(&self, into: &mut Vec<Message>, max: usize) -> usize {
        let mut batch = self.batch.lock();
        let count = batch.len().min(max);
        into.extend(batch.drain(..count));
        count + self.core.mailbox.drain_into(into, max - count)
    }

    /// Exchanges all waiting messages for the empty queue `empty`, in constant time.
    pub fn swap(&self, empty: &mut VecDeque<Message>) {
        let mut batch = self.batch.lock();
        self.core.mailbox.swap(empty);
        while let Some(message) = batch.pop_back() {
            empty.push_front(message);
        }
    }

    /// Tells the server that a message is done. `reason` of 0x80 or above refuses it (MQTT 5).
    pub fn acknowledge(&self, message: &Message, reason: ReasonCode) {
        self.core.client.acknowledge(message.ack_handle(), reason);
    }

    /// Calls `hook` whenever the mailbox is no longer empty, and when it is closed; at once if it is either now.
    pub fn set_hook(&self, hook: Option<ReadyHook>) {
        self.core.mailbox.set_hook(hook);
    }

    /// Ends the subscription and waits for UNSUBACK.
    pub async fn unsubscribe(mut self) -> Result<(), Error> {
        self.processed();
        let (inner, filters) = (self.core.client.clone(), self.core.close());
        inner.unsubscribe_all(filters).await
    }

    /// Ends it here and not at the server, whose persistent session goes on collecting messages for the next run.
    pub fn leave(mut self) {
        self.processed();
        self.core.close();
    }

    /// Granted QoS or failure for each filter.
    pub fn reasons(&self) -> &[ReasonCode] {
        &self.reasons
    }

    /// Reason string and user properties of SUBACK.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Why it ended, if nobody asked for it.
    pub fn failure(&self) -> Option<Error> {
        self.core.mailbox.failure()
    }

    /// Whether no more messages will come (those waiting can still be taken).
    pub fn is_closed(&self) -> bool {
        self.core.mailbox.is_closed()
    }

    /// Messages waiting.
    pub fn pending(&self) -> usize {
        self.batch.lock().len() + self.core.mailbox.pending()
    }

    /// When the oldest of them was received, Unix time in microseconds.
    pub fn oldest_us(&self) -> Option<u64> {
        let oldest = self.batch.lock().front().map(Message::received_at_us);
        oldest.or_else(|| self.core.mailbox.oldest_us())
    }

    /// Their bytes.
    pub fn pending_bytes(&self) -> usize {
        self.batch.lock().iter().map(Message::cost_bytes).sum::<usize>() + self.core.mailbox.pending_bytes()
    }

    /// Messages dropped by the overflow policy.
    pub fn dropped(&self) -> u64 {
        self.core.mailbox.dropped()
    }

    /// The bounds.
    pub fn options(&self) -> &MailboxOptions {
        self.core.mailbox.options()
    }

    fn hand_out(&mut self, message: Option<Message>) -> Option<Message> {
        if self.options().ack == AckPolicy::Processed {
            self.processing = message.as_ref().and_then(Message::ack_handle);
        }
        message
    }

    fn processed(&mut self) {
        if let Some(done) = self.processing.take() {
            self.core.client.acknowledge(Some(done), ReasonCode::Success);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Nobody will process these any more, and unacknowledged they would narrow the window of the others.
        self.core.client.acknowledge(self.batch.get_mut().iter().filter_map(Message::ack_handle), ReasonCode::Success);
    }
}

impl Core {
    /// Takes the mailbox out; the filters nobody else uses.
    fn close(&mut self) -> Vec<TopicFilter> {
        if !std::mem::replace(&mut self.is_open, false) {
            return Vec::new();
        }
        let inner = self.client.inner();
        let filters = inner.with(|state| state.dispatch.remove(self.id));
        // Nobody will process these, and unacknowledged they would narrow the window of the others.
        let unclaimed = self.mailbox.abandon();
        inner.acknowledge(unclaimed.iter().filter_map(Message::ack_handle), ReasonCode::Success);
        filters
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let filters = self.close();
        if filters.is_empty() {
            return;
        }
        let asked = self.client.inner().with(|state| state.session.unsubscribe(filters, UNHEARD));
        if let Err(error) = asked {
            debug!(%error, "a dropped subscription could not be ended at the server");
        }
    }
}

impl Inner {
    /// Waits for SUBACK or UNSUBACK.
    pub(super) async fn reply(
        &self,
        reply: tokio::sync::oneshot::Receiver<Result<Reply, RequestError>>,
        doing: impl FnOnce() -> String,
    ) -> Result<Reply, Error> {
        let after = self.options.request_timeout;
        match clock::timeout(&self.options.clock, after, reply).await {
            Some(Ok(answer)) => answer.map_err(|error| self.state.lock().explain(error)),
            // The client ended with the question open.
            Some(Err(_)) => Err(self.state.lock().check_alive().err().unwrap_or(Error::Closed)),
            None => Err(Error::Timeout { doing: doing(), after }),
        }
    }
}

/// The failure, if no filter was granted.
fn all_refused(reasons: &[ReasonCode]) -> Option<ReasonCode> {
    let first = *reasons.first()?;
    reasons.iter().all(|reason| reason.is_error()).then_some(first)
}

/// `doing` with the filters, for messages.
pub(super) fn describe(doing: &str, filters: &[TopicFilter]) -> String {
    let names: Vec<&str> = filters.iter().map(TopicFilter::as_str).take(FILTERS_SHOWN).collect();
    let more = if filters.len() > FILTERS_SHOWN { " and more" } else { "" };
    format!("{doing} {:?}{more}", names.join(", "))
}

/// One filter for [`Client::subscribe`].
impl From<FilterAndOptions> for SubscribeRequest {
    fn from(subscription: FilterAndOptions) -> Self {
        Self { subscriptions: vec![subscription], ..Self::default() }
    }
}

/// Token of requests nobody waits for.
const UNHEARD: u64 = 0;

const FILTERS_SHOWN: usize = 3;
