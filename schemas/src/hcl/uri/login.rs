//! Who logs on with a connection string and with what stands beside it, and what of both does not
//! go together.

use std::path::Path;

use super::option::is_default;
use super::{InvalidUri, MongoUri};

/// What stands beside a connection string in its block.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// The user.
    pub username: Option<&'a str>,
    /// Whether there is a password.
    pub has_password: bool,
    /// The `tls` block: its authority's file, and its certificate's.
    pub tls: Option<(Option<&'a Path>, Option<&'a Path>)>,
}

/// Which of them is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The connection string.
    Uri,
    /// The user.
    Username,
    /// The password.
    Password,
}

/// Two things that do not go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Where.
    pub part: Part,
    /// What, and what to do.
    pub error: InvalidUri,
    /// Whether it is the `tls` block that the string contradicts.
    pub with_tls: bool,
}

/// How a user is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM, as the server offers it.
    Negotiated,
    /// SCRAM-SHA-1.
    ScramSha1,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// The certificate that the connection is made with.
    X509,
    /// The password itself, as LDAP takes it.
    Plain,
}

/// Who logs on, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; a certificate names its own.
    pub username: Option<String>,
    /// How.
    pub mechanism: Mechanism,
    /// Where the user is defined, as far as the string says: in `authSource`, in its database, or
    /// by the way to log on.
    pub source: Option<String>,
}

impl MongoUri {
    /// Who logs on; `None` where nobody does.
    ///
    /// # Errors
    ///
    /// All that does not go together, in the order of the block.
    pub fn login(&self, beside: &Beside<'_>) -> Result<Option<Login>, Vec<Conflict>> {
        let conflicts = self.conflicts(beside);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let username = beside.username.or(self.username()).map(str::to_owned);
        let mechanism = self.mechanism();
        if username.is_none() && mechanism != Mechanism::X509 {
            return Ok(None);
        }
        let own = self.option("authSource").map(str::to_owned);
        let source = match mechanism {
            Mechanism::X509 => Some("$external".to_owned()),
            Mechanism::Plain => {
                own.or_else(|| self.database.clone()).or_else(|| Some("$external".to_owned()))
            }
            // Where nothing is said DNS may, and `admin` is the last.
            Mechanism::Negotiated | Mechanism::ScramSha1 | Mechanism::ScramSha256 => {
                own.or_else(|| self.database.clone())
            }
        };
        Ok(Some(Login { username, mechanism, source }))
    }

    fn mechanism(&self) -> Mechanism {
        match self.option("authMechanism").filter(|value| !is_default(value)) {
            Some("SCRAM-SHA-1") => Mechanism::ScramSha1,
            Some("SCRAM-SHA-256") => Mechanism::ScramSha256,
            Some("MONGODB-X509") => Mechanism::X509,
            Some("PLAIN") => Mechanism::Plain,
            // The reader has no other.
            Some(_) | None => Mechanism::Negotiated,
        }
    }

    fn conflicts(&self, beside: &Beside<'_>) -> Vec<Conflict> {
        let mut found = Vec::new();
        let mut add = |part: Part, with_tls: bool, summary: &str, detail: &str| {
            let error = InvalidUri {
                summary: summary.to_owned(),
                detail: detail.to_owned(),
                unknown: None,
            };
            found.push(Conflict { part, error, with_tls });
        };
        if beside.tls.is_some() && self.tls() == Some(false) {
            add(
                Part::Uri,
                true,
                "the URI switches TLS off, and a tls block switches it on",
                "Remove one of them.",
            );
        }
        // Its files go over those that the string names.
        let (_, key_file) = beside.tls.unwrap_or_default();
        if beside.username == Some("") {
            add(
                Part::Username,
                false,
                "the username is empty",
                "Leave it out where no user is needed.",
            );
        }
        if let (Some(own), Some(name)) = (self.username(), beside.username)
            && own != name
        {
            let detail = "Remove one of them: what stands in the URI is to be escaped, what \
                 stands beside it is not.";
            add(
                Part::Username,
                false,
                "the URI names another user than the username beside it",
                detail,
            );
        }
        let has_user = beside.username.or(self.username()).is_some();
        let certificate = key_file.is_some() || self.option("tlsCertificateKeyFile").is_some();
        let mechanism = self.mechanism();
        match mechanism {
            Mechanism::X509 => {
                if beside.has_password {
                    let detail = "Its certificate is all that such a user has: remove the \
                         password, or the authMechanism.";
                    add(
                        Part::Password,
                        false,
                        "a password with authMechanism=MONGODB-X509",
                        detail,
                    );
                }
                if !certificate {
                    let detail = "Write tls { certificate_key_file = \"...\" } beside the URI: \
                         its certificate is who logs on.";
                    add(
                        Part::Uri,
                        false,
                        "authMechanism=MONGODB-X509 without a certificate",
                        detail,
                    );
                }
                if self.option("authSource").is_some_and(|source| source != "$external") {
                    let detail = "Such users are defined in $external: write \
                         authSource=%24external, or leave it out.";
                    add(
                        Part::Uri,
                        false,
                        "authMechanism=MONGODB-X509 with another authSource than $external",
                        detail,
                    );
                }
            }
            Mechanism::Negotiated
            | Mechanism::ScramSha1
            | Mechanism::ScramSha256
            | Mechanism::Plain => {
                if beside.has_password && !has_user {
                    let detail = "Write username = \"NAME\" beside it, or remove the password.";
                    add(Part::Password, false, "a password without a username", detail);
                }
                if has_user && !beside.has_password {
                    let part = if beside.username.is_some() { Part::Username } else { Part::Uri };
                    let detail = "Write password = { env = \"VARIABLE\" } or { file = \"/path\" } \
                         beside it. A user that logs on by certificate has \
                         authMechanism=MONGODB-X509 in the URI.";
                    add(part, false, "a username without a password", detail);
                }
                if !has_user && !beside.has_password && mechanism != Mechanism::Negotiated {
                    let detail = "Write username = \"NAME\" and a password beside the URI, or \
                         remove the option.";
                    add(
                        Part::Uri,
                        false,
                        "the URI has an authMechanism, and there is no user",
                        detail,
                    );
                }
                if mechanism == Mechanism::Plain && beside.tls.is_none() && self.tls() != Some(true)
                {
                    let detail = "Anybody on the way could read the password. Add a tls block, or \
                         tls=true to the URI.";
                    add(Part::Uri, false, "authMechanism=PLAIN without TLS", detail);
                }
            }
        }
        found
    }
}
