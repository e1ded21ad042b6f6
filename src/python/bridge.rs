//! Results on their way from tokio to an asyncio event loop, in batches.
//!
//! Each loop has one [`Bridge`]: a table of futures that wait, a queue of outcomes, and a socket pair that the loop
//! reads. Whoever has an outcome queues it, and writes one byte if the queue was empty; the loop then takes the whole
//! queue. No tokio thread ever attaches to the interpreter: it could wait 5 ms for the GIL, and with it every
//! connection it serves. Loops without `add_reader` (Windows' Proactor) are woken by one thread that exists for that.

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};
#[cfg(unix)]
use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
};

use parking_lot::{Condvar, Mutex};
use pyo3::{
    exceptions::{PyNotImplementedError, PyRuntimeError},
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyWeakrefMethods, PyWeakrefReference},
};

use super::{
    errors, publish,
    runtime::{Process, attach_thread, epoch, is_forked},
};
use crate::{client::Error, session::client::PublishAck};

/// The way to one event loop.
#[derive(Clone)]
pub(crate) struct Bridge(Arc<Shared>);

/// The duty to complete one future of a loop, from any thread. Dropped unfulfilled, the future fails.
pub(crate) struct Promise {
    bridge: Bridge,
    token: Option<Token>,
}

/// A new bridge, and what has to be kept for a loop that keeps nothing itself.
type Opened = (Bridge, Option<Py<LoopReader>>);

/// What a future is completed with.
pub(crate) enum Outcome {
    /// With `None`: somebody may look again.
    Wake,
    /// With the end of a publication.
    Published(Result<PublishAck, Error>),
    /// With what this makes on the thread of the loop.
    Made(Make),
}

/// What a loop finds in its queue.
enum Item {
    /// For this future.
    For(Token, Outcome),
    /// The failure of a publication that nobody can ask for any more.
    Lost(Result<PublishAck, Error>),
}

/// Makes a result, or an exception, where Python may be called.
type Make = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

impl Bridge {
    /// A future of the loop that runs in this thread, and the duty to complete it.
    pub(crate) fn promise(py: Python<'_>) -> PyResult<(Promise, Bound<'_, PyAny>)> {
        let event_loop = running_loop(py)?;
        Self::of(&event_loop)?.promise_in(&event_loop)
    }

    /// The bridge to a loop that runs in this thread.
    pub(crate) fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = event_loop.py();
        let key = event_loop.as_ptr() as usize;
        let known = BRIDGES.lock().iter().find_map(|known| known.bridge(py, key, event_loop));
        if let Some(bridge) = known {
            return Ok(bridge);
        }
        // From here on Python code is called, which may do anything: not under the lock.
        let mut bridges = std::mem::take(&mut *BRIDGES.lock());
        bridges.retain(|known| known.is_open(py));
        BRIDGES.lock().append(&mut bridges);
        let (bridge, keeper) = Self::open(event_loop)?;
        let weak_loop = PyWeakrefReference::new(event_loop)?.unbind();
        BRIDGES.lock().push(Known { key, weak_loop, shared: Arc::downgrade(&bridge.0), keeper });
        Ok(bridge)
    }

    /// A future of this loop, and the duty to complete it.
    pub(crate) fn promise_in<'py>(&self, event_loop: &Bound<'py, PyAny>) -> PyResult<(Promise, Bound<'py, PyAny>)> {
        let py = event_loop.py();
        let future = event_loop.call_method0(pyo3::intern!(py, "create_future"))?;
        let token = self.0.futures.lock().insert(future.clone().unbind());
        Ok((Promise { bridge: self.clone(), token: Some(token) }, future))
    }

    /// Has the loop's exception handler told of a publication's failure that nobody can ask for any more.
    pub(crate) fn report(&self, ended: Result<PublishAck, Error>) {
        self.0.push(Item::Lost(ended));
    }

    /// Whether the loop may still run, and in this process.
    pub(crate) fn is_usable(&self) -> bool {
        self.0.is_usable()
    }

    #[cfg(unix)]
    fn open(event_loop: &Bound<'_, PyAny>) -> PyResult<Opened> {
        let py = event_loop.py();
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let fd = reader.as_raw_fd();
        let bridge = Self(Arc::new(Shared::new(Wake::Socket(writer))));
        let reader = Py::new(py, LoopReader { shared: Arc::clone(&bridge.0), socket: Some(reader) })?;
        // The loop's table of readers is what keeps the reader alive: when the loop closes, so does the bridge.
        match event_loop.call_method1("add_reader", (fd, reader)) {
            Ok(_) => Ok((bridge, None)),
            Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => Self::open_threaded(event_loop),
            Err(error) => Err(error),
        }
    }

    #[cfg(not(unix))]
    fn open(event_loop: &Bound<'_, PyAny>) -> PyResult<Opened> {
        Self::open_threaded(event_loop)
    }

    fn open_threaded(event_loop: &Bound<'_, PyAny>) -> PyResult<Opened> {
        let py = event_loop.py();
        let weak_loop = PyWeakrefReference::new(event_loop)?.unbind();
        let process = Process::get(py)?;
        let bridge = Self(Arc::new(Shared::new(Wake::Thread { process, weak_loop })));
        let reader = LoopReader {
            shared: Arc::clone(&bridge.0),
            #[cfg(unix)]
            socket: None,
        };
        let reader = Py::new(py, reader)?;
        *bridge.0.reader.lock() = Some(reader.clone_ref(py));
        Ok((bridge, Some(reader)))
    }
}

impl Promise {
    /// Completes the future with what `outcome` makes, on the thread of its loop.
    pub(crate) fn complete(mut self, outcome: Outcome) {
        if let Some(token) = self.token.take() {
            self.bridge.0.push(Item::For(token, outcome));
        }
    }

    /// Whether somebody may still wait for the future: it is neither done nor cancelled.
    pub(crate) fn is_pending(&self, py: Python<'_>) -> PyResult<bool> {
        let future = self.token.and_then(|token| self.bridge.0.futures.lock().get(py, token));
        future.map_or(Ok(false), |future| is_done(&future).map(|is_done| !is_done))
    }

    /// Nobody waits for the future any more.
    pub(crate) fn forget(mut self, _attached: Python<'_>) {
        if let Some(token) = self.token.take() {
            self.bridge.0.futures.lock().remove(token);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            let given_up = Outcome::Made(Box::new(|py| Err(errors::closed(py, "the operation was given up"))));
            self.bridge.0.push(Item::For(token, given_up));
        }
    }
}

/// The loop that runs in this thread.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    find_loop(py)?.ok_or_else(|| {
        let message = "no asyncio event loop runs in this thread; use ferromq.SyncClient where there is none";
        PyRuntimeError::new_err(message)
    })
}

/// The loop that runs in this thread, if one does.
pub(crate) fn find_loop(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let get = GET.get_or_try_init(py, || py.import("asyncio")?.getattr("_get_running_loop").map(Bound::unbind))?;
    let event_loop = get.bind(py).call0()?;
    Ok((!event_loop.is_none()).then_some(event_loop))
}

/// Whether an asyncio future has a result, an exception, or was cancelled.
pub(crate) fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    future.call_method0(pyo3::intern!(future.py(), "done"))?.is_truthy()
}

/// What tokio threads and the loop share.
struct Shared {
    epoch: u32,
    is_closed: AtomicBool,
    queue: Mutex<Vec<Item>>,
    futures: Mutex<Futures>,
    wake: Wake,
    /// Only for loops without `add_reader`, which keep no reference themselves.
    reader: Mutex<Option<Py<LoopReader>>>,
}

enum Wake {
    #[cfg(unix)]
    Socket(UnixStream),
    Thread {
        process: &'static Process,
        weak_loop: Py<PyWeakrefReference>,
    },
}

impl Shared {
    fn new(wake: Wake) -> Self {
        Self {
            epoch: epoch(),
            is_closed: AtomicBool::new(false),
            queue: Mutex::new(Vec::new()),
            futures: Mutex::new(Futures::default()),
            wake,
            reader: Mutex::new(None),
        }
    }

    fn is_usable(&self) -> bool {
        !self.is_closed.load(Ordering::Acquire) && !is_forked(self.epoch)
    }

    fn push(self: &Arc<Self>, item: Item) {
        if !self.is_usable() {
            return;
        }
        let mut queue = self.queue.lock();
        queue.push(item);
        let is_first = queue.len() == 1;
        drop(queue);
        if is_first {
            self.signal();
        }
    }

    fn signal(self: &Arc<Self>) {
        match &self.wake {
            // A byte that cannot be written has a reader that is gone, or others before it that do as well.
            #[cfg(unix)]
            Wake::Socket(socket) => drop((&mut &*socket).write(&[1])),
            Wake::Thread { process, .. } => process.waker().wake(Arc::clone(self)),
        }
    }

    /// Completes what is queued; on the loop's thread.
    fn drain(&self, py: Python<'_>) {
        let batch = std::mem::take(&mut *self.queue.lock());
        for item in batch {
            let done = match item {
                Item::For(token, outcome) => {
                    let future = self.futures.lock().remove(token);
                    future.map_or(Ok(()), |future| settle(future.bind(py), outcome))
                }
                Item::Lost(ended) => tell_handler(py, ended),
            };
            if let Err(error) = done {
                error.write_unraisable(py, None);
            }
        }
    }

    /// Lets go of all futures: the loop is closed, nobody will ever run what waits for them.
    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        if is_forked(self.epoch) {
            // Threads of the parent may have held the locks at the fork.
            return;
        }
        let futures = std::mem::take(&mut *self.futures.lock());
        let queue = std::mem::take(&mut *self.queue.lock());
        let reader = self.reader.lock().take();
        drop((futures, queue, reader));
    }

    /// Has the loop drain the queue, from the waker thread.
    fn call_soon(&self, py: Python<'_>) {
        let Wake::Thread { weak_loop, .. } = &self.wake else { return };
        let reader = self.reader.lock().as_ref().map(|reader| reader.clone_ref(py));
        let called = match (weak_loop.bind(py).upgrade(), reader) {
            (Some(event_loop), Some(reader)) => event_loop.call_method1("call_soon_threadsafe", (reader,)).is_ok(),
            _ => false,
        };
        if !called {
            self.close();
        }
    }
}

fn settle(future: &Bound<'_, PyAny>, outcome: Outcome) -> PyResult<()> {
    let py = future.py();
    // A cancelled future has no more use for its outcome, not even as an object.
    if is_done(future)? {
        return Ok(());
    }
    let result = match outcome {
        Outcome::Wake => Ok(py.None()),
        Outcome::Published(result) => publish::finished(py, result),
        Outcome::Made(make) => make(py),
    };
    match result {
        Ok(value) => future.call_method1(pyo3::intern!(py, "set_result"), (value,))?,
        Err(error) => future.call_method1(pyo3::intern!(py, "set_exception"), (error.into_value(py),))?,
    };
    Ok(())
}

/// As asyncio does for a future whose exception was never retrieved.
fn tell_handler(py: Python<'_>, ended: Result<PublishAck, Error>) -> PyResult<()> {
    let Err(error) = publish::finished(py, ended) else { return Ok(()) };
    let context = PyDict::new(py);
    context.set_item("message", "a publication failed, and nobody awaited it")?;
    context.set_item("exception", error.into_value(py))?;
    running_loop(py)?.call_method1("call_exception_handler", (context,)).map(drop)
}

/// What a loop calls when there are outcomes. It lives as long as the loop does.
#[pyclass(frozen, module = "ferromq._ferromq", name = "_LoopReader")]
pub(crate) struct LoopReader {
    shared: Arc<Shared>,
    #[cfg(unix)]
    socket: Option<UnixStream>,
}

#[pymethods]
impl LoopReader {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        #[cfg(unix)]
        if let Some(mut socket) = self.socket.as_ref() {
            match socket.read(&mut [0; 64]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.shared.drain(py);
        Ok(())
    }
}

impl Drop for LoopReader {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// A loop that has a bridge.
struct Known {
    key: usize,
    weak_loop: Py<PyWeakrefReference>,
    shared: Weak<Shared>,
    /// For loops that keep nothing themselves; such a loop cannot tell when it is closed.
    keeper: Option<Py<LoopReader>>,
}

impl Known {
    fn bridge(&self, py: Python<'_>, key: usize, event_loop: &Bound<'_, PyAny>) -> Option<Bridge> {
        if self.key != key || !self.is_alive() || !self.weak_loop.bind(py).upgrade()?.is(event_loop) {
            return None;
        }
        self.shared.upgrade().map(Bridge)
    }

    /// Whether the loop may still run. One that has closed without a word is let go of.
    fn is_open(&self, py: Python<'_>) -> bool {
        if self.keeper.is_none() {
            return self.is_alive();
        }
        let event_loop = self.weak_loop.bind(py).upgrade();
        let is_closed = |event_loop: Bound<'_, PyAny>| event_loop.call_method0("is_closed")?.is_truthy();
        let is_open = self.is_alive() && event_loop.is_some_and(|event_loop| !is_closed(event_loop).unwrap_or(true));
        if !is_open && let Some(shared) = self.shared.upgrade() {
            shared.close();
        }
        is_open
    }

    fn is_alive(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| shared.is_usable())
    }
}

/// The thread that calls `call_soon_threadsafe` for loops that cannot watch a socket.
pub(crate) struct WakerThread(Arc<Inbox>);

#[derive(Default)]
struct Inbox {
    bridges: Mutex<Vec<Arc<Shared>>>,
    ready: Condvar,
}

impl WakerThread {
    pub(crate) fn start() -> Self {
        let inbox = Arc::new(Inbox::default());
        let theirs = Arc::clone(&inbox);
        std::thread::Builder::new()
            .name("ferromq-waker".into())
            .spawn(move || theirs.run())
            .expect("a process that runs an event loop can start a thread");
        Self(inbox)
    }

    fn wake(&self, shared: Arc<Shared>) {
        self.0.bridges.lock().push(shared);
        self.0.ready.notify_one();
    }
}

impl Inbox {
    /// Runs until the interpreter ends.
    fn run(&self) {
        loop {
            let mut bridges = self.bridges.lock();
            while bridges.is_empty() {
                self.ready.wait(&mut bridges);
            }
            let batch = std::mem::take(&mut *bridges);
            drop(bridges);
            let attached = attach_thread(|py| batch.iter().for_each(|shared| shared.call_soon(py)));
            if attached.is_none() {
                return;
            }
        }
    }
}

/// Futures that wait, by token. A token is an index and a generation, so that a late outcome meets nobody else's future.
#[derive(Default)]
struct Futures {
    entries: Vec<(u32, Option<Py<PyAny>>)>,
    free: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Token {
    index: u32,
    generation: u32,
}

impl Futures {
    fn insert(&mut self, future: Py<PyAny>) -> Token {
        let Some(index) = self.free.pop() else {
            self.entries.push((0, Some(future)));
            return Token { index: self.entries.len() as u32 - 1, generation: 0 };
        };
        let entry = &mut self.entries[index as usize];
        entry.1 = Some(future);
        Token { index, generation: entry.0 }
    }

    fn get<'py>(&self, py: Python<'py>, token: Token) -> Option<Bound<'py, PyAny>> {
        let entry = self.entries.get(token.index as usize).filter(|entry| entry.0 == token.generation)?;
        entry.1.as_ref().map(|future| future.bind(py).clone())
    }

    fn remove(&mut self, token: Token) -> Option<Py<PyAny>> {
        let entry = self.entries.get_mut(token.index as usize).filter(|entry| entry.0 == token.generation)?;
        let future = entry.1.take()?;
        entry.0 = entry.0.wrapping_add(1);
        self.free.push(token.index);
        Some(future)
    }
}

static BRIDGES: Mutex<Vec<Known>> = Mutex::new(Vec::new());
