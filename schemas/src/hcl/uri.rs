//! The shape of a MongoDB connection string, without any network. What its options mean is left to the driver.
//!
//! No message here quotes the string: it may hold a password where nobody expects one.

use std::path::Path;

/// A connection string that has the right shape and no secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MongoUri {
    text: String,
    srv: bool,
    /// `host:port`, lowercase.
    hosts: Vec<String>,
    username: Option<String>,
    /// Names in lowercase.
    options: Vec<(String, String)>,
}

/// What is wrong with a connection string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidUri {
    /// In one line.
    pub summary: String,
    /// What to write instead.
    pub detail: String,
}

/// Options whose value is a secret.
const SECRET_OPTIONS: [&str; 4] =
    ["tlscertificatekeyfilepassword", "sslclientcertificatekeypassword", "proxypassword", "password"];

/// Options whose value is a file, and the attribute that takes it instead.
const FILE_OPTIONS: [(&str, &str); 4] = [
    ("tlscafile", "ca_file"),
    ("sslcertificateauthorityfile", "ca_file"),
    ("tlscertificatekeyfile", "certificate_key_file"),
    ("sslclientcertificatekeyfile", "certificate_key_file"),
];

/// Where MongoDB listens unless told otherwise.
const DEFAULT_PORT: u16 = 27017;

fn invalid<T>(summary: impl Into<String>, detail: impl Into<String>) -> Result<T, InvalidUri> {
    Err(InvalidUri { summary: summary.into(), detail: detail.into() })
}

impl MongoUri {
    /// Checks a connection string.
    pub fn parse(text: &str) -> Result<Self, InvalidUri> {
        const SHAPE: &str = "Write it like mongodb://host:27017 or mongodb+srv://host.";
        let (srv, rest) = match (text.strip_prefix("mongodb://"), text.strip_prefix("mongodb+srv://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ if text.is_empty() => return invalid("the URI is empty", SHAPE),
            _ => return invalid("the URI does not start with mongodb:// or mongodb+srv://", SHAPE),
        };
        // An unescaped @, / or ? in a password moves the borders, so everything before the last @ counts as credentials first.
        if let Some(at_sign) = rest.rfind('@')
            && decoded(&rest[..at_sign]).contains(':')
        {
            return literal_password();
        }
        if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return invalid("the URI has white space in it", SHAPE);
        }
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(authority_end);
        let (username, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(decoded(user)), hosts),
            None => (None, authority),
        };
        if decoded(hosts).contains('@') {
            return literal_password();
        }
        if username.as_deref() == Some("") {
            return invalid("the URI has an @ and no user before it", "Leave the @ out, or write the user name before it.");
        }
        let hosts = hosts.split(',').map(|host| host_and_port(host, srv)).collect::<Result<Vec<_>, _>>()?;
        if srv && hosts.len() > 1 {
            return invalid(
                "a mongodb+srv URI names more than one host",
                "Its one name leads to all hosts; or list them after mongodb://.",
            );
        }
        let query = match tail.split_once('?') {
            Some((_, query)) => query,
            None => "",
        };
        if tail.split('?').next().unwrap_or("").matches('/').count() > 1 {
            return invalid("the URI has more than one / after its hosts", "What follows the hosts is /DATABASE?OPTIONS.");
        }
        Ok(Self { text: text.to_owned(), srv, hosts, username, options: options(query)? })
    }

    /// The string, as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it names a user.
    #[must_use]
    pub const fn has_username(&self) -> bool {
        self.username.is_some()
    }

    /// An option's value; the name in lowercase.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
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
            .filter(|name| self.option(&name.to_ascii_lowercase()) == Some("true"))
    }

    /// Whether it says if certificates of any host are taken: the daemon's driver knows no such option, and refuses the URI.
    #[must_use]
    pub fn names_invalid_hostnames(&self) -> bool {
        self.option("tlsallowinvalidhostnames").is_some()
    }

    /// Whether its options switch TLS off.
    #[must_use]
    pub fn switches_tls_off(&self) -> bool {
        self.option("tls") == Some("false") || self.option("ssl") == Some("false")
    }
}

fn literal_password<T>() -> Result<T, InvalidUri> {
    invalid(
        "a password stands in the URI",
        "A file that is shared and reviewed holds no secret. Take it out of the URI and refer to it beside it:\n  \
         username = \"NAME\"\n  password = { env = \"VARIABLE\" }    # or { file = \"/path\" }: of the daemon's machine\n\
         Change the password where the file was shared already.",
    )
}

/// With its percent-encoding undone; what is no valid one stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Checks `host`, `host:port` or `[v6]:port`, and gives it with its port.
fn host_and_port(text: &str, srv: bool) -> Result<String, InvalidUri> {
    if text.is_empty() {
        return invalid("the URI has no host, or an empty one", "Hosts are listed like host-a:27017,host-b:27017.");
    }
    // A socket's path, as %2Ftmp%2Fmongodb-27017.sock.
    let plain = decoded(text);
    if plain.starts_with('/') && !srv {
        return Ok(plain);
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
    if host.is_empty() || !host.chars().all(|c| c.is_alphanumeric() || "-._:%".contains(c)) {
        return invalid(
            "a host of the URI is not a host name",
            "It has characters that no host name has. Hosts are separated by commas.",
        );
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(_) if srv => return invalid("a mongodb+srv URI names a port", "Its DNS records hold the ports: leave it out."),
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => {
                return invalid(
                    "a port of the URI is not a number from 1 to 65535",
                    "Hosts are listed like host-a:27017,host-b:27017.",
                );
            }
        },
    };
    Ok(format!("{}:{port}", host.to_lowercase()))
}

fn options(query: &str) -> Result<Vec<(String, String)>, InvalidUri> {
    let mut options = Vec::new();
    for pair in query.split(['&', ';']).filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return invalid("an option of the URI is not NAME=VALUE", "Options follow a ? and are separated by &.");
        };
        let (name, value) = (decoded(name).to_ascii_lowercase(), decoded(value));
        if SECRET_OPTIONS.contains(&name.as_str())
            || (name == "authmechanismproperties" && value.to_ascii_lowercase().contains("token:"))
        {
            return invalid(
                "an option of the URI holds a secret",
                "A file that is shared and reviewed holds no secret. Use a key file that is not encrypted, readable for the daemon alone, \
                 or username and password beside the URI.",
            );
        }
        if let Some((_, attribute)) = FILE_OPTIONS.iter().find(|(option, _)| *option == name)
            && !Path::new(&value).is_absolute()
        {
            return invalid(
                "a file in the URI's options has no absolute path",
                format!(
                    "The daemon would look for it in its own folder. Name it in a tls block: tls {{ {attribute} = \"...\" }}."
                ),
            );
        }
        options.push((name, value));
    }
    Ok(options)
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
            "mongodb://%2Ftmp%2Fmongodb-27017.sock",
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
        for text in ["mongodb://h/?tlsCertificateKeyFilePassword=x", "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:x"] {
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
        ] {
            assert_ne!(summary(text), "good", "{text}");
        }
    }

    #[test]
    fn one_shared_host_is_one_deployment() {
        let parse = |text| MongoUri::parse(text).expect("good");
        assert!(parse("mongodb://A,b:1").shares_host_with(&parse("mongodb://c,a:27017/?x=y")));
        assert!(!parse("mongodb://a:1").shares_host_with(&parse("mongodb://a:2")));
        assert!(parse("mongodb+srv://a").shares_host_with(&parse("mongodb+srv://A/db")));
    }
}
