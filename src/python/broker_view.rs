//! What a broker tells of itself: its clients, its retained messages, its counters. Snapshots, taken when asked for.

use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};

use super::topics::{parse_filter, validate_topic};
use crate::{
    broker::{ClientInfo as Info, DropReason, EndReason, Stats},
    codec::Version,
    server::BrokerHandle,
};

/// A client as its broker sees it.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct ClientInfo(Info);

impl ClientInfo {
    pub(crate) fn new(info: Info) -> Self {
        Self(info)
    }
}

#[pymethods]
impl ClientInfo {
    /// Client identifier.
    #[getter]
    fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// User name, if any.
    #[getter]
    fn username(&self) -> Option<&str> {
        self.0.username.as_deref()
    }

    /// Whether it is connected, or has only a session.
    #[getter]
    fn connected(&self) -> bool {
        self.0.is_connected
    }

    /// Version of MQTT, as `"5.0"`.
    #[getter]
    fn version(&self) -> &'static str {
        version_name(self.0.version)
    }

    /// Address of the peer, if connected.
    #[getter]
    fn address(&self) -> Option<&str> {
        self.0.address.as_deref()
    }

    /// How many subscriptions it has.
    #[getter]
    fn subscriptions(&self) -> usize {
        self.0.subscriptions
    }

    /// Messages that wait for it.
    #[getter]
    fn queued(&self) -> usize {
        self.0.queued
    }

    /// Messages that it has not acknowledged.
    #[getter]
    fn inflight(&self) -> usize {
        self.0.inflight
    }

    /// All of that by name, for a frame: `polars.DataFrame([info.as_dict() for info in broker.clients])`.
    fn as_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("client_id", self.client_id())?;
        dict.set_item("username", self.username())?;
        dict.set_item("connected", self.connected())?;
        dict.set_item("version", self.version())?;
        dict.set_item("address", self.address())?;
        dict.set_item("subscriptions", self.subscriptions())?;
        dict.set_item("queued", self.queued())?;
        dict.set_item("inflight", self.inflight())?;
        Ok(dict)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let state = if self.0.is_connected { "connected" } else { "away" };
        Ok(format!("ClientInfo({}, {state}, MQTT {})", self.client_id().into_pyobject(py)?.repr()?, self.version()))
    }
}

/// The retained messages of a running broker: topics and payloads, looked up when asked.
#[pyclass(frozen, module = "ferromq", name = "RetainedMessages")]
pub(crate) struct Retained(BrokerHandle);

impl Retained {
    pub(crate) fn new(handle: BrokerHandle) -> Self {
        Self(handle)
    }
}

#[pymethods]
impl Retained {
    /// Those that match a topic filter.
    ///
    /// Raises:
    ///     InvalidTopic: The filter is not valid.
    fn __getitem__<'py>(&self, py: Python<'py>, filter: &str) -> PyResult<Bound<'py, PyDict>> {
        parse_filter(py, filter)?;
        let found = PyDict::new(py);
        for message in self.0.retained(filter, usize::MAX) {
            found.set_item(message.topic(), PyBytes::new(py, message.payload()))?;
        }
        Ok(found)
    }

    /// The payload of one topic.
    #[pyo3(signature = (topic, default = None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        topic: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        validate_topic(py, topic)?;
        let found = self.0.retained(topic, 1);
        Ok(found.first().map(|message| PyBytes::new(py, message.payload()).into_any()).or(default))
    }

    fn __contains__(&self, py: Python<'_>, topic: &str) -> PyResult<bool> {
        validate_topic(py, topic)?;
        Ok(!self.0.retained(topic, 1).is_empty())
    }

    fn __len__(&self) -> usize {
        self.0.retained("#", usize::MAX).len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyIterator>> {
        self.__getitem__(py, "#")?.try_iter()
    }
}

/// How people write a protocol version.
pub(crate) fn version_name(version: Version) -> &'static str {
    match version {
        Version::V3_1 => "3.1",
        Version::V3_1_1 => "3.1.1",
        Version::V5 => "5.0",
    }
}

/// The counters as a dictionary.
pub(crate) fn stats_dict<'py>(py: Python<'py>, stats: &Stats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let counters = [
        ("clients_connected", stats.clients_connected),
        ("clients_disconnected", stats.clients_disconnected),
        ("clients_maximum", stats.clients_maximum),
        ("sessions_expired", stats.sessions_expired),
        ("connections_opened", stats.connections_opened),
        ("bytes_received", stats.bytes_received),
        ("bytes_sent", stats.bytes_sent),
        ("packets_received", stats.packets_received),
        ("packets_sent", stats.packets_sent),
        ("publish_received", stats.publish_received),
        ("publish_sent", stats.publish_sent),
        ("publish_bytes_received", stats.publish_bytes_received),
        ("publish_bytes_sent", stats.publish_bytes_sent),
        ("subscriptions", stats.subscriptions),
        ("shared_subscriptions", stats.shared_subscriptions),
        ("retained_messages", stats.retained_messages),
        ("messages_queued", stats.messages_queued),
        ("messages_inflight", stats.messages_inflight),
        ("bytes_held", stats.bytes_held),
    ];
    for (name, value) in counters {
        dict.set_item(name, value)?;
    }
    let (dropped, ended) = (PyDict::new(py), PyDict::new(py));
    for reason in DropReason::ALL {
        dropped.set_item(reason.name(), stats.dropped(*reason))?;
    }
    for reason in EndReason::ALL {
        ended.set_item(reason.name(), stats.ended(*reason))?;
    }
    dict.set_item("dropped", dropped)?;
    dict.set_item("ended", ended)?;
    Ok(dict)
}
