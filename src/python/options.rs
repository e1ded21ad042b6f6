//! Values that describe a client: will, session, reconnecting; and the keyword arguments as the Rust client wants them.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use pyo3::{
    Borrowed,
    exceptions::{PyOverflowError, PyTypeError},
    prelude::*,
    types::PyBool,
};

use super::{
    errors, payload,
    properties::{Keywords, user_properties, whole_seconds},
    topics::{text, validate_topic},
};
use crate::{
    client,
    codec::{self, Limits, Property, QoS, TopicName, Version},
    session::QueueLimits,
};

/// The message that the server publishes should the client vanish.
///
/// Args:
///     topic: Topic name.
///     payload: Payload.
///     qos: Quality of service.
///     retain: Keep it as the retained message of the topic.
///     delay: How long the server waits for the client to come back first (MQTT 5).
///     encode: As in `Client.publish`, and so for the rest.
///
/// Raises:
///     InvalidTopic: The topic is not valid.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Will(codec::Will);

#[pymethods]
impl Will {
    #[new]
    #[pyo3(signature = (topic, payload = None, *, qos = 0, retain = false, delay = 0.0, encode = None, message_expiry = None,
        content_type = None, response_topic = None, correlation_data = None, user_properties = None,
        payload_format = None))]
    #[allow(clippy::too_many_arguments)] // keyword arguments
    fn new(
        py: Python<'_>,
        topic: &str,
        payload: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = int)] qos: i64,
        retain: bool,
        delay: f64,
        encode: Option<&str>,
        message_expiry: Option<f64>,
        content_type: Option<&str>,
        response_topic: Option<&str>,
        correlation_data: Option<Bound<'_, PyAny>>,
        user_properties: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = optional_int)] payload_format: Option<i64>,
    ) -> PyResult<Self> {
        validate_topic(py, topic)?;
        let keywords = Keywords {
            message_expiry,
            content_type,
            response_topic,
            correlation_data: correlation_data.as_ref(),
            user_properties: user_properties.as_ref(),
            payload_format,
        };
        let mut properties = keywords.to_properties(py)?;
        let delay = whole_seconds(py, "delay", delay)?;
        if delay > 0 {
            properties.push(Property::WillDelayInterval(delay));
        }
        let payload = match payload {
            Some(payload) => payload::Data::extract(&payload, encode)?.to_bytes(),
            None => Bytes::new(),
        };
        let topic = TopicName::parse(text(py, topic)?, &Limits::default())
            .map_err(|fault| errors::invalid(py, &fault.to_string()))?;
        Ok(Self(codec::Will { topic, payload, qos: self::qos(py, qos)?, retain, properties }))
    }

    /// Topic name.
    #[getter]
    fn topic(&self) -> &str {
        self.0.topic.as_str()
    }

    /// Payload.
    #[getter]
    fn payload(&self) -> &[u8] {
        &self.0.payload
    }

    /// Quality of service.
    #[getter]
    fn qos(&self) -> u8 {
        self.0.qos as u8
    }

    /// Whether it is retained.
    #[getter]
    fn retain(&self) -> bool {
        self.0.retain
    }

    /// Seconds that the server waits first.
    #[getter]
    fn delay(&self) -> u32 {
        self.0.properties.will_delay_interval().unwrap_or(0)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (topic, size) = (self.topic().into_pyobject(py)?.repr()?, self.0.payload.len());
        let retain = if self.0.retain { "True" } else { "False" };
        Ok(format!("Will({topic}, {size} bytes, qos={}, retain={retain})", self.qos()))
    }
}

/// How to reconnect: the n-th wait is random between 0 and `min * factor ** n`, at most `max` seconds.
///
/// Args:
///     min: Bound of the first wait.
///     max: Bound of all waits.
///     factor: Growth of the bound.
///     attempts: Attempts in a row before giving up; `None` is never.
///     stable_after: A connection that lasted this long starts with short waits again.
///     first: Retry the very first connection, too, instead of raising: connecting waits until it succeeds, or
///         `attempts` have failed.
#[pyclass(frozen, module = "ferromq", eq)]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reconnect(client::Reconnect);

#[pymethods]
impl Reconnect {
    #[new]
    #[pyo3(signature = (*, min = 0.1, max = 30.0, factor = 2.0, attempts = None, stable_after = 10.0, first = false))]
    fn new(
        py: Python<'_>,
        min: f64,
        max: f64,
        factor: f64,
        #[pyo3(from_py_with = optional_int)] attempts: Option<i64>,
        stable_after: f64,
        first: bool,
    ) -> PyResult<Self> {
        if min > max || factor < 1.0 {
            return Err(errors::invalid(py, "min must not exceed max, and factor must be at least 1"));
        }
        Ok(Self(client::Reconnect {
            min: duration(py, "min", min)?,
            max: duration(py, "max", max)?,
            factor,
            attempts_max: attempts.map(|count| number(py, "attempts", count, 0..=i64::from(u32::MAX))).transpose()?,
            stable_after: duration(py, "stable_after", stable_after)?,
            seed: None,
            retry_first: first,
        }))
    }

    /// Bound of the first wait.
    #[getter]
    fn min(&self) -> f64 {
        self.0.min.as_secs_f64()
    }

    /// Bound of all waits.
    #[getter]
    fn max(&self) -> f64 {
        self.0.max.as_secs_f64()
    }

    /// Growth of the bound.
    #[getter]
    fn factor(&self) -> f64 {
        self.0.factor
    }

    /// Attempts in a row before giving up.
    #[getter]
    fn attempts(&self) -> Option<u32> {
        self.0.attempts_max
    }

    /// Seconds after which a connection counts as stable.
    #[getter]
    fn stable_after(&self) -> f64 {
        self.0.stable_after.as_secs_f64()
    }

    /// Whether the first connection is retried.
    #[getter]
    fn first(&self) -> bool {
        self.0.retry_first
    }

    fn __repr__(&self) -> String {
        let attempts = self.attempts().map_or("None".to_owned(), |attempts| attempts.to_string());
        format!("Reconnect(min={}, max={}, factor={}, attempts={attempts})", self.min(), self.max(), self.factor())
    }
}

/// A session that outlives its connection: the server keeps subscriptions and queues messages meanwhile.
///
/// Args:
///     expiry: How long, in seconds; infinite by default. Before MQTT 5 only infinite and 0 (no longer than the
///         connection) can be asked for, and other values are refused when the client is made.
///     clean_start: Forget what the server kept from earlier runs (MQTT 5).
///     spool: Path of a file that keeps publications with QoS 1 and 2, and what QoS 2 needs, until they are done, so
///         that they survive the process: the next one with the same `client_id` and `spool` completes them. What was
///         accepted is in the file a few milliseconds later; `Client.flush` waits for that. Needs a `client_id`.
///     spool_bytes_max: Bytes of publications in the spool, which are in memory, too; what does not fit waits, or
///         raises `QueueFull`.
///
/// Raises:
///     InvalidArgument: A `spool` with `clean_start`, or without an `expiry`.
#[pyclass(frozen, module = "ferromq", eq)]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Session {
    expiry: u32,
    clean_start: bool,
    spool: Option<PathBuf>,
    spool_bytes_max: usize,
}

#[pymethods]
impl Session {
    #[new]
    // 1e999 is how Python writes an infinite number without a call.
    #[pyo3(signature = (expiry = f64::INFINITY, *, clean_start = false, spool = None, spool_bytes_max = 67_108_864),
        text_signature = "(expiry=1e999, *, clean_start=False, spool=None, spool_bytes_max=67108864)")]
    fn new(
        py: Python<'_>,
        expiry: f64,
        clean_start: bool,
        spool: Option<PathBuf>,
        #[pyo3(from_py_with = int)] spool_bytes_max: i64,
    ) -> PyResult<Self> {
        let expiry = if expiry == f64::INFINITY { u32::MAX } else { whole_seconds(py, "expiry", expiry)? };
        if spool.is_some() && (clean_start || expiry == 0) {
            let what = "a spool goes on where the last process stopped: it needs an expiry, and no clean_start";
            return Err(errors::invalid(py, what));
        }
        let spool_bytes_max = number(py, "spool_bytes_max", spool_bytes_max, 1..=i64::MAX)?;
        Ok(Self { expiry, clean_start, spool, spool_bytes_max })
    }

    /// Seconds.
    #[getter]
    fn expiry(&self) -> f64 {
        if self.expiry == u32::MAX { f64::INFINITY } else { f64::from(self.expiry) }
    }

    /// Whether earlier state is forgotten.
    #[getter]
    fn clean_start(&self) -> bool {
        self.clean_start
    }

    /// The file that keeps publications.
    #[getter]
    fn spool(&self) -> Option<&Path> {
        self.spool.as_deref()
    }

    /// Bytes of publications in it.
    #[getter]
    fn spool_bytes_max(&self) -> usize {
        self.spool_bytes_max
    }

    fn __repr__(&self) -> String {
        let clean_start = if self.clean_start { "True" } else { "False" };
        let spool = self.spool.as_ref().map(|path| format!(", spool={:?}", path.display().to_string()));
        format!("Session(expiry={}, clean_start={clean_start}{})", self.expiry(), spool.unwrap_or_default())
    }
}

/// The keyword arguments of `Client` and `SyncClient`.
pub(crate) struct ClientArguments<'a, 'py> {
    pub(crate) client_id: &'a str,
    pub(crate) version: Version,
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a Bound<'py, PyAny>>,
    pub(crate) keep_alive: i64,
    pub(crate) session: Option<&'a Bound<'py, Session>>,
    pub(crate) will: Option<&'a Bound<'py, Will>>,
    pub(crate) reconnect: Option<client::Reconnect>,
    pub(crate) timeout: f64,
    pub(crate) receive_maximum: i64,
    pub(crate) max_packet_size: Option<i64>,
    pub(crate) max_queued: i64,
    pub(crate) max_queued_bytes: i64,
    pub(crate) queue_qos0: bool,
    pub(crate) user_properties: Option<&'a Bound<'py, PyAny>>,
    pub(crate) tls: Option<&'a Bound<'py, super::tls::ClientTls>>,
    pub(crate) clock: Option<&'a Bound<'py, super::clock::Clock>>,
}

impl ClientArguments<'_, '_> {
    /// As the Rust client wants them, without servers and completions.
    pub(crate) fn to_options(&self, py: Python<'_>) -> PyResult<client::ClientOptions> {
        self.check_version(py)?;
        let timeout = duration(py, "timeout", self.timeout)?;
        let mut options = client::ClientOptions {
            connect_timeout: timeout,
            request_timeout: timeout,
            ..client::ClientOptions::default()
        };
        options.reconnect = self.reconnect;
        if let Some(tls) = self.tls {
            options.tls = tls.get().inner().clone();
        }
        if let Some(clock) = self.clock {
            options.clock = clock.get().inner().clone();
        }
        let session = &mut options.session;
        session.version = self.version;
        session.client_id = text(py, &self.client_id(py)?)?;
        session.username = self.username.map(|name| text(py, name)).transpose()?;
        session.password = self
            .password
            .map(|password| payload::Data::extract(password, None))
            .transpose()?
            .map(|data| data.to_bytes());
        session.keep_alive = number(py, "keep_alive", self.keep_alive, 0..=65_535)?;
        session.connack_timeout = timeout;
        session.ping_timeout = session.ping_timeout.min(timeout);
        session.receive_maximum = number(py, "receive_maximum", self.receive_maximum, 1..=65_535)?;
        session.will = self.will.map(|will| will.get().0.clone());
        if let Some(kept) = self.session.map(Bound::get) {
            // Before MQTT 5 one flag says both what is forgotten and how long the session lives.
            session.clean_start = kept.clean_start || (kept.expiry == 0 && !self.version.is_v5());
            session.session_expiry = kept.expiry;
        }
        if let Some(bytes) = self.max_packet_size {
            session.limits.packet_bytes_max = number(py, "max_packet_size", bytes, 1..=PACKET_BYTES_MAX)?;
        }
        session.queue = QueueLimits {
            messages_max: number(py, "max_queued", self.max_queued, 0..=i64::MAX)?,
            bytes_max: number(py, "max_queued_bytes", self.max_queued_bytes, 0..=i64::MAX)?,
            drop_oldest: false,
        };
        if let Some(kept) = self.session.map(Bound::get).filter(|kept| kept.spool.is_some()) {
            if self.client_id.is_empty() {
                return Err(errors::invalid(py, "a spool is found again by its client identifier: pass client_id="));
            }
            session.queue.bytes_max = session.queue.bytes_max.max(kept.spool_bytes_max);
            options.spool_bytes_max = kept.spool_bytes_max;
        }
        let session = &mut options.session;
        session.queue_qos0 = self.queue_qos0;
        if let Some(pairs) = self.user_properties {
            session.user_properties = user_properties(pairs)?;
        }
        Ok(options)
    }

    /// The file that keeps publications.
    pub(crate) fn spool(&self) -> Option<PathBuf> {
        self.session.and_then(|session| session.get().spool.clone())
    }

    /// Refuses what this version of MQTT has no way to carry: dropped silently, a will would come too early, and a
    /// session never end.
    fn check_version(&self, py: Python<'_>) -> PyResult<()> {
        if self.version.is_v5() {
            return Ok(());
        }
        let needs_v5 = |what: &str| Err(errors::invalid(py, &format!("{what} needs MQTT 5: pass version=5")));
        if self.user_properties.is_some() {
            return needs_v5("user_properties");
        }
        if let Some(property) = self.will.and_then(|will| will.get().0.properties.iter().next()) {
            return needs_v5(&format!("{} of Will", will_argument(property)));
        }
        match self.session.map(Bound::get) {
            Some(Session { expiry: 1..u32::MAX, .. }) => needs_v5("a Session that expires, but not at once,"),
            Some(Session { expiry: u32::MAX, clean_start: true, .. }) => {
                needs_v5("a Session with a clean_start that is kept afterwards")
            }
            _ => Ok(()),
        }
    }

    /// The client identifier, made up where the server cannot do it.
    fn client_id(&self, py: Python<'_>) -> PyResult<String> {
        if !self.client_id.is_empty() || self.version.is_v5() {
            return Ok(self.client_id.to_owned());
        }
        if self.session.is_some_and(|session| session.get().expiry > 0) {
            // [MQTT-3.1.3-7] of MQTT 3.1.1
            return Err(errors::invalid(py, "a session is found again by its client identifier: pass client_id="));
        }
        Ok(if self.version == Version::V3_1 { made_up_id() } else { String::new() })
    }
}

/// The argument of `Will` that a property comes from.
fn will_argument(property: &Property) -> &'static str {
    match property {
        Property::WillDelayInterval(_) => "delay",
        Property::MessageExpiryInterval(_) => "message_expiry",
        Property::ContentType(_) => "content_type",
        Property::ResponseTopic(_) => "response_topic",
        Property::CorrelationData(_) => "correlation_data",
        Property::PayloadFormatIndicator(_) => "payload_format",
        _ => "user_properties",
    }
}

/// MQTT 3.1 has every client name itself, in 1 to 23 characters.
fn made_up_id() -> String {
    let mut hasher = RandomState::new().build_hasher();
    // A forked child has its parent's random state.
    hasher.write_u32(std::process::id());
    format!("ferromq-{:015x}", hasher.finish() >> 4)
}

/// The argument `version`: 5, 4 or 3 as on the wire, or "5.0", "3.1.1" or "3.1" as people say.
pub(crate) struct VersionArgument(pub(crate) Version);

impl<'py> FromPyObject<'_, 'py> for VersionArgument {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match value.str()?.to_str()? {
            "5" | "5.0" => Ok(Self(Version::V5)),
            "4" | "3.1.1" => Ok(Self(Version::V3_1_1)),
            "3" | "3.1" => Ok(Self(Version::V3_1)),
            other => Err(errors::invalid(value.py(), &format!("version is 5, 4 (3.1.1) or 3 (3.1), not {other}"))),
        }
    }
}

/// The argument `reconnect`: how, or whether with the defaults.
pub(crate) struct ReconnectArgument(pub(crate) Option<client::Reconnect>);

impl Default for ReconnectArgument {
    fn default() -> Self {
        Self(Some(client::Reconnect::default()))
    }
}

impl<'py> FromPyObject<'_, 'py> for ReconnectArgument {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(reconnect) = value.cast::<Reconnect>() {
            return Ok(Self(Some(reconnect.get().0)));
        }
        if value.is_none() {
            return Ok(Self(None));
        }
        let Ok(is_wanted) = value.cast::<PyBool>() else {
            let given = value.get_type();
            return Err(PyTypeError::new_err(format!("reconnect is True, False, None or a Reconnect, not {given}")));
        };
        Ok(if is_wanted.is_true() { Self::default() } else { Self(None) })
    }
}

/// A quality of service.
pub(crate) fn qos(py: Python<'_>, qos: i64) -> PyResult<QoS> {
    let known = u8::try_from(qos).ok().and_then(QoS::from_bits);
    known.ok_or_else(|| errors::invalid(py, &format!("qos is 0, 1 or 2, not {qos}")))
}

/// A whole number as an argument. Whatever does not fit is far out of any range, which [`number`] tells with a name.
pub(crate) fn int(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    match value.extract::<i64>() {
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            Ok(if value.lt(0)? { i64::MIN } else { i64::MAX })
        }
        result => result,
    }
}

/// The same for an argument that may be `None`.
pub(crate) fn optional_int(value: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
    if value.is_none() { Ok(None) } else { int(value).map(Some) }
}

/// The argument `name`, if it is in `range`.
pub(crate) fn number<T: TryFrom<i64>>(
    py: Python<'_>,
    name: &str,
    value: i64,
    range: RangeInclusive<i64>,
) -> PyResult<T> {
    let number = Some(value).filter(|value| range.contains(value)).and_then(|value| T::try_from(value).ok());
    number.ok_or_else(|| {
        let (least, most) = range.into_inner();
        let wanted = if most == i64::MAX { format!("at least {least}") } else { format!("{least} to {most}") };
        errors::invalid(py, &format!("{name} is {wanted}, not {value}"))
    })
}

/// A number of seconds.
pub(crate) fn duration(py: Python<'_>, name: &str, seconds: f64) -> PyResult<Duration> {
    // A century: far beyond any use, and within what clocks can add.
    const SECONDS_MAX: f64 = 100.0 * 365.0 * 86_400.0;
    if seconds.is_nan() || seconds < 0.0 {
        return Err(errors::invalid(py, &format!("{name} is a number of seconds, not {seconds}")));
    }
    Ok(Duration::from_secs_f64(seconds.min(SECONDS_MAX)))
}

/// Largest packet that the format can hold.
const PACKET_BYTES_MAX: i64 = 268_435_460;
