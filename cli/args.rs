//! What can be typed: the flags that several commands share, and those of the commands that serve.
//!
//! In: the command line and the environment, where the flag `--some-flag` is also `MINERVA_SOME_FLAG`. Out: `Args` structs that say what was
//! typed, checked as far as that goes without looking at anything. Deliberately absent: files, sockets and defaults that depend on the machine.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, builder::BoolishValueParser};

/// Where the doors are: one address for all, one port each; port 0 takes a free one.
#[derive(Args, Debug, Clone)]
pub(crate) struct Doors {
    /// The address to listen at; beyond loopback TLS or --insecure is needed
    #[arg(long, env = "MINERVA_HOST", value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = parse_host)]
    pub(crate) host: IpAddr,
    /// Trino clients, the Workbench, metrics and health
    #[arg(long, env = "MINERVA_HTTP_PORT", value_name = "PORT", default_value_t = 7432)]
    pub(crate) http_port: u16,
    /// Arrow Flight SQL: ADBC, JDBC, ODBC, `minerva sql`
    #[arg(long, env = "MINERVA_FLIGHT_PORT", value_name = "PORT", default_value_t = 7433)]
    pub(crate) flight_port: u16,
    /// PostgreSQL clients
    #[arg(long, env = "MINERVA_POSTGRES_PORT", value_name = "PORT", default_value_t = 7434)]
    pub(crate) postgres_port: u16,
    /// Workers; never for clients
    #[arg(long, env = "MINERVA_CLUSTER_PORT", value_name = "PORT", default_value_t = 7435)]
    pub(crate) cluster_port: u16,
}

/// How a server proves who it is.
#[derive(Args, Debug, Clone)]
pub(crate) struct Tls {
    /// The certificate chain to present (PEM)
    #[arg(long, env = "MINERVA_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, env = "MINERVA_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The authorities to trust: of coordinator and workers among each other, and of users' client certificates (PEM)
    #[arg(long, env = "MINERVA_TLS_CA", value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Listen beyond loopback although nothing is encrypted
    #[arg(long, env = "MINERVA_INSECURE", value_parser = BoolishValueParser::new())]
    pub(crate) insecure: bool,
}

/// Runs a coordinator
#[derive(Args, Debug, Clone)]
pub(crate) struct ServeArgs {
    /// Folder of manifests, watched and reloaded live; may be given several times
    #[arg(long, env = "MINERVA_RESOURCES", value_name = "DIR")]
    pub(crate) resources: Vec<PathBuf>,
    /// Folder of the state: keys, queries, the join token
    #[arg(long, env = "MINERVA_DATA", value_name = "DIR", default_value = "./minerva-data")]
    pub(crate) data: PathBuf,
    /// Workers inside this process; 0 = only remote workers. If absent, the `replicas` of the cluster's manifest, else 1
    #[arg(long, env = "MINERVA_WORKERS", value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// Take the workers' join token from this file instead of DATA/join-token
    #[arg(long, env = "MINERVA_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) join_token_file: Option<PathBuf>,
    /// How long the audit keeps the records of queries
    #[arg(long, env = "MINERVA_AUDIT_RETENTION", value_name = "DURATION", default_value = "90d", value_parser = parse_duration)]
    pub(crate) audit_retention: Duration,
    /// Leave literals out of the statements that the audit keeps, and texts of errors, which may quote them
    #[arg(long, env = "MINERVA_AUDIT_REDACT", value_parser = BoolishValueParser::new())]
    pub(crate) audit_redact: bool,
    #[command(flatten)]
    pub(crate) doors: Doors,
    #[command(flatten)]
    pub(crate) tls: Tls,
}

/// Runs a worker that joins a coordinator
#[derive(Args, Debug, Clone)]
pub(crate) struct WorkerArgs {
    /// The coordinator's cluster port, as http://HOST:PORT or https://HOST:PORT
    #[arg(long, env = "MINERVA_COORDINATOR", value_name = "URL")]
    pub(crate) coordinator: String,
    /// Folder of the state; its join-token file is used if no other token is given
    #[arg(long, env = "MINERVA_DATA", value_name = "DIR", default_value = "./minerva-data")]
    pub(crate) data: PathBuf,
    /// The address to listen at and to be reached at
    #[arg(long, env = "MINERVA_HOST", value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = parse_host)]
    pub(crate) host: IpAddr,
    /// The port to listen at; 0 takes a free one
    #[arg(long, env = "MINERVA_CLUSTER_PORT", value_name = "PORT", default_value_t = 0)]
    pub(crate) cluster_port: u16,
    /// File with the coordinator's join token
    #[arg(long, env = "MINERVA_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) join_token_file: Option<PathBuf>,
    /// The join token itself; meant for the environment, since others see a command line
    #[arg(
        long,
        env = "MINERVA_JOIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        hide = true
    )]
    pub(crate) join_token: Option<String>,
    #[command(flatten)]
    pub(crate) tls: Tls,
}

/// Runs everything in one process on example data, as two users, and says how to connect
#[derive(Args, Debug, Clone)]
pub(crate) struct DemoArgs {
    /// Leave after the answers instead of going on serving
    #[arg(long, env = "MINERVA_ONCE", value_parser = BoolishValueParser::new())]
    pub(crate) once: bool,
    /// Workers inside this process
    #[arg(long, env = "MINERVA_WORKERS", value_name = "N", default_value_t = 2)]
    pub(crate) workers: usize,
    /// Folder of the state; a temporary one if absent
    #[arg(long, env = "MINERVA_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) doors: Doors,
}

/// Where `minerva serve` listens by itself.
const DEFAULT_SERVER: &str = "127.0.0.1:7433";

/// Which coordinator a client talks to, and how it proves who it is.
#[derive(Args, Debug, Clone)]
pub(crate) struct ServerArgs {
    /// The coordinator's Flight SQL door: HOST[:PORT], or a URL (https:// for TLS) [default: 127.0.0.1:7433]
    #[arg(long, env = "MINERVA_SERVER", value_name = "SERVER")]
    pub(crate) server: Option<String>,
    /// The API key; better kept in the environment, since others see a command line
    #[arg(long, env = "MINERVA_APIKEY", value_name = "KEY", hide_env_values = true)]
    pub(crate) apikey: Option<String>,
    /// The authorities to trust (PEM); implies TLS
    #[arg(long, env = "MINERVA_TLS_CA", value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Send the API key beyond loopback although nothing is encrypted
    #[arg(long, env = "MINERVA_INSECURE", value_parser = BoolishValueParser::new())]
    pub(crate) insecure: bool,
    /// A local coordinator's folder; its admin-key file is used if neither user nor key is given
    #[arg(long, env = "MINERVA_DATA", value_name = "DIR", default_value = "./minerva-data")]
    pub(crate) data: PathBuf,
}

impl ServerArgs {
    /// The server that was named, or the one on this machine.
    pub(crate) fn server(&self) -> &str {
        self.server.as_deref().unwrap_or(DEFAULT_SERVER)
    }
}

/// A server as a command that speaks about another user names it: there `--user` is whom it is about.
#[derive(Args, Debug, Clone)]
pub(crate) struct OperatorArgs {
    /// The user to connect as
    #[arg(long, env = "MINERVA_USER", value_name = "USER")]
    pub(crate) login: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Reads `7d`, `24h`, `1h30m`: whole numbers, each with its unit, without spaces.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || {
        format!("`{text}` is no duration; expected whole numbers with a unit s, m, h, d or w, like `24h` or `1d12h`")
    };
    let mut seconds: u64 = 0;
    let mut number: Option<u64> = None;
    for character in text.trim().chars() {
        if let Some(digit) = character.to_digit(10) {
            let grown = number
                .unwrap_or(0)
                .checked_mul(10)
                .and_then(|number| number.checked_add(u64::from(digit)));
            number = Some(grown.ok_or_else(expected)?);
            continue;
        }
        let unit: u64 = match character {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            'w' => 7 * 24 * 60 * 60,
            _ => return Err(expected()),
        };
        let part = number
            .take()
            .and_then(|number| number.checked_mul(unit))
            .ok_or_else(expected)?;
        seconds = seconds.checked_add(part).ok_or_else(expected)?;
    }
    match (number, seconds) {
        (Some(_), _) => Err(expected()),
        (None, 0) => Err(format!(
            "`{text}` lasts no time at all; expected a duration above zero, like `24h`"
        )),
        (None, seconds) => Ok(Duration::from_secs(seconds)),
    }
}

/// Reads an IP address; `localhost` stands for 127.0.0.1.
fn parse_host(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    text.parse().map_err(|_| {
        format!("`{text}` is no IP address; expected one of this machine's, like `127.0.0.1` or `0.0.0.0` for all")
    })
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command, CommandFactory, Parser};

    use super::*;
    use crate::Cli;

    #[test]
    fn durations_are_read_or_refused() {
        for (text, seconds) in [
            ("24h", 86_400),
            ("90s", 90),
            ("30m", 1_800),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1d12h", 129_600),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "h",
            "24",
            "1.5h",
            "-1h",
            "1 h",
            "24hours",
            "0h",
            "99999999999999999999s",
            "18446744073709551615w",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_addresses_of_this_machine() {
        assert_eq!(parse_host("localhost"), Ok(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(parse_host("::1").map(|host| host.is_loopback()), Ok(true));
        assert!(parse_host("example.com").is_err());
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        fn walk(command: &Command) {
            let mut letters: Vec<char> = command.get_arguments().filter_map(Arg::get_short).collect();
            letters.sort_unstable();
            assert!(
                letters.windows(2).all(|pair| pair[0] != pair[1]),
                "{}: {letters:?}",
                command.get_name()
            );
            for argument in command.get_arguments() {
                let Some(flag) = argument.get_long() else { continue };
                let id = argument.get_id().as_str();
                // Whom a command is about must not come from the variable that says who connects.
                if matches!(id, "help" | "version" | "subject") {
                    continue;
                }
                let variable = if id == "login" { "user" } else { flag };
                let expected = format!("MINERVA_{}", variable.to_uppercase().replace('-', "_"));
                let found = argument.get_env().and_then(|name| name.to_str());
                assert_eq!(found, Some(expected.as_str()), "{} --{flag}", command.get_name());
                assert!(
                    argument.get_help().is_some(),
                    "{} --{flag} has no help",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(walk);
        }
        let mut command = Cli::command();
        command.build();
        walk(&command);
    }

    #[test]
    fn commands_are_read_as_the_manual_writes_them() {
        for line in [
            "demo --once",
            "serve --resources a --resources b --data d --workers 0 --flight-port 0 --insecure --audit-retention 30d --audit-redact",
            "worker --coordinator http://127.0.0.1:7435",
            "sql -e x -u jane --output-format csv --timing",
            "sql -f -",
            "sql --profile there --timing",
            "check a b.yaml",
            "user apikey create -u jane -d 24h -n laptop",
            "user apikey get -u jane --login admin",
            "user apikey delete -u jane -n laptop",
            "policy explain --user jane --table c.s.t",
            "policy explain -u jane -s x",
            "policy explain -u jane --resources a --output json",
            "policy test a b.yaml",
            "apply -f a --resources b --dry-run --output json",
            "apply -f a -u admin --server localhost",
        ] {
            let read = Cli::try_parse_from(["minerva"].into_iter().chain(line.split(' ')));
            assert!(read.is_ok(), "{line}: {}", read.unwrap_err());
        }
        for line in [
            "",
            "sql -e x -f y",
            "sql --output-format xml",
            "check",
            "policy test",
            "apply --resources b",
            "user apikey create -u jane",
            "serve --tls-cert c",
        ] {
            let read = Cli::try_parse_from(["minerva"].into_iter().chain(line.split_whitespace()));
            assert_eq!(read.unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
