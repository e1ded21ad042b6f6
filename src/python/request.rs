//! Request and response, the answering side: a request that came in, and its one answer.

use std::sync::Arc;

use pyo3::{exceptions::PyRuntimeError, prelude::*, types::PyBytes};

use super::{core::Core, message::Message, payload::Data, publish::Publication};
use crate::codec::{Properties, Property, Text};

/// A request to be answered.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Request {
    core: Arc<Core>,
    message: Py<Message>,
    is_blocking: bool,
}

impl Request {
    pub(crate) fn new(core: Arc<Core>, message: Py<Message>, is_blocking: bool) -> Self {
        Self { core, message, is_blocking }
    }
}

#[pymethods]
impl Request {
    #[getter]
    fn message(&self, py: Python<'_>) -> Py<Message> {
        self.message.clone_ref(py)
    }

    #[getter]
    fn topic<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.message.bind(py).getattr("topic")
    }

    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.message.get().inner().payload())
    }

    #[getter]
    fn params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.message.bind(py).getattr("params")
    }

    #[getter]
    fn response_topic(&self) -> Option<String> {
        self.message.get().inner().properties().response_topic().map(Text::to_string)
    }

    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.message.bind(py).call_method0("text")
    }

    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.message.bind(py).call_method0("json")
    }

    #[pyo3(signature = (payload = None, *, encode = None))]
    fn respond<'py>(
        &self,
        py: Python<'py>,
        payload: Option<Bound<'py, PyAny>>,
        encode: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = self.message.get().inner();
        let properties = request.properties();
        let Some(topic) = properties.response_topic() else {
            return Err(PyRuntimeError::new_err("the request names no response topic, so it cannot be answered"));
        };
        let correlation = properties.correlation_data().cloned().map(Property::CorrelationData);
        let publication = Publication {
            topic: topic.as_str(),
            payload: payload.map_or(Ok(Data::Empty), |payload| Data::extract(&payload, encode))?,
            qos: request.qos(),
            retain: false,
            properties: correlation.into_iter().collect::<Properties>(),
        };
        if self.is_blocking {
            return publication.publish_blocking(py, &self.core, None).map(|ack| ack.into_bound(py));
        }
        publication.publish(py, &self.core, None)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Request({})", self.message.bind(py).repr()?))
    }
}
