//! The extension module `ferromq._ferromq`: translation and nothing else.
//!
//! | file | what it is |
//! |---|---|
//! | `runtime` | the tokio runtime of the process, forks, blocking waits |
//! | `bridge` | from tokio to an asyncio loop, in batches |
//! | `awaitable` | the hand-made type under `operation` and `stream` |
//! | `operation`, `stream` | what verbs return; what iterates |
//! | `core` | what both clients share |
//! | `client`, `sync` | their faces |
//! | `publish`, `subscription`, `request`, `events` | one verb each |
//! | `broker`, `broker_auth`, `broker_config`, `broker_hooks`, `broker_settled`, `broker_view` | the broker in the process |
//! | `clock`, `faults`, `fault_proxy` | what tests do to time and packets |
//! | `message`, `properties`, `options`, `payload`, `buffer`, `topics` | values |
//! | `telemetry` | tables, captures and files |
//! | `html` | what notebooks show of brokers and clients |
//! | `errors` | the one table of exceptions |
//!
//! User documentation is in `python/ferromq/_ferromq.pyi`.

mod awaitable;
mod bridge;
mod broker;
mod broker_auth;
mod broker_config;
mod broker_hooks;
mod broker_settled;
mod broker_view;
mod buffer;
#[cfg(feature = "cli")]
mod cli;
mod client;
mod clock;
mod core;
mod errors;
mod events;
mod fault_proxy;
mod faults;
mod flush;
mod html;
mod message;
mod operation;
mod options;
mod payload;
mod pending;
mod properties;
mod publish;
mod request;
mod runtime;
mod stream;
mod subscription;
mod sync;
mod telemetry;
mod tls;
mod topics;

use pyo3::prelude::*;

/// Everything of FerroMQ that is written in Rust; import `ferromq` instead.
#[pymodule(gil_used = false)]
fn _ferromq(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    errors::add_to(module)?;
    module.add_class::<broker::Broker>()?;
    module.add_class::<broker_view::ClientInfo>()?;
    module.add_class::<broker_view::Retained>()?;
    module.add_class::<broker_auth::ConnectInfo>()?;
    module.add_class::<client::Client>()?;
    module.add_class::<clock::Clock>()?;
    module.add_class::<faults::ConnectionTrace>()?;
    module.add_class::<fault_proxy::FaultProxy>()?;
    module.add_class::<faults::FaultRule>()?;
    module.add_class::<faults::Faults>()?;
    module.add_class::<events::Connected>()?;
    module.add_class::<events::Connecting>()?;
    module.add_class::<events::Disconnected>()?;
    module.add_class::<events::Reauthenticated>()?;
    module.add_class::<message::Message>()?;
    module.add_class::<options::Reconnect>()?;
    module.add_class::<options::Session>()?;
    module.add_class::<options::Will>()?;
    module.add_class::<tls::ClientTls>()?;
    module.add_class::<tls::Tls>()?;
    module.add_class::<properties::Properties>()?;
    module.add_class::<publish::Ack>()?;
    module.add_class::<request::Request>()?;
    module.add_class::<request::SyncRequest>()?;
    module.add_class::<subscription::Subscription>()?;
    module.add_class::<sync::SyncClient>()?;
    module.add_class::<sync::SyncStream>()?;
    module.add_class::<sync::SyncSubscription>()?;
    telemetry::add_to(module)?;
    module.add("Operation", awaitable::type_object::<operation::Operation>(py)?)?;
    module.add("Stream", awaitable::type_object::<stream::Stream>(py)?)?;
    #[cfg(feature = "cli")]
    module.add_function(wrap_pyfunction!(cli::cli_main, module)?)?;
    module.add_function(wrap_pyfunction!(topics::parse_pattern, module)?)?;
    module.add_function(wrap_pyfunction!(topics::topic_matches, module)?)?;
    module.add_function(wrap_pyfunction!(topics::validate_filter, module)?)?;
    module.add_function(wrap_pyfunction!(topics::validate_topic, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
