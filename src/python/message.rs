//! A received message: everything but its bytes is made when Python asks for it.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyBytes, PyDict, PyString},
};

use super::{buffer, operation::Operation, options::int, properties::Properties, runtime::Local, topics::Pattern};
use crate::{
    client::{self, Client},
    codec::ReasonCode,
};

/// What all messages of a subscription share.
pub(crate) struct Context {
    /// The filters, with names of levels.
    pub(crate) patterns: Vec<Pattern>,
    /// Who acknowledges by hand.
    pub(crate) acknowledges: Option<Local<Client>>,
}

/// A message that came in.
///
/// `memoryview(message)` shows the payload without a copy. Everything else is made when asked for, and made again when
/// asked again, so keep what you use often.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Message {
    message: client::Message,
    context: Option<Arc<Context>>,
}

impl Message {
    pub(crate) fn new(message: client::Message, context: Option<Arc<Context>>) -> Self {
        // A small message would keep the whole read buffer alive for as long as somebody keeps it.
        let message = if message.payload().len() <= DETACHED_BYTES_MAX { message.detach() } else { message };
        Self { message, context }
    }

    pub(crate) fn inner(&self) -> &client::Message {
        &self.message
    }

    pub(crate) fn topic_object<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        topic_string(py, self.message.topic())
    }
}

#[pymethods]
impl Message {
    /// Topic name.
    #[getter]
    fn topic<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        self.topic_object(py)
    }

    /// The payload, copied out.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.message.payload())
    }

    /// Quality of service it was delivered with.
    #[getter]
    fn qos(&self) -> u8 {
        self.message.qos() as u8
    }

    /// Whether it comes from the retained messages, or was published as one (`retain_as_published`).
    #[getter]
    fn retain(&self) -> bool {
        self.message.retain()
    }

    /// Whether the server has sent it before.
    #[getter]
    fn dup(&self) -> bool {
        self.message.dup()
    }

    /// MQTT 5 properties; all absent in older versions.
    #[getter]
    fn properties(&self) -> Properties {
        Properties::new(self.message.properties())
    }

    /// The same as `properties`, for short.
    #[getter]
    fn props(&self) -> Properties {
        self.properties()
    }

    /// When it was read from the socket, as `time.time()` counts.
    #[getter]
    #[allow(clippy::cast_precision_loss)] // 53 bits of microseconds last until the year 2255
    fn received_at(&self) -> f64 {
        self.message.received_at_us() as f64 / 1e6
    }

    /// What stood in the topic for each `{name}` of the filter.
    #[getter]
    fn params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let topic = self.message.topic();
        let patterns = self.context.as_ref().map_or(&[][..], |context| &context.patterns);
        match patterns.iter().find(|pattern| pattern.filter().matches(topic)) {
            Some(pattern) => pattern.params(py, topic),
            None => Ok(PyDict::new(py)),
        }
    }

    /// The payload as text.
    ///
    /// Raises:
    ///     UnicodeDecodeError: It is none.
    #[pyo3(signature = (encoding = "utf-8", errors = "strict"))]
    fn text<'py>(&self, py: Python<'py>, encoding: &str, errors: &str) -> PyResult<Bound<'py, PyAny>> {
        if let ("utf-8", Ok(text)) = (encoding, std::str::from_utf8(self.message.payload())) {
            return Ok(PyString::new(py, text).into_any());
        }
        self.payload(py).call_method1(pyo3::intern!(py, "decode"), (encoding, errors))
    }

    /// The payload as JSON.
    ///
    /// Raises:
    ///     ValueError: It is none.
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import(pyo3::intern!(py, "json"))?.call_method1(pyo3::intern!(py, "loads"), (self.payload(py),))
    }

    /// Acknowledge it, if subscribed with `ack="manual"`. Nothing happens for QoS 0 and for a second time.
    ///
    /// Args:
    ///     reason_code: 0x80 and above refuses the message (MQTT 5).
    ///
    /// Raises:
    ///     RuntimeError: The subscription acknowledges by itself.
    ///     InvalidArgument: No such reason code.
    #[pyo3(signature = (reason_code = 0))]
    fn ack<'py>(&self, py: Python<'py>, #[pyo3(from_py_with = int)] reason_code: i64) -> PyResult<Bound<'py, PyAny>> {
        let Some(client) = self.context.as_ref().and_then(|context| context.acknowledges.as_ref()) else {
            let message = "messages are acknowledged by hand only if subscribed with ack=\"manual\"";
            return Err(PyRuntimeError::new_err(message));
        };
        let reason = u8::try_from(reason_code).ok().and_then(ReasonCode::from_u8).ok_or_else(|| {
            super::errors::invalid(py, &format!("reason_code is an MQTT reason code, not {reason_code}"))
        })?;
        client.try_get(py)?.acknowledge(self.message.ack_handle(), reason);
        Operation::finished(py.None().into_bound(py), 1)
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.payload(py)
    }

    fn __len__(&self) -> usize {
        self.message.payload().len()
    }

    /// A message without payload is a message nevertheless.
    #[allow(clippy::unused_self)] // a method of Python's
    fn __bool__(&self) -> bool {
        true
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let payload = self.message.payload();
        let shown = PyBytes::new(py, payload.get(..REPR_BYTES_MAX).unwrap_or(payload)).repr()?;
        let more = if payload.len() > REPR_BYTES_MAX { format!("... {} bytes", payload.len()) } else { String::new() };
        let topic = self.topic_object(py).repr()?.to_string();
        let retain = if self.message.retain() { ", retain=True" } else { "" };
        Ok(format!("Message({topic}, {shown}{more}, qos={}{retain})", self.qos()))
    }

    #[allow(unsafe_code)]
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut pyo3::ffi::Py_buffer,
        flags: std::ffi::c_int,
    ) -> PyResult<()> {
        let payload: *const [u8] = slf.get().message.payload();
        // SAFETY: the interpreter passes a `view` to be filled; the payload is immutable and lives as long as the
        // message, to which the view holds a reference.
        unsafe { buffer::fill(slf.into_any(), payload, view, flags) }
    }
}

/// The string of a topic. Devices publish to the same topics again and again, so recent ones are kept.
pub(crate) fn topic_string<'py>(py: Python<'py>, topic: &str) -> Bound<'py, PyString> {
    let hash = FixedState::with_seed(0).hash_one(topic) as usize;
    let Some(mut cache) = TOPICS.try_lock() else { return PyString::new(py, topic) };
    if cache.is_empty() {
        cache.resize_with(TOPICS_MAX, || None);
    }
    let slot = &mut cache[hash % TOPICS_MAX];
    if let Some((known, string)) = slot
        && **known == *topic
    {
        return string.bind(py).clone();
    }
    let string = PyString::new(py, topic);
    let replaced = slot.replace((topic.into(), string.clone().unbind()));
    drop(cache);
    drop(replaced);
    string
}

/// Slots of the table of topics.
type Topics = Vec<Option<(Box<str>, Py<PyString>)>>;

static TOPICS: Mutex<Topics> = Mutex::new(Vec::new());

/// Topics whose strings are kept; a direct-mapped table, so that a miss costs one replacement.
const TOPICS_MAX: usize = 4096;

/// Up to this size the copy costs about what sharing costs.
const DETACHED_BYTES_MAX: usize = 1024;

const REPR_BYTES_MAX: usize = 40;
