//! `Replay`: recorded messages, published again, in steps that Python can show the progress of.

use std::{path::PathBuf, sync::Arc, time::Duration};

use pyo3::prelude::*;
use tokio::sync::Mutex;

use super::{Stop, capture::core_of, error};
use crate::{
    client::Error,
    python::{
        core::Core,
        errors,
        operation::Operation,
        options::{duration, optional_int, qos},
    },
    telemetry::{self, Filter, ReplayOptions, TelemetryError},
};

/// Recorded messages, published again in their order; `ferromq.replay` is made of it.
///
/// Args:
///     client: A connected `Client` or `SyncClient`.
///     paths: Parquet files as `record` writes them, in any order.
///     speed: How many times as fast as it was. `None`: as fast as the server takes it.
///     where: Which rows, as SQL says it: `"line = 'L1' and value > 20"`.
///     map: Gives the topic to publish to for each topic; `None` leaves its messages out. It is asked once for each.
///     qos: Quality of service of the publications. `None`: that they came with, as far as the files tell, else 0.
///     retain: Whether to publish them as retained messages. `None`: those that were.
///
/// Raises:
///     OSError: A file cannot be read.
///     InvalidArgument: It is no recording, or an argument cannot be.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Replay {
    core: Arc<Core>,
    inner: Arc<Mutex<telemetry::Replay>>,
    map: Option<Py<PyAny>>,
    rows: u64,
}

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments
impl Replay {
    #[new]
    #[pyo3(signature = (client, paths, *, speed = Some(1.0), r#where = None, map = None, qos = None, retain = None),
        text_signature = "(client, paths, *, speed=1.0, where=None, map=None, qos=None, retain=None)")]
    fn new(
        py: Python<'_>,
        client: Bound<'_, PyAny>,
        paths: Vec<PathBuf>,
        speed: Option<f64>,
        r#where: Option<&str>,
        map: Option<Py<PyAny>>,
        #[pyo3(from_py_with = optional_int)] qos: Option<i64>,
        retain: Option<bool>,
    ) -> PyResult<Self> {
        let core = core_of(&client)?;
        let filter = r#where.map(Filter::parse).transpose().map_err(|fault| error(py, fault))?;
        let qos = qos.map(|qos| self::qos(py, qos)).transpose()?;
        let options = ReplayOptions { files: paths, filter, speed, qos, retain };
        let replay = py.detach(|| telemetry::Replay::open(options)).map_err(|fault| error(py, fault))?;
        let rows = replay.rows();
        Ok(Self { core, inner: Arc::new(Mutex::new(replay)), map, rows })
    }

    /// Rows of all files, before `where`.
    #[getter]
    fn rows(&self) -> u64 {
        self.rows
    }

    /// Publish what is due within so many seconds; how many rows were dealt with, `None` at the end.
    #[pyo3(signature = (seconds = 0.1))]
    fn step<'py>(&self, py: Python<'py>, seconds: f64) -> PyResult<Bound<'py, PyAny>> {
        let at_most = duration(py, "seconds", seconds)?;
        if !self.load(py)? {
            return Operation::finished(py.None().into_bound(py), 1);
        }
        let step = self.begin(py, at_most)?;
        Operation::spawn(py, step, |py, done| Ok(done?.into_pyobject(py)?.into_any().unbind()))
    }

    /// The same, on this thread.
    #[pyo3(signature = (seconds = 0.1))]
    fn step_blocking(&self, py: Python<'_>, seconds: f64) -> PyResult<Option<usize>> {
        let at_most = duration(py, "seconds", seconds)?;
        if !self.load(py)? {
            return Ok(None);
        }
        let step = self.begin(py, at_most)?;
        let done = self.core.process(py)?.block_on(py, step)?;
        done.map_err(|error| errors::from_client(py, &error))?.map(Some)
    }

    fn __repr__(&self) -> String {
        format!("Replay({} rows)", self.rows)
    }
}

impl Replay {
    /// Reads the next messages; whether there are any.
    fn load(&self, py: Python<'_>) -> PyResult<bool> {
        let mut replay = self.inner.try_lock().map_err(|_| errors::closed(py, "the step before has not ended"))?;
        let mut map = |topic: &str| match &self.map {
            None => Ok(Some(topic.to_owned())),
            Some(map) => map.bind(py).call1((topic,)).and_then(|topic| topic.extract()).map_err(Stop::Python),
        };
        // Only this call can hold the lock, which is an asynchronous one: others are refused and do not wait.
        replay.load(&mut map).map_err(|stop| stop.into_exception(py))
    }

    fn begin(
        &self,
        py: Python<'_>,
        at_most: Duration,
    ) -> PyResult<impl Future<Output = Result<PyResult<usize>, Error>> + Send + use<>> {
        let (client, replay) = (self.core.client(py)?, Arc::clone(&self.inner));
        Ok(async move {
            match replay.lock().await.step(&client, at_most).await {
                Ok(done) => Ok(Ok(done)),
                Err(TelemetryError::Client(error)) => Err(error),
                Err(other) => Ok(Err(pyo3::exceptions::PyValueError::new_err(other.to_string()))),
            }
        })
    }
}
