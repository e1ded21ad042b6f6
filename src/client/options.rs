//! How a client connects, reconnects and queues.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{ClientTls, CompletionSink, Error, EventSource, MailboxOptions, ServerUrl};
use crate::{
    clock::Clock,
    codec::{Text, Version, Will},
    session::client::{AuthExchange, SessionOptions},
};

/// Settings of a [`super::Client`].
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Servers, tried in turn; each with all of its addresses.
    pub servers: Vec<ServerUrl>,
    /// Whom it believes, at servers with TLS.
    pub tls: ClientTls,
    /// What the protocol is told: identifier, credentials, will, session, windows, queue bounds.
    pub session: SessionOptions,
    /// How long one attempt (look-up, transport, CONNACK) may take. Default 10 s.
    pub connect_timeout: Duration,
    /// How long SUBACK and UNSUBACK may take. Default 30 s.
    pub request_timeout: Duration,
    /// Reconnect by itself. `None`: the first loss ends the client.
    pub reconnect: Option<Reconnect>,
    /// Bytes that may wait for the socket before publishers have to. Default 1 MiB.
    pub output_bytes_max: usize,
    /// Where messages go that match no subscription of this client. `None`: those of a resumed session wait, 65,536 of
    /// them or 64 MiB at most, for the first subscription that they match, unacknowledged for the first 2 s; others are
    /// dropped. What is dropped is counted in [`super::Stats::unmatched`].
    pub unmatched: Option<MailboxOptions>,
    /// Where events go, for readers from before the client. `None`: a source of its own that keeps 256 events for a
    /// reader of [`super::Client::events`] that lags.
    pub events: Option<EventSource>,
    /// Takes the outcomes of publications submitted with a number.
    pub completions: Option<Arc<dyn CompletionSink>>,
    /// Makes the exchange for enhanced authentication.
    pub auth: Option<AuthFactory>,
    /// Where the time comes from: keep-alive, expiry, waits and time-outs. Default: the system.
    pub clock: Clock,
    /// Where the client's task runs. `None`: the runtime that `connect` is called in.
    pub runtime: Option<Handle>,
}

/// Exponential back-off with full jitter: the n-th wait is random between 0 and `min * factor^n`, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reconnect {
    /// Bound of the first wait. Default 0.1 s.
    pub min: Duration,
    /// Bound of all waits. Default 30 s.
    pub max: Duration,
    /// Growth of the bound. Default 2.
    pub factor: f64,
    /// Attempts in a row before giving up. `None`: never.
    pub attempts_max: Option<u32>,
    /// A connection that lasted this long starts the back-off anew. Default 10 s.
    pub stable_after: Duration,
    /// Seed of the jitter. `None`: random.
    pub seed: Option<u64>,
    /// Retry the very first connection, too, instead of failing `connect`. Default false.
    pub retry_first: bool,
}

/// Makes a fresh authentication exchange.
#[derive(Clone)]
pub struct AuthFactory(Arc<dyn Fn() -> Box<dyn AuthExchange> + Send + Sync>);

impl ClientOptions {
    /// Options for one server.
    pub fn new(server: ServerUrl) -> Self {
        Self { servers: vec![server], ..Self::default() }
    }

    /// Options for the server at `url`.
    pub fn parse(url: &str) -> Result<Self, Error> {
        url.parse().map(Self::new).map_err(|fault: super::InvalidUrl| Error::Options(fault.to_string()))
    }

    /// Sets the client identifier.
    #[must_use]
    pub fn client_id(mut self, client_id: Text) -> Self {
        self.session.client_id = client_id;
        self
    }

    /// Sets the protocol version.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.session.version = version;
        self
    }

    /// Keeps the session at the server for `expiry_seconds` without a connection, and resumes one that exists.
    #[must_use]
    pub fn persistent(mut self, expiry_seconds: u32) -> Self {
        self.session.clean_start = false;
        self.session.session_expiry = expiry_seconds;
        self
    }

    /// Sets user name and password.
    #[must_use]
    pub fn credentials(mut self, username: Text, password: impl Into<Bytes>) -> Self {
        self.session.username = Some(username);
        self.session.password = Some(password.into());
        self
    }

    /// Sets the last will.
    #[must_use]
    pub fn will(mut self, will: Will) -> Self {
        self.session.will = Some(will);
        self
    }

    /// Sets the keep-alive, seconds; 0 switches it off.
    #[must_use]
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.session.keep_alive = seconds;
        self
    }

    /// Sets how to reconnect.
    #[must_use]
    pub fn reconnect(mut self, reconnect: Option<Reconnect>) -> Self {
        self.reconnect = reconnect;
        self
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            tls: ClientTls::default(),
            session: SessionOptions::default(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            reconnect: Some(Reconnect::default()),
            output_bytes_max: 1 << 20,
            unmatched: None,
            events: None,
            completions: None,
            auth: None,
            clock: Clock::system(),
            runtime: None,
        }
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(100),
            max: Duration::from_secs(30),
            factor: 2.0,
            attempts_max: None,
            stable_after: Duration::from_secs(10),
            seed: None,
            retry_first: false,
        }
    }
}

impl AuthFactory {
    /// Exchanges that `make` makes.
    pub fn new(make: impl Fn() -> Box<dyn AuthExchange> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn make(&self) -> Box<dyn AuthExchange> {
        (self.0)()
    }
}

impl fmt::Debug for AuthFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthFactory")
    }
}
