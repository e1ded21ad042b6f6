//! A subscription as Python has it: options, the bounded mailbox of the Rust client, and the streams that read it.
//!
//! SUBSCRIBE is sent by `__aenter__`, by awaiting, or by beginning to iterate. From the mailbox messages are taken in
//! small bites, so that the overflow policy has its say over all that Python has not seen.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyDict, PyString, PyTuple, PyType},
};
use tokio::sync::watch;

use super::{
    core::Core,
    errors,
    message::{Context, Message},
    operation::Operation,
    options::{duration, int, number, qos},
    properties::user_properties,
    request::{is_request, request_object},
    runtime::{Local, attach_thread},
    stream::{Reader, Source, WakerSlot},
    telemetry::{self, arguments::rows_options, table::RecordBatch},
    topics::Pattern,
};
use crate::{
    client::{self, AckHandle, AckPolicy, Client, Error, MailboxOptions, Overflow, SubscribeRequest},
    codec::{self, ReasonCode, RetainHandling, SubscriptionOptions},
    telemetry::Rows,
};

/// What `subscribe` was called with.
pub(crate) struct SubscribeArguments<'a, 'py> {
    pub(crate) filters: &'a Bound<'py, PyTuple>,
    pub(crate) qos: i64,
    pub(crate) maxsize: i64,
    pub(crate) max_bytes: i64,
    pub(crate) overflow: &'a str,
    pub(crate) ack: &'a str,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: &'a str,
    pub(crate) user_properties: Option<&'a Bound<'py, PyAny>>,
}

/// A subscription, made or to be made.
pub(crate) struct Subscribed {
    core: Arc<Core>,
    request: SubscribeRequest,
    options: MailboxOptions,
    filters: Vec<String>,
    /// The filters with names of levels, as columns have them.
    patterns: Vec<String>,
    state: Arc<Local<Mutex<State>>>,
    slot: Arc<WakerSlot>,
    progress: watch::Sender<bool>,
    reader: Arc<Reader>,
    strays: Arc<AtomicU64>,
}

enum State {
    New,
    /// SUBSCRIBE is on its way.
    Asked,
    Open(client::Subscription),
    Failed(Error),
    Closed,
}

/// What its messages become.
#[derive(Clone)]
pub(crate) enum Items {
    Messages,
    /// Requests, to be answered by this client; at once if it is a synchronous one.
    Requests {
        core: Arc<Core>,
        is_blocking: bool,
    },
}

impl Subscribed {
    pub(crate) fn new(
        py: Python<'_>,
        core: &Arc<Core>,
        arguments: &SubscribeArguments<'_, '_>,
        items: Items,
    ) -> PyResult<Arc<Self>> {
        // Fails early if there is no connection to subscribe on.
        let client = core.client(py)?;
        if matches!(items, Items::Requests { .. }) {
            core.needs_v5(py, "serve")?;
        }
        let patterns = patterns(py, arguments.filters)?;
        let options = arguments.mailbox_options(py)?;
        let request = arguments.request(py, &patterns)?;
        let filters = patterns.iter().map(|pattern| pattern.filter().as_str().to_owned()).collect();
        let acknowledges = (options.ack == AckPolicy::Manual).then(|| Local::new(client.clone()));
        let sources = patterns.iter().map(|pattern| pattern.source().to_owned()).collect();
        let has_names = patterns.iter().any(Pattern::has_names);
        let context = (has_names || acknowledges.is_some()).then(|| Arc::new(Context { patterns, acknowledges }));
        let (state, slot) = (Arc::new(Local::new(Mutex::new(State::New))), Arc::new(WakerSlot::default()));
        let strays = Arc::new(AtomicU64::new(0));
        let reader = Reader::new(Mailbox {
            state: Arc::clone(&state),
            slot: Arc::clone(&slot),
            bite: bite(options.overflow),
            is_processed: options.ack == AckPolicy::Processed,
            client: Local::new(client),
            local: Vec::new().into_iter(),
            context,
            items,
            strays: Arc::clone(&strays),
            processing: Vec::new(),
            processed: Vec::new(),
        });
        let (core, progress) = (Arc::clone(core), watch::Sender::new(false));
        Ok(Arc::new(Self { core, request, options, filters, patterns: sources, state, slot, progress, reader, strays }))
    }

    pub(crate) fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Sends SUBSCRIBE, if that was not done yet.
    pub(crate) fn start(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state.try_get(py)?.lock();
        match &*state {
            State::New => {}
            State::Closed => return Err(errors::closed(py, "the subscription is closed: subscribe anew")),
            _ => return Ok(()),
        }
        let client = self.core.client(py)?;
        *state = State::Asked;
        drop(state);
        let this = Arc::clone(self);
        self.core.process(py)?.runtime().spawn(async move {
            let result = client.subscribe(this.request.clone(), this.options).await;
            this.answered(result);
        });
        Ok(())
    }

    /// Waits until SUBACK has come.
    pub(crate) fn opened(self: &Arc<Self>) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (this, mut progress) = (Arc::clone(self), self.progress.subscribe());
        async move {
            // The sender lives in `this`, so the wait cannot fail.
            let _ = progress.wait_for(|is_answered| *is_answered).await;
            this.with_state(|state| match state {
                State::Failed(error) => Err(error.clone()),
                _ => Ok(()),
            })
        }
    }

    /// Ends it; the future waits for UNSUBACK. What is being processed is acknowledged unless it went wrong.
    pub(crate) fn close(
        &self,
        py: Python<'_>,
        went_wrong: bool,
    ) -> PyResult<impl Future<Output = Result<(), Error>> + Send + use<>> {
        let state = std::mem::replace(&mut *self.state.try_get(py)?.lock(), State::Closed);
        self.reader.finish(py, went_wrong)?;
        self.slot.wake();
        let is_online = self.core.is_connected();
        Ok(async move {
            match state {
                // Without a connection there is nobody to tell: it is dropped, and not made again.
                State::Open(subscription) if is_online => match subscription.unsubscribe().await {
                    Err(Error::Closed | Error::ConnectionLost { .. } | Error::Connection { .. }) => Ok(()),
                    result => result,
                },
                _ => Ok(()),
            }
        })
    }

    /// Python lets go of it. Who has never looked at it is told, as of a coroutine that was never awaited: messages that he
    /// waits for will not come. `is_read` if some iterator goes on.
    pub(crate) fn abandon(&self, is_read: bool) {
        if is_read || self.reader.was_asked() {
            return;
        }
        let is_online = self.core.is_connected();
        let lost = self.with_state(|state| match state {
            State::New if is_online => Some("was never entered, awaited or read, so nothing was subscribed to"),
            State::Open(subscription) if is_online && !subscription.is_closed() => {
                Some("ends, since nobody refers to it any more, and nobody has read it: keep the object")
            }
            _ => None,
        });
        let Some(lost) = lost else { return };
        let name = format!("the subscription to {}", self.filters.join(", "));
        attach_thread(|py| errors::warn(py, &name, &format!("{name} {lost}")));
    }

    fn answered(&self, result: Result<client::Subscription, Error>) {
        self.with_state(|state| {
            if !matches!(state, State::Asked) {
                return;
            }
            *state = match result {
                Ok(subscription) => {
                    let slot = Arc::clone(&self.slot);
                    subscription.set_hook(Some(Arc::new(move || slot.wake())));
                    State::Open(subscription)
                }
                Err(error) => State::Failed(error),
            };
        });
        self.slot.wake();
        self.progress.send_replace(true);
    }

    fn look<T: Default>(&self, of: impl FnOnce(&client::Subscription) -> T) -> T {
        self.with_state(|state| match state {
            State::Open(subscription) => of(subscription),
            _ => T::default(),
        })
    }

    fn with_state<T>(&self, body: impl FnOnce(&mut State) -> T) -> T {
        with_state(&self.state, body)
    }
}

impl<'a, 'py> SubscribeArguments<'a, 'py> {
    /// For requests to be answered: nothing is lost, and nobody answers what was retained.
    pub(crate) fn requests(filters: &'a Bound<'py, PyTuple>, qos: i64, maxsize: i64, max_bytes: i64) -> Self {
        Self {
            filters,
            qos,
            maxsize,
            max_bytes,
            overflow: "block",
            ack: "auto",
            no_local: false,
            retain_as_published: false,
            retain_handling: "none",
            user_properties: None,
        }
    }

    fn mailbox_options(&self, py: Python<'_>) -> PyResult<MailboxOptions> {
        let overflow = match self.overflow {
            "block" => Overflow::Block,
            "drop_oldest" => Overflow::DropOldest,
            "drop_new" => Overflow::DropNew,
            "latest_per_topic" => Overflow::LatestPerTopic,
            "error" => Overflow::Error,
            other => {
                let choices = "\"block\", \"drop_oldest\", \"drop_new\", \"latest_per_topic\" or \"error\"";
                return Err(errors::invalid(py, &format!("overflow is {choices}, not {other:?}")));
            }
        };
        let ack = match self.ack {
            "auto" => AckPolicy::Auto,
            "processed" => AckPolicy::Processed,
            "manual" => AckPolicy::Manual,
            other => {
                let message = format!("ack is \"auto\", \"processed\" or \"manual\", not {other:?}");
                return Err(errors::invalid(py, &message));
            }
        };
        let messages_max = number(py, "maxsize", self.maxsize, 1..=i64::MAX)?;
        let bytes_max = number(py, "max_bytes", self.max_bytes, 0..=i64::MAX)?;
        Ok(MailboxOptions { messages_max, bytes_max, overflow, ack })
    }

    fn request(&self, py: Python<'_>, patterns: &[Pattern]) -> PyResult<SubscribeRequest> {
        let retain_handling = match self.retain_handling {
            "send" => RetainHandling::Send,
            "new" => RetainHandling::SendIfNew,
            "none" => RetainHandling::DoNotSend,
            other => {
                let message = format!("retain_handling is \"send\", \"new\" or \"none\", not {other:?}");
                return Err(errors::invalid(py, &message));
            }
        };
        let options = SubscriptionOptions {
            qos: qos(py, self.qos)?,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling,
        };
        let subscription = |pattern: &Pattern| codec::Subscription { filter: pattern.filter().clone(), options };
        Ok(SubscribeRequest {
            subscriptions: patterns.iter().map(subscription).collect(),
            identifier: None,
            user_properties: self.user_properties.map(user_properties).transpose()?.unwrap_or_default(),
        })
    }
}

/// The argument `max` of `arrow`: dictionaries of topics have keys of 16 bits.
pub(crate) fn columns_max(py: Python<'_>, max: i64) -> PyResult<usize> {
    number(py, "max", max, 1..=i64::from(u16::MAX) + 1)
}

/// The messages of a subscription, as a source of a stream.
struct Mailbox {
    state: Arc<Local<Mutex<State>>>,
    slot: Arc<WakerSlot>,
    /// Messages taken out at a time.
    bite: usize,
    is_processed: bool,
    client: Local<Client>,
    local: std::vec::IntoIter<client::Message>,
    context: Option<Arc<Context>>,
    items: Items,
    /// Messages left out because they are no requests.
    strays: Arc<AtomicU64>,
    /// Given out, and not known to be processed.
    processing: Vec<AckHandle>,
    /// Processed, and not acknowledged yet.
    processed: Vec<AckHandle>,
}

impl Mailbox {
    fn acknowledge(&mut self) {
        if let Some(client) = self.client.get().filter(|_| !self.processed.is_empty()) {
            client.acknowledge(self.processed.drain(..), ReasonCode::Success);
        }
    }

    fn take_out(&mut self, max: usize) -> Vec<client::Message> {
        let mut taken: Vec<_> = self.local.by_ref().collect();
        with_state(&self.state, |state| {
            if let State::Open(subscription) = state {
                subscription.drain_into(&mut taken, max);
            }
        });
        if matches!(self.items, Items::Requests { .. }) {
            let count = taken.len();
            taken.retain(is_request);
            self.strays.fetch_add((count - taken.len()) as u64, Ordering::Relaxed);
        }
        taken
    }
}

impl Source for Mailbox {
    fn fill(&mut self, want: usize) -> usize {
        let missing = want.saturating_sub(self.local.len());
        if missing > 0 {
            self.acknowledge();
            self.local = self.take_out(missing.max(self.bite)).into_iter();
        }
        self.local.len()
    }

    #[inline]
    fn pop<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.local.len() == 0 && self.fill(1) == 0 {
            return Ok(None);
        }
        let Some(message) = self.local.next() else { return Ok(None) };
        if self.is_processed {
            self.processing.extend(message.ack_handle());
        }
        let message = Bound::new(py, Message::new(message, self.context.clone()))?;
        match &self.items {
            Items::Messages => Ok(Some(message.into_any())),
            Items::Requests { core, is_blocking } => {
                request_object(py, Arc::clone(core), message.unbind(), *is_blocking).map(Some)
            }
        }
    }

    fn pop_rows<'py>(&mut self, py: Python<'py>, max: usize, rows: &mut Rows) -> PyResult<Bound<'py, PyAny>> {
        for message in self.local.by_ref().take(max) {
            if self.is_processed {
                self.processing.extend(message.ack_handle());
            }
            rows.push(message.received_at_us(), message.topic(), message.payload())
                .map_err(|fault| telemetry::error(py, fault))?;
        }
        Ok(Bound::new(py, RecordBatch(rows.finish()))?.into_any())
    }

    fn consumed(&mut self) {
        if !self.processing.is_empty() {
            self.processed.append(&mut self.processing);
            if self.processed.len() >= UNACKNOWLEDGED_MAX {
                self.acknowledge();
            }
        }
    }

    fn oldest_us(&self) -> Option<u64> {
        self.local.as_slice().first().map(client::Message::received_at_us)
    }

    fn has_news(&self) -> bool {
        with_state(&self.state, |state| match state {
            State::Open(subscription) => subscription.pending() > 0,
            _ => false,
        })
    }

    fn is_ended(&self) -> bool {
        with_state(&self.state, |state| match state {
            State::Open(subscription) => subscription.is_closed(),
            State::Failed(_) | State::Closed => true,
            State::New | State::Asked => false,
        })
    }

    fn failure(&self, py: Python<'_>) -> Option<PyErr> {
        let failure = with_state(&self.state, |state| match state {
            State::Open(subscription) => subscription.failure(),
            State::Failed(error) => Some(error.clone()),
            _ => None,
        });
        failure.map(|error| errors::from_client(py, &error))
    }

    fn waker(&self) -> &WakerSlot {
        &self.slot
    }

    fn finish(&mut self, went_wrong: bool) {
        if !went_wrong {
            self.consumed();
        }
        self.acknowledge();
        self.local = Vec::new().into_iter();
    }
}

/// Messages of some filters, in a bounded queue of their own.
///
///     async with client.subscribe("plant/#", qos=1) as messages:
///         async for message in messages: ...
///
/// Entered means granted (SUBACK); left means unsubscribed. One consumer at a time. It ends when nobody refers to it
/// any more; a `RuntimeWarning` tells of one that nobody has read.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Subscription {
    subscribed: Arc<Subscribed>,
    stream: Py<PyAny>,
}

impl Subscription {
    pub(crate) fn new(py: Python<'_>, subscribed: Arc<Subscribed>) -> PyResult<Self> {
        let stream = subscribed.reader.items(py)?;
        Ok(Self { subscribed, stream })
    }

    fn core(&self) -> &Core {
        &self.subscribed.core
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Its own iterator, and the object that it is part of; others are those of batches and columns.
        let own = 2;
        self.subscribed.abandon(Arc::strong_count(self.subscribed.reader()) > own);
    }
}

#[pymethods]
impl Subscription {
    fn __aenter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let (py, subscribed) = (slf.py(), &slf.get().subscribed);
        subscribed.start(py)?;
        let this = slf.clone().into_any().unbind();
        Operation::spawn(py, subscribed.opened(), move |_, ()| Ok(this))
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
        let closing = self.subscribed.close(py, exc_type.is_some())?;
        Operation::spawn(py, closing, |py, ()| Ok(py.None()))
    }

    fn __await__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Self::__aenter__(slf)
    }

    /// Subscribes on this thread, without an event loop, and waits for SUBACK.
    fn _open_blocking(&self, py: Python<'_>) -> PyResult<()> {
        self.subscribed.start(py)?;
        self.core().block_on(py, self.subscribed.opened())
    }

    /// Ends it on this thread.
    fn _close_blocking(&self, py: Python<'_>) -> PyResult<()> {
        self.core().block_on(py, self.subscribed.close(py, false)?)
    }

    /// Up to `max` messages, at least one if it comes within `timeout` seconds; on this thread. `anext()` gives the
    /// ones after.
    fn _take_blocking<'py>(&self, py: Python<'py>, max: usize, timeout: f64) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let deadline = Instant::now() + duration(py, "timeout", timeout)?;
        let taken = self.subscribed.reader().take_blocking(py, max, Some(deadline))?;
        taken.ok_or_else(|| errors::closed(py, "the subscription has ended"))
    }

    /// End it; what waits is dropped.
    fn unsubscribe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.__aexit__(py, None, None, None)
    }

    fn __aiter__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.subscribed.start(py)?;
        self.subscribed.reader.ask();
        Ok(self.stream.clone_ref(py))
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.subscribed.start(py)?;
        self.subscribed.reader.ask();
        self.stream.bind(py).call_method0(pyo3::intern!(py, "__anext__"))
    }

    /// Lists of up to `max` messages, given out when full, or `within` so many seconds of the first.
    #[pyo3(signature = (max = 1000, within = 0.1))]
    fn batches(&self, py: Python<'_>, #[pyo3(from_py_with = int)] max: i64, within: f64) -> PyResult<Py<PyAny>> {
        let max = number(py, "max", max, 1..=i64::MAX)?;
        let within = duration(py, "within", within)?;
        self.subscribed.start(py)?;
        self.subscribed.reader.batches(py, max, within)
    }

    /// Batches of up to `max` messages as columns, given out when full, or `within` so many seconds of the first.
    ///
    /// Columns and arguments are those of `ferromq.collect`. Types that were learnt stay: a batch has at least the
    /// columns of the one before. `max` is to be no more than `maxsize` of the subscription.
    #[pyo3(signature = (max = 65_536, within = 0.5, *, decode = None, schema = None, on_error = "null"))]
    fn arrow(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = int)] max: i64,
        within: f64,
        decode: Option<Bound<'_, PyAny>>,
        schema: Option<Bound<'_, PyAny>>,
        on_error: &str,
    ) -> PyResult<Py<PyAny>> {
        let max = columns_max(py, max)?;
        let within = duration(py, "within", within)?;
        let rows = self.subscribed.rows(py, decode.as_ref(), schema.as_ref(), on_error)?;
        self.subscribed.start(py)?;
        self.subscribed.reader.columns(py, max, within, rows)
    }

    /// The filters, with plain wildcards.
    #[getter]
    fn filters(&self) -> Vec<String> {
        self.subscribed.filters.clone()
    }

    /// Granted QoS, or the reason code of a refusal, for each filter; empty before SUBACK.
    #[getter]
    fn granted(&self) -> Vec<u16> {
        self.subscribed.granted()
    }

    /// Messages that wait: up to `maxsize` in the queue, and as many, but 256 at most, on their way out of it.
    #[getter]
    fn pending(&self) -> usize {
        self.subscribed.pending()
    }

    /// How long the oldest message that waits has waited, seconds; 0 if none does.
    #[getter]
    fn lag(&self) -> f64 {
        self.subscribed.lag()
    }

    /// Messages that `overflow` has dropped, and those of `serve` that were no requests.
    #[getter]
    fn dropped(&self) -> u64 {
        self.subscribed.dropped()
    }

    #[classmethod]
    #[pyo3(signature = (item, /))]
    fn __class_getitem__<'py>(cls: &Bound<'py, PyType>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        generic_alias(cls, item)
    }

    fn __repr__(&self) -> String {
        self.subscribed.describe("Subscription")
    }
}

impl Subscribed {
    pub(crate) fn granted(&self) -> Vec<u16> {
        self.look(|subscription| subscription.reasons().iter().map(|reason| reason.as_u8().into()).collect())
    }

    /// What makes columns of its messages.
    pub(crate) fn rows(
        &self,
        py: Python<'_>,
        decode: Option<&Bound<'_, PyAny>>,
        schema: Option<&Bound<'_, PyAny>>,
        on_error: &str,
    ) -> PyResult<Rows> {
        let patterns = self.patterns.iter().map(|pattern| telemetry::pattern(py, pattern));
        let patterns = patterns.collect::<PyResult<Vec<_>>>()?;
        Ok(Rows::new(rows_options(py, patterns, decode, schema, on_error)?))
    }

    /// For who looks at the queue: he knows of the subscription, and need not be told when it goes.
    pub(crate) fn pending(&self) -> usize {
        self.reader.ask();
        self.waiting()
    }

    fn waiting(&self) -> usize {
        self.look(client::Subscription::pending) + self.reader.at_hand()
    }

    pub(crate) fn lag(&self) -> f64 {
        self.reader.ask();
        let oldest = self.reader.oldest_us().or_else(|| self.look(client::Subscription::oldest_us));
        let Some(oldest) = oldest else { return 0.0 };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_micros(oldest)).as_secs_f64()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.reader.ask();
        self.lost()
    }

    fn lost(&self) -> u64 {
        self.look(client::Subscription::dropped) + self.strays.load(Ordering::Relaxed)
    }

    pub(crate) fn filters(&self) -> Vec<String> {
        self.filters.clone()
    }

    pub(crate) fn describe(&self, class: &str) -> String {
        format!("{class}({}, pending={}, dropped={})", self.filters.join(", "), self.waiting(), self.lost())
    }
}

/// Works on the state; a forked child finds it closed.
fn with_state<T>(state: &Local<Mutex<State>>, body: impl FnOnce(&mut State) -> T) -> T {
    match state.get() {
        Some(state) => body(&mut state.lock()),
        None => body(&mut State::Closed),
    }
}

/// `Subscription[Message]`, for annotations.
pub(crate) fn generic_alias<'py>(cls: &Bound<'py, PyType>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    cls.py().import("types")?.getattr("GenericAlias")?.call1((cls, item))
}

/// Filters given one by one or as a list.
fn patterns(py: Python<'_>, filters: &Bound<'_, PyTuple>) -> PyResult<Vec<Pattern>> {
    let mut patterns = Vec::with_capacity(filters.len());
    for filter in filters {
        if let Ok(filter) = filter.cast::<PyString>() {
            patterns.push(Pattern::parse(py, filter.to_str()?)?);
            continue;
        }
        if filter.is_instance_of::<PyDict>() {
            return Err(PyTypeError::new_err("filters are strings or lists of strings"));
        }
        for filter in filter.try_iter()? {
            patterns.push(Pattern::parse(py, filter?.cast::<PyString>()?.to_str()?)?);
        }
    }
    if patterns.is_empty() {
        return Err(errors::invalid(py, "subscribe to at least one filter"));
    }
    Ok(patterns)
}

/// How many messages leave the mailbox at a time: many make it cheap, few leave the choice to the overflow policy.
fn bite(overflow: Overflow) -> usize {
    match overflow {
        Overflow::Block | Overflow::Error | Overflow::DropNew => 256,
        Overflow::DropOldest => 16,
        Overflow::LatestPerTopic => 1,
    }
}

/// Acknowledgements that are held back to go out together; well below any useful receive maximum.
const UNACKNOWLEDGED_MAX: usize = 32;
