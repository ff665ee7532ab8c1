//! MongoDB's connection strings: the one reader of them, for declarations and for the daemon's
//! connections.
//!
//! What the reader passes a connection can be made with: [`MongoUri::for_driver`] writes it with
//! nothing in it that the driver could refuse, and [`MongoUri::login`] says who logs on. What each
//! option is to the daemon says [`option`].
//!
//! No message here quotes the string: it may hold a password where nobody expects one.

mod login;
mod option;

use std::net::Ipv6Addr;

pub use self::login::{Beside, Conflict, Login, Mechanism, Part};
use self::option::UriOption;
pub use self::option::{KNOWN, Known, Meaning, Value};

/// A connection string that has the right shape and no secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MongoUri {
    text: String,
    srv: bool,
    /// `host:port`, lowercase; IPv6 addresses in brackets.
    hosts: Vec<String>,
    username: Option<String>,
    database: Option<String>,
    /// One of each name.
    options: Vec<UriOption>,
}

/// What is wrong with a connection string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidUri {
    /// In one line.
    pub summary: String,
    /// What to write instead.
    pub detail: String,
    /// The name of an option that nobody knows, to be told where the string may be shown.
    pub unknown: Option<String>,
}

/// Where MongoDB listens unless told otherwise.
const DEFAULT_PORT: u16 = 27017;

/// What no name of a database has in it; from the server's manual, "Naming Restrictions".
const NOT_IN_DATABASES: [char; 7] = ['/', '\\', '.', ' ', '"', '$', '\0'];

fn invalid<T>(summary: impl Into<String>, detail: impl Into<String>) -> Result<T, InvalidUri> {
    Err(InvalidUri { summary: summary.into(), detail: detail.into(), unknown: None })
}

impl MongoUri {
    /// Reads a connection string.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words that quote nothing of it.
    pub fn parse(text: &str) -> Result<Self, InvalidUri> {
        const SHAPE: &str = "Write it like mongodb://host:27017 or mongodb+srv://host.";
        let (srv, rest) =
            match (text.strip_prefix("mongodb://"), text.strip_prefix("mongodb+srv://")) {
                (Some(rest), _) => (false, rest),
                (_, Some(rest)) => (true, rest),
                _ if text.is_empty() => return invalid("the URI is empty", SHAPE),
                _ => {
                    return invalid(
                        "the URI does not start with mongodb:// or mongodb+srv://",
                        SHAPE,
                    );
                }
            };
        // An unescaped @, / or ? in a password moves the borders, so everything before the last @
        // counts as credentials first.
        if let Some(at_sign) = rest.rfind('@')
            && loosely_decoded(&rest[..at_sign]).contains(':')
        {
            return literal_password();
        }
        if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return invalid("the URI has white space in it", SHAPE);
        }
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(authority_end);
        let (username, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(decoded(user)?), hosts),
            None => (None, authority),
        };
        if loosely_decoded(hosts).contains('@') {
            return literal_password();
        }
        if username.as_deref() == Some("") {
            return invalid(
                "the URI has an @ and no user before it",
                "Leave the @ out, or write the user name before it.",
            );
        }
        let hosts =
            hosts.split(',').map(|host| host_and_port(host, srv)).collect::<Result<Vec<_>, _>>()?;
        if srv && hosts.len() > 1 {
            return invalid(
                "a mongodb+srv URI names more than one host",
                "Its one name leads to all hosts; or list them after mongodb://.",
            );
        }
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        if path.matches('/').count() > 1 {
            return invalid(
                "the URI has more than one / after its hosts",
                "What follows the hosts is /DATABASE?OPTIONS.",
            );
        }
        let database = decoded(path.trim_start_matches('/'))?;
        if database.contains(NOT_IN_DATABASES) {
            return invalid(
                "the database in the URI has no name that a database can have",
                "It is where the user is defined.",
            );
        }
        let options = option::read(query, srv, hosts.len())?;
        let database = (!database.is_empty()).then_some(database);
        Ok(Self { text: text.to_owned(), srv, hosts, username, database, options })
    }

    /// The string, as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The user that it names.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// An option's value, by its name as the manual spells it.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options
            .iter()
            .find(|option| option.known.name == name)
            .map(|option| option.value.as_str())
    }

    /// Its options that change nothing of what the daemon does, as the manual spells them.
    pub fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        self.options.iter().filter(|option| option.has_no_effect()).map(|option| option.known.name)
    }

    /// Whether both name one host: two deployments never share one.
    #[must_use]
    pub fn shares_host_with(&self, other: &Self) -> bool {
        self.srv == other.srv && self.hosts.iter().any(|host| other.hosts.contains(host))
    }

    /// Options that switch the checks of TLS off.
    pub fn unchecked_tls(&self) -> impl Iterator<Item = &'static str> {
        ["tlsInsecure", "tlsAllowInvalidCertificates"]
            .into_iter()
            .filter(|name| self.option(name) == Some("true"))
    }

    /// Whether it asks for TLS or not; `None` where it does not say.
    #[must_use]
    pub fn tls(&self) -> Option<bool> {
        let says = self.option("tls").map(|value| value == "true");
        let implied = self
            .options
            .iter()
            .any(|option| option.known.name.starts_with("tls") && !option.has_no_effect());
        says.or_else(|| (implied || self.srv).then_some(true))
    }

    /// The same connection as the driver takes it: what has no effect is left out, what is escaped
    /// is escaped once, and `username`, where there is one, stands in it, so that the driver finds
    /// out where that user is defined.
    #[must_use]
    pub fn for_driver(&self, username: Option<&str>) -> String {
        let scheme = if self.srv { "mongodb+srv" } else { "mongodb" };
        let hosts: Vec<&str> = self
            .hosts
            .iter()
            .map(|host| {
                if self.srv {
                    host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name)
                } else {
                    host
                }
            })
            .collect();
        let is_off = self.tls() == Some(false);
        let goes = |option: &&UriOption| {
            let name = option.known.name;
            // Twice the same to the driver, which takes each by itself alone.
            let is_twice =
                name == "tlsAllowInvalidCertificates" && self.option("tlsInsecure").is_some();
            let is_idle = is_off && name.starts_with("tls") && name != "tls";
            option.goes_to_driver(username.is_some()) && !is_twice && !is_idle
        };
        let options = self.options.iter().filter(goes);
        self.written(scheme, &hosts.join(","), username, options.map(UriOption::written).collect())
    }

    /// The connection to a shard whose router this one is: with the same user and TLS, at the
    /// shard's own members.
    #[must_use]
    pub fn of_shard(&self, replica_set: &str, hosts: &str) -> String {
        let kept = self.options.iter().filter(|option| !option.known.is_of_router());
        let mut options: Vec<String> = kept.map(UriOption::written).collect();
        if self.srv && self.option("tls").is_none() {
            // What the scheme itself says.
            options.push("tls=true".to_owned());
        }
        options.push(format!("replicaSet={}", encoded(replica_set)));
        self.written("mongodb", hosts, self.username(), options)
    }

    fn written(
        &self,
        scheme: &str,
        hosts: &str,
        username: Option<&str>,
        options: Vec<String>,
    ) -> String {
        let user = username.map(|name| format!("{}@", encoded(name))).unwrap_or_default();
        let database = self.database.as_deref().map(encoded).unwrap_or_default();
        let mark = if options.is_empty() { "" } else { "?" };
        format!("{scheme}://{user}{hosts}/{database}{mark}{}", options.join("&"))
    }
}

fn literal_password<T>() -> Result<T, InvalidUri> {
    invalid(
        "a password stands in the URI",
        "A file that is shared and reviewed holds no secret. Take it out of the URI and refer to \
         it beside it:\n  \
         username = \"NAME\"\n  password = { env = \"VARIABLE\" }    # or { file = \"/path\" }: \
         of the daemon's machine\n\
         Change the password where the file was shared already.",
    )
}

/// With every byte escaped that has a meaning in a URI, or may have one.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The bytes with their percent-encoding undone, and whether each % was followed by two hexadecimal
/// digits.
fn bytes(text: &str) -> (Vec<u8>, bool) {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut is_good) = (0, true);
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let digits = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let hex = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        is_good &= hex.is_some() || bytes[at] != b'%';
        out.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    (out, is_good)
}

/// With its percent-encoding undone; what is no valid one stays.
fn loosely_decoded(text: &str) -> String {
    String::from_utf8_lossy(&bytes(text).0).into_owned()
}

/// With its percent-encoding undone.
fn decoded(text: &str) -> Result<String, InvalidUri> {
    const ESCAPE: &str = "A % is written as %25, and other characters as the two digits of each \
         of their bytes in UTF-8.";
    match bytes(text) {
        (_, false) => invalid("a % in the URI is not followed by two hexadecimal digits", ESCAPE),
        (bytes, true) => match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(text),
            Ok(_) | Err(_) => invalid("what is escaped in the URI is no text in UTF-8", ESCAPE),
        },
    }
}

/// Checks `host`, `host:port` or `[v6]:port`, and gives it with its port.
fn host_and_port(text: &str, srv: bool) -> Result<String, InvalidUri> {
    const LIST: &str = "Hosts are listed like host-a:27017,host-b:27017.";
    if text.is_empty() {
        return invalid("the URI has no host, or an empty one", LIST);
    }
    let plain = loosely_decoded(text);
    if plain.contains('/') || plain.ends_with(".sock") {
        return invalid(
            "the URI names a Unix socket",
            "The daemon connects over TCP, as the members of a deployment do: write the server's \
             host and port.",
        );
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, after)) if after.starts_with(':') => (host, Some(&after[1..])),
            _ => {
                return invalid(
                    "a host of the URI has a [ that is not closed well",
                    "An IPv6 address is written like [::1]:27017.",
                );
            }
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host = if text.starts_with('[') {
        match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => {
                return invalid(
                    "what stands between [ and ] in the URI is no IPv6 address",
                    "It is written like [::1]:27017, without the name of an interface after a %.",
                );
            }
        }
    } else {
        if port.is_some_and(|port| port.contains(':')) {
            return invalid(
                "a host of the URI has more than one : in it",
                "An IPv6 address stands in brackets, as in [::1]:27017.",
            );
        }
        if host.is_empty() || !host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c)) {
            return invalid(
                "a host of the URI is not a host name",
                "It has characters that no host name has. Hosts are separated by commas.",
            );
        }
        host.to_lowercase()
    };
    if srv && text.starts_with('[') {
        return invalid(
            "a mongodb+srv URI names an address",
            "It names a domain whose DNS records hold the hosts.",
        );
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(_) if srv => {
            return invalid(
                "a mongodb+srv URI names a port",
                "Its DNS records hold the ports: leave it out.",
            );
        }
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => number,
            _ => return invalid("a port of the URI is not a number from 1 to 65535", LIST),
        },
    };
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::MongoUri;

    fn summary(text: &str) -> String {
        MongoUri::parse(text).map_or_else(|error| error.summary, |_| "good".to_owned())
    }

    #[test]
    fn good_uris_pass() {
        for text in [
            "mongodb://h",
            "mongodb://h:27017,i:27018,[::1]:27019/db?replicaSet=rs0&w=majority",
            "mongodb+srv://orders.example.net/?retryWrites=true",
            "mongodb://user@h/",
            "mongodb://CN%3Dclient%2COU%3Dx@h/?authMechanism=MONGODB-X509",
            "mongodb://h/?tlsCAFile=/etc/ca.pem",
        ] {
            assert_eq!(summary(text), "good", "{text}");
        }
    }

    #[test]
    fn passwords_are_found_however_they_are_written() {
        for text in [
            "mongodb://u:pw@h",
            "mongodb://u:@h",
            "mongodb://:pw@h",
            "mongodb://u%3Apw@h",
            "mongodb://u:p@w@h",
            "mongodb://u:p/w?x@h",
            "mongodb://u:pw%40h",
            "mongodb+srv://u:p w@h",
        ] {
            assert_eq!(summary(text), "a password stands in the URI", "{text}");
        }
        for text in [
            "mongodb://h/?tlsCertificateKeyFilePassword=x",
            "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:x",
        ] {
            assert_eq!(summary(text), "an option of the URI holds a secret", "{text}");
        }
    }

    #[test]
    fn bad_shapes_are_refused_without_quoting_them() {
        for text in [
            "",
            "h:27017",
            "http://h",
            "mongodb://",
            "mongodb:///db",
            "mongodb://h:0",
            "mongodb://h:70000",
            "mongodb://h:x",
            "mongodb://h,",
            "mongodb://a b",
            "mongodb://[::1",
            "mongodb+srv://h:1",
            "mongodb+srv://h,i",
            "mongodb://@h",
            "mongodb://h/a/b",
            "mongodb://h/?x",
            "mongodb://h/?=x",
            "mongodb://h/?tlsCAFile=ca.pem",
            "mongodb://h!",
            "mongodb://%2Ftmp%2Fmongodb-27017.sock",
            "mongodb+srv://%2Ftmp%2Fmongodb-27017.sock",
            "mongodb:///tmp/mongodb-27017.sock",
            "mongodb://::1",
            "mongodb://[fe80::1%25eth0]",
            "mongodb://[h]",
            "mongodb+srv://[::1]",
            "mongodb://h:+1",
            "mongodb://u%@h",
            "mongodb://u%ff@h",
            "mongodb://h/a%2Fb",
            "mongodb://h/a%zz",
            "mongodb://h/?replicaSet=%",
        ] {
            assert_ne!(summary(text), "good", "{text}");
        }
    }

    #[test]
    fn one_shared_host_is_one_deployment() {
        let parse = |text| MongoUri::parse(text).expect("good");
        assert!(parse("mongodb://A,b:1").shares_host_with(&parse("mongodb://c,a:27017/?tls=true")));
        assert!(!parse("mongodb://a:1").shares_host_with(&parse("mongodb://a:2")));
        assert!(parse("mongodb+srv://a").shares_host_with(&parse("mongodb+srv://A/db")));
    }
}
