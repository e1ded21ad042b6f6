//! `ferromq broker`: configuration, start, and a graceful end; `ferromq check`.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;

use super::{EXIT_FAILED, EXIT_OK, Failure, Outcome, interrupted, log};
use crate::{
    auth::{Authenticator, Authorizer, Users},
    broker::{EndReason, Event, EventSink, Hooks},
    config::{BrokerConfig, LogFormat, LogLevel, SHARDS_MAX},
    net::listener::{ListenerConfig, ListenerTls, ListenerUrl},
    server::{Broker, BrokerBuilder},
};

/// Arguments of `ferromq broker`; they win over the configuration file.
#[derive(Debug, Default, Args)]
pub(super) struct Arguments {
    /// Where to listen: tcp://host:port, tls://host:port, ws://host:port/path, wss://host:port/path or unix:///path; may be
    /// repeated. Port 0 takes a free one.
    #[arg(long, value_name = "URL")]
    listen: Vec<ListenerUrl>,
    /// The same as --listen tcp://127.0.0.1:PORT.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Certificate chain (PEM) of the listeners with TLS that --listen names.
    #[arg(long, value_name = "FILE", requires_all = ["key", "listen"])]
    cert: Option<PathBuf>,
    /// Private key (PEM) of --cert.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Clients must show a certificate that one of these (PEM) has signed.
    #[arg(long, value_name = "FILE", requires = "cert")]
    client_ca: Option<PathBuf>,
    /// Configuration file (TOML).
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory that keeps persistent sessions and retained messages over a restart.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Threads that share the connections, 64 at most; 0 takes one for each core.
    #[arg(long, value_parser = shards)]
    shards: Option<usize>,
    /// How much is logged to standard error: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// How it is logged: text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Checks the configuration and prints what is in effect, without starting anything.
    #[arg(long)]
    check: bool,
}

/// Arguments of `ferromq check`.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// Configuration file (TOML).
    #[arg(value_name = "FILE")]
    config: PathBuf,
}

/// Says what is wrong with a configuration and where, or prints what is in effect.
pub(super) fn check(arguments: CheckArguments) -> Outcome {
    run(Arguments { config: Some(arguments.config), check: true, ..Arguments::default() })
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let config = arguments.effective()?;
    if arguments.check {
        io::stdout().write_all(config.to_toml().as_bytes())?;
        return Ok(EXIT_OK);
    }
    log::start(config.log.level, config.log.format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Listening for signals begins before anything can be connected to.
        let mut interruptions = interrupted()?;
        #[cfg(unix)]
        outlive_hangups()?;
        let broker = builder(&config).start()?;
        if let Err(error) = announce(&broker) {
            tracing::warn!(%error, "nobody reads on standard output where the broker listens");
        }
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "broker is ready");
        interruptions.recv().await;
        tracing::info!("shutting down; another signal ends the broker at once");
        let (sender, ended) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().spawn(move || {
            broker.shutdown();
            // Nobody waits after a second signal.
            let _ = sender.send(());
        })?;
        tokio::select! {
            _ = ended => Ok(EXIT_OK),
            _ = interruptions.recv() => {
                tracing::warn!("ended with clients still to be told");
                Ok(EXIT_FAILED)
            }
        }
    })
}

/// A broker outlives the terminal it was started from, and whoever tells it to reload is told that it does not.
#[cfg(unix)]
fn outlive_hangups() -> io::Result<()> {
    let mut hangups = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            tracing::warn!("SIGHUP is ignored: the configuration is read at the start only; SIGTERM ends the broker");
        }
    });
    Ok(())
}

fn shards(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count <= SHARDS_MAX);
    count.ok_or_else(|| format!("a number from 0 to {SHARDS_MAX} is wanted"))
}

impl Arguments {
    /// The file's configuration, or the default one, with the arguments over it.
    fn effective(&self) -> Result<BrokerConfig, Failure> {
        let mut config = match &self.config {
            Some(path) => BrokerConfig::load(path)?,
            None => BrokerConfig::default(),
        };
        let port = self.port.map(ListenerUrl::local);
        let urls = self.listen.iter().cloned().chain(port);
        let listeners: Vec<_> = urls.map(|url| ListenerConfig { tls: self.tls(&url), ..url.into() }).collect();
        if !listeners.is_empty() {
            config.listeners = listeners;
        }
        config.log.level = self.log_level.unwrap_or(config.log.level);
        config.log.format = self.log_format.unwrap_or(config.log.format);
        config.store = self.store.clone().or(config.store);
        if let Some(shards) = self.shards {
            config.shards = std::num::NonZeroUsize::new(shards);
        }
        if config.listeners.is_empty() {
            return Err(Failure::usage("nothing to listen on: name a listener with --listen or in the file"));
        }
        if !config.auth.allow_anonymous && config.auth.users.is_empty() {
            return Err(Failure::usage(
                "nobody could connect: [auth] has no users and allow_anonymous = false; name users, or allow it",
            ));
        }
        Ok(config)
    }

    /// The certificate of a listener that wants one.
    fn tls(&self, url: &ListenerUrl) -> Option<ListenerTls> {
        let (cert, key) = self.cert.clone().zip(self.key.clone()).filter(|_| url.is_tls())?;
        Some(ListenerTls { cert: cert.into(), key: key.into(), client_ca: self.client_ca.clone().map(Into::into) })
    }
}

fn builder(config: &BrokerConfig) -> BrokerBuilder {
    let shards = config.shards.map_or(0, std::num::NonZeroUsize::get);
    let mut builder = Broker::builder().settings(config.settings()).hooks(hooks(config)).shards(shards);
    if let Some(directory) = &config.store {
        builder = builder.store(directory, config.store_durability.into());
    }
    config.listeners.iter().cloned().fold(builder, BrokerBuilder::listen)
}

/// The hooks that the configuration asks for.
fn hooks(config: &BrokerConfig) -> Hooks {
    let users = &config.auth.users;
    let table = users.iter().map(|(name, password)| (name.clone(), password.expose().to_owned()));
    let authenticator: Option<Arc<dyn Authenticator>> = if users.is_empty() && config.auth.allow_anonymous {
        None
    } else {
        Some(Arc::new(Users::new(table, config.auth.allow_anonymous)))
    };
    let authorizer = config.acl.authorizer().map(|acl| Arc::new(acl) as Arc<dyn Authorizer>);
    Hooks { authenticator, authorizer, events: Some(Arc::new(Refusals)), ..Hooks::default() }
}

/// Logs whom the broker does not let in: what an operator looks for first. All else is counted in `$SYS`.
#[derive(Debug)]
struct Refusals;

impl EventSink for Refusals {
    fn event(&self, event: &Event<'_>) {
        let Event::Disconnected { client_id, peer, reason } = event else { return };
        if REFUSED.contains(reason) {
            tracing::info!(client = client_id, peer, reason = reason.name(), "client refused");
        }
    }
}

/// What ends connections that were not, or not any more, allowed.
const REFUSED: &[EndReason] = &[
    EndReason::BadCredentials,
    EndReason::NotAuthorized,
    EndReason::AuthenticationFailed,
    EndReason::UnsupportedVersion,
    EndReason::ClientIdentifierNotValid,
    EndReason::ServerBusy,
];

/// Tells a waiting parent where to connect, and that it may.
fn announce(broker: &Broker) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for listener in broker.listeners() {
        writeln!(out, "listening {listener}")?;
    }
    writeln!(out, "ready")?;
    out.flush()
}
