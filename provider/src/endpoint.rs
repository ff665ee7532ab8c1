//! Where the daemon is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemas::fault::{Fault, FaultCode};
use schemas::hcl::tcp_endpoint;

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// On a Unix socket, at this path.
    Unix(PathBuf),
    /// On TCP, with mutual TLS.
    Tcp {
        /// The host's name or address; an IPv6 address stands in brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

impl FromStr for Endpoint {
    type Err = Fault;

    /// Reads `unix:///absolute/path`, `unix:/absolute/path`, `unix:relative/path` or
    /// `tcp://host:port`.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let invalid = |why: &str| {
            Fault::new(
                FaultCode::InvalidConfiguration,
                format!("{text:?} is not a daemon's endpoint: {why}"),
            )
            .with_remedy(format!(
                "write it like {} or tcp://cutover.example.net:7443",
                schemas::wire::DEFAULT_ENDPOINT
            ))
        };
        if text.starts_with("tcp:") {
            let (host, port) =
                tcp_endpoint(text).ok_or_else(|| invalid("it names no host and port"))?;
            return Ok(Self::Tcp { host: host.to_owned(), port });
        }
        let Some(rest) = text.strip_prefix("unix:") else {
            return Err(invalid("it is neither a Unix socket nor TCP"));
        };
        let path = match rest.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            Some(_) => return Err(invalid("after unix:// comes an absolute path")),
            None => rest,
        };
        if path.is_empty() {
            Err(invalid("it names no path"))
        } else {
            Ok(Self::Unix(PathBuf::from(path)))
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) if path.is_absolute() => write!(f, "unix://{}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn unix_sockets_are_written_in_three_ways() {
        for (text, path) in [
            ("unix:///run/c.sock", "/run/c.sock"),
            ("unix:/run/c.sock", "/run/c.sock"),
            ("unix:c.sock", "c.sock"),
        ] {
            assert_eq!(text.parse::<Endpoint>().expect(text), Endpoint::Unix(path.into()));
        }
        for text in ["", "unix:", "unix://run/c.sock", "/run/c.sock", "http://h:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_and_ports_are_read_and_written_back() {
        for text in ["tcp://localhost:7443", "tcp://10.0.0.1:1", "tcp://[::1]:7443"] {
            assert_eq!(text.parse::<Endpoint>().expect(text).to_string(), text);
        }
        for text in [
            "tcp:h:1",
            "tcp://h",
            "tcp://:1",
            "tcp://h:0",
            "tcp://h:65536",
            "tcp://::1:7443",
            "tcp://[h]:1",
            "tcp://a/b:1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
