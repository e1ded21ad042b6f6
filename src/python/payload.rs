//! What Python gives as a payload: bytes-like, text, nothing, or an object to be encoded.

use bytes::Bytes;
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    pybacked::{PyBackedBytes, PyBackedStr},
    types::{PyByteArray, PyBytes, PyDict, PyString},
};

use super::errors;

/// A payload, still in Python's memory.
pub(crate) enum Data {
    Bytes(PyBackedBytes),
    Text(PyBackedStr),
    /// A value of a table.
    Owned(Vec<u8>),
    Empty,
}

impl Data {
    /// Takes `value`, encoded as `encode` says.
    pub(crate) fn extract(value: &Bound<'_, PyAny>, encode: Option<&str>) -> PyResult<Self> {
        match encode {
            None => Self::plain(value),
            Some("json") => json(value).map(Self::Text),
            Some("text") => Ok(Self::Text(value.str()?.try_into()?)),
            Some(other) => {
                let message = format!("encode must be \"json\", \"text\" or None, not {other:?}");
                Err(errors::invalid(value.py(), &message))
            }
        }
    }

    /// The bytes.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
            Self::Owned(bytes) => bytes,
            Self::Empty => &[],
        }
    }

    /// A copy of them.
    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_slice())
    }

    #[inline]
    fn plain(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes.clone().into()));
        }
        if let Ok(text) = value.cast::<PyString>() {
            return Ok(Self::Text(text.clone().try_into()?));
        }
        if value.is_none() {
            return Ok(Self::Empty);
        }
        if let Ok(array) = value.cast::<PyByteArray>() {
            return Ok(Self::Bytes(array.clone().into()));
        }
        from_buffer(value)
    }
}

/// The bytes of anything with the buffer protocol, whatever its shape and items.
fn from_buffer(value: &Bound<'_, PyAny>) -> PyResult<Data> {
    let py = value.py();
    let Ok(view) = py.import(pyo3::intern!(py, "builtins"))?.call_method1(pyo3::intern!(py, "memoryview"), (value,))
    else {
        let advice = if value.is_instance_of::<PyDict>() || value.hasattr("__iter__")? {
            "encode=\"json\""
        } else {
            "encode=\"text\""
        };
        let class = value.get_type().name()?.to_string();
        return Err(PyTypeError::new_err(format!(
            "a payload is bytes-like, str or None, not {class}; pass {advice} to encode it"
        )));
    };
    let bytes = view.call_method0(pyo3::intern!(py, "tobytes"))?.cast_into::<PyBytes>()?;
    Ok(Data::Bytes(bytes.into()))
}

/// Compact JSON.
fn json(value: &Bound<'_, PyAny>) -> PyResult<PyBackedStr> {
    let py = value.py();
    let keywords = PyDict::new(py);
    keywords.set_item("separators", (",", ":"))?;
    keywords.set_item("ensure_ascii", false)?;
    keywords.set_item("allow_nan", false)?;
    let json = py.import(pyo3::intern!(py, "json"))?;
    let text = json.call_method(pyo3::intern!(py, "dumps"), (value,), Some(&keywords)).map_err(|error| {
        // Infinite numbers, or an object that holds itself.
        let is_value = error.is_instance_of::<PyValueError>(py);
        if is_value { errors::invalid(py, &format!("not JSON: {}", error.value(py))) } else { error }
    })?;
    text.cast_into::<PyString>()?.try_into()
}
