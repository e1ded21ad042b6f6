//! TLS by rustls: from PEM to what a server or a client needs. The client's stream is tokio-rustls, the shard's is
//! `TlsStream`.

mod explain;
mod stream;

#[cfg(feature = "self-signed")]
mod self_signed;

use std::{error::Error, fmt, io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};

use explain::explain;
#[cfg(feature = "self-signed")]
pub use self_signed::SelfSigned;
pub(crate) use stream::TlsStream;

use crate::config::{ListenerTls, Pem};

/// Why certificates or keys are of no use.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("the {what} cannot be read from {pem}: {fault}")]
    Read {
        /// Which.
        what: &'static str,
        /// Where it was looked for.
        pem: Pem,
        /// What the system said.
        fault: String,
    },
    /// There is text, but not what was looked for.
    #[error("{pem} holds no {what} in PEM form, which begins with a line -----BEGIN ...-----")]
    Empty {
        /// What was looked for.
        what: &'static str,
        /// Where.
        pem: Pem,
    },
    /// Certificate and key do not belong together, or one of them is damaged or of a kind that is not known.
    #[error("certificate {cert} and key {key} cannot be used: {fault}")]
    Pair {
        /// The certificate.
        cert: Pem,
        /// The key.
        key: Pem,
        /// What is wrong.
        fault: String,
    },
    /// A certificate to trust is damaged.
    #[error("{pem} holds a certificate that nobody can be checked against: {fault}")]
    Authority {
        /// Where it is.
        pem: Pem,
        /// What is wrong.
        fault: String,
    },
    /// The system names nobody to trust.
    #[error("this system has no list of certificate authorities ({fault}): install ca-certificates, or name a CA file")]
    NoAuthorities {
        /// What was looked at.
        fault: String,
    },
    /// A listener has no certificate.
    #[error("TLS needs a certificate and its key: name PEM files with cert and key")]
    NoCertificate,
    /// A listener that does not speak TLS was given a certificate.
    #[error("a certificate is of no use without TLS: write tls:// or wss://, or leave it out")]
    NotTls,
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// What a listener's connections share.
pub(crate) fn server_config(tls: &ListenerTls) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(pem)?), provider())
                .build()
                .map_err(|error| TlsError::Authority { pem: pem.clone(), fault: error.to_string() })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = (certificates("certificate", &tls.cert)?, private_key(&tls.key)?);
    let mut config = builder.with_single_cert(chain, key).map_err(|error| pair(&tls.cert, &tls.key, &error))?;
    // A fleet that comes back resumes its TLS sessions without a look-up here.
    config.ticketer = ring::Ticketer::new().map_err(|error| TlsError::Setup(error.to_string()))?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// How a client checks the server, and proves who it is if it is asked.
pub(crate) fn client_config(
    ca: Option<&Pem>,
    own: Option<(&Pem, &Pem)>,
    verify: bool,
    alpn: &[String],
) -> Result<Arc<ClientConfig>, TlsError> {
    let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(ca, verify)?);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(certificates("certificate", cert)?, private_key(key)?)
            .map_err(|error| pair(cert, key, &error))?,
    };
    config.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
    Ok(Arc::new(config))
}

/// Who says whether a server is who it claims to be.
fn verifier(ca: Option<&Pem>, verify: bool) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    if !verify {
        return Ok(Arc::new(explain::Anybody(provider())));
    }
    let (roots, certificates) = match ca {
        Some(pem) => (authorities(pem)?, certificates("CA certificate", pem)?),
        None => (system_authorities()?, Vec::new()),
    };
    let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    Ok(Arc::new(explain::Named { roots, certificates }))
}

/// Those whom this system trusts. SSL_CERT_FILE and SSL_CERT_DIR are heeded.
fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One that is too old to be understood is nobody's fault, and the others do.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let faults: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let fault = if faults.is_empty() { "none found".to_owned() } else { faults.join("; ") };
        return Err(TlsError::NoAuthorities { fault });
    }
    Ok(roots)
}

fn authorities(pem: &Pem) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA certificate", pem)? {
        roots.add(certificate).map_err(|error| TlsError::Authority { pem: pem.clone(), fault: explain(&error) })?;
    }
    Ok(roots)
}

fn certificates(what: &'static str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(what, pem)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::Empty { what, pem: pem.clone() }),
    }
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read("key", pem)?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| TlsError::Empty { what: "key without a passphrase", pem: pem.clone() })
}

fn read(what: &'static str, pem: &Pem) -> Result<Vec<u8>, TlsError> {
    let text = pem.read().map_err(|error| TlsError::Read { what, pem: pem.clone(), fault: error.to_string() })?;
    Ok(text.into_owned())
}

fn pair(cert: &Pem, key: &Pem, error: &rustls::Error) -> TlsError {
    TlsError::Pair { cert: cert.clone(), key: key.clone(), fault: explain(error) }
}

/// Named, rather than the process's default, which is somebody else's to choose.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A listener's part of TLS, in one word for logs.
#[derive(Clone)]
pub(crate) struct Tls(pub(crate) Arc<ServerConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// What rustls says of a peer, as an error that [`is_fault`] knows again.
pub(crate) fn fault(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Whether an error is TLS's, and not the transport's below it.
pub(crate) fn is_fault(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>)
}

/// The same in words that say what to do, if it is TLS's.
pub(crate) fn explain_io(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(fault) => io::Error::new(error.kind(), format!("TLS: {}", explain(fault))),
        None => error,
    }
}
