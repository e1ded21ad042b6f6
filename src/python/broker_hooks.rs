//! Functions in Python that a broker of this process calls: to judge what clients do, and to tell what happened.
//!
//! Those that judge are called on threads that may block, while the client in question waits; those that are told are
//! called on one thread of their own, in the order of events. Shards wait for neither, and without hooks there is
//! nothing of this in the broker.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;
use pyo3::{PyTraverseError, PyVisit, exceptions::PyTypeError, prelude::*};

use super::{broker_auth::ConnectInfo, message::Message, runtime::attach_thread};
use crate::{
    auth::{self, Access, Acl, Authorizer, Permit},
    broker::{Event, EventSink},
    client,
};

/// A place for one function.
pub(crate) struct Hook {
    name: &'static str,
    function: Mutex<Option<Py<PyAny>>>,
}

/// All of a broker's.
pub(crate) struct HookSet {
    pub(crate) auth: Hook,
    pub(crate) acl: Hook,
    pub(crate) publish: Hook,
    pub(crate) connect: Hook,
    pub(crate) disconnect: Hook,
    pub(crate) subscribe: Hook,
    pub(crate) unsubscribe: Hook,
    pub(crate) drop: Hook,
}

impl Hook {
    const fn new(name: &'static str) -> Self {
        Self { name, function: Mutex::new(None) }
    }

    /// Installs `function`, unless it could never answer.
    pub(crate) fn set(&self, function: &Bound<'_, PyAny>) -> PyResult<()> {
        let is_async = |function: &Bound<'_, PyAny>| {
            let inspect = function.py().import("inspect")?;
            let is_any = |check: &str| inspect.call_method1(check, (function,))?.is_truthy();
            Ok::<_, PyErr>(is_any("iscoroutinefunction")? || is_any("isasyncgenfunction")?)
        };
        let name = self.name;
        if !function.is_callable() {
            let class = function.get_type().name()?.to_string();
            return Err(PyTypeError::new_err(format!("{name} takes a function, not {class}")));
        }
        if is_async(function)? || is_async(&function.getattr("__call__")?)? {
            let advice = "it is called on a thread of its own, where it may block";
            return Err(PyTypeError::new_err(format!("{name} takes a plain function, not an async one: {advice}")));
        }
        let old = self.function.lock().replace(function.clone().unbind());
        drop(old);
        Ok(())
    }

    pub(crate) fn is_set(&self) -> bool {
        self.function.lock().is_some()
    }

    pub(crate) fn get(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.function.lock().as_ref().map(|function| function.clone_ref(py))
    }
}

impl HookSet {
    fn all(&self) -> [&Hook; 8] {
        [
            &self.auth,
            &self.acl,
            &self.publish,
            &self.connect,
            &self.disconnect,
            &self.subscribe,
            &self.unsubscribe,
            &self.drop,
        ]
    }

    pub(crate) fn clear(&self) {
        for hook in self.all() {
            let old = hook.function.lock().take();
            drop(old);
        }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.all().into_iter().try_for_each(|hook| match hook.function.try_lock() {
            Some(function) => visit.call(&*function),
            None => Ok(()),
        })
    }

    fn is_told(&self) -> bool {
        [&self.connect, &self.disconnect, &self.subscribe, &self.unsubscribe, &self.drop].into_iter().any(Hook::is_set)
    }
}

impl Default for HookSet {
    fn default() -> Self {
        Self {
            auth: Hook::new("on_auth"),
            acl: Hook::new("on_acl"),
            publish: Hook::new("on_publish"),
            connect: Hook::new("on_connect"),
            disconnect: Hook::new("on_disconnect"),
            subscribe: Hook::new("on_subscribe"),
            unsubscribe: Hook::new("on_unsubscribe"),
            drop: Hook::new("on_drop"),
        }
    }
}

/// Judges PUBLISH and SUBSCRIBE: the rules, if there are any, then the functions.
pub(crate) struct Judge {
    acl: Option<Acl>,
    hooks: Arc<HookSet>,
    asks_acl: bool,
    asks_publish: bool,
}

impl Judge {
    /// The judge, if there is anything to judge by.
    pub(crate) fn install(acl: Option<Acl>, hooks: &Arc<HookSet>) -> Option<Arc<dyn Authorizer>> {
        let (asks_acl, asks_publish) = (hooks.acl.is_set(), hooks.publish.is_set());
        if !asks_acl && !asks_publish {
            return acl.map(|acl| Arc::new(acl) as Arc<dyn Authorizer>);
        }
        Some(Arc::new(Self { acl, hooks: Arc::clone(hooks), asks_acl, asks_publish }))
    }

    fn ask(&self, py: Python<'_>, client: &auth::ConnectInfo, access: Access<'_>) -> PyResult<bool> {
        let info = || ConnectInfo(client.clone());
        if let Some(acl) = self.hooks.acl.get(py) {
            let (action, topic) = match access {
                Access::Publish { topic, .. } => ("publish", topic),
                Access::Subscribe { filter, .. } => ("subscribe", filter),
            };
            if !acl.call1(py, (info(), action, topic))?.is_truthy(py)? {
                return Ok(false);
            }
        }
        if let (Access::Publish { topic, qos, retain, payload }, Some(publish)) = (access, self.hooks.publish.get(py)) {
            let message = Message::new(client::Message::compose(topic, payload, qos, retain), None);
            let answer = publish.call1(py, (info(), message))?;
            return Ok(answer.is_none(py) || answer.is_truthy(py)?);
        }
        Ok(true)
    }
}

impl Authorizer for Judge {
    fn authorize(&self, client: &auth::ConnectInfo, access: Access<'_>) -> Permit {
        if self.acl.as_ref().is_some_and(|acl| acl.authorize(client, access) == Permit::Refuse) {
            return Permit::Refuse;
        }
        let asks = self.asks_acl || matches!(access, Access::Publish { .. });
        if asks { Permit::Defer } else { Permit::Allow }
    }

    fn authorize_blocking(&self, client: &auth::ConnectInfo, access: Access<'_>) -> Permit {
        let asked = attach_thread(|py| {
            self.ask(py, client, access).unwrap_or_else(|error| {
                error.write_unraisable(py, None);
                false
            })
        });
        Permit::from(asked.unwrap_or(false))
    }

    fn per_message(&self) -> bool {
        self.asks_publish
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge")
            .field("on_acl", &self.asks_acl)
            .field("on_publish", &self.asks_publish)
            .finish_non_exhaustive()
    }
}

/// Tells functions what happened, on a thread of its own.
pub(crate) struct Teller {
    thread: JoinHandle<()>,
    sink: Arc<Sink>,
}

/// Where shards leave what happened.
struct Sink {
    told: SyncSender<Option<Told>>,
    wants: Wants,
    missed: AtomicU64,
}

/// Which functions there are.
#[derive(Debug, Clone, Copy)]
struct Wants {
    connect: bool,
    disconnect: bool,
    subscribe: bool,
    unsubscribe: bool,
    drop: bool,
}

enum Told {
    Connected(Box<auth::ConnectInfo>, bool),
    Disconnected(Box<str>, &'static str),
    Subscribed(Box<str>, Box<str>, u8),
    Unsubscribed(Box<str>, Box<str>),
    Dropped(Box<str>, Box<str>, &'static str),
}

impl Teller {
    /// Begins, if there is anybody to tell.
    pub(crate) fn start(hooks: &Arc<HookSet>) -> PyResult<Option<Self>> {
        if !hooks.is_told() {
            return Ok(None);
        }
        let (told, events) = sync_channel(EVENTS_MAX);
        let wants = Wants {
            connect: hooks.connect.is_set(),
            disconnect: hooks.disconnect.is_set(),
            subscribe: hooks.subscribe.is_set(),
            unsubscribe: hooks.unsubscribe.is_set(),
            drop: hooks.drop.is_set(),
        };
        let hooks = Arc::clone(hooks);
        let thread = thread::Builder::new().name("ferromq-hooks".into()).spawn(move || tell(&events, &hooks))?;
        Ok(Some(Self { thread, sink: Arc::new(Sink { told, wants, missed: AtomicU64::new(0) }) }))
    }

    pub(crate) fn sink(&self) -> Arc<dyn EventSink> {
        Arc::clone(&self.sink) as Arc<dyn EventSink>
    }

    /// Waits until everything is told, unless a function of ours ends the broker. Not while attached to Python.
    pub(crate) fn finish(self) {
        // Room comes as the thread takes what is before it; one that has ended takes nothing any more.
        let _ = self.sink.told.send(None);
        if self.thread.thread().id() != thread::current().id() {
            let _ = self.thread.join();
        }
    }
}

impl EventSink for Sink {
    fn event(&self, event: &Event<'_>) {
        let told = match *event {
            Event::Connected { info, session_present, .. } if self.wants.connect => {
                let info = auth::ConnectInfo { password: None, ..info.clone() };
                Told::Connected(Box::new(info), session_present)
            }
            // Connections that never became a client are nobody's.
            Event::Disconnected { client_id, reason, .. } if self.wants.disconnect && !client_id.is_empty() => {
                Told::Disconnected(client_id.into(), reason.name())
            }
            Event::Subscribed { client_id, filter, options } if self.wants.subscribe => {
                Told::Subscribed(client_id.into(), filter.into(), options.qos as u8)
            }
            Event::Unsubscribed { client_id, filter } if self.wants.unsubscribe => {
                Told::Unsubscribed(client_id.into(), filter.into())
            }
            Event::Dropped { client_id, topic, reason } if self.wants.drop => {
                Told::Dropped(client_id.into(), topic.into(), reason.name())
            }
            _ => return,
        };
        if let Err(TrySendError::Full(_)) = self.told.try_send(Some(told))
            && self.missed.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!(EVENTS_MAX, "the hooks do not keep up with events; some are not told");
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missed = self.missed.load(Ordering::Relaxed);
        f.debug_struct("Sink").field("wants", &self.wants).field("missed", &missed).finish_non_exhaustive()
    }
}

/// Takes events until the end, many at a time.
fn tell(events: &Receiver<Option<Told>>, hooks: &HookSet) {
    while let Ok(Some(first)) = events.recv() {
        let more = events.try_iter().take(EVENTS_PER_ATTACH_MAX);
        let mut is_over = false;
        let attached = attach_thread(|py| {
            for told in std::iter::once(Some(first)).chain(more) {
                let Some(told) = told else {
                    is_over = true;
                    return;
                };
                if let Err(error) = call(py, hooks, told) {
                    error.write_unraisable(py, None);
                }
            }
        });
        if is_over || attached.is_none() {
            return;
        }
    }
}

fn call(py: Python<'_>, hooks: &HookSet, told: Told) -> PyResult<()> {
    match told {
        Told::Connected(info, session_present) => {
            let hook = hooks.connect.get(py);
            hook.map(|hook| hook.call1(py, (ConnectInfo(*info), session_present))).transpose()
        }
        Told::Disconnected(client_id, reason) => {
            hooks.disconnect.get(py).map(|hook| hook.call1(py, (&*client_id, reason))).transpose()
        }
        Told::Subscribed(client_id, filter, qos) => {
            hooks.subscribe.get(py).map(|hook| hook.call1(py, (&*client_id, &*filter, qos))).transpose()
        }
        Told::Unsubscribed(client_id, filter) => {
            hooks.unsubscribe.get(py).map(|hook| hook.call1(py, (&*client_id, &*filter))).transpose()
        }
        Told::Dropped(client_id, topic, reason) => {
            hooks.drop.get(py).map(|hook| hook.call1(py, (&*client_id, &*topic, reason))).transpose()
        }
    }
    .map(drop)
}

/// Events that wait for the functions; more are not told.
const EVENTS_MAX: usize = 65_536;

/// Events told before the interpreter is given up once.
const EVENTS_PER_ATTACH_MAX: usize = 256;
