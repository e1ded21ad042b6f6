//! Telemetry as Python has it: tables that others take over without a copy, and captures that run in the background.
//!
//! | file | what it is |
//! |---|---|
//! | `arrow` | the C data interface in capsules, out and in |
//! | `table` | `Table` and `RecordBatch` |
//! | `arguments` | decoders, schemas and bounds as Python writes them |
//! | `capture` | `Capture`: a subscription that becomes a table or files |
//! | `files` | `read_parquet` |
//! | `replay` | `Replay`: recorded messages, published again |

pub(crate) mod arguments;
pub(crate) mod arrow;
pub(crate) mod capture;
pub(crate) mod files;
pub(crate) mod replay;
pub(crate) mod table;

use pyo3::prelude::*;

use super::errors::{self, Kind};
use crate::telemetry::{Pattern, TelemetryError};

/// Adds the classes to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<table::Table>()?;
    module.add_class::<table::RecordBatch>()?;
    module.add_class::<capture::Capture>()?;
    module.add_class::<replay::Replay>()?;
    module.add_function(wrap_pyfunction!(files::read_parquet, module)?)?;
    Ok(())
}

/// A filter with names of levels.
pub(crate) fn pattern(py: Python<'_>, text: &str) -> PyResult<Pattern> {
    Pattern::parse(text).map_err(|fault| error(py, fault))
}

/// The failure as an exception.
pub(crate) fn error(py: Python<'_>, error: TelemetryError) -> PyErr {
    match error {
        TelemetryError::Client(error) => errors::from_client(py, &error),
        TelemetryError::Decode { .. } => errors::new(py, Kind::DecodeError, &error.to_string()),
        TelemetryError::Io { ref path, ref source } => {
            let errno = source.raw_os_error().unwrap_or_default();
            let kind = std::io::Error::from(source.kind());
            let fault: PyErr = kind.into();
            let class = fault.get_type(py);
            // Python says the number itself.
            let text = source.to_string();
            let text = text.split(" (os error").next().unwrap_or(&text);
            match class.call1((errno, text, path.display().to_string())) {
                Ok(exception) => PyErr::from_value(exception),
                Err(_) => fault,
            }
        }
        other => errors::invalid(py, &other.to_string()),
    }
}

/// What stops the reading of files: a file, or what Python was asked.
enum Stop {
    Telemetry(TelemetryError),
    Python(PyErr),
}

impl Stop {
    fn into_exception(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Telemetry(fault) => error(py, fault),
            Self::Python(exception) => exception,
        }
    }
}

impl From<TelemetryError> for Stop {
    fn from(error: TelemetryError) -> Self {
        Self::Telemetry(error)
    }
}
