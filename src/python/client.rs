//! `Client`: the asynchronous face of a [`Core`]. Extract, call, convert.

use std::sync::Arc;

use pyo3::{prelude::*, types::PyTuple};

use super::{
    core::Core,
    events,
    message::Message,
    operation::Operation,
    options::{ClientArguments, ReconnectArgument, Session, VersionArgument, Will, duration, qos},
    properties::Keywords,
    publish::{Publication, Publications},
    subscription::{Items, SubscribeArguments, Subscribed, Subscription},
};
use crate::{
    client::PublishRequest,
    codec::{ReasonCode, Version},
};

/// The asynchronous client.
#[pyclass(frozen, module = "ferromq", subclass)]
pub(crate) struct Client {
    core: Arc<Core>,
}

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments
impl Client {
    #[new]
    #[pyo3(signature = (server = None, *, client_id = "", version = VersionArgument(Version::V5), username = None, password = None,
        keep_alive = 60, session = None, will = None, reconnect = ReconnectArgument::default(), timeout = 10.0, receive_maximum = 1024,
        max_packet_size = None, max_queued = 100_000, max_queued_bytes = 67_108_864, queue_qos0 = true,
        user_properties = None))]
    fn new(
        py: Python<'_>,
        server: Option<Bound<'_, PyAny>>,
        client_id: &str,
        version: VersionArgument,
        username: Option<&str>,
        password: Option<Bound<'_, PyAny>>,
        keep_alive: u16,
        session: Option<Bound<'_, Session>>,
        will: Option<Bound<'_, Will>>,
        reconnect: ReconnectArgument,
        timeout: f64,
        receive_maximum: u16,
        max_packet_size: Option<u32>,
        max_queued: usize,
        max_queued_bytes: usize,
        queue_qos0: bool,
        user_properties: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let arguments = ClientArguments {
            client_id,
            version: version.0,
            username,
            password: password.as_ref(),
            keep_alive,
            session: session.as_ref(),
            will: will.as_ref(),
            reconnect: reconnect.0,
            timeout,
            receive_maximum,
            max_packet_size,
            max_queued,
            max_queued_bytes,
            queue_qos0,
            user_properties: user_properties.as_ref(),
        };
        Ok(Self { core: Core::new(py, server.as_ref(), &arguments)? })
    }

    fn __aenter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let (py, core) = (slf.py(), Arc::clone(&slf.get().core));
        let this = slf.clone().into_any().unbind();
        Operation::spawn(py, core.connect(py)?, move |_, client| {
            core.connected(client);
            Ok(this)
        })
    }

    #[pyo3(signature = (exc_type = None, exc_value = None, traceback = None))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        exc_type: Option<Bound<'py, PyAny>>,
        exc_value: Option<Bound<'py, PyAny>>,
        traceback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (exc_value, traceback);
        let ending = self.core.disconnect(py, ReasonCode::Success, exc_type.is_some())?;
        Operation::spawn(py, ending, |py, ()| Ok(py.None()))
    }

    fn connect(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Self::__aenter__(slf)
    }

    #[pyo3(signature = (*, with_will = false))]
    fn disconnect<'py>(&self, py: Python<'py>, with_will: bool) -> PyResult<Bound<'py, PyAny>> {
        let reason = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
        let ending = self.core.disconnect(py, reason, false)?;
        Operation::spawn(py, ending, |py, ()| Ok(py.None()))
    }

    #[pyo3(signature = (topic, payload = None, *, qos = 0, retain = false, encode = None, timeout = None,
        message_expiry = None, content_type = None, response_topic = None, correlation_data = None,
        user_properties = None, payload_format = None))]
    fn publish<'py>(
        &self,
        py: Python<'py>,
        topic: &str,
        payload: Option<Bound<'py, PyAny>>,
        qos: u8,
        retain: bool,
        encode: Option<&str>,
        timeout: Option<f64>,
        message_expiry: Option<f64>,
        content_type: Option<&str>,
        response_topic: Option<&str>,
        correlation_data: Option<Bound<'py, PyAny>>,
        user_properties: Option<Bound<'py, PyAny>>,
        payload_format: Option<u8>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keywords = Keywords {
            message_expiry,
            content_type,
            response_topic,
            correlation_data: correlation_data.as_ref(),
            user_properties: user_properties.as_ref(),
            payload_format,
        };
        let timeout = timeout.map(|timeout| duration(py, "timeout", timeout)).transpose()?;
        Publication::extract(py, topic, payload.as_ref(), qos, retain, encode, &keywords)?
            .publish(py, &self.core, timeout)
    }

    #[pyo3(signature = (topic, payload = None, *, qos = 0, retain = false, encode = None, message_expiry = None,
        content_type = None, response_topic = None, correlation_data = None, user_properties = None,
        payload_format = None))]
    fn publish_nowait(
        &self,
        py: Python<'_>,
        topic: &str,
        payload: Option<Bound<'_, PyAny>>,
        qos: u8,
        retain: bool,
        encode: Option<&str>,
        message_expiry: Option<f64>,
        content_type: Option<&str>,
        response_topic: Option<&str>,
        correlation_data: Option<Bound<'_, PyAny>>,
        user_properties: Option<Bound<'_, PyAny>>,
        payload_format: Option<u8>,
    ) -> PyResult<()> {
        let keywords = Keywords {
            message_expiry,
            content_type,
            response_topic,
            correlation_data: correlation_data.as_ref(),
            user_properties: user_properties.as_ref(),
            payload_format,
        };
        let publication = Publication::extract(py, topic, payload.as_ref(), qos, retain, encode, &keywords)?;
        publication.publish_nowait(py, &self.core)
    }

    #[pyo3(signature = (messages, *, topic = None, qos = 0, retain = false, encode = None, timeout = None))]
    fn publish_many<'py>(
        &self,
        py: Python<'py>,
        messages: Bound<'py, PyAny>,
        topic: Option<&str>,
        qos: u8,
        retain: bool,
        encode: Option<&str>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let timeout = timeout.map(|timeout| duration(py, "timeout", timeout)).transpose()?;
        let publications = Publications::extract(&messages, topic, encode, self::qos(py, qos)?, retain)?;
        publications.publish(py, &self.core, timeout)
    }

    #[pyo3(signature = (*filters, qos = 0, maxsize = 65_536, max_bytes = 67_108_864, overflow = "block", ack = "auto",
        no_local = false, retain_as_published = false, retain_handling = "send", user_properties = None))]
    fn subscribe(
        &self,
        py: Python<'_>,
        filters: Bound<'_, PyTuple>,
        qos: u8,
        maxsize: usize,
        max_bytes: usize,
        overflow: &str,
        ack: &str,
        no_local: bool,
        retain_as_published: bool,
        retain_handling: &str,
        user_properties: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Subscription> {
        let arguments = SubscribeArguments {
            filters: &filters,
            qos,
            maxsize,
            max_bytes,
            overflow,
            ack,
            no_local,
            retain_as_published,
            retain_handling,
            user_properties: user_properties.as_ref(),
        };
        Subscription::new(py, Subscribed::new(py, &self.core, &arguments, Items::Messages)?)
    }

    #[pyo3(signature = (*filters))]
    fn unsubscribe<'py>(&self, py: Python<'py>, filters: Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let ending = self.core.unsubscribe(py, &filters)?;
        Operation::spawn(py, ending, |py, ()| Ok(py.None()))
    }

    #[pyo3(signature = (topic, payload = None, *, qos = 0, encode = None, timeout = 10.0, content_type = None,
        message_expiry = None, user_properties = None, payload_format = None))]
    fn request<'py>(
        &self,
        py: Python<'py>,
        topic: &str,
        payload: Option<Bound<'py, PyAny>>,
        qos: u8,
        encode: Option<&str>,
        timeout: f64,
        content_type: Option<&str>,
        message_expiry: Option<f64>,
        user_properties: Option<Bound<'py, PyAny>>,
        payload_format: Option<u8>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keywords = Keywords {
            message_expiry,
            content_type,
            user_properties: user_properties.as_ref(),
            payload_format,
            ..Keywords::default()
        };
        let client = self.core.client(py)?;
        let request: PublishRequest =
            Publication::extract(py, topic, payload.as_ref(), qos, false, encode, &keywords)?.to_request();
        let timeout = duration(py, "timeout", timeout)?;
        let work = async move { client.request(request, timeout).await };
        Operation::spawn(py, work, |py, response| Ok(Py::new(py, Message::new(response, None))?.into_any()))
    }

    #[pyo3(signature = (*filters, qos = 1, maxsize = 65_536, max_bytes = 67_108_864))]
    fn serve(
        &self,
        py: Python<'_>,
        filters: Bound<'_, PyTuple>,
        qos: u8,
        maxsize: usize,
        max_bytes: usize,
    ) -> PyResult<Subscription> {
        let arguments = SubscribeArguments::requests(&filters, qos, maxsize, max_bytes);
        let items = Items::Requests { core: Arc::clone(&self.core), is_blocking: false };
        Subscription::new(py, Subscribed::new(py, &self.core, &arguments, items)?)
    }

    fn events(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        events::reader(py, &self.core)?.items(py)
    }

    #[getter]
    fn client_id(&self) -> String {
        self.core.client_id()
    }

    #[getter]
    fn connected(&self) -> bool {
        self.core.is_connected()
    }

    #[getter]
    fn session_present(&self) -> Option<bool> {
        self.core.session_present()
    }

    #[getter]
    fn state(&self) -> &'static str {
        self.core.state()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyDict>> {
        self.core.stats(py)
    }

    fn __repr__(&self) -> String {
        format!("Client({}, {})", self.core.server(), self.core.state())
    }
}
