//! The asynchronous client: a handle that many tasks share, and one task that does the reading and writing.
//!
//! All protocol is in [`crate::session::client`]; here are its transports, its clock, reconnecting, mailboxes, and
//! the futures that wait for acknowledgements. [`Client::connect`] is the entrance.
//!
//! ```
//! use ferromq::{
//!     client::{Client, ClientOptions, MailboxOptions, PublishRequest, SubscribeRequest},
//!     codec::{Limits, QoS, SubscriptionOptions, Text, TopicFilter},
//!     net::listener::ListenerUrl,
//!     server::Broker,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::builder().listen("tcp://127.0.0.1:0".parse::<ListenerUrl>()?).start()?;
//! let client = Client::connect(ClientOptions::parse(&broker.listeners()[0].to_string())?).await?;
//!
//! let filter = TopicFilter::parse(Text::from_static("plant/+/temp"), &Limits::default())?;
//! let request = SubscribeRequest::new(filter, SubscriptionOptions::default());
//! let mut temperatures = client.subscribe(request, MailboxOptions::default()).await?;
//!
//! client.publish(PublishRequest::new("plant/1/temp", "21.5").qos(QoS::AtLeastOnce)).await?;
//! let message = temperatures.recv().await.expect("it was acknowledged");
//! assert_eq!((message.topic(), message.payload()), ("plant/1/temp", &b"21.5"[..]));
//! # Ok(())
//! # }
//! ```

mod dispatch;
mod driver;
mod error;
mod event;
mod held;
mod low_water;
mod mailbox;
mod options;
mod pace;
mod reconnect;
mod request;
mod spool;
#[cfg(feature = "durable")]
mod spool_file;
mod state;
mod subscription;
mod ticket;
mod tls;
mod transport;
mod url;
mod websocket;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::runtime::Handle;

pub use error::Error;
pub use event::{ClientEvent, ConnectionState, EventSource, EventStream};
pub use mailbox::{AckPolicy, MailboxOptions, Overflow, ReadyHook};
pub use options::{AuthFactory, ClientOptions, Reconnect};
pub use request::{IncomingRequest, Server};
pub use spool::{Spool, SpoolListener};
#[cfg(feature = "durable")]
pub use spool_file::DiskSpool;
pub use state::Stats;
pub use subscription::Subscription;
pub use ticket::{Completion, CompletionSink};
pub use tls::ClientTls;
pub use transport::{BoxStream, Connecting, Connector, Stream};
pub use url::{InvalidUrl, ServerUrl};

// For the command line's `-d`, which reads along.
pub(crate) use transport::UrlConnector;
// For faults, which stand between two sockets.
pub(crate) use tls::Secure;
pub(crate) use transport::connect_tcp;

pub use crate::session::client::{
    AckHandle, AuthExchange, Capabilities, CloseReason, Connected, Message, Outgoing, Payload, PublishAck, Published,
    RequestError, SessionOptions, SubscribeRequest,
};

use state::{Inner, Life, Progress, State, refused};
use ticket::{Recipient, TicketId};
use transport::Given;

use crate::codec::{Properties, QoS, ReasonCode, Text, TopicFilter, Version};

/// A connected client. Cloning it gives another handle; when the last one goes, the client disconnects.
#[derive(Debug, Clone)]
pub struct Client {
    handle: Arc<LastHandle>,
}

/// Goes with the last [`Client`].
#[derive(Debug)]
struct LastHandle {
    inner: Arc<Inner>,
}

/// A publication, owned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishRequest {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// Quality of service.
    pub qos: QoS,
    /// Ask the server to retain it.
    pub retain: bool,
    /// MQTT 5 properties.
    pub properties: Properties,
}

/// How to end a client.
#[derive(Debug, Clone, Copy)]
pub struct DisconnectOptions {
    /// Why; 0x04 makes the server publish the will. Default: success.
    pub reason: ReasonCode,
    /// How long the server shall keep the session, seconds, if not as long as agreed (MQTT 5).
    pub session_expiry: Option<u32>,
    /// How long unfinished publications and requests may take. Default 10 s.
    pub timeout: Duration,
}

/// Waits for the acknowledgement of one publication, or of all of a series. Dropping it forgets the outcome, not the
/// publication.
#[derive(Debug)]
#[must_use = "the publication is under way; only its outcome is lost"]
pub struct PublishTicket {
    inner: Arc<Inner>,
    id: Option<TicketId>,
}

impl Client {
    /// Connects: returns with the first CONNACK, or when every server has failed once.
    pub async fn connect(options: ClientOptions) -> Result<Self, Error> {
        let client = Self::start(options)?;
        client.ready().await?;
        Ok(client)
    }

    /// Connects over a stream that is there already. It cannot be reopened: the client ends with it.
    pub async fn connect_stream(options: ClientOptions, stream: impl Stream) -> Result<Self, Error> {
        let client = Self::start_with(options, Given::new(stream))?;
        client.ready().await?;
        Ok(client)
    }

    /// Starts connecting to the servers of the options, and returns at once; [`Self::ready`] waits.
    pub fn start(options: ClientOptions) -> Result<Self, Error> {
        if options.servers.is_empty() {
            return Err(Error::Options("the options name no server to connect to".to_owned()));
        }
        let connector = UrlConnector::new(options.servers.clone(), &options.tls);
        Self::start_with(options, connector.map_err(|fault| Error::Options(fault.to_string()))?)
    }

    /// Starts connecting over transports that `connector` makes, and returns at once.
    pub fn start_with(options: ClientOptions, connector: impl Connector) -> Result<Self, Error> {
        let runtime = match &options.runtime {
            Some(runtime) => runtime.clone(),
            None => Handle::try_current().map_err(|_| {
                Error::Options(
                    "the client needs a tokio runtime: name one in the options or call from within".to_owned(),
                )
            })?,
        };
        let sockets = connector.has_sockets().then(|| runtime.clone());
        let inner = Inner::new(options)?;
        let driver = driver::run(Arc::clone(&inner), Box::new(connector));
        if inner.options.clock.is_adjustable() {
            runtime.spawn(inner.options.clock.watch(sockets, driver));
        } else {
            runtime.spawn(driver);
        }
        Ok(Self { handle: Arc::new(LastHandle { inner }) })
    }

    /// Waits for the first CONNACK.
    pub async fn ready(&self) -> Result<(), Error> {
        let mut progress = self.inner().progress.subscribe();
        let reached = progress.wait_for(|progress| !matches!(progress, Progress::Starting)).await;
        match reached.as_deref() {
            Ok(Progress::Ended(Some(failure))) => Err(failure.clone()),
            Ok(Progress::Ready) => Ok(()),
            _ => Err(Error::Closed),
        }
    }

    /// Publishes. QoS 0 returns when the message is in the output, waiting for room there if it must; QoS 1 and 2
    /// return with the server's acknowledgement, across reconnects. A refusal is an error.
    pub async fn publish(&self, request: PublishRequest) -> Result<PublishAck, Error> {
        let message = request.as_outgoing();
        loop {
            match self.try_publish(&message) {
                Ok(None) => return Ok(PublishAck::success()),
                Ok(Some(ticket)) => return ticket.await.map_err(|error| name(error, &request.topic)),
                Err(Error::Request(RequestError::QueueFull { bytes, .. })) if bytes > 0 => {
                    self.room(&message).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Publishes without ever waiting: [`RequestError::QueueFull`] says that there is no room now. QoS 1 and 2 give a
    /// ticket to wait with.
    pub fn try_publish(&self, message: &Outgoing<'_>) -> Result<Option<PublishTicket>, Error> {
        let inner = self.inner();
        if message.qos == QoS::AtMostOnce {
            return inner.publish(message, Recipient::Nobody).map(|_| None);
        }
        let published = inner.with(|state| {
            let id = state.tickets.open();
            let published = state.publish(message, Recipient::Ticket(id), &inner.options);
            if published.is_err() {
                state.tickets.cancel(id);
            }
            published.map(|_| id)
        });
        published.map(|id| Some(PublishTicket { inner: Arc::clone(inner), id: Some(id) }))
    }

    /// Publishes without waiting; the outcome goes to the options' [`CompletionSink`] with `number` (62 bits), unless
    /// the message is [`Published::Written`] already.
    pub fn submit(&self, message: &Outgoing<'_>, number: u64) -> Result<Published, Error> {
        self.inner().publish(message, Recipient::Sink(number))
    }

    /// The same, for callers who publish many messages in a row and then call [`Self::write_submitted`]: it may leave the
    /// client's task asleep, which writes without being told after a millisecond or two. The second value asks for the
    /// call. Without a number the outcome goes to nobody; a failure is logged, and counted in [`Stats::given_up`].
    pub fn submit_lazily(&self, message: &Outgoing<'_>, number: Option<u64>) -> Result<(Published, bool), Error> {
        self.inner().publish_lazily(message, number.map_or(Recipient::Nobody, Recipient::Sink))
    }

    /// Has what was [submitted lazily](Self::submit_lazily) written.
    pub fn write_submitted(&self) {
        self.inner().flush();
    }

    /// Publishes many messages under one lock, without waiting. Returns how many were taken, how many of those the
    /// [`CompletionSink`] will be told of, each with `number`, and what stopped the rest.
    pub fn submit_many<'a>(
        &self,
        messages: impl IntoIterator<Item = Outgoing<'a>>,
        number: u64,
    ) -> (usize, usize, Option<Error>) {
        let inner = self.inner();
        inner.with(|state| {
            let (mut taken, mut open) = (0, 0);
            for message in messages {
                match state.publish(&message, Recipient::Sink(number), &inner.options) {
                    Ok(published) => open += usize::from(published == Published::Accepted),
                    Err(error) => return (taken, open, Some(error)),
                }
                taken += 1;
            }
            (taken, open, None)
        })
    }

    /// Publishes many messages, waiting for room as needed, and returns when all are acknowledged; how many there
    /// were. The first refusal is the error; those behind it were sent nevertheless.
    pub async fn publish_many<'a, I>(&self, messages: I) -> Result<usize, Error>
    where
        I: IntoIterator<Item = Outgoing<'a>>,
    {
        let inner = self.inner();
        let mut messages = messages.into_iter();
        let ticket = PublishTicket { inner: Arc::clone(inner), id: Some(inner.state.lock().tickets.open()) };
        let mut series = Series(Some(ticket));
        let (mut count, mut refused) = (0, None);
        loop {
            let Some(ticket) = &series.0 else { return Err(Error::Closed) };
            let stopped = inner.with(|state| ticket.publish_all(state, &mut messages, &mut refused, &mut count));
            match stopped {
                None => break,
                Some(Error::Request(RequestError::QueueFull { bytes, .. })) if bytes > 0 => {
                    if let Some(message) = &refused {
                        self.room(message).await;
                    }
                }
                Some(error) => return Err(error),
            }
        }
        match series.seal() {
            Some(ticket) => ticket.await.map(|_| count),
            None => Ok(count),
        }
    }

    /// Waits until this publication would find room.
    pub async fn room(&self, message: &Outgoing<'_>) {
        let queue_bytes = message.queue_bytes();
        poll_fn(|cx| self.inner().poll_room(cx, queue_bytes)).await;
    }

    /// Subscribes; returns with SUBACK. Messages wait in a mailbox of the subscription's own.
    pub async fn subscribe(
        &self,
        request: impl Into<SubscribeRequest>,
        options: MailboxOptions,
    ) -> Result<Subscription, Error> {
        Subscription::make(self, request.into(), options).await
    }

    /// Unsubscribes from filters that no [`Subscription`] of this client stands for: those of a resumed session.
    pub async fn unsubscribe(&self, filters: Vec<TopicFilter>) -> Result<(), Error> {
        self.unsubscribe_all(filters).await
    }

    /// The messages that match no subscription, if the options give them a mailbox; only the first call gets it.
    pub fn take_unmatched(&self) -> Option<Subscription> {
        Subscription::unmatched(self)
    }

    /// Tells the server that a received message is done; nothing happens for one that needs no acknowledgement.
    pub fn acknowledge(&self, handles: impl IntoIterator<Item = AckHandle>, reason: ReasonCode) {
        self.inner().acknowledge(handles, reason);
    }

    /// Proves itself anew (MQTT 5 enhanced authentication); [`ClientEvent::Reauthenticated`] follows.
    pub fn reauthenticate(&self) -> Result<(), Error> {
        Ok(self.inner().with(|state| state.session.reauthenticate())?)
    }

    /// What happens to the connection from now on.
    pub fn events(&self) -> EventStream {
        self.inner().events.stream()
    }

    /// Whether there is a connection.
    pub fn state(&self) -> ConnectionState {
        self.inner().state.lock().connection
    }

    /// Why the client has ended, if it has and was not asked to.
    pub fn failure(&self) -> Option<Error> {
        match &self.inner().state.lock().life {
            Life::Ended(failure) => failure.clone(),
            _ => None,
        }
    }

    /// The version of MQTT that it speaks.
    pub fn version(&self) -> Version {
        self.inner().options.session.version
    }

    /// The client identifier in use.
    pub fn client_id(&self) -> Text {
        self.inner().state.lock().session.client_id().clone()
    }

    /// What the last CONNACK that accepted the connection said.
    pub fn connack(&self) -> Option<Arc<Connected>> {
        self.inner().state.lock().connack.clone()
    }

    /// What the server allows.
    pub fn capabilities(&self) -> Capabilities {
        self.inner().state.lock().session.capabilities().clone()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let state = self.inner().state.lock();
        let (unfinished, spooled) = (state.session.unfinished(), state.session.spooled());
        Stats { unmatched: state.dispatch.dropped(), unfinished, spooled, ..state.stats }
    }

    /// Waits until everything that was accepted so far is in the spool, where a crash cannot reach it; the failure if it
    /// cannot be put there. Publishing with QoS 1 and 2 does not wait for that: what it waits for is the server.
    pub async fn flush(&self) -> Result<(), Error> {
        let Some(flushed) = self.inner().with(State::expect_commit)? else { return Ok(()) };
        match flushed.await {
            Ok(result) => result.map_err(Error::Spool),
            Err(_) => Err(Error::Closed),
        }
    }

    /// Ends the client: waits for what is unfinished, sends DISCONNECT, closes. All handles are useless afterwards.
    pub async fn disconnect(&self, options: DisconnectOptions) -> Result<(), Error> {
        let inner = self.inner();
        let agreed = self.capabilities().session_expiry;
        if agreed == 0 && options.session_expiry.is_some_and(|seconds| seconds > 0) {
            let fault = "a session that was to expire with the connection cannot be kept at DISCONNECT";
            return Err(RequestError::NotAllowed(fault).into());
        }
        inner.close(inner.now() + options.timeout, options.reason, options.session_expiry);
        let mut progress = inner.progress.subscribe();
        let ended = progress.wait_for(|progress| matches!(progress, Progress::Ended(_))).await;
        match ended.as_deref() {
            Ok(Progress::Ended(Some(failure))) => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    async fn unsubscribe_all(&self, filters: Vec<TopicFilter>) -> Result<(), Error> {
        if filters.is_empty() {
            return Ok(());
        }
        let what = subscription::describe("unsubscribing from", &filters);
        let asked = self.inner().with(|state| {
            state.check_alive()?;
            let (token, reply) = state.expect_reply();
            state.session.unsubscribe(filters, token)?;
            Ok::<_, Error>(reply)
        });
        let reply = self.inner().reply(asked?, || what.clone()).await?;
        match reply.reasons.iter().find(|reason| reason.is_error()) {
            None => Ok(()),
            Some(reason) => {
                let (packet, reason) = (crate::codec::PacketType::Unsubscribe, *reason);
                Err(Error::Refused { packet, what, reason, properties: reply.properties })
            }
        }
    }

    /// Waits until everything handed to the client is written, and everything that had come is in its mailboxes; not at
    /// all while there is no connection. A full mailbox that must not lose anything makes it wait for its consumer.
    pub async fn at_rest(&self) {
        // Dropped unanswered, the connection has ended.
        let _ = self.inner().rest().await;
    }

    /// Where responses to this client's requests go: below the server's response information if it gives any.
    fn response_topic(&self) -> Result<Text, Error> {
        let state = self.inner().state.lock();
        let topic = match state.session.response_information() {
            Some(prefix) => format!("{}/responses", prefix.trim_end_matches('/')),
            None => format!("response/{}/responses", state.session.client_id()),
        };
        Text::try_from(topic.as_str()).map_err(|fault| Error::Options(fault.to_string()))
    }
}

impl Drop for LastHandle {
    fn drop(&mut self) {
        self.inner.close(self.inner.now(), ReasonCode::Success, None);
    }
}

impl PublishRequest {
    /// A QoS 0 publication.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { topic: topic.into(), payload: payload.into(), ..Self::default() }
    }

    /// Sets the QoS.
    #[must_use]
    pub fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// Asks the server to retain it.
    #[must_use]
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Sets the MQTT 5 properties.
    #[must_use]
    pub fn properties(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }

    /// As the form that is published without a copy.
    pub fn as_outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            topic: &self.topic,
            payload: Payload::Shared(&self.payload),
            qos: self.qos,
            retain: self.retain,
            properties: &self.properties,
        }
    }
}

impl Default for DisconnectOptions {
    fn default() -> Self {
        Self { reason: ReasonCode::Success, session_expiry: None, timeout: Duration::from_secs(10) }
    }
}

impl PublishTicket {
    /// Publishes all that finds room; what stopped it. The message it stopped at is left in `next`.
    fn publish_all<'a>(
        &self,
        state: &mut state::State,
        messages: &mut impl Iterator<Item = Outgoing<'a>>,
        next: &mut Option<Outgoing<'a>>,
        count: &mut usize,
    ) -> Option<Error> {
        let id = self.id?;
        while let Some(message) = next.take().or_else(|| messages.next()) {
            state.tickets.extend(id);
            match state.publish(&message, Recipient::Ticket(id), &self.inner.options) {
                Ok(published) => {
                    *count += 1;
                    if published == Published::Written {
                        state.tickets.shorten(id);
                    }
                }
                Err(error) => {
                    state.tickets.shorten(id);
                    *next = Some(message);
                    return Some(error);
                }
            }
        }
        None
    }

    /// No more publications will be added.
    fn seal(&self, state: &mut state::State) {
        if let Some(id) = self.id {
            state.tickets.shorten(id);
        }
    }
}

/// A ticket that publications are still being added to. However it ends, no more will be.
struct Series(Option<PublishTicket>);

impl Series {
    fn seal(&mut self) -> Option<PublishTicket> {
        let ticket = self.0.take()?;
        ticket.inner.with(|state| ticket.seal(state));
        Some(ticket)
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.seal();
    }
}

impl Future for PublishTicket {
    type Output = Result<PublishAck, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(id) = self.id else { return Poll::Ready(Err(Error::Closed)) };
        let mut state = self.inner.state.lock();
        let polled = state.tickets.poll(id, cx).map(|result| result.map_err(|error| state.explain(error)));
        drop(state);
        if polled.is_ready() {
            self.id = None;
        }
        polled.map(|result| result.and_then(refused))
    }
}

impl Drop for PublishTicket {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.inner.state.lock().tickets.abandon(id);
        }
    }
}

/// The error with the topic in it.
fn name(error: Error, topic: &str) -> Error {
    match error {
        Error::Refused { packet, reason, properties, .. } => {
            Error::Refused { packet, what: format!("a publication to {topic:?}"), reason, properties }
        }
        other => other,
    }
}
