//! Request and response, the answering side: a request that came in, and its one answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use pyo3::{exceptions::PyRuntimeError, prelude::*, types::PyBytes};

use super::{core::Core, message::Message, properties::Keywords, publish::Publication};
use crate::{
    client,
    codec::{Limits, Property, Text, topic::check_name},
};

/// A request that came in with `Client.serve`, to be answered once.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Request(Incoming);

/// A request that came in with `SyncClient.serve`, to be answered once.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct SyncRequest(Incoming);

/// What both are.
struct Incoming {
    core: Arc<Core>,
    message: Py<Message>,
    is_answered: AtomicBool,
}

/// Whether a message can be answered: it names a topic to answer to. Others are no requests, whoever sent them.
pub(crate) fn is_request(message: &client::Message) -> bool {
    message.properties().response_topic().is_some_and(|topic| check_name(topic, &Limits::default()).is_ok())
}

/// A request object for the asynchronous client or for the blocking one.
pub(crate) fn request_object(
    py: Python<'_>,
    core: Arc<Core>,
    message: Py<Message>,
    is_blocking: bool,
) -> PyResult<Bound<'_, PyAny>> {
    let incoming = Incoming { core, message, is_answered: AtomicBool::new(false) };
    if is_blocking {
        return Ok(Bound::new(py, SyncRequest(incoming))?.into_any());
    }
    Ok(Bound::new(py, Request(incoming))?.into_any())
}

impl Incoming {
    fn attribute<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.message.bind(py).getattr(name)
    }

    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.message.get().inner().payload())
    }

    fn response_topic(&self) -> Option<String> {
        self.message.get().inner().properties().response_topic().map(Text::to_string)
    }

    /// Publishes the answer by `publish`, which is done once.
    fn respond<T>(
        &self,
        py: Python<'_>,
        payload: Option<Bound<'_, PyAny>>,
        encode: Option<&str>,
        publish: impl FnOnce(&Publication<'_>) -> PyResult<T>,
    ) -> PyResult<T> {
        let request = self.message.get().inner();
        let properties = request.properties();
        let Some(topic) = properties.response_topic() else {
            return Err(PyRuntimeError::new_err("the request names no response topic, so it cannot be answered"));
        };
        let correlation = properties.correlation_data().cloned().map(Property::CorrelationData);
        let keywords = Keywords::default();
        let qos = i64::from(request.qos() as u8);
        let mut response = Publication::extract(py, topic, payload.as_ref(), qos, false, encode, &keywords)?;
        response.properties = correlation.into_iter().collect();
        if self.is_answered.swap(true, Ordering::AcqRel) {
            return Err(PyRuntimeError::new_err("the request was answered already"));
        }
        // An answer that could not be sent at all may be tried again.
        publish(&response).inspect_err(|_| self.is_answered.store(false, Ordering::Release))
    }

    fn describe(&self, py: Python<'_>, class: &str) -> PyResult<String> {
        Ok(format!("{class}({})", self.message.bind(py).repr()?))
    }
}

#[pymethods]
impl Request {
    /// The whole message.
    #[getter]
    fn message(&self, py: Python<'_>) -> Py<Message> {
        self.0.message.clone_ref(py)
    }

    /// Topic name.
    #[getter]
    fn topic<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.attribute(py, "topic")
    }

    /// The payload, copied out.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.0.payload(py)
    }

    /// What stood in the topic for each `{name}` of the filter.
    #[getter]
    fn params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.attribute(py, "params")
    }

    /// Where the answer goes.
    #[getter]
    fn response_topic(&self) -> Option<String> {
        self.0.response_topic()
    }

    /// The payload as UTF-8 text.
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.attribute(py, "text")?.call0()
    }

    /// The payload as JSON.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.attribute(py, "json")?.call0()
    }

    /// Answer with the QoS of the request.
    ///
    /// Raises:
    ///     RuntimeError: The request was answered already.
    #[pyo3(signature = (payload = None, *, encode = None))]
    fn respond<'py>(
        &self,
        py: Python<'py>,
        payload: Option<Bound<'py, PyAny>>,
        encode: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.0.respond(py, payload, encode, |response| response.publish(py, &self.0.core, None))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.0.describe(py, "Request")
    }
}

#[pymethods]
impl SyncRequest {
    /// The whole message.
    #[getter]
    fn message(&self, py: Python<'_>) -> Py<Message> {
        self.0.message.clone_ref(py)
    }

    /// Topic name.
    #[getter]
    fn topic<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.attribute(py, "topic")
    }

    /// The payload, copied out.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.0.payload(py)
    }

    /// What stood in the topic for each `{name}` of the filter.
    #[getter]
    fn params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.attribute(py, "params")
    }

    /// Where the answer goes.
    #[getter]
    fn response_topic(&self) -> Option<String> {
        self.0.response_topic()
    }

    /// The payload as UTF-8 text.
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.attribute(py, "text")?.call0()
    }

    /// The payload as JSON.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.attribute(py, "json")?.call0()
    }

    /// Answer with the QoS of the request, and wait for the acknowledgement.
    ///
    /// Raises:
    ///     RuntimeError: The request was answered already.
    #[pyo3(signature = (payload = None, *, encode = None))]
    fn respond(&self, py: Python<'_>, payload: Option<Bound<'_, PyAny>>, encode: Option<&str>) -> PyResult<Py<PyAny>> {
        self.0.respond(py, payload, encode, |response| response.publish_blocking(py, &self.0.core, None))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.0.describe(py, "SyncRequest")
    }
}
