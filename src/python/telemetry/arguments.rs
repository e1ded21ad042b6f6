//! Decoders, schemas and filters as Python writes them.

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyDict, PyList, PyString, PyTuple, PyType},
};

use super::error;
use crate::{
    python::errors,
    telemetry::{Decoder, Kind, OnError, Packed, Pattern, RowsOptions},
};

/// How payloads become rows.
pub(crate) fn rows_options(
    py: Python<'_>,
    patterns: Vec<Pattern>,
    decode: Option<&Bound<'_, PyAny>>,
    schema: Option<&Bound<'_, PyAny>>,
    on_error: &str,
) -> PyResult<RowsOptions> {
    let mut options = RowsOptions::new(patterns, decode.map_or(Ok(Decoder::Raw), decoder)?);
    options.schema = schema.map(fields).transpose()?;
    options.on_error = match on_error {
        "null" => OnError::Null,
        "raise" => OnError::Raise,
        "raw" => OnError::Raw,
        other => {
            return Err(errors::invalid(py, &format!("on_error is \"null\", \"raise\" or \"raw\", not {other:?}")));
        }
    };
    if options.schema.is_some() && matches!(options.decoder, Decoder::Raw) {
        return Err(errors::invalid(py, "a schema needs a decoder: add decode=\"json\" or another one"));
    }
    Ok(options)
}

/// Filters, given one by one or as lists.
pub(crate) fn patterns(py: Python<'_>, filters: &Bound<'_, PyTuple>) -> PyResult<Vec<Pattern>> {
    let mut patterns = Vec::with_capacity(filters.len());
    for filter in filters {
        if let Ok(text) = filter.cast::<PyString>() {
            patterns.push(super::pattern(py, text.to_str()?)?);
            continue;
        }
        for text in filter.try_iter()? {
            patterns.push(super::pattern(py, text?.cast::<PyString>()?.to_str()?)?);
        }
    }
    if patterns.is_empty() {
        return Err(errors::invalid(py, "name at least one filter"));
    }
    Ok(patterns)
}

/// `"json"`, `"<ffI"`, `("<ffI", ["x", "y", "n"])` and so on.
fn decoder(decode: &Bound<'_, PyAny>) -> PyResult<Decoder> {
    let py = decode.py();
    let parsed = if let Ok(name) = decode.cast::<PyString>() {
        Decoder::parse(name.to_str()?)
    } else if let Ok((format, names)) = decode.extract::<(String, Vec<String>)>() {
        Packed::parse(&format, &names).map(Decoder::Packed)
    } else {
        let message = format!("decode is the name of a decoder or (format, names), not {}", decode.get_type());
        return Err(PyTypeError::new_err(message));
    };
    parsed.map_err(|fault| error(py, fault))
}

/// A dictionary of names and types.
fn fields(schema: &Bound<'_, PyAny>) -> PyResult<Vec<(String, Kind)>> {
    let fields = schema.cast::<PyDict>().map_err(|_| {
        PyTypeError::new_err(format!("a schema is a dictionary of names and types, not {}", schema.get_type()))
    })?;
    fields.iter().map(|(name, class)| Ok((name.extract()?, kind(&class)?))).collect()
}

/// `"float64"`, `float`, `[float]` or a dictionary.
fn kind(class: &Bound<'_, PyAny>) -> PyResult<Kind> {
    let parsed = if let Ok(name) = class.cast::<PyString>() {
        Kind::parse(name.to_str()?)
    } else if let Ok(class) = class.cast::<PyType>() {
        match &*class.name()?.to_string_lossy() {
            "datetime" => Kind::parse("timestamp[us]"),
            "dict" | "list" | "object" => Ok(Kind::Json),
            name => Kind::parse(name),
        }
    } else if class.is_instance_of::<PyDict>() {
        return fields(class).map(Kind::Struct);
    } else if let Ok(items) = class.cast::<PyList>() {
        let mut items = items.iter();
        match (items.next(), items.next()) {
            (Some(item), None) => return Ok(Kind::List(Box::new(kind(&item)?))),
            _ => return Err(errors::invalid(class.py(), "a list in a schema has the one type of its items")),
        }
    } else {
        let message =
            format!("a type in a schema is a name, a class, a list or a dictionary, not {}", class.get_type());
        return Err(PyTypeError::new_err(message));
    };
    parsed.map_err(|fault| error(class.py(), fault))
}
