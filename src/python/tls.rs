//! `Tls` for a broker's listeners, `ClientTls` for clients.

use std::path::PathBuf;

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyString},
};
use toml::{Table, Value};

use super::errors;
use crate::{
    client,
    config::{ListenerUrl, Pem},
    net::tls::SelfSigned,
};

/// A listener with TLS, for `Broker(listeners=[...])`.
///
///     tls = ferromq.Tls("0.0.0.0:8883", cert="server.pem", key="server.key")
///     with ferromq.Broker(listeners=[tls]) as broker: ...
///
/// Without a certificate one is made that is signed by itself, for tests: clients that are to believe it pass
/// `tls=ferromq.ClientTls(ca=tls.certificate)`.
///
/// Args:
///     address: Where to listen, `host:port`; port 0 is any that is free.
///     cert: Certificate, followed by those between it and a trusted one: the path of a PEM file, or the text.
///     key: Its private key, without a passphrase: the path of a PEM file, or the text.
///     client_ca: Clients must show a certificate that one of these has signed: a path, or the text.
///     path: Of a WebSocket endpoint, such as `/mqtt`; by default plain MQTT is spoken.
///     max_connections: At one time; 0 is no limit.
///
/// Raises:
///     InvalidArgument: The address is not one, or only one of `cert` and `key` is there.
#[pyclass(frozen, module = "ferromq")]
pub(crate) struct Tls {
    url: ListenerUrl,
    cert: Pem,
    key: Pem,
    client_ca: Option<Pem>,
    max_connections: i64,
}

#[pymethods]
impl Tls {
    #[new]
    #[pyo3(signature = (address = "127.0.0.1:0", *, cert = None, key = None, client_ca = None, path = None, max_connections = 0))]
    fn new(
        py: Python<'_>,
        address: &str,
        cert: Option<Bound<'_, PyAny>>,
        key: Option<Bound<'_, PyAny>>,
        client_ca: Option<Bound<'_, PyAny>>,
        path: Option<&str>,
        max_connections: i64,
    ) -> PyResult<Self> {
        let url = match path {
            Some(path) => format!("wss://{address}/{}", path.trim_start_matches('/')),
            None => format!("tls://{address}"),
        };
        let url: ListenerUrl =
            url.parse().map_err(|fault: crate::config::ListenerUrlError| errors::invalid(py, &fault.to_string()))?;
        let (cert, key) = match (cert, key) {
            (Some(cert), Some(key)) => (pem(&cert)?, pem(&key)?),
            (None, None) => self_signed(py, &url)?,
            _ => return Err(errors::invalid(py, "cert and key come together, or not at all")),
        };
        let client_ca = client_ca.as_ref().map(pem).transpose()?;
        Ok(Self { url, cert, key, client_ca, max_connections })
    }

    /// The server's certificate, PEM: what a client takes for `ca` if it was made here.
    ///
    /// Raises:
    ///     InvalidArgument: The file cannot be read.
    #[getter]
    fn certificate(&self, py: Python<'_>) -> PyResult<String> {
        text(py, &self.cert)
    }

    fn __repr__(&self) -> String {
        format!("Tls({:?}, cert={:?})", self.url.to_string(), self.cert.to_string())
    }
}

impl Tls {
    /// As an element of `listeners`.
    pub(crate) fn to_table(&self) -> Table {
        let text = |pem: &Pem| {
            Value::String(match pem {
                Pem::File(path) => path.display().to_string(),
                Pem::Text(text) => text.to_string(),
            })
        };
        let mut table = Table::new();
        table.insert("url".into(), Value::String(self.url.to_string()));
        table.insert("cert".into(), text(&self.cert));
        table.insert("key".into(), text(&self.key));
        if let Some(ca) = &self.client_ca {
            table.insert("client_ca".into(), text(ca));
        }
        table.insert("max_connections".into(), Value::Integer(self.max_connections));
        table
    }
}

/// How a client checks the server of `mqtts://` and `wss://`, and proves who it is.
///
/// Args:
///     ca: Certificates of those to trust, in place of those whom the system trusts: a PEM file's path, or the text.
///     cert: The client's own certificate, if the server asks for one: a path, or the text.
///     key: Its private key, without a passphrase.
///     server_name: The name that the server's certificate must bear, if it is not the host of the URL.
///     verify: Whether the certificate is checked at all. Without it, whoever is in between reads along.
///     alpn: Protocols to offer (RFC 7301), such as `x-amzn-mqtt-ca` for AWS IoT Core at port 443.
///
/// Raises:
///     InvalidArgument: Only one of `cert` and `key` is there.
#[pyclass(frozen, module = "ferromq", eq)]
#[derive(Clone, PartialEq)]
pub(crate) struct ClientTls(client::ClientTls);

#[pymethods]
impl ClientTls {
    #[new]
    #[pyo3(signature = (*, ca = None, cert = None, key = None, server_name = None, verify = true, alpn = None))]
    fn new(
        py: Python<'_>,
        ca: Option<Bound<'_, PyAny>>,
        cert: Option<Bound<'_, PyAny>>,
        key: Option<Bound<'_, PyAny>>,
        server_name: Option<String>,
        verify: bool,
        alpn: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((pem(&cert)?, pem(&key)?)),
            (None, None) => None,
            _ => return Err(errors::invalid(py, "cert and key come together, or not at all")),
        };
        let ca = ca.as_ref().map(pem).transpose()?;
        Ok(Self(client::ClientTls { ca, identity, server_name, verify, alpn: alpn.unwrap_or_default() }))
    }

    /// Whether the server's certificate is checked.
    #[getter]
    fn verify(&self) -> bool {
        self.0.verify
    }

    /// The name that the server's certificate must bear.
    #[getter]
    fn server_name(&self) -> Option<&str> {
        self.0.server_name.as_deref()
    }

    fn __repr__(&self) -> String {
        let ca = self.0.ca.as_ref().map_or("None".to_owned(), |ca| format!("{:?}", ca.to_string()));
        format!("ClientTls(ca={ca}, verify={})", if self.0.verify { "True" } else { "False" })
    }
}

impl ClientTls {
    /// As the Rust client takes it.
    pub(crate) fn inner(&self) -> &client::ClientTls {
        &self.0
    }
}

/// PEM text as Python gets it.
pub(crate) fn text(py: Python<'_>, pem: &Pem) -> PyResult<String> {
    let bytes = pem.read().map_err(|error| errors::invalid(py, &format!("{pem} cannot be read: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// For this machine, and for the address if it is another.
fn self_signed(py: Python<'_>, url: &ListenerUrl) -> PyResult<(Pem, Pem)> {
    let host = match url {
        ListenerUrl::Tcp { host, .. } | ListenerUrl::Ws { host, .. } => Some(host.as_str()),
        ListenerUrl::Unix { .. } => None,
    };
    let own = LOCAL.iter().copied().filter(|name| Some(*name) != host);
    let made = SelfSigned::new(own.chain(host)).map_err(|fault| errors::invalid(py, &fault.to_string()))?;
    Ok((made.certificate().into(), made.key().into()))
}

/// A path, or PEM text.
fn pem(value: &Bound<'_, PyAny>) -> PyResult<Pem> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(text.to_str()?.into());
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        let text = std::str::from_utf8(bytes.as_bytes())
            .map_err(|_| errors::invalid(value.py(), "a certificate or key in bytes is PEM text, not DER"))?;
        return Ok(Pem::Text(text.into()));
    }
    let path: PathBuf = value
        .extract()
        .map_err(|_| PyTypeError::new_err("a certificate or key is the path of a PEM file, or its text"))?;
    Ok(path.into())
}

/// What a broker in tests is called by.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
