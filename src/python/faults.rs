//! `Faults`, `FaultRule` and `ConnectionTrace`: what a test does to packets, and reads of them.

use std::time::Duration;

use pyo3::{prelude::*, types::PyString};

use super::{
    broker::Place,
    clock::{Clock, optional_span, span},
    errors,
    operation::Operation,
    options::{duration, int, number, optional_int},
    runtime::Process,
};
use crate::{
    client::Error,
    codec::{PacketType, ReasonCode, TopicFilter, Version},
    faults::{self, Action, Direction, Select, Unstruck},
};

/// What can go wrong between clients and a broker: loss, delay, repetition, disorder, damage, ends and lies.
///
///     with broker.faults.drop("PUBACK", nth=1) as rule:
///         ...
///     assert rule.hits == 1
///
/// Each verb makes a rule; several rules strike one packet in the order in which they were made. A rule goes on until
/// it is removed, its `with` block is left, or its `nth`, `count` or `for_` is over.
///
/// Selectors, the same for all verbs, each optional:
///
/// * `packet`: `"PUBLISH"`, `"PUBACK"`, ..., or several of them.
/// * `client`: client identifier.
/// * `topic`: topic filter. It selects messages, their acknowledgements, and subscriptions by any of their filters.
/// * `direction`: `"to_broker"` or `"to_client"`.
/// * `nth`: only the n-th packet that matches, the first being 1.
/// * `count`: at most so many.
/// * `for_`: for so long, by `clock`.
/// * `probability`: each only with this chance. What is random is decided by the `seed` of the broker or proxy.
///
/// WebSocket connections are not looked into: rules that select neither packet, client nor topic strike the pieces in
/// which their bytes come.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Faults {
    faults: faults::Faults,
    /// The broker that can end a connection itself; behind a proxy there is none.
    place: Option<std::sync::Arc<Place>>,
}

/// A fault that is made to happen. As a context manager it ends with the block.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct FaultRule(faults::FaultRule);

/// The last packets of one connection. `str()` of it is ready for a report.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct ConnectionTrace(faults::ConnectionTrace);

impl FaultRule {
    fn until_struck(
        &self,
        py: Python<'_>,
        count: u64,
        timeout: Option<f64>,
    ) -> PyResult<impl Future<Output = Result<Result<(), Unstruck>, Error>> + Send + use<>> {
        let timeout = timeout.map(|timeout| duration(py, "timeout", timeout)).transpose()?;
        if let Some(max) = self.0.hits_max().filter(|max| *max < count) {
            let name = self.0.action().name();
            return Err(errors::invalid(py, &format!("{name} strikes {max} times at most, and never {count} times")));
        }
        let (rule, struck) = (self.0.clone(), self.0.struck(count));
        Ok(async move {
            let Some(after) = timeout else { return Ok(struck.await) };
            tokio::time::timeout(after, struck).await.map_err(|_| {
                let (name, hits) = (rule.action().name(), rule.hits());
                Error::Timeout {
                    doing: format!("{name} has struck {hits} of {count} times; waiting for the rest"),
                    after,
                }
            })
        })
    }
}

fn closed(py: Python<'_>, why: Unstruck) -> PyErr {
    errors::closed(py, &why.to_string())
}

/// The selectors of a rule.
struct Selectors<'a, 'py> {
    packet: Option<&'a Bound<'py, PyAny>>,
    client: Option<String>,
    topic: Option<&'a str>,
    direction: Option<&'a str>,
    nth: Option<i64>,
    count: Option<i64>,
    lasts: Option<Duration>,
    probability: f64,
}

impl Selectors<'_, '_> {
    fn to_select(&self, py: Python<'_>) -> PyResult<Select> {
        let topic = self.topic.map(|topic| {
            TopicFilter::new(topic).map_err(|fault| errors::invalid(py, &format!("topic {topic:?}: {fault}")))
        });
        let direction = self.direction.map(|direction| match direction {
            "to_broker" => Ok(Direction::ToBroker),
            "to_client" => Ok(Direction::ToClient),
            other => {
                let wrong = format!("direction is \"to_broker\" or \"to_client\", not {other:?}");
                Err(errors::invalid(py, &wrong))
            }
        });
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(errors::invalid(py, &format!("probability is 0 to 1, not {}", self.probability)));
        }
        let positive = |name, value: Option<i64>| value.map(|value| number(py, name, value, 1..=i64::MAX)).transpose();
        Ok(Select {
            packets: self.packet.map(packets).transpose()?.unwrap_or_default(),
            client: self.client.clone(),
            topic: topic.transpose()?,
            direction: direction.transpose()?,
            nth: positive("nth", self.nth)?,
            count: positive("count", self.count)?,
            lasts: self.lasts,
            probability: (self.probability < 1.0).then_some(self.probability),
        })
    }
}

/// Names of packet types: one, or several.
fn packets(value: &Bound<'_, PyAny>) -> PyResult<Vec<PacketType>> {
    if let Ok(name) = value.cast::<PyString>() {
        return packet(value.py(), name.to_str()?).map(|packet| vec![packet]);
    }
    value.try_iter()?.map(|name| packet(value.py(), name?.cast::<PyString>()?.to_str()?)).collect()
}

fn packet(py: Python<'_>, name: &str) -> PyResult<PacketType> {
    let mut types = (1..=15).filter_map(|bits| PacketType::from_bits(bits, Version::V5));
    types.find(|packet| packet.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
        errors::invalid(
            py,
            &format!("{name:?} is no packet; they are named as in the standard: \"PUBLISH\", \"PUBACK\""),
        )
    })
}

/// A reason code as an argument.
pub(crate) fn reason(py: Python<'_>, code: i64) -> PyResult<ReasonCode> {
    let known = u8::try_from(code).ok().and_then(ReasonCode::from_u8);
    known.ok_or_else(|| errors::invalid(py, &format!("{code:#x} is no MQTT reason code")))
}

/// A reason for ending a connection.
pub(crate) fn disconnect_reason(py: Python<'_>, code: i64) -> PyResult<ReasonCode> {
    // What DISCONNECT cannot carry would be left out, and the client not know why.
    let reason = u8::try_from(code).ok().and_then(ReasonCode::from_u8);
    let reason = reason.filter(|reason| reason.is_error() && reason.is_legal_in(PacketType::Disconnect));
    let wrong = "reason_code is an MQTT reason code from 0x80 that DISCONNECT may have, not";
    reason.ok_or_else(|| errors::invalid(py, &format!("{wrong} {code:#x}")))
}

impl Faults {
    pub(crate) fn new(faults: &faults::Faults, place: Option<std::sync::Arc<Place>>) -> Self {
        Self { faults: faults.clone(), place }
    }

    fn add(&self, py: Python<'_>, selectors: &Selectors<'_, '_>, action: Action) -> PyResult<FaultRule> {
        let select = selectors.to_select(py)?;
        // Tasks that look at the rules hold a lock only for a moment, but never the GIL.
        let rule = py.detach(|| self.faults.add(select, action));
        rule.map(FaultRule).map_err(|fault| errors::invalid(py, &fault.to_string()))
    }

    /// A rule about connections.
    fn add_for(
        &self,
        py: Python<'_>,
        client: Option<String>,
        lasts: Option<Duration>,
        count: Option<i64>,
        action: Action,
    ) -> PyResult<FaultRule> {
        let selectors =
            Selectors { packet: None, client, topic: None, direction: None, nth: None, count, lasts, probability: 1.0 };
        self.add(py, &selectors, action)
    }
}

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments
impl Faults {
    /// The clock that delays and `for_` go by.
    #[getter]
    fn clock(&self) -> Clock {
        Clock::of(self.faults.clock())
    }

    /// The rules that can still strike.
    #[getter]
    fn rules(&self, py: Python<'_>) -> Vec<FaultRule> {
        py.detach(|| self.faults.rules()).into_iter().map(FaultRule).collect()
    }

    /// Packets that are held back, or on their way. While there are any, `Broker.settled` waits.
    #[getter]
    fn held(&self, py: Python<'_>) -> usize {
        py.detach(|| self.faults.held())
    }

    /// Have packets vanish.
    #[pyo3(signature = (packet = None, *, client = None, topic = None, direction = None, nth = None, count = None,
        for_ = None, probability = 1.0))]
    fn drop(
        &self,
        py: Python<'_>,
        packet: Option<Bound<'_, PyAny>>,
        client: Option<String>,
        topic: Option<&str>,
        direction: Option<&str>,
        #[pyo3(from_py_with = optional_int)] nth: Option<i64>,
        #[pyo3(from_py_with = optional_int)] count: Option<i64>,
        #[pyo3(from_py_with = optional_span)] for_: Option<Duration>,
        probability: f64,
    ) -> PyResult<FaultRule> {
        let packet = packet.as_ref();
        let select = Selectors { packet, client, topic, direction, nth, count, lasts: for_, probability };
        self.add(py, &select, Action::Drop)
    }

    /// Have packets come later: `by` so much, and at random up to `jitter` more.
    ///
    /// The order is kept: what is behind them comes later, too.
    #[pyo3(signature = (packet = None, *, by, jitter = Duration::ZERO, client = None, topic = None, direction = None,
        nth = None, count = None, for_ = None, probability = 1.0),
        text_signature = "($self, packet=None, *, by, jitter=0.0, client=None, topic=None, direction=None, nth=None, \
            count=None, for_=None, probability=1.0)")]
    fn delay(
        &self,
        py: Python<'_>,
        packet: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = span)] by: Duration,
        #[pyo3(from_py_with = span)] jitter: Duration,
        client: Option<String>,
        topic: Option<&str>,
        direction: Option<&str>,
        #[pyo3(from_py_with = optional_int)] nth: Option<i64>,
        #[pyo3(from_py_with = optional_int)] count: Option<i64>,
        #[pyo3(from_py_with = optional_span)] for_: Option<Duration>,
        probability: f64,
    ) -> PyResult<FaultRule> {
        let packet = packet.as_ref();
        let select = Selectors { packet, client, topic, direction, nth, count, lasts: for_, probability };
        self.add(py, &select, Action::Delay { by, jitter })
    }

    /// Have packets come again, `copies` times. Copies of a PUBLISH above QoS 0 are marked as sent again.
    #[pyo3(signature = (packet = None, *, copies = 1, client = None, topic = None, direction = None, nth = None,
        count = None, for_ = None, probability = 1.0))]
    fn duplicate(
        &self,
        py: Python<'_>,
        packet: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = int)] copies: i64,
        client: Option<String>,
        topic: Option<&str>,
        direction: Option<&str>,
        #[pyo3(from_py_with = optional_int)] nth: Option<i64>,
        #[pyo3(from_py_with = optional_int)] count: Option<i64>,
        #[pyo3(from_py_with = optional_span)] for_: Option<Duration>,
        probability: f64,
    ) -> PyResult<FaultRule> {
        let packet = packet.as_ref();
        let select = Selectors { packet, client, topic, direction, nth, count, lasts: for_, probability };
        self.add(py, &select, Action::Duplicate { copies: number(py, "copies", copies, 1..=COPIES_MAX)? })
    }

    /// Have packets be overtaken `by` so many others of their direction; `within` this time, whoever comes.
    #[pyo3(signature = (packet = None, *, by = 1, within = Duration::from_secs(1), client = None, topic = None,
        direction = None, nth = None, count = None, for_ = None, probability = 1.0),
        text_signature = "($self, packet=None, *, by=1, within=1.0, client=None, topic=None, direction=None, nth=None, \
            count=None, for_=None, probability=1.0)")]
    fn reorder(
        &self,
        py: Python<'_>,
        packet: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = int)] by: i64,
        #[pyo3(from_py_with = span)] within: Duration,
        client: Option<String>,
        topic: Option<&str>,
        direction: Option<&str>,
        #[pyo3(from_py_with = optional_int)] nth: Option<i64>,
        #[pyo3(from_py_with = optional_int)] count: Option<i64>,
        #[pyo3(from_py_with = optional_span)] for_: Option<Duration>,
        probability: f64,
    ) -> PyResult<FaultRule> {
        let packet = packet.as_ref();
        let select = Selectors { packet, client, topic, direction, nth, count, lasts: for_, probability };
        self.add(py, &select, Action::Reorder { by: number(py, "by", by, 1..=i64::from(u32::MAX))?, within })
    }

    /// Have so many `bits` of packets turned, behind their fixed header.
    #[pyo3(signature = (packet = None, *, bits = 1, client = None, topic = None, direction = None, nth = None,
        count = None, for_ = None, probability = 1.0))]
    fn corrupt(
        &self,
        py: Python<'_>,
        packet: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = int)] bits: i64,
        client: Option<String>,
        topic: Option<&str>,
        direction: Option<&str>,
        #[pyo3(from_py_with = optional_int)] nth: Option<i64>,
        #[pyo3(from_py_with = optional_int)] count: Option<i64>,
        #[pyo3(from_py_with = optional_span)] for_: Option<Duration>,
        probability: f64,
    ) -> PyResult<FaultRule> {
        let packet = packet.as_ref();
        let select = Selectors { packet, client, topic, direction, nth, count, lasts: for_, probability };
        self.add(py, &select, Action::Corrupt { bits: number(py, "bits", bits, 1..=BITS_MAX)? })
    }

    /// Have connections closed in the middle: when `after` bytes of the packets selected have passed on each.
    #[pyo3(signature = (packet = None, *, after = 0, client = None, topic = None, direction = None, nth = None,
        count = None, for_ = None, probability = 1.0))]
    fn cut(
        &self,
        py: Python<'_>,
        packet: Option<Bound<'_, PyAny>>,
        #[pyo3(from_py_with = int)] after: i64,
        client: Option<String>,
        topic: Option<&str>,
        direction: Option<&str>,
        #[pyo3(from_py_with = optional_int)] nth: Option<i64>,
        #[pyo3(from_py_with = optional_int)] count: Option<i64>,
        #[pyo3(from_py_with = optional_span)] for_: Option<Duration>,
        probability: f64,
    ) -> PyResult<FaultRule> {
        let packet = packet.as_ref();
        let select = Selectors { packet, client, topic, direction, nth, count, lasts: for_, probability };
        self.add(py, &select, Action::Cut { after_bytes: number(py, "after", after, 0..=i64::MAX)? })
    }

    /// Have packets say another reason code than they do. The sender knows nothing of it.
    ///
    /// It must be one that this packet can have. Before MQTT 5 only CONNACK and SUBACK have one; other packets are not
    /// struck.
    #[pyo3(signature = (packet, reason, *, client = None, topic = None, direction = None, nth = None, count = None,
        for_ = None, probability = 1.0))]
    fn fake_reason(
        &self,
        py: Python<'_>,
        packet: &str,
        #[pyo3(from_py_with = int)] reason: i64,
        client: Option<String>,
        topic: Option<&str>,
        direction: Option<&str>,
        #[pyo3(from_py_with = optional_int)] nth: Option<i64>,
        #[pyo3(from_py_with = optional_int)] count: Option<i64>,
        #[pyo3(from_py_with = optional_span)] for_: Option<Duration>,
        probability: f64,
    ) -> PyResult<FaultRule> {
        let (code, kind) = (self::reason(py, reason)?, self::packet(py, packet)?);
        if !code.is_legal_in(kind) {
            return Err(errors::invalid(py, &format!("{packet} cannot have the reason code {reason:#x}")));
        }
        let name = PyString::new(py, packet).into_any();
        let packet = Some(&name);
        let select = Selectors { packet, client, topic, direction, nth, count, lasts: for_, probability };
        self.add(py, &select, Action::FakeReason(code))
    }

    /// Limit the rate, for each connection and direction.
    #[pyo3(signature = (bytes_per_second, *, packet = None, client = None, topic = None, direction = None, for_ = None))]
    fn throttle(
        &self,
        py: Python<'_>,
        bytes_per_second: f64,
        packet: Option<Bound<'_, PyAny>>,
        client: Option<String>,
        topic: Option<&str>,
        direction: Option<&str>,
        #[pyo3(from_py_with = optional_span)] for_: Option<Duration>,
    ) -> PyResult<FaultRule> {
        if !(bytes_per_second.is_finite() && bytes_per_second > 0.0) {
            let wrong = format!("bytes_per_second is a number above 0, not {bytes_per_second}");
            return Err(errors::invalid(py, &wrong));
        }
        let (packet, probability) = (packet.as_ref(), 1.0);
        let select = Selectors { packet, client, topic, direction, nth: None, count: None, lasts: for_, probability };
        self.add(py, &select, Action::Throttle { rate: bytes_per_second })
    }

    /// Have the connections that exist now go dead: nothing passes any more, not even their end, and nobody is told.
    ///
    /// New ones are not affected. `hits` of the rule is how many there were; to remove it resets them.
    #[pyo3(signature = (client = None))]
    fn half_open(&self, py: Python<'_>, client: Option<String>) -> PyResult<FaultRule> {
        self.add_for(py, client, None, None, Action::HalfOpen)
    }

    /// Have nothing pass, either way, on old connections and new ones.
    ///
    /// When the rule ends, what was on its way passes.
    #[pyo3(signature = (client = None, *, for_ = None))]
    fn partition(
        &self,
        py: Python<'_>,
        client: Option<String>,
        #[pyo3(from_py_with = optional_span)] for_: Option<Duration>,
    ) -> PyResult<FaultRule> {
        self.add_for(py, client, for_, None, Action::Partition)
    }

    /// Refuse new connections: reset them, or answer CONNECT with a reason.
    ///
    /// Args:
    ///     client: Only of this client, which is known with CONNECT.
    ///     reason: Reason code from 0x80 that CONNACK can have.
    ///     for_: For so long.
    ///     count: At most so many.
    #[pyo3(signature = (*, client = None, reason = None, for_ = None, count = None))]
    fn refuse(
        &self,
        py: Python<'_>,
        client: Option<String>,
        #[pyo3(from_py_with = optional_int)] reason: Option<i64>,
        #[pyo3(from_py_with = optional_span)] for_: Option<Duration>,
        #[pyo3(from_py_with = optional_int)] count: Option<i64>,
    ) -> PyResult<FaultRule> {
        let reason = reason.map(|code| {
            let reason = self::reason(py, code)?;
            let is_refusal = reason.is_error() && reason.is_legal_in(PacketType::ConnAck);
            let wrong = || errors::invalid(py, &format!("CONNACK cannot refuse with the reason code {code:#x}"));
            is_refusal.then_some(reason).ok_or_else(wrong)
        });
        self.add_for(py, client, for_, count, Action::Refuse(reason.transpose()?))
    }

    /// Reset connections, as a network does that fails; how many.
    #[pyo3(signature = (client = None))]
    fn drop_connections(&self, py: Python<'_>, client: Option<&str>) -> usize {
        py.detach(|| self.faults.drop_connections(client))
    }

    /// End the connection of a client with a reason; whether there was one.
    ///
    /// A broker does so itself, as with `Broker.kick`. A proxy says DISCONNECT in its place.
    #[pyo3(signature = (client_id, reason_code = 0x98))]
    fn kick(&self, py: Python<'_>, client_id: &str, #[pyo3(from_py_with = int)] reason_code: i64) -> PyResult<bool> {
        let reason = disconnect_reason(py, reason_code)?;
        let Some(place) = &self.place else { return Ok(py.detach(|| self.faults.kick(client_id, reason))) };
        let handle = place.handle(py)?;
        Ok(py.detach(|| handle.kick(client_id, reason)))
    }

    /// Remove all rules.
    fn clear(&self, py: Python<'_>) {
        py.detach(|| self.faults.clear());
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let (rules, held) = (self.rules(py).len(), self.held(py));
        format!("Faults({rules} rules, {held} packets held)")
    }
}

#[pymethods]
impl FaultRule {
    /// What it does, as the verb that made it is named.
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.action().name()
    }

    /// Packets, or connections, that it has struck.
    #[getter]
    fn hits(&self) -> u64 {
        self.0.hits()
    }

    /// Wait until it has struck `count` times: what it struck is gone by then.
    ///
    /// Args:
    ///     count: How often.
    ///     timeout: How long to wait, seconds; `None` is for ever.
    ///
    /// Raises:
    ///     Timeout: It has not.
    ///     Closed: The rule was removed, or its broker or proxy has stopped.
    ///     InvalidArgument: It strikes less often, by its `nth` or `count`.
    #[pyo3(signature = (count = 1, timeout = None))]
    fn struck<'py>(&self, py: Python<'py>, count: u64, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        Operation::spawn(py, self.until_struck(py, count, timeout)?, |py, struck| {
            struck.map(|()| py.None()).map_err(|why| closed(py, why))
        })
    }

    /// The same, blocking.
    #[pyo3(signature = (count = 1, timeout = None))]
    fn wait_struck(&self, py: Python<'_>, count: u64, timeout: Option<f64>) -> PyResult<()> {
        let struck = self.until_struck(py, count, timeout)?;
        let struck = Process::get(py)?.block_on(py, struck)?.map_err(|error| errors::from_client(py, &error))?;
        struck.map_err(|why| closed(py, why))
    }

    /// Whether it can still strike.
    #[getter]
    fn active(&self, py: Python<'_>) -> bool {
        py.detach(|| self.0.is_active())
    }

    /// End it. A partition is healed; what is delayed stays delayed.
    fn remove(&self, py: Python<'_>) {
        py.detach(|| self.0.remove());
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (exc_type = None, exc_value = None, traceback = None))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: Option<Bound<'_, PyAny>>,
        exc_value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) {
        let _ = (exc_type, exc_value, traceback);
        self.remove(py);
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let state = if self.active(py) { "active" } else { "over" };
        format!("FaultRule({}, {state}, {} hits)", self.kind(), self.hits())
    }
}

impl ConnectionTrace {
    pub(crate) fn all(traces: Vec<faults::ConnectionTrace>) -> Vec<Self> {
        traces.into_iter().map(Self).collect()
    }
}

#[pymethods]
impl ConnectionTrace {
    /// Client identifier; empty before CONNECT.
    #[getter]
    fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// Address of the peer, as `"127.0.0.1:40123"`, `"unix"` or `"memory"`.
    #[getter]
    fn address(&self) -> &str {
        &self.0.address
    }

    /// Whether it is still connected.
    #[getter]
    fn open(&self) -> bool {
        self.0.is_open
    }

    /// One line for each packet.
    ///
    /// Seconds since the connection was made, `>` to the broker or `<` to the client, the packet, and what faults did
    /// to it.
    #[getter]
    fn lines(&self) -> Vec<&str> {
        self.0.lines.iter().map(String::as_str).collect()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("ConnectionTrace({:?}, {} lines)", self.0.client_id, self.0.lines.len())
    }
}

/// Copies of one packet.
const COPIES_MAX: i64 = 1000;

/// Bits turned in one packet.
const BITS_MAX: i64 = 4096;
