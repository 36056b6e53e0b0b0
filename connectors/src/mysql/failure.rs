//! What the errors of a server mean.
//!
//! In: a number. Out: an error of this crate. The server's own words may hold stored values and are never repeated.

use tokio_rustls::rustls;

use super::settings::Settings;
use super::wire::Failure;
use crate::postgres::TlsMode;
use crate::{Error, ErrorKind};

/// Whether the server, or its user, has no connection left.
pub(super) fn is_full(code: u16) -> bool {
    matches!(code, 1040 | 1203 | 1226)
}

/// What went wrong while connecting.
pub(super) fn of_connecting(settings: &Settings, failure: &Failure) -> Error {
    let error = |kind, message: String| Error::new(&settings.depot, kind, message);
    match failure {
        Failure::Server { code, .. } => {
            let message = match code {
                1045 | 1698 | 1251 => "the server refuses the user or the password of the depot's secret",
                1044 | 1130 => "the server refuses the user, or the address from which it comes",
                3159 | 1835 => "the server lets the user in over TLS only; use `sslmode` other than `disable`",
                1820 | 1862 => "the password of the depot's user has expired",
                3118 | 4151 => "the depot's user is locked",
                _ => {
                    let found = of(&settings.depot, failure);
                    return match found.kind {
                        // Whatever it is, there is no connection.
                        ErrorKind::Unsupported => error(
                            ErrorKind::Unreachable,
                            format!("the server takes no connection ({code})"),
                        ),
                        _ => found,
                    };
                }
            };
            error(ErrorKind::Refused, format!("{message} ({code})"))
        }
        Failure::NoTls => error(
            ErrorKind::Settings,
            "the server does not speak TLS; set `sslmode: disable` in `params` to go without".to_owned(),
        ),
        Failure::Authentication(what) => error(
            ErrorKind::Refused,
            format!("the server and the depot's secret cannot agree on how to authenticate: {what}"),
        ),
        Failure::Protocol(what) => error(
            ErrorKind::Unreachable,
            format!("the server cannot be spoken to: {what}"),
        ),
        Failure::TooLarge => of(&settings.depot, failure),
        Failure::Io(failure) => match tls_error(failure) {
            Some(failure) => error(
                ErrorKind::Refused,
                format!(
                    "the server's TLS is not what `sslmode: {}` asks for: {failure}",
                    mode(settings.tls)
                ),
            ),
            None => error(
                ErrorKind::Unreachable,
                format!("the server cannot be reached: {failure}"),
            ),
        },
    }
}

fn mode(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Disable => "disable",
        TlsMode::Require => "require",
        TlsMode::VerifyCa => "verify-ca",
        TlsMode::VerifyFull => "verify-full",
    }
}

fn tls_error(failure: &std::io::Error) -> Option<&rustls::Error> {
    failure.get_ref()?.downcast_ref()
}

/// What a server reports of a statement.
pub(super) fn of(depot: &str, failure: &Failure) -> Error {
    let code = match failure {
        Failure::Server { code, .. } => *code,
        Failure::TooLarge => {
            let message = "a row of it has more than 256 MiB, which is not read; leave the large column out, or read a part of it through a view";
            return Error::new(depot, ErrorKind::BadValue, message);
        }
        Failure::Io(_) | Failure::NoTls | Failure::Authentication(_) => {
            return Error::new(
                depot,
                ErrorKind::Unreachable,
                format!("the connection was lost: {failure}"),
            );
        }
        Failure::Protocol(what) => {
            return Error::new(
                depot,
                ErrorKind::Corrupt,
                format!("what the server sent cannot be read: {what}"),
            );
        }
    };
    let (kind, message) = match code {
        1142 | 1143 | 1044 | 1045 | 1227 | 1370 => {
            (ErrorKind::Denied, "the server does not let the depot's user read it")
        }
        1146 | 1054 | 1049 | 1109 | 1305 => (
            ErrorKind::Changed,
            "it, or what it is made of, is not there any more; run the query again",
        ),
        1356 | 1449 | 1347 => (
            ErrorKind::Corrupt,
            "the view refers to tables, columns or functions that are not there, or that its definer may not use",
        ),
        1317 | 1969 | 3024 => (
            ErrorKind::Busy,
            "the server ended the statement, at its time limit or because somebody ended it",
        ),
        1053 | 1077 | 1079 | 1927 => (ErrorKind::Unreachable, "the server ended the connection"),
        1205 | 1213 | 3572 => (
            ErrorKind::Busy,
            "somebody else kept it locked for too long; try again later",
        ),
        1040 | 1203 | 1226 | 1461 => (
            ErrorKind::Busy,
            "the server has no connection or statement left for the depot's user; try again later",
        ),
        1037 | 1038 | 1041 | 1021 | 1114 | 1135 | 1436 => {
            (ErrorKind::Busy, "the server lacks memory, disk or another resource")
        }
        1290 | 1792 | 1836 => (
            ErrorKind::Unsupported,
            "to read it the server would have to write something, and reading writes nothing",
        ),
        1030 | 1033 | 1034 | 1035 | 1194 | 1195 | 1712 | 1812 | 1877 => {
            (ErrorKind::Corrupt, "the server finds its files damaged")
        }
        1429..=1431 | 1296 | 1297 => (ErrorKind::Busy, "the server cannot read what is on another server"),
        1690 => (
            ErrorKind::OutOfRange,
            "a number that the server computes leaves the range of its type",
        ),
        1242 | 1264 | 1292 | 1365 | 1366 | 1367 | 1406 | 1411 | 1426 | 1441 | 1644 | 3140..=3158 | 4037..=4044 => (
            ErrorKind::BadValue,
            "the server fails to compute a value of it; the same statement at the server says which",
        ),
        _ => (
            ErrorKind::Unsupported,
            "the server does not carry out the statement; the same statement at the server says why",
        ),
    };
    Error::new(depot, kind, format!("{message} ({code})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_a_kind_and_none_of_the_words_of_the_server() {
        for (code, kind) in [
            (1142, ErrorKind::Denied),
            (1143, ErrorKind::Denied),
            (1146, ErrorKind::Changed),
            (1317, ErrorKind::Busy),
            (1356, ErrorKind::Corrupt),
            (1690, ErrorKind::OutOfRange),
            (9999, ErrorKind::Unsupported),
        ] {
            let error = of("d", &Failure::Server { code, state: *b"HY000" });
            assert_eq!(error.kind, kind, "{code}");
            assert!(error.message.ends_with(&format!("({code})")), "{error}");
        }
    }
}
