//! Publishing from Python: the fast path is one call into the client and an awaitable that exists already.
//!
//! A QoS 0 message that finds room is done when the call returns. The end of a QoS 1 or 2 message comes back by number
//! through [`Sink`], many at a time ([`super::pending`]). Only a message that finds no room costs a tokio task.

use std::{collections::HashMap, fmt, future::Future, sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    pybacked::PyBackedStr,
    sync::PyOnceLock,
    types::{PyBytes, PyList, PyString, PyTuple},
};
use tokio::sync::oneshot;

use super::{
    bridge::{Bridge, find_loop},
    core::Core,
    errors,
    flush::flush_soon,
    operation::{Operation, is_turn_due},
    options,
    payload::Data,
    pending::{Duty, Pending, Wake},
    properties::{Keywords, user_properties_tuple},
    telemetry::{self, arrow},
};
use crate::{
    client::{Client, Completion, CompletionSink, Error, Outgoing, Payload, PublishAck, PublishRequest, RequestError},
    codec::{Properties, QoS, ReasonCode, Text},
    telemetry::Messages,
};

/// The end of a publication. For QoS 0 it says that the message was handed to the connection.
#[pyclass(frozen, eq, module = "ferromq", name = "PublishAck")]
#[derive(PartialEq)]
pub(crate) struct Ack(PublishAck);

#[pymethods]
impl Ack {
    /// 0 is success, 0x10 success without any subscriber. Failures are raised.
    #[getter]
    fn reason_code(&self) -> u8 {
        self.0.reason.as_u8()
    }

    /// What the server said about it in words.
    #[getter]
    fn reason_string(&self) -> Option<&str> {
        self.0.properties.reason_string().map(Text::as_str)
    }

    /// User properties of the acknowledgement.
    #[getter]
    fn user_properties<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        user_properties_tuple(py, &self.0.properties)
    }

    fn __hash__(&self) -> u64 {
        self.0.reason.as_u8().into()
    }

    fn __repr__(&self) -> String {
        format!("PublishAck({})", self.0.reason)
    }
}

/// A publication on its way in from Python.
pub(crate) struct Publication<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: Data,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: Properties,
}

impl<'a> Publication<'a> {
    /// What a verb was called with.
    pub(crate) fn extract(
        py: Python<'_>,
        topic: &'a str,
        payload: Option<&Bound<'_, PyAny>>,
        qos: i64,
        retain: bool,
        encode: Option<&str>,
        keywords: &Keywords<'_, '_>,
    ) -> PyResult<Self> {
        let payload = match payload {
            Some(payload) => Data::extract(payload, encode)?,
            // `None` is a value to be encoded, too.
            None if encode == Some("json") => Data::extract(&py.None().into_bound(py), encode)?,
            None => Data::Empty,
        };
        Ok(Self { topic, payload, qos: options::qos(py, qos)?, retain, properties: keywords.to_properties(py)? })
    }

    fn as_outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            topic: self.topic,
            payload: Payload::Borrowed(self.payload.as_slice()),
            qos: self.qos,
            retain: self.retain,
            properties: &self.properties,
        }
    }

    /// The same, owned.
    pub(crate) fn to_request(&self) -> PublishRequest {
        PublishRequest {
            topic: self.topic.to_owned(),
            payload: self.payload.to_bytes(),
            qos: self.qos,
            retain: self.retain,
            properties: self.properties.clone(),
        }
    }

    /// Publishes without ever waiting; nobody hears of the end.
    pub(crate) fn publish_nowait(&self, py: Python<'_>, core: &Arc<Core>) -> PyResult<()> {
        let client = core.client(py)?;
        match client.submit_lazily(&self.as_outgoing(), None) {
            Ok((_, true)) => flush_soon(py, core),
            Ok(_) => Ok(()),
            Err(error) => Err(errors::from_client(py, &error)),
        }
    }

    /// Publishes; an awaitable for the end.
    pub(crate) fn publish<'py>(
        &self,
        py: Python<'py>,
        core: &Arc<Core>,
        timeout: Option<Duration>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let client = core.client(py)?;
        if timeout.is_some() {
            return self.publish_in_task(py, client, timeout);
        }
        let submitted = if self.qos == QoS::AtMostOnce {
            self.submit_lazily(py, core, &client, None).map(|()| None)
        } else {
            let Some(event_loop) = find_loop(py)? else { return self.publish_in_task(py, client, None) };
            self.submit(&event_loop, core, &client).map(Some)
        };
        match submitted {
            Ok(None) => finished_operation(py),
            Ok(Some(pending)) => Operation::publication(py, pending),
            Err(Failure::Client(error)) if waits_for_room(&error) => self.publish_in_task(py, client, None),
            Err(Failure::Client(error)) => Err(errors::from_client(py, &error)),
            Err(Failure::Python(error)) => Err(error),
        }
    }

    /// Publishes and waits for the end on this thread.
    pub(crate) fn publish_blocking(
        &self,
        py: Python<'_>,
        core: &Core,
        timeout: Option<Duration>,
    ) -> PyResult<Py<PyAny>> {
        let client = core.client(py)?;
        match (self.qos, client.try_publish(&self.as_outgoing())) {
            (_, Ok(None)) => return finished(py, Ok(PublishAck::success())),
            (_, Ok(Some(ticket))) => {
                let result = core.process(py)?.block_on(py, within(timeout, "publishing", ticket))?;
                return finished(py, result);
            }
            (_, Err(error)) if waits_for_room(&error) => {}
            (_, Err(error)) => return Err(errors::from_client(py, &error)),
        }
        let request = self.to_request();
        let result = core.process(py)?.block_on(py, within(timeout, "publishing", client.publish(request)))?;
        finished(py, result)
    }

    fn submit(&self, event_loop: &Bound<'_, PyAny>, core: &Arc<Core>, client: &Client) -> Result<Pending, Failure> {
        let (pending, duty) = Pending::new(Bridge::of(event_loop)?);
        let number = core.sink().expect(Waiting::One(duty));
        let submitted = self.submit_lazily(event_loop.py(), core, client, Some(number));
        if submitted.is_err()
            && let Some(Waiting::One(duty)) = core.sink().forget(number)
        {
            duty.forget();
        }
        submitted.map(|()| pending)
    }

    /// Submits what is written when this turn of the loop is over, at the latest.
    #[inline]
    fn submit_lazily(
        &self,
        py: Python<'_>,
        core: &Arc<Core>,
        client: &Client,
        number: Option<u64>,
    ) -> Result<(), Failure> {
        let (_, wants_flush) = client.submit_lazily(&self.as_outgoing(), number)?;
        if wants_flush {
            flush_soon(py, core)?;
        }
        Ok(())
    }

    fn publish_in_task<'py>(
        &self,
        py: Python<'py>,
        client: Client,
        timeout: Option<Duration>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = self.to_request();
        let work = async move { within(timeout, "publishing", client.publish(request)).await };
        Operation::spawn(py, work, |py, ack| finished(py, Ok(ack)))
    }
}

/// Many publications of one QoS, snapshot from Python before any lock is taken.
pub(crate) struct Publications {
    items: Vec<(PyBackedStr, Data)>,
    qos: QoS,
    retain: bool,
    properties: Properties,
}

impl Publications {
    /// Takes `(topic, payload)` pairs, or payloads for one topic, out of any iterable; or rows of a table.
    pub(crate) fn extract(
        messages: &Bound<'_, PyAny>,
        topic: Option<&str>,
        payload: Option<&str>,
        encode: Option<&str>,
        qos: QoS,
        retain: bool,
    ) -> PyResult<Self> {
        let py = messages.py();
        if arrow::is_stream(messages)? {
            let items = rows(messages, topic.unwrap_or("topic"), payload, encode)?;
            return Ok(Self { items, qos, retain, properties: Properties::new() });
        }
        if payload.is_some() {
            return Err(errors::invalid(py, "payload names a column, and messages are no table"));
        }
        if messages.is_instance_of::<PyString>() || messages.is_instance_of::<PyBytes>() {
            let given = messages.get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "publish_many takes many payloads, not one {given}: use publish"
            )));
        }
        let topic: Option<PyBackedStr> = topic.map(|topic| PyString::new(py, topic).try_into()).transpose()?;
        let item = |item: Bound<'_, PyAny>| match &topic {
            Some(topic) => Ok((topic.clone_ref(item.py()), Data::extract(&item, encode)?)),
            None => pair(&item, encode),
        };
        let items = match messages.cast::<PyList>() {
            Ok(list) => list.iter().map(item).collect::<PyResult<Vec<_>>>()?,
            Err(_) => messages.try_iter()?.map(|message| item(message?)).collect::<PyResult<Vec<_>>>()?,
        };
        Ok(Self { items, qos, retain, properties: Properties::new() })
    }

    /// Publishes all; an awaitable for how many there were.
    pub(crate) fn publish<'py>(
        self,
        py: Python<'py>,
        core: &Core,
        timeout: Option<Duration>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let count = self.items.len();
        match self.submit(py, core)? {
            Submitted { done: None, rest, .. } if rest.is_empty() => {
                Operation::finished(count.into_pyobject(py)?.into_any(), count)
            }
            submitted => {
                let work = async move { within(timeout, "publishing", submitted.finish()).await };
                Operation::spawn(py, work, move |py, ()| Ok(count.into_pyobject(py)?.into_any().unbind()))
            }
        }
    }

    /// Publishes all and waits on this thread; how many there were.
    pub(crate) fn publish_blocking(self, py: Python<'_>, core: &Core, timeout: Option<Duration>) -> PyResult<usize> {
        let count = self.items.len();
        let submitted = self.submit(py, core)?;
        if submitted.done.is_some() || !submitted.rest.is_empty() {
            let result = core.process(py)?.block_on(py, within(timeout, "publishing", submitted.finish()))?;
            result.map_err(|error| errors::from_client(py, &error))?;
        }
        Ok(count)
    }

    fn submit(self, py: Python<'_>, core: &Core) -> PyResult<Submitted> {
        let client = core.client(py)?;
        let (sender, receiver) = oneshot::channel();
        let number = core.sink().expect(Waiting::Many { sender, left: 0, failure: None });
        let (taken, open, stopped) = client.submit_many(self.items.iter().map(|item| self.outgoing(item)), number);
        let is_done = core.sink().seal(number, open);
        if let Some(error) = stopped.filter(|error| !waits_for_room(error)) {
            return Err(errors::from_client(py, &error));
        }
        let rest = self.items.iter().skip(taken).map(|item| self.request(item)).collect();
        Ok(Submitted { client, done: (!is_done).then_some(receiver), rest })
    }

    fn outgoing<'a>(&'a self, (topic, payload): &'a (PyBackedStr, Data)) -> Outgoing<'a> {
        Outgoing {
            topic,
            payload: Payload::Borrowed(payload.as_slice()),
            qos: self.qos,
            retain: self.retain,
            properties: &self.properties,
        }
    }

    fn request(&self, (topic, payload): &(PyBackedStr, Data)) -> PublishRequest {
        PublishRequest {
            topic: topic.to_string(),
            payload: payload.to_bytes(),
            qos: self.qos,
            retain: self.retain,
            properties: self.properties.clone(),
        }
    }
}

/// The rows of a table. `topic` is a column, or, where there is none of that name, the topic of all.
fn rows(
    table: &Bound<'_, PyAny>,
    topic: &str,
    payload: Option<&str>,
    encode: Option<&str>,
) -> PyResult<Vec<(PyBackedStr, Data)>> {
    let py = table.py();
    let table = arrow::import(table)?;
    let has = |name: &str| table.schema().column_with_name(name).is_some();
    let column = has(topic).then_some(topic);
    let payload = match (payload, encode) {
        (None, Some("json")) => None,
        (_, Some(other)) => {
            return Err(errors::invalid(py, &format!("rows of a table are encoded as \"json\", not {other:?}")));
        }
        (payload, None) => Some(payload.unwrap_or("payload")),
    };
    let mut topics: HashMap<&str, PyBackedStr> = HashMap::new();
    let mut items = Vec::with_capacity(table.rows());
    for batch in table.batches() {
        let messages = Messages::with(batch, column, payload).map_err(|fault| telemetry::error(py, fault))?;
        for row in 0..messages.len() {
            let name = if column.is_some() { messages.topic(row) } else { topic };
            if !topics.contains_key(name) {
                topics.insert(name, PyString::new(py, name).try_into()?);
            }
            let name = topics[name].clone_ref(py);
            items.push((name, Data::Owned(messages.payload(row).into_owned())));
        }
    }
    Ok(items)
}

/// Publications of which some are under way and the rest found no room.
struct Submitted {
    client: Client,
    done: Option<oneshot::Receiver<Result<(), Error>>>,
    rest: Vec<PublishRequest>,
}

impl Submitted {
    async fn finish(self) -> Result<(), Error> {
        if !self.rest.is_empty() {
            self.client.publish_many(self.rest.iter().map(PublishRequest::as_outgoing)).await?;
        }
        match self.done {
            Some(done) => done.await.unwrap_or(Err(Error::Closed)),
            None => Ok(()),
        }
    }
}

/// Takes the ends of publications from the client's task, and gives them to who waits.
#[derive(Default)]
pub(crate) struct Sink(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    next: u64,
    waiting: HashMap<u64, Waiting, RandomState>,
}

enum Waiting {
    One(Duty),
    Many {
        sender: oneshot::Sender<Result<(), Error>>,
        /// Publications that are not finished; negative while more of them have ended than are known to be open.
        left: isize,
        failure: Option<Error>,
    },
}

impl Sink {
    fn expect(&self, waiting: Waiting) -> u64 {
        let mut entries = self.0.lock();
        entries.next += 1;
        let number = entries.next;
        entries.waiting.insert(number, waiting);
        number
    }

    fn forget(&self, number: u64) -> Option<Waiting> {
        self.0.lock().waiting.remove(&number)
    }

    /// `open` publications carry this number; whether there is nothing to wait for.
    fn seal(&self, number: u64, open: usize) -> bool {
        let mut entries = self.0.lock();
        let Some(Waiting::Many { left, .. }) = entries.waiting.get_mut(&number) else { return true };
        *left += open.cast_signed();
        let (is_over, is_untouched) = (*left == 0, open == 0);
        if is_over {
            entries.finish_many(number);
        }
        is_untouched
    }
}

impl Entries {
    fn finish_many(&mut self, number: u64) {
        if let Some(Waiting::Many { sender, failure, .. }) = self.waiting.remove(&number) {
            // Who waited may have given up.
            let _ = sender.send(failure.map_or(Ok(()), Err));
        }
    }

    fn end_of_many(&mut self, number: u64, result: Result<PublishAck, Error>) {
        let Some(Waiting::Many { left, failure, .. }) = self.waiting.get_mut(&number) else { return };
        *left -= 1;
        if let Err(error) = result {
            failure.get_or_insert(error);
        }
        if *left == 0 {
            self.finish_many(number);
        }
    }
}

impl CompletionSink for Sink {
    fn complete(&self, batch: &mut Vec<Completion>) {
        let mut entries = self.0.lock();
        let mut ended = Vec::with_capacity(batch.len());
        for Completion { number, result } in batch.drain(..) {
            if matches!(entries.waiting.get(&number), Some(Waiting::Many { .. })) {
                entries.end_of_many(number, result);
            } else if let Some(Waiting::One(duty)) = entries.waiting.remove(&number) {
                ended.push((duty, result));
            }
        }
        drop(entries);
        // Who is woken goes on to the next ones at once, and finds them over.
        let wakes: Vec<Wake> = ended.into_iter().filter_map(|(duty, result)| duty.settle(result)).collect();
        for (promise, outcome) in wakes {
            promise.complete(outcome);
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("waiting", &self.0.lock().waiting.len()).finish_non_exhaustive()
    }
}

/// The end of a publication as Python sees it: an object, or an exception.
pub(crate) fn finished(py: Python<'_>, result: Result<PublishAck, Error>) -> PyResult<Py<PyAny>> {
    let ack = result.map_err(|error| errors::from_client(py, &error))?;
    if ack.reason.is_error() {
        return Err(errors::refused(py, ack.reason, &ack.properties));
    }
    if is_plain(&ack) {
        plain_success(py, ack.reason).map(Bound::unbind)
    } else {
        Ok(Py::new(py, Ack(ack))?.into_any())
    }
}

/// Whether there is nothing to be told but a code of success.
pub(crate) fn is_plain(ack: &PublishAck) -> bool {
    matches!(ack.reason, ReasonCode::Success | ReasonCode::NoMatchingSubscribers) && ack.properties.is_empty()
}

/// The end of a publication that is plain: one object for each code.
pub(crate) fn plain_success(py: Python<'_>, reason: ReasonCode) -> PyResult<Bound<'_, PyAny>> {
    static SUCCESS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static NOBODY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let cell = if reason == ReasonCode::Success { &SUCCESS } else { &NOBODY };
    let make = || Py::new(py, Ack(PublishAck { reason, ..PublishAck::success() })).map(Py::into_any);
    cell.get_or_try_init(py, make).map(|ack| ack.bind(py).clone())
}

/// `future`, but no longer than `timeout`.
pub(crate) async fn within<T>(
    timeout: Option<Duration>,
    doing: &str,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(after) = timeout else { return future.await };
    match tokio::time::timeout(after, future).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout { doing: doing.to_owned(), after }),
    }
}

/// The awaitable of a publication that is done: always the same, but when a turn of the loop is due.
fn finished_operation(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static DONE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if is_turn_due(1) {
        return Operation::ready_after_turn(finished(py, Ok(PublishAck::success()))?.into_bound(py));
    }
    let make = || Operation::ready(finished(py, Ok(PublishAck::success()))?.into_bound(py)).map(Bound::unbind);
    DONE.get_or_try_init(py, make).map(|done| done.bind(py).clone())
}

enum Failure {
    Client(Error),
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

/// Whether the publication was refused only because there is no room now; an empty queue it will never fit.
fn waits_for_room(error: &Error) -> bool {
    matches!(error, Error::Request(RequestError::QueueFull { bytes, .. }) if *bytes > 0)
}

fn pair(item: &Bound<'_, PyAny>, encode: Option<&str>) -> PyResult<(PyBackedStr, Data)> {
    let wrong = || PyTypeError::new_err("publish_many takes (topic, payload) pairs, or payloads together with topic=");
    let pair = item.cast::<PyTuple>().map_err(|_| wrong())?;
    if pair.len() != 2 {
        return Err(wrong());
    }
    let topic = pair.get_item(0)?.extract().map_err(|_| wrong())?;
    Ok((topic, Data::extract(&pair.get_item(1)?, encode)?))
}
