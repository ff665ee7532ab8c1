//! Where the daemon is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemas::fault::{Fault, FaultCode};

/// The daemon's Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

impl Endpoint {
    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = Fault;

    /// Reads `unix:///absolute/path`, `unix:/absolute/path` or `unix:relative/path`.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let invalid = |why: &str| {
            Fault::new(FaultCode::InvalidConfiguration, format!("{text:?} is not a daemon's endpoint: {why}"))
                .with_remedy(format!("write it like {}", schemas::wire::DEFAULT_ENDPOINT))
        };
        let Some(rest) = text.strip_prefix("unix:") else {
            return Err(invalid("only Unix sockets are supported"));
        };
        let path = match rest.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            Some(_) => return Err(invalid("after unix:// comes an absolute path")),
            None => rest,
        };
        if path.is_empty() { Err(invalid("it names no path")) } else { Ok(Self(PathBuf::from(path))) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.0.is_absolute() { "unix://" } else { "unix:" };
        write!(f, "{scheme}{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn unix_sockets_are_written_in_three_ways() {
        for (text, path) in
            [("unix:///run/c.sock", "/run/c.sock"), ("unix:/run/c.sock", "/run/c.sock"), ("unix:c.sock", "c.sock")]
        {
            assert_eq!(text.parse::<Endpoint>().expect(text).path().to_str(), Some(path));
        }
        for text in ["", "unix:", "unix://run/c.sock", "/run/c.sock", "tcp://h:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
