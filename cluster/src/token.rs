//! The join token: the one secret that a coordinator and its workers share.
//!
//! In: `DATA/join-token`, a file named by a flag, or a value. Out: a [`Token`], the credential that every call of the
//! cluster carries, and the check at the door of every server. It is not for users: they have API keys of their own.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use http::HeaderValue;
use rand::TryRngCore;
use rand::rngs::OsRng;
use subtle::ConstantTimeEq;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::Error;

/// The file in a coordinator's data folder that holds the token.
pub const TOKEN_FILE: &str = "join-token";

const BYTES: usize = 32;

/// 32 random bytes written as 64 hexadecimal digits. Its `Debug` does not show them.
#[derive(Clone)]
pub struct Token {
    digits: String,
    header: HeaderValue,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// A new token from the operating system's random source.
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = [0_u8; BYTES];
        OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| Error::Token(format!("cannot make a join token: no random source: {error}")))?;
        Self::parse(&hex(&bytes))
    }

    /// Reads the token's digits; white space around them is ignored.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let digits = text.trim().to_ascii_lowercase();
        let malformed = || {
            Error::Token(format!(
                "malformed join token: expected {} hexadecimal digits",
                2 * BYTES
            ))
        };
        if digits.len() != 2 * BYTES || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let mut header = HeaderValue::try_from(format!("Bearer {digits}")).map_err(|_| malformed())?;
        header.set_sensitive(true);
        Ok(Self { digits, header })
    }

    /// Reads the token from a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path)
            .map_err(|error| Error::Token(format!("cannot read the join token `{}`: {error}", path.display())))?;
        Self::parse(&text).map_err(|error| Error::Token(format!("`{}`: {error}", path.display())))
    }

    /// The token of a data folder, made there (mode 0600) if there is none yet. When several processes start at once,
    /// all of them get the same one.
    pub fn open(data: &Path) -> Result<Self, Error> {
        let path = data.join(TOKEN_FILE);
        if !path.exists() {
            fs::create_dir_all(data).map_err(|error| cannot_write(&path, &error))?;
            Self::generate()?.write_new(&path)?;
        }
        Self::read(&path)
    }

    /// The token of a worker: from a file, else from a value (an environment variable), else from a data folder.
    pub fn find(file: Option<&Path>, value: Option<&str>, data: &Path) -> Result<Self, Error> {
        if let Some(file) = file {
            return Self::read(file);
        }
        if let Some(value) = value {
            return Self::parse(value).map_err(|error| Error::Token(format!("`MINERVA_JOIN_TOKEN`: {error}")));
        }
        let path = data.join(TOKEN_FILE);
        if !path.exists() {
            return Err(Error::Token(format!(
                "no join token: give `--join-token-file` or `MINERVA_JOIN_TOKEN`, or copy the coordinator's `{TOKEN_FILE}` to `{}`",
                path.display()
            )));
        }
        Self::read(&path)
    }

    /// Whether `presented` is this token; takes equally long wherever they differ.
    pub fn matches(&self, presented: &str) -> bool {
        self.digits.as_bytes().ct_eq(presented.as_bytes()).into()
    }

    /// The value of the `authorization` header that carries the token.
    pub(crate) fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Writes the whole file beside its place and then links it in, so that nobody ever reads half a token and an
    /// existing one is never replaced.
    fn write_new(&self, path: &Path) -> Result<(), Error> {
        let scratch = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options
            .open(&scratch)
            .and_then(|mut file| {
                writeln!(file, "{}", self.digits)?;
                file.sync_all()
            })
            .and_then(|()| match fs::hard_link(&scratch, path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            })
            .map_err(|error| cannot_write(path, &error));
        // The scratch file may already be gone; what counts is whether the token itself was written.
        let _ = fs::remove_file(&scratch);
        written
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    Error::Token(format!("cannot write the join token `{}`: {error}", path.display()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// The door of a server: lets nobody in without the token.
#[derive(Debug, Clone)]
pub struct CheckToken(pub Token);

impl Interceptor for CheckToken {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let presented = request
            .metadata()
            .get("authorization")
            .ok_or_else(|| Status::unauthenticated("missing join token: this port is for the cluster's own members"))?;
        let digits = presented.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        match digits {
            Some(digits) if self.0.matches(digits) => Ok(request),
            _ => Err(Status::unauthenticated(
                "wrong join token: use the one in the coordinator's data folder",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_keeps_one_private_token() {
        let data = tempfile::tempdir().unwrap();
        let first = Token::open(data.path()).unwrap();
        let again = Token::open(data.path()).unwrap();
        assert!(first.matches(&again.digits));
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1, "no scratch file stays");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(data.path().join(TOKEN_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(!Token::generate().unwrap().matches(&first.digits));
        assert!(!format!("{first:?}").contains(&first.digits));
    }

    #[test]
    fn a_worker_looks_in_file_then_value_then_data_folder() {
        let data = tempfile::tempdir().unwrap();
        let error = Token::find(None, None, data.path()).unwrap_err();
        assert!(error.to_string().contains("--join-token-file"), "{error}");
        let kept = Token::open(data.path()).unwrap();
        assert!(Token::find(None, None, data.path()).unwrap().matches(&kept.digits));
        let given = Token::generate().unwrap();
        let found = Token::find(None, Some(&format!(" {}\n", given.digits)), data.path()).unwrap();
        assert!(found.matches(&given.digits));
        let error = Token::find(None, Some("abc"), data.path()).unwrap_err();
        assert!(error.to_string().contains("64 hexadecimal digits"), "{error}");
    }
}
