//! Where a server is, as a user may write it.
//!
//! In: `host`, `host:port`, `[::1]:7433`, `http://..`, `https://..`, `grpc://..`, `grpc+tls://..`. Out: a [`Target`]. Deliberately absent:
//! looking names up.

use std::net::IpAddr;

use tonic::transport::Uri;

/// The port of the Flight SQL door.
const DEFAULT_PORT: u16 = 7433;

/// A host and port, and whether TLS is spoken there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The host's name or address; an IPv6 address in brackets.
    host: String,
    port: u16,
    pub(super) tls: bool,
}

impl Target {
    /// Reads a server's name; without a scheme, TLS is spoken where authorities are given for it.
    pub(super) fn parse(text: &str, has_authorities: bool) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}` is no server ({why}); expected HOST, HOST:PORT or https://HOST:PORT");
        let (tls, rest) = match text.split_once("://") {
            None => (has_authorities, text),
            Some(("https" | "grpc+tls", rest)) => (true, rest),
            Some(("http" | "grpc" | "grpc+tcp", _)) if has_authorities => {
                return Err(format!(
                    "`{text}` asks for no encryption, but --tls-ca is given; use https://"
                ));
            }
            Some(("http" | "grpc" | "grpc+tcp", rest)) => (false, rest),
            Some((scheme, _)) => return Err(wrong(&format!("unknown scheme `{scheme}`"))),
        };
        let uri: Uri = format!("http://{rest}")
            .parse()
            .map_err(|_| wrong("not a host and a port"))?;
        if !uri.path().trim_matches('/').is_empty() || uri.query().is_some() {
            return Err(wrong("it has a path"));
        }
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(wrong("it has credentials; use --user and --apikey"));
        }
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| wrong("it has no host"))?;
        let named = uri
            .authority()
            .is_some_and(|authority| authority.as_str().len() > host.len());
        let port = match uri.port_u16() {
            Some(port) => port,
            None if named => return Err(wrong("the port is none")),
            None => DEFAULT_PORT,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            tls,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }

    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The host without brackets, as a certificate names it.
    pub(super) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether the server is on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host().parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_users_write_them() {
        for (text, url) in [
            ("localhost", "http://localhost:7433"),
            ("10.0.0.7:99", "http://10.0.0.7:99"),
            ("[::1]:7433", "http://[::1]:7433"),
            ("http://minerva.example/", "http://minerva.example:7433"),
            ("https://minerva.example", "https://minerva.example:7433"),
            ("grpc+tls://minerva.example:443", "https://minerva.example:443"),
            ("grpc://minerva.example", "http://minerva.example:7433"),
        ] {
            assert_eq!(
                Target::parse(text, false).map(|target| target.url()),
                Ok(url.to_owned()),
                "{text}"
            );
        }
        assert_eq!(
            Target::parse("minerva.example", true).map(|target| target.tls),
            Ok(true)
        );
        for text in [
            "",
            ":7433",
            "host:port",
            "host:",
            "host:99999",
            "ftp://host",
            "host/path",
            "me@host",
            "a b",
            "::1",
        ] {
            assert!(
                Target::parse(text, false).is_err(),
                "{text}: {:?}",
                Target::parse(text, false)
            );
        }
        assert!(
            Target::parse("http://host", true).is_err(),
            "authorities given, but no TLS asked for"
        );
    }

    #[test]
    fn loopback_is_this_machine() {
        let loopback = |text| Target::parse(text, false).map(|target| target.is_loopback());
        assert_eq!(loopback("localhost"), Ok(true));
        assert_eq!(loopback("127.3.2.1"), Ok(true));
        assert_eq!(loopback("[::1]"), Ok(true));
        assert_eq!(loopback("localhost.example"), Ok(false));
    }
}
