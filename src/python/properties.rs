//! MQTT 5 properties, as Python sees those of a message and gives those of a publication.

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyDict, PyTuple},
};

use super::{errors, options::number, payload, topics::text};
use crate::codec::{self, Property, Text};

/// MQTT 5 properties of a message. False if there are none.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Properties(codec::Properties);

impl Properties {
    pub(crate) fn new(properties: codec::Properties) -> Self {
        Self(properties)
    }
}

#[pymethods]
impl Properties {
    /// Seconds that the message had left when the server sent it.
    #[getter]
    fn message_expiry(&self) -> Option<u32> {
        self.0.message_expiry_interval()
    }

    /// Content type, by convention a MIME type.
    #[getter]
    fn content_type(&self) -> Option<&str> {
        self.0.content_type().map(Text::as_str)
    }

    /// Where an answer is expected.
    #[getter]
    fn response_topic(&self) -> Option<&str> {
        self.0.response_topic().map(Text::as_str)
    }

    /// What an answer has to carry.
    #[getter]
    fn correlation_data<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.correlation_data().map(|data| PyBytes::new(py, data))
    }

    /// 1 if the sender says that the payload is UTF-8.
    #[getter]
    fn payload_format(&self) -> Option<u8> {
        self.0.payload_format_indicator()
    }

    /// Pairs of names and values, in order; names may repeat.
    #[getter]
    fn user_properties<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        user_properties_tuple(py, &self.0)
    }

    /// Identifiers of the subscriptions it matches.
    #[getter]
    fn subscription_identifiers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.subscription_identifiers().collect::<Vec<_>>())
    }

    fn __bool__(&self) -> bool {
        !self.0.is_empty()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let mut parts = Vec::new();
        let mut add = |name: &str, value: Bound<'_, PyAny>| {
            if value.is_truthy()? {
                parts.push(format!("{name}={}", value.repr()?));
            }
            Ok::<_, PyErr>(())
        };
        add("message_expiry", self.message_expiry().into_pyobject(py)?.into_any())?;
        add("content_type", self.content_type().into_pyobject(py)?.into_any())?;
        add("response_topic", self.response_topic().into_pyobject(py)?.into_any())?;
        add("correlation_data", self.correlation_data(py).into_pyobject(py)?.into_any())?;
        add("payload_format", self.payload_format().into_pyobject(py)?.into_any())?;
        add("user_properties", self.user_properties(py)?.into_any())?;
        add("subscription_identifiers", self.subscription_identifiers(py)?.into_any())?;
        Ok(format!("Properties({})", parts.join(", ")))
    }
}

/// The pairs of names and values.
pub(crate) fn user_properties_tuple<'py>(
    py: Python<'py>,
    properties: &codec::Properties,
) -> PyResult<Bound<'py, PyTuple>> {
    let pairs: Vec<_> = properties.user_properties().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    PyTuple::new(py, pairs)
}

/// The properties of a publication, as keyword arguments give them.
#[derive(Default)]
pub(crate) struct Keywords<'a, 'py> {
    pub(crate) message_expiry: Option<f64>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) response_topic: Option<&'a str>,
    pub(crate) correlation_data: Option<&'a Bound<'py, PyAny>>,
    pub(crate) user_properties: Option<&'a Bound<'py, PyAny>>,
    pub(crate) payload_format: Option<i64>,
}

impl Keywords<'_, '_> {
    /// As the packet carries them.
    pub(crate) fn to_properties(&self, py: Python<'_>) -> PyResult<codec::Properties> {
        let mut properties = codec::Properties::new();
        if let Some(format) = self.payload_format {
            let format = number(py, "payload_format", format, 0..=1)?;
            properties.push(Property::PayloadFormatIndicator(format));
        }
        if let Some(seconds) = self.message_expiry {
            properties.push(Property::MessageExpiryInterval(whole_seconds(py, "message_expiry", seconds)?));
        }
        if let Some(content_type) = self.content_type {
            properties.push(Property::ContentType(text(py, content_type)?));
        }
        if let Some(topic) = self.response_topic {
            super::topics::validate_topic(py, topic)?;
            properties.push(Property::ResponseTopic(text(py, topic)?));
        }
        if let Some(data) = self.correlation_data {
            properties.push(Property::CorrelationData(payload::Data::extract(data, None)?.to_bytes()));
        }
        if let Some(pairs) = self.user_properties {
            for pair in user_properties(pairs)? {
                properties.push(Property::UserProperty(pair));
            }
        }
        Ok(properties)
    }
}

/// User properties from a dictionary or from pairs, which may repeat a name.
pub(crate) fn user_properties(value: &Bound<'_, PyAny>) -> PyResult<Vec<(Text, Text)>> {
    let py = value.py();
    let pairs = match value.cast::<PyDict>() {
        Ok(dict) => dict.items().into_any(),
        Err(_) => value.clone(),
    };
    let wrong = |given: &Bound<'_, PyAny>| {
        let given = given.repr().map_or_else(|_| "that".to_owned(), |text| text.to_string());
        PyTypeError::new_err(format!("user_properties is a mapping or pairs of str, not {given}"))
    };
    pairs
        .try_iter()
        .map_err(|_| wrong(value))?
        .map(|pair| {
            let pair = pair?;
            let (name, value): (String, String) = pair.extract().map_err(|_| wrong(&pair))?;
            Ok((text(py, &name)?, text(py, &value)?))
        })
        .collect()
}

/// A number of seconds as MQTT has them: whole, rounded up, so that nothing expires early.
#[allow(clippy::cast_sign_loss)]
pub(crate) fn whole_seconds(py: Python<'_>, name: &str, seconds: f64) -> PyResult<u32> {
    if !(0.0..=f64::from(u32::MAX)).contains(&seconds) {
        return Err(errors::invalid(
            py,
            &format!("{name} is a number of seconds from 0 to {}, not {seconds}", u32::MAX),
        ));
    }
    Ok(seconds.ceil() as u32)
}
