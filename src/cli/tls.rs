//! TLS options of what connects. The names are those of mosquitto_pub and mosquitto_sub.

use std::path::PathBuf;

use clap::Args;

use crate::client::ClientTls;

/// Whom to believe, and as whom to appear.
#[derive(Debug, Args)]
pub(super) struct Tls {
    /// Connects with TLS, as mqtts:// and wss:// do; the options below, and port 8883, do it, too.
    #[arg(long)]
    tls: bool,
    /// Certificates (PEM) of those to trust, in place of those whom the system trusts.
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Own certificate (PEM), for brokers that ask for one.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key (PEM) of --cert.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The name that the broker's certificate must bear, if it is not the host.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Believe any certificate: whoever is in between reads along.
    #[arg(long)]
    insecure: bool,
    /// Application protocol to offer, such as x-amzn-mqtt-ca.
    #[arg(long, value_name = "PROTOCOL")]
    tls_alpn: Option<String>,
}

impl Tls {
    /// Whether it was asked for, apart from the URL.
    pub(super) fn is_wanted(&self, port: Option<u16>) -> bool {
        let named = self.cafile.is_some() || self.cert.is_some() || self.server_name.is_some();
        self.tls || named || self.insecure || self.tls_alpn.is_some() || port == Some(TLS_PORT)
    }

    /// As the client takes it.
    pub(super) fn options(&self) -> ClientTls {
        ClientTls {
            ca: self.cafile.clone().map(Into::into),
            identity: self.cert.clone().zip(self.key.clone()).map(|(cert, key)| (cert.into(), key.into())),
            server_name: self.server_name.clone(),
            verify: !self.insecure,
            alpn: self.tls_alpn.clone().into_iter().collect(),
        }
    }
}

/// Registered for MQTT over TLS.
const TLS_PORT: u16 = 8883;
