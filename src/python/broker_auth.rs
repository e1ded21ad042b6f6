//! Who may connect to a broker of this process: a table of users, and a Python function if one is installed.
//!
//! The table is looked at on the shard. The function is called on a thread that may block, never on the shard: it has
//! to wait for the GIL, and may take its time.

use std::{collections::HashMap, fmt, sync::Arc};

use pyo3::{exceptions::PyTypeError, prelude::*, types::PyBytes};

use super::{broker_hooks::HookSet, broker_view::version_name, runtime::attach_thread};
use crate::{
    auth::{self, Authenticator, Verdict},
    codec::{PacketType, ReasonCode},
};

/// A client that asks to connect.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct ConnectInfo(pub(super) auth::ConnectInfo);

#[pymethods]
impl ConnectInfo {
    /// Client identifier.
    #[getter]
    fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// User name, if any.
    #[getter]
    fn username(&self) -> Option<&str> {
        self.0.username.as_deref()
    }

    /// Password, if any.
    #[getter]
    fn password<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.password.as_ref().map(|password| PyBytes::new(py, password))
    }

    /// Version of MQTT, as `"5.0"`.
    #[getter]
    fn version(&self) -> &'static str {
        version_name(self.0.version)
    }

    /// Address of the peer.
    #[getter]
    fn address(&self) -> &str {
        &self.0.peer
    }

    /// Listener it came in by.
    #[getter]
    fn listener(&self) -> &str {
        &self.0.listener
    }

    /// Without the password, which has no business in logs.
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (client_id, username) = (self.client_id().into_pyobject(py)?, self.username().into_pyobject(py)?);
        let (client_id, username) = (client_id.repr()?, username.repr()?);
        Ok(format!("ConnectInfo({client_id}, username={username}, address={:?})", self.address()))
    }
}

/// Judges CONNECT.
pub(crate) struct Gate {
    users: HashMap<String, Vec<u8>>,
    hooks: Option<Arc<HookSet>>,
    allow_anonymous: bool,
}

impl Gate {
    /// The judge, if there is anything to judge by.
    pub(crate) fn install(
        users: &HashMap<String, Vec<u8>>,
        hooks: &Arc<HookSet>,
        allow_anonymous: bool,
    ) -> Option<Arc<dyn Authenticator>> {
        let hooks = hooks.auth.is_set().then(|| Arc::clone(hooks));
        if users.is_empty() && hooks.is_none() {
            return None;
        }
        Some(Arc::new(Self { users: users.clone(), hooks, allow_anonymous }))
    }

    fn judge_by_table(&self, info: &auth::ConnectInfo) -> Verdict {
        let Some(username) = &info.username else {
            return if self.allow_anonymous {
                Verdict::Accept
            } else {
                refuse(ReasonCode::NotAuthorized, "no user name")
            };
        };
        let given = info.password.as_deref().unwrap_or_default();
        match self.users.get(username.as_str()) {
            Some(password) if is_same(password, given) => Verdict::Accept,
            _ => refuse(ReasonCode::BadUserNameOrPassword, "user name or password is wrong"),
        }
    }
}

impl Authenticator for Gate {
    fn authenticate(&self, info: &auth::ConnectInfo) -> Verdict {
        if !self.users.is_empty() {
            let verdict = self.judge_by_table(info);
            if self.hooks.is_none() || !matches!(verdict, Verdict::Accept) {
                return verdict;
            }
        }
        if self.hooks.is_some() { Verdict::Defer } else { self.judge_by_table(info) }
    }

    fn authenticate_blocking(&self, info: &auth::ConnectInfo) -> Verdict {
        let asked = attach_thread(|py| {
            let Some(hook) = self.hooks.as_ref().and_then(|hooks| hooks.auth.get(py)) else { return Verdict::Accept };
            match ask(py, &hook, info) {
                Ok(verdict) => verdict,
                Err(error) => {
                    error.write_unraisable(py, Some(hook.bind(py)));
                    refuse(ReasonCode::ImplementationSpecificError, "the authentication hook failed")
                }
            }
        });
        asked.unwrap_or_else(|| refuse(ReasonCode::ServerShuttingDown, "the interpreter is ending"))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("users", &self.users.len())
            .field("hook", &self.hooks.is_some())
            .finish_non_exhaustive()
    }
}

/// `True`, `False`, or the reason code of a refusal.
fn ask(py: Python<'_>, hook: &Py<PyAny>, info: &auth::ConnectInfo) -> PyResult<Verdict> {
    let answer = hook.bind(py).call1((ConnectInfo(info.clone()),))?;
    if let Ok(is_allowed) = answer.extract::<bool>() {
        return Ok(if is_allowed { Verdict::Accept } else { refuse(ReasonCode::NotAuthorized, "refused") });
    }
    let reason = answer.extract::<u8>().ok().and_then(ReasonCode::from_u8);
    match reason {
        Some(ReasonCode::Success) => Ok(Verdict::Accept),
        Some(reason) if reason.is_error() && reason.is_legal_in(PacketType::ConnAck) => {
            Ok(refuse(reason, reason.name()))
        }
        _ => {
            let answer = answer.repr()?;
            Err(PyTypeError::new_err(format!(
                "on_auth returns True, False or a reason code of CONNACK from 0x80, not {answer}"
            )))
        }
    }
}

fn refuse(reason: ReasonCode, message: &str) -> Verdict {
    Verdict::Refuse { reason, message: Some(message.to_owned()) }
}

/// Compares in a time that does not tell how much of a guess was right.
fn is_same(password: &[u8], given: &[u8]) -> bool {
    let differing = password.iter().zip(given).fold(0, |differing, (a, b)| differing | (a ^ b));
    differing == 0 && password.len() == given.len()
}
