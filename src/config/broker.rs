//! The whole of `broker.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    Acl, Auth, Capabilities, ConfigError, ConfigFault, Limits, ListenerConfig, ListenerUrl, Log, Queue, Shared,
    SlowConsumer, StoreDurability, Sys, TCP_PORT, listeners, print::Page, reader,
};

/// Everything that a configuration file can say about a broker.
///
/// ```
/// use ferromq::config::BrokerConfig;
///
/// let config = BrokerConfig::from_toml(
///     r#"
///     listeners = ["tcp://127.0.0.1:1883", "ws://[::1]:8083/mqtt"]
///     [capabilities]
///     maximum_packet_size = "64 KiB"
///     session_expiry_max = "2h"
///     "#,
///     "broker.toml",
/// )?;
/// assert_eq!(config.settings().limits.packet_bytes_max, 65_536);
///
/// let error = BrokerConfig::from_toml("[limits]\nmax_inflght = 10", "broker.toml").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#"broker.toml:2: unknown key "max_inflght" in [limits]; did you mean "max_inflight"?"#
/// );
/// # Ok::<(), ferromq::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Where to listen; `tcp://127.0.0.1:1883` if the file does not say.
    #[serde(deserialize_with = "listeners::deserialize")]
    pub listeners: Vec<ListenerConfig>,
    /// Threads that share the connections; `None`, written 0 or "auto", is one for each core.
    #[serde(deserialize_with = "listeners::deserialize_shards")]
    pub shards: Option<std::num::NonZeroUsize>,
    /// Directory that keeps persistent sessions, their messages and retained messages over a restart; `None` keeps them
    /// in memory. A relative one is looked for from where the broker was started.
    pub store: Option<PathBuf>,
    /// What an acknowledgement outlasts, with a store.
    pub store_durability: StoreDurability,
    /// `[limits]`
    pub limits: Limits,
    /// `[capabilities]`
    pub capabilities: Capabilities,
    /// `[queue]`
    pub queue: Queue,
    /// `[slow_consumer]`
    pub slow_consumer: SlowConsumer,
    /// `[shared]`
    pub shared: Shared,
    /// `[sys]`
    pub sys: Sys,
    /// `[auth]`
    pub auth: Auth,
    /// `[acl]`
    pub acl: Acl,
    /// `[log]`
    pub log: Log,
}

impl BrokerConfig {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_toml(&text, &file),
            Err(error) => Err(ConfigError { file, line: None, fault: ConfigFault::Read(error.to_string()) }),
        }
    }

    /// Reads `text`; `file` is what errors call it.
    pub fn from_toml(text: &str, file: &str) -> Result<Self, ConfigError> {
        reader::read(text, file, TABLES)
    }

    /// All that is in effect, each key under a comment. Users are commented out, their passwords hidden; but for them
    /// it reads back the same.
    pub fn to_toml(&self) -> String {
        let mut page = Page::default();
        page.comment(&["Threads that share the connections; 0 is one for each core."]);
        page.key("shards", &[], &self.shards.map_or(0, std::num::NonZeroUsize::get));
        self.print_store(&mut page);
        listeners::print(&self.listeners, &mut page);
        self.limits.print(&mut page);
        self.capabilities.print(&mut page);
        self.queue.print(&mut page);
        self.slow_consumer.print(&mut page);
        self.shared.print(&mut page);
        self.sys.print(&mut page);
        self.auth.print(&mut page);
        self.acl.print(&mut page);
        self.log.print(&mut page);
        page.into_text()
    }

    fn print_store(&self, page: &mut Page) {
        page.comment(&[
            "Directory that keeps persistent sessions and retained messages over a restart; none: in memory only.",
        ]);
        match &self.store {
            Some(directory) => page.key("store", &[], &directory.display().to_string()),
            None => page.comment(&["store = \"data/\""]),
        }
        let about = [
            "What an acknowledgement outlasts, with a store: \"fsync\", the machine (each commit is synced to the disk), or",
            "\"process\", the process alone (a power cut may lose the last ones).",
        ];
        page.key("store_durability", &about, &self.store_durability);
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            listeners: vec![ListenerUrl::local(TCP_PORT).into()],
            shards: None,
            store: None,
            store_durability: StoreDurability::Fsync,
            limits: Limits::default(),
            capabilities: Capabilities::default(),
            queue: Queue::default(),
            slow_consumer: SlowConsumer::default(),
            shared: Shared::default(),
            sys: Sys::default(),
            auth: Auth::default(),
            acl: Acl::default(),
            log: Log::default(),
        }
    }
}

/// Where each key belongs.
const TABLES: &[(&str, &[&str])] = &[
    Limits::TABLE,
    Capabilities::TABLE,
    Queue::TABLE,
    SlowConsumer::TABLE,
    Shared::TABLE,
    Sys::TABLE,
    Auth::TABLE,
    Acl::TABLE,
    Log::TABLE,
];
