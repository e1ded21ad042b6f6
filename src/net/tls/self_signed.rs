//! A certificate made on the spot, for tests.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::TlsError;
use crate::config::{ListenerTls, Pem};

/// A certificate that nobody but itself vouches for, with its key. A client that is to believe it is given
/// [`SelfSigned::certificate`] as the CA.
#[derive(Clone)]
pub struct SelfSigned {
    certificate: String,
    key: String,
}

impl SelfSigned {
    /// For these names and addresses, from now on (RFC 5280); it is of the kind ECDSA P-256.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, TlsError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        Self::make(names).map_err(|error| TlsError::Setup(error.to_string()))
    }

    fn make(names: Vec<String>) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(names)?;
        // Two that are trusted side by side are told apart by this name.
        let random = key.public_key_raw().iter().rev().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, format!("FerroMQ test {random}"));
        let certificate = parameters.self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// The certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The key, PEM.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// As a listener takes it.
    pub fn to_listener(&self) -> ListenerTls {
        ListenerTls {
            cert: Pem::Text(self.certificate.as_str().into()),
            key: Pem::Text(self.key.as_str().into()),
            client_ca: None,
        }
    }
}

impl std::fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SelfSigned")
    }
}
