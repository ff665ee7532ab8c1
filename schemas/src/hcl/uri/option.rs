//! Every option of MongoDB's connection strings, and what it is to the daemon: used, without
//! effect, or refused.
//!
//! The names are those of the specifications "URI Options" and "Connection String" of MongoDB's
//! drivers, and of what older tools wrote.

use std::path::Path;

use super::super::suggest::did_you_mean;
use super::{InvalidUri, decoded, encoded, invalid};

/// An option that the daemon knows.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name, as the manual spells it.
    pub name: &'static str,
    /// What it is to the daemon.
    pub meaning: Meaning,
}

/// What an option is to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Connections are made with it.
    Used(Value),
    /// Another name of this one.
    Alias(&'static str),
    /// It changes nothing: the daemon decides that itself.
    NoEffect,
    /// It changes nothing with this value, and is refused with any other, with these words on what
    /// to do.
    OnlyAs(&'static str, &'static str),
    /// It is not supported; what to do.
    Refused(&'static str),
    /// Its value is a secret.
    Secret,
}

/// What kind of value an option has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Flag,
    /// A whole number, of this or more.
    Whole(u32),
    /// An absolute path; the attribute of a `tls` block that takes it instead.
    File(&'static str),
    /// A text.
    Text,
    /// A way to log on.
    Mechanism,
}

use Meaning::{Alias, NoEffect, OnlyAs, Refused, Secret, Used};

const fn known(name: &'static str, meaning: Meaning) -> Known {
    Known { name, meaning }
}

const PROXY: &str = "The daemon connects to the servers themselves. Remove it, and let the daemon \
     run where it reaches them.";
const CLOUD: &str = "Its only users are ways to log on that the daemon does not know. Remove it, \
     and use SCRAM or X.509.";
const HOSTNAMES: &str = "The daemon always looks whether a certificate is of its host, also on \
     every shard. Remove the option, and give the servers certificates of the names that they are \
     reached by.";

/// Every option.
pub const KNOWN: &[Known] = &[
    known("authMechanism", Used(Value::Mechanism)),
    known("authSource", Used(Value::Text)),
    known("directConnection", Used(Value::Flag)),
    // The driver refuses less than half a second.
    known("heartbeatFrequencyMS", Used(Value::Whole(500))),
    known("localThresholdMS", Used(Value::Whole(0))),
    known("maxConnecting", Used(Value::Whole(1))),
    known("maxIdleTimeMS", Used(Value::Whole(0))),
    known("maxPoolSize", Used(Value::Whole(0))),
    known("replicaSet", Used(Value::Text)),
    known("srvMaxHosts", Used(Value::Whole(0))),
    known("srvServiceName", Used(Value::Text)),
    known("tls", Used(Value::Flag)),
    known("tlsAllowInvalidCertificates", Used(Value::Flag)),
    known("tlsCAFile", Used(Value::File("ca_file"))),
    known("tlsCertificateKeyFile", Used(Value::File("certificate_key_file"))),
    known("tlsInsecure", Used(Value::Flag)),
    known("ssl", Alias("tls")),
    known("sslCertificateAuthorityFile", Alias("tlsCAFile")),
    known("sslClientCertificateKeyFile", Alias("tlsCertificateKeyFile")),
    known("adaptiveRetries", NoEffect),
    known("appName", NoEffect),
    known("compressors", NoEffect),
    known("connectTimeoutMS", NoEffect),
    known("enableOverloadRetargeting", NoEffect),
    known("fsync", NoEffect),
    known("j", NoEffect),
    known("journal", NoEffect),
    known("maxAdaptiveRetries", NoEffect),
    known("maxStalenessSeconds", NoEffect),
    known("minPoolSize", NoEffect),
    known("readConcernLevel", NoEffect),
    known("readPreference", NoEffect),
    known("readPreferenceTags", NoEffect),
    known("retryReads", NoEffect),
    known("retryWrites", NoEffect),
    known("safe", NoEffect),
    known("serverMonitoringMode", NoEffect),
    known("serverSelectionTimeoutMS", NoEffect),
    known("serverSelectionTryOnce", NoEffect),
    known("slaveOk", NoEffect),
    known("socketTimeoutMS", NoEffect),
    known("timeoutMS", NoEffect),
    known("tlsDisableCertificateRevocationCheck", NoEffect),
    known("tlsDisableOCSPEndpointCheck", NoEffect),
    known("uuidRepresentation", NoEffect),
    known("w", NoEffect),
    known("waitQueueMultiple", NoEffect),
    known("waitQueueTimeoutMS", NoEffect),
    known("wtimeout", NoEffect),
    known("wtimeoutMS", NoEffect),
    known("zlibCompressionLevel", NoEffect),
    known(
        "loadBalanced",
        OnlyAs(
            "false",
            "A run follows the members of a deployment, which a balancer of connections hides. \
             Name the members.",
        ),
    ),
    known("tlsAllowInvalidHostnames", OnlyAs("false", HOSTNAMES)),
    known("sslInvalidHostNameAllowed", OnlyAs("false", HOSTNAMES)),
    known("authMechanismProperties", Refused(CLOUD)),
    known("gssapiServiceName", Refused(CLOUD)),
    known("proxyHost", Refused(PROXY)),
    known("proxyPort", Refused(PROXY)),
    known("proxyUsername", Refused(PROXY)),
    known("password", Secret),
    known("proxyPassword", Secret),
    known("sslClientCertificateKeyPassword", Secret),
    known("tlsCertificateKeyFilePassword", Secret),
];

impl Known {
    /// Whether it says something of a router's hosts alone, and nothing of its shards'.
    pub(super) fn is_of_router(&self) -> bool {
        [
            "replicaSet",
            "directConnection",
            "loadBalanced",
            "srvServiceName",
            "srvMaxHosts",
            "readPreference",
            "localThresholdMS",
        ]
        .contains(&self.name)
    }
}

/// An option that stands in a connection string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UriOption {
    /// What it is; never an alias.
    pub(super) known: &'static Known,
    /// Its value, not escaped.
    pub(super) value: String,
}

impl UriOption {
    pub(super) fn has_no_effect(&self) -> bool {
        matches!(self.known.meaning, NoEffect | OnlyAs(..))
            || (self.known.name == "authMechanism" && is_default(&self.value))
    }

    /// Whether the driver is told. How somebody logs on is told apart from the string; where they
    /// are defined only of somebody.
    pub(super) fn goes_to_driver(&self, has_user: bool) -> bool {
        let is_of_login =
            self.known.name == "authMechanism" || (self.known.name == "authSource" && !has_user);
        // No bound of the driver's own: it has no word for that.
        let is_unbounded = self.known.name == "maxPoolSize" && self.value == "0";
        matches!(self.known.meaning, Used(_)) && !is_of_login && !is_unbounded
    }

    pub(super) fn written(&self) -> String {
        // The path of a file has no need to be unreadable.
        format!("{}={}", self.known.name, encoded(&self.value).replace("%2F", "/"))
    }
}

/// Whether a mechanism is the word for what is agreed on with the server.
pub(super) fn is_default(mechanism: &str) -> bool {
    mechanism.eq_ignore_ascii_case("DEFAULT")
}

/// Reads what follows the `?`.
pub(super) fn read(query: &str, srv: bool, hosts: usize) -> Result<Vec<UriOption>, InvalidUri> {
    let mut options: Vec<UriOption> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return invalid(
                "an option of the URI is not NAME=VALUE",
                "Options follow a ? and are separated by &.",
            );
        };
        let (written, value) = (decoded(name)?, decoded(value)?);
        let (known, value) = checked(&written, value)?;
        match options.iter().find(|other| other.known == known) {
            // Tags are told in order of preference, each by an option of its own.
            Some(_) if known.name == "readPreferenceTags" => {}
            Some(other) if other.value == value => {}
            Some(_) => {
                return invalid(
                    format!(
                        "the URI's option {} stands more than once, with other values",
                        known.name
                    ),
                    format!("Leave one of them.{}", aliases(known.name)),
                );
            }
            None => options.push(UriOption { known, value }),
        }
    }
    together(&options, srv, hosts)?;
    Ok(options)
}

fn aliases(name: &str) -> String {
    let others: Vec<&str> = KNOWN
        .iter()
        .filter(|known| known.meaning == Alias(name_of(name)))
        .map(|known| known.name)
        .collect();
    if others.is_empty() {
        String::new()
    } else {
        format!(" Another name of it is {}.", others.join(", "))
    }
}

/// The same name, for as long as the program runs.
fn name_of(name: &str) -> &'static str {
    KNOWN.iter().find(|known| known.name == name).map_or("", |known| known.name)
}

/// What an option is, and its value, checked.
fn checked(written: &str, value: String) -> Result<(&'static Known, String), InvalidUri> {
    let find = |name: &str| KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(name));
    let Some(mut known) = find(written) else {
        let mean = did_you_mean(written, KNOWN.iter().map(|known| known.name));
        // What is no word may be a piece of a password.
        let is_word = written.len() <= 40
            && written.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        return Err(InvalidUri {
            summary: "the URI has an option that is not known".to_owned(),
            detail: format!(
                "The options are those of MongoDB's manual, whatever their case.{}",
                if is_word { &mean } else { "" }
            ),
            unknown: is_word.then(|| written.to_owned()),
        });
    };
    if let Alias(other) = known.meaning
        && let Some(other) = find(other)
    {
        known = other;
    }
    let name = known.name;
    let holds_token =
        name == "authMechanismProperties" && value.to_ascii_lowercase().contains("token:");
    if known.meaning == Secret || holds_token {
        return invalid(
            "an option of the URI holds a secret",
            "A file that is shared and reviewed holds no secret. Use a key file that is not \
             encrypted, readable for the daemon alone, or username and password beside the URI.",
        );
    }
    let wrong =
        |what: &str, detail: &str| invalid(format!("the URI's option {name} {what}"), detail);
    match known.meaning {
        Refused(detail) => return wrong("is not supported", detail),
        OnlyAs(allowed, detail) if value != allowed => return wrong("is not supported", detail),
        NoEffect | OnlyAs(..) | Alias(_) | Secret => return Ok((known, value)),
        Used(_) if value.is_empty() => {
            return wrong("has no value", "Write one after the =, or remove the option.");
        }
        Used(Value::Text) => {}
        Used(Value::Flag) if value == "true" || value == "false" => {}
        Used(Value::Flag) => {
            return wrong("is neither true nor false", "Write it in small letters.");
        }
        Used(Value::Whole(least)) => match value.parse::<u32>() {
            // Written as the driver reads it: 007 is 7.
            Ok(number) if number >= least && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Ok((known, number.to_string()));
            }
            _ => {
                let detail = format!("It is {least} at least, and {} at most.", u32::MAX);
                return wrong("is not a whole number in its bounds", &detail);
            }
        },
        Used(Value::File(attribute)) if !Path::new(&value).is_absolute() => {
            return invalid(
                "a file in the URI's options has no absolute path",
                format!(
                    "The daemon would look for it in its own folder. Name it in a tls block: tls \
                     {{ {attribute} = \"...\" }}."
                ),
            );
        }
        Used(Value::File(_)) => {}
        Used(Value::Mechanism) => return mechanism(value).map(|value| (known, value)),
    }
    Ok((known, value))
}

/// The ways to log on that the daemon knows.
const MECHANISMS: [&str; 5] = ["DEFAULT", "SCRAM-SHA-1", "SCRAM-SHA-256", "MONGODB-X509", "PLAIN"];

/// Ways that MongoDB knows besides.
const OTHER_MECHANISMS: [&str; 4] = ["GSSAPI", "MONGODB-AWS", "MONGODB-CR", "MONGODB-OIDC"];

fn mechanism(value: String) -> Result<String, InvalidUri> {
    let value = value.to_ascii_uppercase();
    if MECHANISMS.contains(&value.as_str()) {
        return Ok(value);
    }
    let detail = format!(
        "The daemon logs on with {}, or as the server offers, without the option.",
        MECHANISMS[1..].join(", ")
    );
    match OTHER_MECHANISMS.iter().find(|other| **other == value) {
        Some(other) => invalid(format!("the URI's authMechanism {other} is not supported"), detail),
        None => invalid(
            "the URI's authMechanism is not known",
            format!("{detail}{}", did_you_mean(&value, MECHANISMS)),
        ),
    }
}

/// What options say together.
fn together(options: &[UriOption], srv: bool, hosts: usize) -> Result<(), InvalidUri> {
    let value = |name: &str| {
        options.iter().find(|option| option.known.name == name).map(|option| option.value.as_str())
    };
    let is = |name: &str, wanted: &str| value(name) == Some(wanted);
    if is("directConnection", "true") && (srv || hosts > 1) {
        let detail = "A direct connection is to the one host that is named. Leave the option out, \
             or name one host.";
        return invalid(
            "the URI's option directConnection=true does not go with several hosts",
            detail,
        );
    }
    if !srv
        && let Some(name) =
            ["srvMaxHosts", "srvServiceName"].into_iter().find(|name| value(name).is_some())
    {
        return invalid(
            format!("the URI's option {name} is of mongodb+srv URIs alone"),
            "Remove it.",
        );
    }
    if value("srvMaxHosts").is_some_and(|most| most != "0") && value("replicaSet").is_some() {
        return invalid(
            "the URI's options srvMaxHosts and replicaSet do not go together",
            "Remove srvMaxHosts: it is of routers.",
        );
    }
    if let (Some(one), Some(other)) = (value("tlsInsecure"), value("tlsAllowInvalidCertificates"))
        && one != other
    {
        let detail = "Remove one of them; both say whether certificates are checked.";
        return invalid(
            "the URI's options tlsInsecure and tlsAllowInvalidCertificates contradict each other",
            detail,
        );
    }
    let needs_tls = options.iter().find(|option| {
        let name = option.known.name;
        let is_on = !matches!(option.known.meaning, Used(Value::Flag)) || option.value == "true";
        name.starts_with("tls") && name != "tls" && is_on && !option.has_no_effect()
    });
    if is("tls", "false")
        && let Some(option) = needs_tls
    {
        let summary = format!("the URI's option {} contradicts tls=false", option.known.name);
        return invalid(summary, "Remove one of them.");
    }
    Ok(())
}
