//! TLS at the client: whom it believes, and how it proves who it is.

use std::{fmt, io};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::ServerUrl;
use crate::{
    config::Pem,
    net::tls::{TlsError, client_config, explain_io},
};

/// How a client checks the servers of `mqtts://` and `wss://`, and proves who it is. TLS 1.2 and 1.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// Certificates of those whom it trusts to name servers. `None`, the default: those whom the system trusts
    /// (SSL_CERT_FILE and SSL_CERT_DIR are heeded).
    pub ca: Option<Pem>,
    /// Its own certificate, with those between it and a trusted one, and the private key. Default none.
    pub identity: Option<(Pem, Pem)>,
    /// The name that the server's certificate must bear. `None`, the default: the host of the URL.
    pub server_name: Option<String>,
    /// Whether the server's certificate is checked. Default true; without it, whoever is in between reads along.
    pub verify: bool,
    /// Protocols to offer (RFC 7301), such as `x-amzn-mqtt-ca` for AWS IoT Core at port 443. Default none.
    pub alpn: Vec<String>,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self { ca: None, identity: None, server_name: None, verify: true, alpn: Vec::new() }
    }
}

impl ClientTls {
    /// Reads the files; `None` if none of the servers needs them.
    pub(super) fn for_servers(&self, servers: &[ServerUrl]) -> Result<Option<Secure>, TlsError> {
        servers.iter().any(ServerUrl::is_tls).then(|| self.secure()).transpose()
    }

    /// Reads the files.
    pub(crate) fn secure(&self) -> Result<Secure, TlsError> {
        let own = self.identity.as_ref().map(|(cert, key)| (cert, key));
        let config = client_config(self.ca.as_ref(), own, self.verify, &self.alpn)?;
        let name = self.server_name.as_deref().map(name_of).transpose().map_err(TlsError::Setup)?;
        Ok(Secure { connector: TlsConnector::from(config), name })
    }
}

/// What makes a connection a secure one.
#[derive(Clone)]
pub(crate) struct Secure {
    connector: TlsConnector,
    name: Option<ServerName<'static>>,
}

impl Secure {
    /// Does the handshake with `host`.
    pub(crate) async fn connect<S>(&self, stream: S, host: &str) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => name_of(host).map_err(io::Error::other)?,
        };
        self.connector.connect(name, stream).await.map_err(explain_io)
    }
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A zone such as fe80::1%eth0 is no part of what a certificate names.
fn name_of(host: &str) -> Result<ServerName<'static>, String> {
    let bare = host.split('%').next().unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|_| format!("{host:?} is no name that a certificate could bear"))
}
