//! The certificate and key that every door shares.
//!
//! In: PEM files. Out: [`Tls`], read once and known to be usable, so that a wrong file stops the start instead of the first client.
//! With authorities, a client may show a certificate, which must be of one of them; whose it is, `auth` decides. Deliberately absent: reloading.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::GatewayError;

/// A certificate chain and its private key, checked.
pub struct Tls {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files and checks that they belong to a usable identity; `authorities` are those that clients' certificates are checked by.
    pub fn read(certificate: &Path, key: &Path, authorities: Option<&Path>) -> Result<Self, GatewayError> {
        let tls = Self {
            certificate: bytes_of(certificate)?,
            key: bytes_of(key)?,
            authorities: None,
        };
        match Server::builder().tls_config(tls.config()) {
            Ok(_) => tls.with_authorities(authorities),
            Err(error) => Err(GatewayError::TlsContent {
                certificate: PathBuf::from(certificate),
                key: PathBuf::from(key),
                message: std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string),
            }),
        }
    }

    fn with_authorities(mut self, path: Option<&Path>) -> Result<Self, GatewayError> {
        let Some(path) = path else { return Ok(self) };
        self.authorities = Some(bytes_of(path)?);
        match Server::builder().tls_config(self.config()) {
            Ok(_) => Ok(self),
            Err(_) => Err(GatewayError::TlsAuthorities {
                path: PathBuf::from(path),
            }),
        }
    }

    /// What a gRPC server needs.
    pub(super) fn config(&self) -> ServerTlsConfig {
        let config = ServerTlsConfig::new().identity(Identity::from_pem(&self.certificate, &self.key));
        match &self.authorities {
            // Who shows no certificate shows a key or a token.
            Some(pem) => config
                .client_ca_root(Certificate::from_pem(pem))
                .client_auth_optional(true),
            None => config,
        }
    }

    /// What a door needs that accepts its connections itself and speaks HTTP/1.1.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| format!("the key cannot be read: {error}"))?;
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ClientCertVerifier> = match &self.authorities {
            // Who shows no certificate shows a key or a token.
            Some(pem) => WebPkiClientVerifier::builder_with_provider(roots(pem)?, Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| format!("the authorities of clients cannot be used: {error}"))?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key))
            .map_err(|error| error.to_string())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| format!("the authorities of clients cannot be read: {error}"))?;
    }
    Ok(Arc::new(roots))
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, GatewayError> {
    std::fs::read(path).map_err(|source| GatewayError::TlsFile {
        path: PathBuf::from(path),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_and_a_wrong_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.pem");
        assert!(matches!(
            Tls::read(&missing, &missing, None),
            Err(GatewayError::TlsFile { .. })
        ));

        let wrong = folder.path().join("wrong.pem");
        std::fs::write(&wrong, "this is no certificate").unwrap();
        let refused = Tls::read(&wrong, &wrong, None).unwrap_err();
        assert!(matches!(refused, GatewayError::TlsContent { .. }), "{refused}");
    }
}
