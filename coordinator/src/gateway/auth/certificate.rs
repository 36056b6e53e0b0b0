//! A client's certificate: who it says its holder is, and until when.
//!
//! In: the certificate, which the TLS handshake has checked against `--tls-ca`. Out: its names and its end. Deliberately absent: any check
//! of a signature; a certificate that no handshake has checked proves nothing.

use chrono::NaiveDateTime;
use minerva_resources::{CertificateName, Subject};

/// What a certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its subject and the URIs of its alternative names.
    pub names: Vec<CertificateName>,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
}

/// The object identifier of the alternative names, 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const IDENTIFIER: u8 = 0x06;
const OCTETS: u8 = 0x04;
/// `[6]` of a general name.
const URI: u8 = 0x86;

impl ClientCertificate {
    /// Reads a certificate (DER); `None` when it is none.
    pub fn read(certificate: &[u8]) -> Option<Self> {
        let mut outer = Reader(certificate);
        let mut certificate = Reader(outer.expect(SEQUENCE)?);
        let mut body = Reader(certificate.expect(SEQUENCE)?);
        // The version, which version 1 leaves out.
        body.take_if(0xa0);
        body.next()?; // serial number
        body.expect(SEQUENCE)?; // algorithm of the signature
        body.expect(SEQUENCE)?; // issuer
        let mut validity = Reader(body.expect(SEQUENCE)?);
        validity.next()?;
        let (kind, end) = validity.next()?;
        let expires = moment(kind, end)?;
        let mut names = Vec::new();
        if let Some(subject) = subject(body.expect(SEQUENCE)?)? {
            names.push(CertificateName::Subject(subject));
        }
        body.expect(SEQUENCE)?; // public key
        body.take_if(0x81);
        body.take_if(0x82);
        if let Some(extensions) = body.take_if(0xa3) {
            names.extend(uris(Reader(extensions).expect(SEQUENCE)?)?);
        }
        Some(Self { names, expires })
    }
}

/// The subject; inside `None` when it is empty.
fn subject(name: &[u8]) -> Option<Option<Subject>> {
    let (mut parts, mut name) = (Vec::new(), Reader(name));
    while !name.0.is_empty() {
        let (mut part, mut set) = (Vec::new(), Reader(name.expect(SET)?));
        while !set.0.is_empty() {
            let mut attribute = Reader(set.expect(SEQUENCE)?);
            let identifier = dotted(attribute.expect(IDENTIFIER)?)?;
            let (kind, value) = attribute.next()?;
            part.push((identifier, text(kind, value)?));
        }
        parts.push(part);
    }
    // The last part is written first.
    parts.reverse();
    Some((!parts.is_empty()).then(|| Subject::new(parts)))
}

fn uris(extensions: &[u8]) -> Option<Vec<CertificateName>> {
    let (mut found, mut extensions) = (Vec::new(), Reader(extensions));
    while !extensions.0.is_empty() {
        let mut extension = Reader(extensions.expect(SEQUENCE)?);
        if extension.expect(IDENTIFIER)? != ALTERNATIVE_NAMES {
            continue;
        }
        extension.take_if(0x01);
        let mut names = Reader(Reader(extension.expect(OCTETS)?).expect(SEQUENCE)?);
        while !names.0.is_empty() {
            if let (URI, uri) = names.next()? {
                found.push(CertificateName::Uri(str::from_utf8(uri).ok()?.to_owned()));
            }
        }
    }
    Some(found)
}

/// A text of one of the kinds that names are written with.
fn text(kind: u8, value: &[u8]) -> Option<String> {
    match kind {
        // UTF8String, NumericString, PrintableString, IA5String
        0x0c | 0x12 | 0x13 | 0x16 => str::from_utf8(value).ok().map(str::to_owned),
        // BMPString
        0x1e if value.len().is_multiple_of(2) => {
            let units = value.chunks_exact(2).map(|pair| match pair {
                [high, low] => u16::from_be_bytes([*high, *low]),
                _ => 0,
            });
            String::from_utf16(&units.collect::<Vec<_>>()).ok()
        }
        _ => None,
    }
}

fn dotted(identifier: &[u8]) -> Option<String> {
    let (mut numbers, mut number) = (Vec::new(), 0_u64);
    for byte in identifier {
        number = number.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    let (first, rest) = numbers.split_first()?;
    let top = (first / 40).min(2);
    let mut dotted = format!("{top}.{}", first - top * 40);
    for number in rest {
        dotted.push_str(&format!(".{number}"));
    }
    identifier.last().is_some_and(|byte| byte & 0x80 == 0).then_some(dotted)
}

fn moment(kind: u8, value: &[u8]) -> Option<i64> {
    let text = str::from_utf8(value).ok()?;
    let text = match kind {
        // UTCTime: the century is that of 1950 to 2049.
        0x17 => match text.get(..2)?.parse::<u8>().ok()? {
            50.. => format!("19{text}"),
            _ => format!("20{text}"),
        },
        0x18 => text.to_owned(),
        _ => return None,
    };
    let moment = NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok()?;
    Some(moment.and_utc().timestamp())
}

/// Values one after the other, each with its kind and length.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (kind, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match *first {
            short @ ..=0x7f => (usize::from(short), rest),
            long @ 0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                let length = digits.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*kind, value))
    }

    fn expect(&mut self, kind: u8) -> Option<&'a [u8]> {
        self.take_if(kind)
    }

    fn take_if(&mut self, kind: u8) -> Option<&'a [u8]> {
        let mut ahead = Reader(self.0);
        let (found, value) = ahead.next()?;
        (found == kind).then(|| {
            self.0 = ahead.0;
            value
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Subject `O=Acme`, then `CN=Doe, Jane`; alternative names a host and a URI; until 2051, which is written in the longer form of time.
    const CERTIFICATE: &str = include_str!("certificate.b64");

    fn bytes() -> Vec<u8> {
        use base64::Engine as _;
        base64::prelude::BASE64_STANDARD.decode(CERTIFICATE.trim()).unwrap()
    }

    #[test]
    fn subject_uris_and_end_are_read() {
        let read = ClientCertificate::read(&bytes()).unwrap();
        assert_eq!(
            read.names,
            [
                CertificateName::Subject(Subject::parse(r"CN=Doe\, Jane,O=Acme").unwrap()),
                CertificateName::Uri("spiffe://acme/jane".to_owned())
            ]
        );
        assert_eq!(read.expires, 2_556_241_445);
    }

    proptest::proptest! {
        #[test]
        fn damaged_bytes_never_make_it_panic(at in 0_usize..400, byte: u8, length in 0_usize..400, noise: Vec<u8>) {
            let mut bytes = bytes();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _ = ClientCertificate::read(&bytes);
            let _ = ClientCertificate::read(&bytes[..length.min(bytes.len())]);
            let _ = ClientCertificate::read(&noise);
        }
    }
}
