//! The broker's configuration: TOML, typed to the leaf, strict.
//!
//! A key that is not known is refused with the nearest one that is, a value with its line and what it should be; what
//! has been read is valid. [`BrokerConfig::settings`] is what the core sees of it; [`BrokerConfig::to_toml`] shows all
//! that is in effect.

mod listener;
mod pem;

#[cfg(feature = "config")]
mod acl;
#[cfg(feature = "config")]
mod broker;
#[cfg(feature = "config")]
mod error;
#[cfg(feature = "config")]
mod listeners;
#[cfg(feature = "config")]
mod presets;
#[cfg(feature = "config")]
mod print;
#[cfg(feature = "config")]
mod reader;
#[cfg(feature = "config")]
mod sections;
#[cfg(feature = "config")]
mod settings;
#[cfg(feature = "config")]
mod units;

pub use listener::{ListenerConfig, ListenerTls, ListenerUrl, ListenerUrlError, TCP_PORT, TLS_PORT, WS_PORT};
pub use pem::Pem;

#[cfg(feature = "config")]
pub use acl::Acl;
#[cfg(feature = "config")]
pub use broker::BrokerConfig;
#[cfg(feature = "config")]
pub use error::{ConfigError, ConfigFault, Hint};
#[cfg(feature = "config")]
pub use presets::{preset, preset_names};
#[cfg(feature = "config")]
pub use sections::{
    Auth, Capabilities, DropPolicy, Limits, Log, LogFormat, LogLevel, MaximumQos, Queue, Secret, Shared, SlowConsumer,
    Strategy, Sys,
};
#[cfg(feature = "config")]
pub use units::{ByteSize, Period, Seconds, UnitError};

// The limit of `shards`, here and on the command line.
#[cfg(feature = "config")]
pub(crate) use crate::router::SHARDS_MAX;

/// The longest packet MQTT can express: fixed header, four bytes of length, 268,435,455 of the rest.
#[cfg(feature = "config")]
const PACKET_BYTES_MAX: u32 = 268_435_460;
