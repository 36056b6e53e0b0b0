//! How a connection begins: the server's greeting, TLS, and the proof of the password.
//!
//! A password is proved by what cannot be replayed, or is sent as it is: the latter only inside TLS, or over a Unix socket.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use super::Failure;
use super::packet::{Fields, push_lenenc_bytes};

const LONG_PASSWORD: u32 = 1;
const LONG_FLAG: u32 = 1 << 2;
const PROTOCOL_41: u32 = 1 << 9;
pub(super) const SSL: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;
const CONNECT_ATTRS: u32 = 1 << 20;
const PLUGIN_AUTH_LENENC: u32 = 1 << 21;

/// What is spoken where the server can. Above all not what lets the server ask for files of this machine.
const WANTED: u32 = LONG_PASSWORD
    | LONG_FLAG
    | PROTOCOL_41
    | TRANSACTIONS
    | SECURE_CONNECTION
    | PLUGIN_AUTH
    | CONNECT_ATTRS
    | PLUGIN_AUTH_LENENC;
const NEEDED: u32 = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH;

/// `utf8mb4_general_ci`, which all of them know; the session chooses for itself later.
const COLLATION: u8 = 45;
const LARGEST_PACKET: u32 = 1 << 30;

/// The server's first words.
pub(super) struct Greeting {
    pub(super) thread: u32,
    pub(super) capabilities: u32,
    nonce: Vec<u8>,
    plugin: Vec<u8>,
}

/// How well what is sent is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Everybody on the way reads it.
    None,
    /// Nobody on the way reads it, unless they pose as the server.
    Encrypted,
    /// Only the server reads it.
    Verified,
}

impl Greeting {
    pub(super) fn of(payload: &[u8]) -> Result<Greeting, Failure> {
        if payload.first() == Some(&0xff) {
            return Err(error_of(payload));
        }
        let parsed = Self::parse(payload).ok_or(Failure::Protocol("its greeting is not that of MySQL or MariaDB"))?;
        if parsed.capabilities & NEEDED != NEEDED {
            return Err(Failure::Protocol("it is too old"));
        }
        Ok(parsed)
    }

    fn parse(payload: &[u8]) -> Option<Greeting> {
        let mut fields = Fields(payload);
        if fields.u8()? != 10 {
            return None;
        }
        let _version = fields.until_nul();
        let thread = fields.u32()?;
        let mut nonce = fields.bytes(8)?.to_vec();
        fields.u8()?;
        let low = u32::from(fields.u16()?);
        let _collation = fields.u8()?;
        let _status = fields.u16()?;
        let high = u32::from(fields.u16()?);
        let nonce_length = usize::from(fields.u8()?);
        fields.bytes(10)?;
        nonce.extend_from_slice(fields.bytes(nonce_length.saturating_sub(8).max(13))?);
        nonce.truncate(20);
        Some(Greeting {
            thread,
            capabilities: low | high << 16,
            nonce,
            plugin: fields.until_nul().to_vec(),
        })
    }

    /// What asks for TLS.
    pub(super) fn tls_request(&self) -> Vec<u8> {
        self.beginning(SSL)
    }

    fn beginning(&self, more: u32) -> Vec<u8> {
        let mut bytes = (WANTED & self.capabilities | more).to_le_bytes().to_vec();
        bytes.extend_from_slice(&LARGEST_PACKET.to_le_bytes());
        bytes.push(COLLATION);
        bytes.extend_from_slice(&[0; 23]);
        bytes
    }

    /// Who comes, with the first proof.
    pub(super) fn response(&self, user: &str, password: &str, secrecy: Secrecy, is_wrapped: bool) -> Vec<u8> {
        // The server asks again if it wants another proof.
        let (plugin, proof) = match proof(&self.plugin, password, &self.nonce, secrecy) {
            Ok(proof) => (self.plugin.as_slice(), proof),
            Err(_) => (b"mysql_native_password".as_slice(), native(password, &self.nonce)),
        };
        let mut bytes = self.beginning(if is_wrapped { SSL } else { 0 });
        bytes.extend_from_slice(user.as_bytes());
        bytes.push(0);
        if self.capabilities & PLUGIN_AUTH_LENENC != 0 {
            push_lenenc_bytes(&mut bytes, &proof);
        } else {
            // Proofs are short; only a password as it is can be longer, and is then asked for once more.
            let length = u8::try_from(proof.len()).unwrap_or_default();
            bytes.push(length);
            bytes.extend_from_slice(proof.get(..usize::from(length)).unwrap_or_default());
        }
        bytes.extend_from_slice(plugin);
        bytes.push(0);
        if self.capabilities & CONNECT_ATTRS != 0 {
            let mut attributes = Vec::new();
            push_lenenc_bytes(&mut attributes, b"program_name");
            push_lenenc_bytes(&mut attributes, b"minerva");
            push_lenenc_bytes(&mut bytes, &attributes);
        }
        bytes
    }

    /// The answer to what the server says to a proof; `None` when it has let the user in.
    pub(super) fn answer(
        &mut self,
        payload: &[u8],
        password: &str,
        secrecy: Secrecy,
    ) -> Result<Option<Answer>, Failure> {
        match payload {
            [0x00, ..] => Ok(None),
            [0xff, ..] => Err(error_of(payload)),
            // Ancient servers say only this, and mean a proof that is none.
            [0xfe] => Err(refused(b"mysql_old_password")),
            [0xfe, rest @ ..] => {
                let mut fields = Fields(rest);
                self.plugin = fields.until_nul().to_vec();
                let mut nonce = fields.0.to_vec();
                nonce.truncate(20);
                self.nonce = nonce;
                Ok(Some(Answer::Send(proof(&self.plugin, password, &self.nonce, secrecy)?)))
            }
            // The server remembers the password: the proof was good.
            [0x01, 0x03] => Ok(Some(Answer::Wait)),
            [0x01, 0x04] if self.plugin == b"caching_sha2_password" => {
                if secrecy == Secrecy::None {
                    return Err(Failure::Authentication(
                        "it asks for the password itself, which is sent inside TLS only; use `sslmode` other than `disable`".to_owned(),
                    ));
                }
                Ok(Some(Answer::Send(with_nul(password))))
            }
            _ => Err(Failure::Protocol("it asks for what is not known here")),
        }
    }
}

/// What comes after a message of the server.
pub(super) enum Answer {
    Send(Vec<u8>),
    Wait,
}

/// What the server reports: a number, usually a state, and words that are left out.
pub(super) fn error_of(payload: &[u8]) -> Failure {
    let mut fields = Fields(payload);
    let _mark = fields.u8();
    let code = fields.u16().unwrap_or_default();
    let state = match fields.u8() {
        Some(b'#') => fields.fixed::<5>().unwrap_or(*b"HY000"),
        _ => *b"HY000",
    };
    Failure::Server { code, state }
}

fn proof(plugin: &[u8], password: &str, nonce: &[u8], secrecy: Secrecy) -> Result<Vec<u8>, Failure> {
    match plugin {
        b"mysql_native_password" => Ok(native(password, nonce)),
        b"caching_sha2_password" => Ok(sha2(password, nonce)),
        b"sha256_password" if secrecy != Secrecy::None => Ok(with_nul(password)),
        // The server sees the password. It must be the one that is meant.
        b"mysql_clear_password" if secrecy == Secrecy::Verified => Ok(with_nul(password)),
        b"sha256_password" | b"mysql_clear_password" => Err(Failure::Authentication(
            "it asks for the password itself, which is sent over TLS only; use `sslmode: verify-full`, which also makes sure of the server".to_owned(),
        )),
        _ => Err(refused(plugin)),
    }
}

fn refused(plugin: &[u8]) -> Failure {
    let name: String = String::from_utf8_lossy(plugin)
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .take(64)
        .collect();
    Failure::Authentication(format!(
        "it asks for `{name}`; the depot's user must prove itself by `mysql_native_password`, `caching_sha2_password` or `sha256_password`"
    ))
}

fn with_nul(password: &str) -> Vec<u8> {
    let mut bytes = password.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// `SHA1(password) xor SHA1(nonce, SHA1(SHA1(password)))`
fn native(password: &str, nonce: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let sha1 = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let once = sha1(password.as_bytes());
    let twice = sha1(once.as_ref());
    let salted = sha1(&[nonce, twice.as_ref()].concat());
    xor(once.as_ref(), salted.as_ref())
}

/// `SHA256(password) xor SHA256(SHA256(SHA256(password)), nonce)`
fn sha2(password: &str, nonce: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return vec![0];
    }
    let sha256 = |bytes: &[u8]| digest(&SHA256, bytes);
    let once = sha256(password.as_bytes());
    let twice = sha256(once.as_ref());
    let salted = sha256(&[twice.as_ref(), nonce].concat());
    xor(once.as_ref(), salted.as_ref())
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(left, right)| left ^ right).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(plugin: &str) -> Vec<u8> {
        let mut bytes = b"\x0a5.5.5-10.11.6-MariaDB\0".to_vec();
        bytes.extend_from_slice(&77_u32.to_le_bytes());
        bytes.extend_from_slice(b"abcdefgh\0");
        bytes.extend_from_slice(&0xffff_u16.to_le_bytes());
        bytes.push(45);
        bytes.extend_from_slice(&2_u16.to_le_bytes());
        bytes.extend_from_slice(&0x00ff_u16.to_le_bytes());
        bytes.push(21);
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(b"ijklmnopqrst\0");
        bytes.extend_from_slice(plugin.as_bytes());
        bytes.push(0);
        bytes
    }

    fn hexadecimal(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_greeting_is_read_and_a_broken_one_refused() {
        let bytes = greeting("mysql_native_password");
        let found = Greeting::of(&bytes).unwrap();
        assert_eq!(found.thread, 77);
        assert_eq!(found.nonce, b"abcdefghijklmnopqrst");
        assert_eq!(found.plugin, b"mysql_native_password");
        assert_eq!(found.capabilities, 0x00ff_ffff);
        for length in 0..60 {
            assert!(
                matches!(Greeting::of(&bytes[..length]), Err(Failure::Protocol(_))),
                "{length}"
            );
        }
        let full = Greeting::of(b"\xff\x10\x04Too many connections");
        assert!(matches!(full, Err(Failure::Server { code: 1040, .. })));
        assert!(matches!(Greeting::of(b"SSH-2.0-OpenSSH"), Err(Failure::Protocol(_))));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_greeting_or_a_failure(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120),
            cut in 0..100_usize,
        ) {
            let _ = Greeting::of(&bytes);
            let mut mixed = greeting("caching_sha2_password");
            mixed.truncate(cut);
            mixed.extend_from_slice(&bytes);
            if let Ok(mut begun) = Greeting::of(&mixed) {
                let _ = begun.response("user", "5up3r", Secrecy::Encrypted, true);
                let _ = begun.answer(&bytes, "5up3r", Secrecy::Encrypted);
            }
        }
    }

    /// As other clients compute them.
    #[test]
    fn proofs_are_those_that_servers_expect() {
        let nonce: Vec<u8> = (1..=20).collect();
        assert_eq!(hexadecimal(&native("secret", &nonce)), NATIVE);
        assert_eq!(hexadecimal(&sha2("secret", &nonce)), SHA2);
        assert!(native("", &nonce).is_empty());
    }

    const NATIVE: &str = "b32bb3a583e1340c0a1108d58b1be49781ad8c2f";
    const SHA2: &str = "746ebe205d56a0707acb3e796e834e0dd7b1d61743b26bd5202c7a623230c7c9";

    #[test]
    fn a_password_is_never_sent_where_others_read_it() {
        let nonce = [1; 20];
        for (plugin, sent_from) in [
            ("sha256_password", Some(Secrecy::Encrypted)),
            ("mysql_clear_password", Some(Secrecy::Verified)),
            ("client_ed25519", None),
            ("dialog", None),
            ("mysql_old_password", None),
        ] {
            for secrecy in [Secrecy::None, Secrecy::Encrypted, Secrecy::Verified] {
                let found = proof(plugin.as_bytes(), "pass", &nonce, secrecy);
                let expected = sent_from.is_some_and(|least| secrecy as u8 >= least as u8);
                assert_eq!(found.is_ok(), expected, "{plugin} {secrecy:?}");
            }
        }
        let mut begun = Greeting::of(&greeting("caching_sha2_password")).unwrap();
        assert!(begun.answer(&[1, 4], "5up3r", Secrecy::None).is_err());
        let sent = begun.answer(&[1, 4], "5up3r", Secrecy::Encrypted).unwrap();
        assert!(matches!(sent, Some(Answer::Send(bytes)) if bytes == b"5up3r\0"));
        let response = begun.response("user", "5up3r", Secrecy::None, false);
        assert!(!response.windows(5).any(|bytes| bytes == b"5up3r"));
    }
}
