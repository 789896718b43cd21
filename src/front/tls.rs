//! TLS for Stratum and pages: loads the operator's certificate and key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

/// TLS acceptor with the operator's certificate.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No part of a private key belongs in a log.
        f.write_str("Tls")
    }
}

/// Paths of certificate and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain in PEM, our own certificate first.
    pub certificates: PathBuf,
    /// Private key in PEM.
    pub key: PathBuf,
}

/// Reason why TLS cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read `{path}`: {error}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        error: pem::Error,
    },
    /// The file has no certificate.
    #[error("no certificate in `{0}`")]
    Empty(PathBuf),
    /// The key does not match the certificate, or their kind is not supported.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

impl Tls {
    /// Loads `files`.
    ///
    /// # Errors
    /// The file that is unusable, and the cause.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let wrong = |path: &Path| {
            let path = path.to_owned();
            move |error| TlsError::File { path, error }
        };
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificates)
            .and_then(Iterator::collect)
            .map_err(wrong(&files.certificates))?;
        if certificates.is_empty() {
            return Err(TlsError::Empty(files.certificates.clone()));
        }
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(wrong(&files.key))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Performs the TLS handshake with a client.
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.0.accept(stream).await
    }
}
