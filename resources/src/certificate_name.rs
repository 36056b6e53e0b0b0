//! Who a certificate says that its holder is: a subject, or a URI among its alternative names.
//!
//! In: what a manifest writes. Out: a [`CertificateName`], which equals that of a certificate or does not: nothing is matched loosely.
//! Subjects are written as RFC 4514 does, the last part first: `CN=jane,O=Acme`. Deliberately absent: reading certificates.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the names of a certificate's holder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CertificateName {
    /// The subject.
    Subject(Subject),
    /// A URI of the subject's alternative names, such as `spiffe://acme/jane`.
    Uri(String),
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(subject) => subject.fmt(f),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

/// The subject of a certificate: its parts, the last first; each is a set of attributes and their values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject(Vec<Vec<(String, String)>>);

/// Attributes by their names and object identifiers.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("C", "2.5.4.6"),
    ("CN", "2.5.4.3"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
    ("GN", "2.5.4.42"),
    ("L", "2.5.4.7"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("serialNumber", "2.5.4.5"),
    ("SN", "2.5.4.4"),
    ("ST", "2.5.4.8"),
    ("street", "2.5.4.9"),
    ("title", "2.5.4.12"),
    ("UID", "0.9.2342.19200300.100.1.1"),
];

impl Subject {
    /// The subject of these parts, the last first: object identifiers in dotted form, and values.
    pub fn new(parts: impl IntoIterator<Item = Vec<(String, String)>>) -> Self {
        // The attributes of one part have no order.
        let sorted = |mut part: Vec<_>| {
            part.sort();
            part
        };
        Self(parts.into_iter().map(sorted).collect())
    }

    /// Reads `CN=jane,O=Acme`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = vec![vec![]];
        let mut rest = text.chars().peekable();
        loop {
            let mut name = String::new();
            loop {
                match rest.next() {
                    Some('=') => break,
                    Some(',' | '+') | None => return Err(format!("`{}` has no value", name.trim())),
                    Some(character) => name.push(character),
                }
            }
            let identifier = identifier(name.trim())?;
            let mut value = String::new();
            // Blanks around a value do not count unless they are escaped.
            let mut kept = 0;
            let end = loop {
                match rest.next() {
                    end @ (Some(',' | '+') | None) => break end,
                    Some('\\') => {
                        value.push(escaped(&mut rest)?);
                        kept = value.len();
                    }
                    Some('"' | ';' | '<' | '>') => {
                        return Err("write `\\` before each of `\" ; < >` in a value".to_owned());
                    }
                    Some(' ') if value.is_empty() => {}
                    Some(' ') => value.push(' '),
                    Some(character) => {
                        value.push(character);
                        kept = value.len();
                    }
                }
            };
            value.truncate(kept);
            if value.is_empty() {
                return Err(format!("`{}` has no value", name.trim()));
            }
            if let Some(part) = parts.last_mut() {
                part.push((identifier, value));
            }
            match end {
                Some('+') => {}
                Some(_) => parts.push(vec![]),
                None => return Ok(Self::new(parts)),
            }
        }
    }
}

fn identifier(name: &str) -> Result<String, String> {
    if let Some((_, identifier)) = ATTRIBUTES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        return Ok((*identifier).to_owned());
    }
    let is_dotted = name.contains('.')
        && name
            .split('.')
            .all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    if is_dotted {
        return Ok(name.to_owned());
    }
    let known: Vec<_> = ATTRIBUTES.iter().map(|(name, _)| *name).collect();
    Err(format!(
        "`{name}` is no attribute of a subject; expected one of {}, or an object identifier",
        known.join(", ")
    ))
}

/// What stands behind a backslash: a character, or the hexadecimal digits of one or more bytes.
fn escaped(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, String> {
    let wrong = || "a `\\` is followed by neither a special character nor two hexadecimal digits".to_owned();
    let first = rest.next().ok_or_else(wrong)?;
    let Some(high) = first.to_digit(16) else {
        return match first {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' | '#' | ' ' => Ok(first),
            _ => Err(wrong()),
        };
    };
    let low = rest.next().and_then(|digit| digit.to_digit(16)).ok_or_else(wrong)?;
    char::from_u32(high * 16 + low)
        .filter(char::is_ascii)
        .ok_or_else(|| "write letters beyond ASCII as they are".to_owned())
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            for (inner, (identifier, value)) in part.iter().enumerate() {
                f.write_str(match (index, inner) {
                    (0, 0) => "",
                    (_, 0) => ",",
                    _ => "+",
                })?;
                let known = ATTRIBUTES.iter().find(|(_, known)| known == identifier);
                write!(f, "{}=", known.map_or(identifier.as_str(), |(name, _)| name))?;
                for (at, character) in value.char_indices() {
                    let edge = at == 0 || at + 1 == value.len();
                    if matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';') || (character == ' ' && edge) {
                        f.write_str("\\")?;
                    }
                    write!(f, "{character}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_the_same_however_they_are_written() {
        let read = |text| Subject::parse(text).unwrap();
        assert_eq!(read("CN=jane,O=Acme"), read("cn = jane , 2.5.4.10=Acme"));
        assert_eq!(read("CN=jane+UID=7,O=A"), read("UID=7+CN=jane,O=A"));
        assert_eq!(read(r"CN=Doe\, Jane"), read(r"CN=Doe\2C Jane"));
        assert_ne!(read("CN=jane,O=Acme"), read("O=Acme,CN=jane"), "the order counts");
        assert_ne!(read("CN=jane,O=Acme"), read("CN=Jane,O=Acme"), "case counts");
        assert_ne!(read("CN=jane"), read("CN=jane,O=Acme"));
        assert_eq!(read(r"CN=Doe\, Jane,O=Acme").to_string(), r"CN=Doe\, Jane,O=Acme");
        for text in [
            "",
            "jane",
            "CN=",
            "CN=a,",
            "CN=a,,O=b",
            "XX=a",
            r"CN=\",
            r"CN=\zz",
            "CN=a;O=b",
            r"CN=\ff",
        ] {
            assert!(Subject::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(values in proptest::collection::vec("[ -~é]{1,12}", 1..4)) {
            let subject = Subject::new(values.iter().map(|value| vec![("2.5.4.3".to_owned(), value.clone())]));
            proptest::prop_assert_eq!(Subject::parse(&subject.to_string()), Ok(subject));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = Subject::parse(&text);
        }
    }
}
