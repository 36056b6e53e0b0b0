//! TLS between the members of a cluster, when it is asked for.
//!
//! In: the paths of `--tls-cert`, `--tls-key` and `--tls-ca`. Out: [`Tls`], checked, for servers and for clients. A file
//! that cannot be used is an error when it is read; nothing goes on in plain text instead.

use std::fmt;
use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};

use crate::Error;
use crate::error::reason_of;

/// The paths a person gave.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// The certificate this process shows, PEM.
    pub cert: Option<PathBuf>,
    /// The private key of that certificate, PEM.
    pub key: Option<PathBuf>,
    /// The certificates that this process trusts when it calls others, PEM. Without it, its own certificate is the
    /// only one it trusts, which fits a cluster that shares one.
    pub ca: Option<PathBuf>,
}

/// Certificates that were read and found good.
#[derive(Clone)]
pub struct Tls {
    identity: Option<Identity>,
    trusted: Certificate,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("identity", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files; `None` when none is given.
    pub fn read(files: &TlsFiles) -> Result<Option<Self>, Error> {
        let (identity, own) = match (&files.cert, &files.key) {
            (Some(cert), Some(key)) => {
                let pem = read_pem(cert, "CERTIFICATE")?;
                let identity = Identity::from_pem(&pem, read_pem(key, "PRIVATE KEY")?);
                (Some(identity), Some(Certificate::from_pem(pem)))
            }
            (None, None) => (None, None),
            (Some(_), None) => return Err(Error::Tls("`--tls-cert` needs `--tls-key`".to_owned())),
            (None, Some(_)) => return Err(Error::Tls("`--tls-key` needs `--tls-cert`".to_owned())),
        };
        let given = match &files.ca {
            Some(path) => Some(Certificate::from_pem(read_pem(path, "CERTIFICATE")?)),
            None => None,
        };
        let Some(trusted) = given.or(own) else {
            return Ok(None);
        };
        let tls = Self { identity, trusted };
        tls.try_out(files)?;
        Ok(Some(tls))
    }

    /// Whether this process can be a TLS server.
    pub fn is_server(&self) -> bool {
        self.identity.is_some()
    }

    /// The configuration of a server, if there is a certificate to show.
    pub fn server(&self) -> Result<ServerTlsConfig, Error> {
        let identity = self.identity.clone().ok_or_else(|| {
            Error::Tls("a TLS server needs `--tls-cert` and `--tls-key`; `--tls-ca` alone is for clients".to_owned())
        })?;
        Ok(ServerTlsConfig::new().identity(identity))
    }

    /// The configuration of a client.
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(self.trusted.clone())
    }

    /// Builds what will be built later, so that a bad file is found at the start and not at the first call.
    fn try_out(&self, files: &TlsFiles) -> Result<(), Error> {
        if self.identity.is_some() {
            Server::builder().tls_config(self.server()?).map_err(|error| {
                let shown = |path: &Option<PathBuf>| path.as_deref().unwrap_or(Path::new("")).display().to_string();
                Error::Tls(format!(
                    "cannot use the certificate `{}` with the key `{}`: {}",
                    shown(&files.cert),
                    shown(&files.key),
                    reason_of(&error)
                ))
            })?;
        }
        Endpoint::from_static("https://localhost")
            .tls_config(self.client())
            .map_err(|error| {
                let path = files.ca.as_deref().or(files.cert.as_deref()).unwrap_or(Path::new(""));
                Error::Tls(format!(
                    "cannot trust the certificates of `{}`: {}",
                    path.display(),
                    reason_of(&error)
                ))
            })?;
        Ok(())
    }
}

/// Reads a PEM file that must hold at least one block of `kind`.
fn read_pem(path: &Path, kind: &str) -> Result<Vec<u8>, Error> {
    let pem = std::fs::read(path)
        .map_err(|error| Error::Tls(format!("cannot read the TLS file `{}`: {error}", path.display())))?;
    let text = String::from_utf8_lossy(&pem);
    let holds = text
        .lines()
        .any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{kind}-----")));
    if !holds {
        return Err(Error::Tls(format!("`{}` holds no PEM block `{kind}`", path.display())));
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(files: &TlsFiles) -> String {
        Tls::read(files).unwrap_err().to_string()
    }

    #[test]
    fn a_bad_file_is_an_error_and_never_plain_text() {
        assert!(Tls::read(&TlsFiles::default()).unwrap().is_none());
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken.pem");
        let missing = folder.path().join("missing.pem");
        std::fs::write(
            &broken,
            "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let ca = |path: &Path| TlsFiles {
            ca: Some(path.to_owned()),
            ..TlsFiles::default()
        };
        assert!(message(&ca(&missing)).contains("missing.pem"));
        assert!(message(&ca(&broken)).contains("broken.pem"));
        let lonely = TlsFiles {
            cert: Some(broken.clone()),
            ..TlsFiles::default()
        };
        assert_eq!(message(&lonely), "`--tls-cert` needs `--tls-key`");
        let swapped = TlsFiles {
            cert: Some(broken.clone()),
            key: Some(broken),
            ..TlsFiles::default()
        };
        assert!(message(&swapped).contains("holds no PEM block `PRIVATE KEY`"));
    }
}
