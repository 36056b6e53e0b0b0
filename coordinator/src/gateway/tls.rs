//! The certificate and key that every door shares.
//!
//! In: two PEM files. Out: [`Tls`], read once and known to be usable, so that a wrong file stops the start instead of the first client.
//! Deliberately absent: reloading, and client certificates: users prove themselves with keys and tokens.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use tonic::transport::{Identity, Server, ServerTlsConfig};

use super::GatewayError;

/// A certificate chain and its private key, checked.
pub struct Tls {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads both files and checks that they belong to a usable identity.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, GatewayError> {
        let tls = Self {
            certificate: bytes_of(certificate)?,
            key: bytes_of(key)?,
        };
        match Server::builder().tls_config(tls.config()) {
            Ok(_) => Ok(tls),
            Err(error) => Err(GatewayError::TlsContent {
                certificate: PathBuf::from(certificate),
                key: PathBuf::from(key),
                message: std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string),
            }),
        }
    }

    /// What a gRPC server needs.
    pub(super) fn config(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(Identity::from_pem(&self.certificate, &self.key))
    }
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
            Tls::read(&missing, &missing),
            Err(GatewayError::TlsFile { .. })
        ));

        let wrong = folder.path().join("wrong.pem");
        std::fs::write(&wrong, "this is no certificate").unwrap();
        let refused = Tls::read(&wrong, &wrong).unwrap_err();
        assert!(matches!(refused, GatewayError::TlsContent { .. }), "{refused}");
    }
}
