//! What FerroMQ keeps once a process: the tokio runtime, and the thread that wakes loops without `add_reader`.
//!
//! Both are made when first needed. A forked child has neither of its parent's threads: what it inherited refuses to
//! work (see [`check_fork`]), and what it makes anew gets a new runtime. The old one is leaked, because stopping it
//! would wait for threads that are not there.

use std::{
    future::Future,
    mem::ManuallyDrop,
    pin::pin,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};

use pyo3::{prelude::*, types::PyDict};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::{bridge::WakerThread, errors};

/// The state of this process.
pub(crate) struct Process {
    runtime: Runtime,
    waker: OnceLock<WakerThread>,
}

impl Process {
    /// The state of this process, made now if need be.
    pub(crate) fn get(py: Python<'_>) -> PyResult<&'static Self> {
        if let Some(process) = load() {
            return Ok(process);
        }
        register_hooks(py)?;
        let made = Box::leak(Box::new(Self::start()?));
        match PROCESS.compare_exchange(ptr::null_mut(), ptr::from_mut(made), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(made),
            Err(_) => Ok(load().expect("another thread has just stored it")),
        }
    }

    fn start() -> PyResult<Self> {
        let counter = AtomicUsize::new(0);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads()?)
            .thread_name_fn(move || format!("ferromq-io-{}", counter.fetch_add(1, Ordering::Relaxed)))
            .enable_all()
            .build()?;
        Ok(Self { runtime, waker: OnceLock::new() })
    }

    /// The runtime on which all input and output of this process runs.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The thread that wakes loops without `add_reader`.
    pub(crate) fn waker(&self) -> &WakerThread {
        self.waker.get_or_init(WakerThread::start)
    }

    /// Waits for `future` without holding the GIL, in slices, so that Ctrl-C ends the wait.
    pub(crate) fn block_on<T: Send>(&self, py: Python<'_>, future: impl Future<Output = T> + Send) -> PyResult<T> {
        let mut future = pin!(future);
        loop {
            let slice = async { timeout(SIGNAL_CHECK_INTERVAL, future.as_mut()).await };
            match py.detach(|| self.runtime.handle().block_on(slice)) {
                Ok(value) => return Ok(value),
                Err(_) => py.check_signals()?,
            }
        }
    }
}

/// Number of forks that lie between this process and the one that imported the module.
#[inline]
pub(crate) fn epoch() -> u32 {
    EPOCH.load(Ordering::Relaxed)
}

/// Whether something made in `epoch` is used after a fork, where its threads do not exist.
#[inline]
pub(crate) fn is_forked(made_in: u32) -> bool {
    epoch() != made_in
}

/// Refuses to work with something that was made before a fork.
#[inline]
pub(crate) fn check_fork(py: Python<'_>, made_in: u32) -> PyResult<()> {
    if is_forked(made_in) { Err(errors::forked(py)) } else { Ok(()) }
}

/// Something that works with threads of this process. In a forked child it is leaked and not dropped: its locks may be
/// held by threads that are not there.
pub(crate) struct Local<T> {
    value: ManuallyDrop<T>,
    epoch: u32,
}

impl<T> Local<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), epoch: epoch() }
    }

    /// The value, unless this is a forked child.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        if is_forked(self.epoch) { None } else { Some(&self.value) }
    }

    /// The value, or an exception in a forked child.
    #[inline]
    pub(crate) fn try_get(&self, py: Python<'_>) -> PyResult<&T> {
        self.get().ok_or_else(|| errors::forked(py))
    }
}

impl<T> Drop for Local<T> {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if !is_forked(self.epoch) {
            // SAFETY: the value is not touched again; `self` is going away.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

/// Attaches a thread that Python does not know, to call into Python. Not any more when the interpreter is about to end:
/// it would kill the thread in the middle.
pub(crate) fn attach_thread<R>(body: impl FnOnce(Python<'_>) -> R) -> Option<R> {
    ATTACHING.fetch_add(1, Ordering::SeqCst);
    let result = if IS_EXITING.load(Ordering::SeqCst) { None } else { Python::try_attach(body) };
    ATTACHING.fetch_sub(1, Ordering::SeqCst);
    result
}

/// Called by `atexit`: lets threads that are in Python finish, within reason, and no more in.
#[pyfunction]
pub(crate) fn _before_exit(py: Python<'_>) {
    IS_EXITING.store(true, Ordering::SeqCst);
    py.detach(|| {
        let deadline = Instant::now() + EXIT_WAIT_MAX;
        while ATTACHING.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    });
}

/// Called by the interpreter in a child after `fork`.
#[pyfunction]
pub(crate) fn _after_fork_in_child() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
    PROCESS.store(ptr::null_mut(), Ordering::Release);
}

#[allow(unsafe_code)]
fn load() -> Option<&'static Process> {
    // SAFETY: the pointer is null or comes from `Box::leak`, and is never freed.
    unsafe { PROCESS.load(Ordering::Acquire).as_ref() }
}

/// Has the interpreter tell of forks and of its end.
pub(crate) fn register_hooks(py: Python<'_>) -> PyResult<()> {
    if HOOKED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    py.import("atexit")?.call_method1("register", (wrap_pyfunction!(_before_exit, py)?,))?;
    let os = py.import("os")?;
    if !os.hasattr("register_at_fork")? {
        return Ok(());
    }
    let keywords = PyDict::new(py);
    keywords.set_item("after_in_child", wrap_pyfunction!(_after_fork_in_child, py)?)?;
    os.call_method("register_at_fork", (), Some(&keywords))?;
    Ok(())
}

fn threads() -> PyResult<usize> {
    match std::env::var("FERROMQ_THREADS") {
        Ok(text) => text.parse().ok().filter(|threads| (1..=THREADS_MAX).contains(threads)).ok_or_else(|| {
            let message = format!("FERROMQ_THREADS must be a number from 1 to {THREADS_MAX}, not {text:?}");
            pyo3::exceptions::PyValueError::new_err(message)
        }),
        Err(_) => Ok(available_parallelism().map_or(1, usize::from).min(THREADS_DEFAULT)),
    }
}

/// How long a blocking call goes without asking whether Ctrl-C was pressed.
pub(crate) const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// One thread moves millions of messages a second; a second keeps a slow TLS handshake or a flood from delaying others.
const THREADS_DEFAULT: usize = 2;
const THREADS_MAX: usize = 256;

/// How long the end of the interpreter waits for a hook that is being called.
const EXIT_WAIT_MAX: Duration = Duration::from_secs(1);

static ATTACHING: AtomicUsize = AtomicUsize::new(0);
static IS_EXITING: AtomicBool = AtomicBool::new(false);
static PROCESS: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());
static EPOCH: AtomicU32 = AtomicU32::new(0);
static HOOKED: AtomicBool = AtomicBool::new(false);
