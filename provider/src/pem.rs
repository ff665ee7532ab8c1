//! Files of certificates and keys, reported by what is in them: a connection that fails for one of
//! them only says that it failed.

use std::io::Read as _;
use std::path::Path;
use std::str::FromStr as _;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use schemas::time::UtcTime;

/// More than any file of certificates is: the authorities of a whole operating system are a quarter
/// of it.
const LARGEST_BYTES: u64 = 1 << 20;

/// What a file is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Certificates of authorities.
    Authorities,
    /// A certificate, those that prove it, and its key.
    CertificateAndKey,
}

/// What is wrong with such a file, to be said after its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// Reads a file, and looks whether it holds what it is to hold. `now` is what its certificate's
/// time is held against.
///
/// # Errors
///
/// The first thing that would keep a connection from being made with it.
pub fn read(path: &Path, holds: Holds, now: UtcTime) -> Result<Vec<u8>, Problem> {
    let unreadable = |error: std::io::Error| {
        Problem::new(
            format!("cannot be read: {error}"),
            "make it readable for the user that connects, or correct the path",
        )
    };
    // A pipe or a device would block, or never end.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Problem::new("is not a regular file", "name a file in PEM, or a link to one"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    check(&bytes, holds, now)?;
    Ok(bytes)
}

/// Looks whether bytes hold what they are to hold.
///
/// # Errors
///
/// As [`read`].
pub fn check(bytes: &[u8], holds: Holds, now: UtcTime) -> Result<(), Problem> {
    is_pem(bytes)?;
    // Before anything is decoded: an old encrypted key is no base64 from its first line on.
    let is_encrypted = count(bytes, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") > 0
        || count(bytes, b"Proc-Type: 4,ENCRYPTED") > 0;
    if holds == Holds::CertificateAndKey && is_encrypted {
        return Err(Problem::new(
            "holds a key that is encrypted",
            "decrypt it: openssl pkey -in FILE -out KEY.pem, and let the file be readable for the \
             user that connects alone",
        ));
    }
    let certificates = certificates(bytes)?;
    match holds {
        Holds::Authorities => authorities(bytes, certificates),
        Holds::CertificateAndKey => certificate_and_key(bytes, certificates, now),
    }
}

fn is_pem(bytes: &[u8]) -> Result<(), Problem> {
    const PLAIN: &str = "save it as plain text, in ASCII or as UTF-8 without a byte order mark";
    let convert = "convert it: openssl x509 -inform der -in FILE -out FILE.pem, or openssl pkcs12 \
         -in FILE -nodes -out FILE.pem";
    if bytes.is_empty() {
        return Err(Problem::new("is empty", "name a file in PEM"));
    }
    if bytes.len() as u64 > LARGEST_BYTES {
        return Err(Problem::new("is larger than any file of certificates", "name a file in PEM"));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Problem::new(
            "begins with a byte order mark, which hides its first certificate",
            PLAIN,
        ));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Problem::new("is text in UTF-16", PLAIN));
    }
    if count(bytes, b"-----BEGIN ") > 0 {
        return Ok(());
    }
    // Every certificate, and every PKCS#12 file, is a sequence of more than 127 bytes.
    if bytes.starts_with(b"\x30\x82") || bytes.starts_with(b"\x30\x81") {
        return Err(Problem::new("is in DER or PKCS#12, not in PEM", convert));
    }
    Err(Problem::new("holds nothing in PEM", "name a file with a line -----BEGIN CERTIFICATE-----"))
}

fn count(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).filter(|window| *window == needle).count()
}

fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bytes) {
        let number = found.len() + 1;
        found.push(certificate.map_err(|error| {
            Problem::new(
                format!("is damaged at its certificate number {number}: {error}"),
                "take it anew from where it came",
            )
        })?);
    }
    if count(bytes, b"-----BEGIN CERTIFICATE-----") > found.len() {
        return Err(Problem::new(
            "has a certificate that is not read",
            "let -----BEGIN CERTIFICATE----- and -----END CERTIFICATE----- each begin a line, \
             with lines that end in LF or CRLF",
        ));
    }
    Ok(found)
}

fn no_certificate(bytes: &[u8]) -> Problem {
    if count(bytes, b"-----BEGIN TRUSTED CERTIFICATE-----") > 0 {
        return Problem::new(
            "holds its certificate as TRUSTED CERTIFICATE, OpenSSL's own form",
            "convert it: openssl x509 -in FILE -out FILE.pem",
        );
    }
    let what = if count(bytes, b"PRIVATE KEY-----") > 0 {
        "holds a key and no certificate"
    } else {
        "holds no certificate"
    };
    Problem::new(what, "name a file with a line -----BEGIN CERTIFICATE-----")
}

fn authorities(bytes: &[u8], certificates: Vec<CertificateDer<'static>>) -> Result<(), Problem> {
    if certificates.is_empty() {
        return Err(no_certificate(bytes));
    }
    let mut store = RootCertStore::empty();
    for (at, certificate) in certificates.into_iter().enumerate() {
        store.add(certificate).map_err(|error| {
            Problem::new(
                format!("has no certificate of an authority as its number {}: {error}", at + 1),
                "take it anew from where it came",
            )
        })?;
    }
    Ok(())
}

fn certificate_and_key(
    bytes: &[u8],
    certificates: Vec<CertificateDer<'static>>,
    now: UtcTime,
) -> Result<(), Problem> {
    if certificates.is_empty() {
        return Err(no_certificate(bytes));
    }
    if count(bytes, b"PRIVATE KEY-----") == 0 {
        return Err(Problem::new(
            "holds a certificate and no key",
            "put the key in PEM into the same file, after the certificate",
        ));
    }
    let damaged = |error: &dyn std::fmt::Display| {
        Problem::new(
            format!("holds a key that cannot be read: {error}"),
            "write the key as PKCS#8: openssl pkey -in FILE -out KEY.pem",
        )
    };
    let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|error| damaged(&error))?;
    let key = rustls::crypto::aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| damaged(&error))?;
    let own = certificates[0].clone();
    let pairs = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], key.clone()).keys_match()
    };
    match pairs(&own) {
        Ok(()) => {}
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            let others = certificates.iter().skip(1).any(|certificate| pairs(certificate).is_ok());
            let remedy = if others {
                "let the certificate of the key stand first, before those that prove it"
            } else {
                "put a certificate and its own key into the file"
            };
            return Err(Problem::new(
                "holds a key that is not that of its first certificate",
                remedy,
            ));
        }
        // A key that does not tell its other half.
        Err(rustls::Error::InconsistentKeys(_)) => {}
        Err(error) => {
            return Err(Problem::new(
                format!("holds a certificate that cannot be read: {error}"),
                "take it anew from where it came",
            ));
        }
    }
    if let Some((from, until)) = validity(&own) {
        if until < now {
            return Err(Problem::new(
                format!("holds a certificate that expired at {until}"),
                "put a new certificate into the file",
            ));
        }
        if from > now {
            return Err(Problem::new(
                format!("holds a certificate that is good only from {from} on"),
                "wait until then, or set this machine's clock right",
            ));
        }
    }
    Ok(())
}

/// One value in DER: its tag, what is in it, and what follows.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest
            .split_at_checked(usize::from(first & 0x7f))
            .filter(|(digits, _)| digits.len() <= 4)?;
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (inner, rest) = rest.split_at_checked(length)?;
    Some((tag, inner, rest))
}

/// From when until when a certificate is good (RFC 5280, section 4.1); `None` where that is not to
/// be seen.
fn validity(certificate: &CertificateDer<'_>) -> Option<(UtcTime, UtcTime)> {
    let (_, whole, _) = value(certificate)?;
    let (_, signed, _) = value(whole)?;
    let (tag, _, after) = value(signed)?;
    // The version is left out in the oldest.
    let serial_on = if tag == 0xa0 { after } else { signed };
    let (_, _, algorithm_on) = value(serial_on)?;
    let (_, _, issuer_on) = value(algorithm_on)?;
    let (_, _, validity_on) = value(issuer_on)?;
    let (_, validity, _) = value(validity_on)?;
    let (from_tag, from, rest) = value(validity)?;
    let (until_tag, until, _) = value(rest)?;
    Some((time(from_tag, from)?, time(until_tag, until)?))
}

/// A `UTCTime` (two digits of the year, of 1950 to 2049) or a `GeneralizedTime`.
fn time(tag: u8, text: &[u8]) -> Option<UtcTime> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let (year, rest) = match tag {
        0x17 => {
            let (year, rest) = text.split_at_checked(2)?;
            (format!("{}{year}", if year < "50" { "20" } else { "19" }), rest)
        }
        0x18 => text.split_at_checked(4).map(|(year, rest)| (year.to_owned(), rest))?,
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2);
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    UtcTime::from_str(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use schemas::time::UtcTime;

    use super::{Holds, check};

    fn now() -> UtcTime {
        "2026-03-01T10:00:00Z".parse().expect("a time")
    }

    fn made(from: i32, until: i32) -> (String, String, Vec<u8>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem(), key.serialize_pem(), certificate.der().to_vec())
    }

    #[track_caller]
    fn is(holds: Holds, bytes: impl AsRef<[u8]>, what: &str) {
        match check(bytes.as_ref(), holds, now()) {
            Ok(()) => assert_eq!(what, ""),
            Err(problem) => {
                assert!(
                    !what.is_empty() && problem.what.contains(what) && !problem.remedy.is_empty(),
                    "{problem:?}, not {what:?}"
                );
            }
        }
    }

    #[test]
    fn authorities_are_told_by_what_is_in_their_file() {
        let (certificate, key, der) = made(2020, 2040);
        let is = |bytes: &[u8], what: &str| is(Holds::Authorities, bytes, what);
        is(certificate.as_bytes(), "");
        is(format!("{certificate}{certificate}").as_bytes(), "");
        is(certificate.replace("\r\n", "\n").replace('\n', "\r\n").as_bytes(), "");
        is(format!("Issuer: somebody\n\n# a note\n{certificate}\ntrailing").as_bytes(), "");
        // An authority's own time is not looked at by whom it proves.
        is(made(2000, 2001).0.as_bytes(), "");
        is(b"", "is empty");
        is(format!("\u{feff}{certificate}").as_bytes(), "byte order mark");
        is(
            &[
                b"\xff\xfe".as_slice(),
                &certificate.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(),
            ]
            .concat(),
            "UTF-16",
        );
        is(&der, "DER");
        is(b"hello", "nothing in PEM");
        is(key.as_bytes(), "a key and no certificate");
        is(
            certificate.replace("CERTIFICATE", "TRUSTED CERTIFICATE").as_bytes(),
            "TRUSTED CERTIFICATE",
        );
        is(certificate.replace("CERTIFICATE", "CERTIFICATE REQUEST").as_bytes(), "no certificate");
        is(format!("  {certificate}").as_bytes(), "not read");
        is(certificate.replace('\n', "\r").replace("\r\r", "\r").as_bytes(), "");
        is(&certificate.as_bytes()[..certificate.len() / 2], "damaged");
        is(certificate.replacen("MII", "MI*", 1).as_bytes(), "damaged");
        is(
            b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
            "no certificate of an authority",
        );
    }

    #[test]
    fn a_certificate_and_its_key_are_told_by_what_is_in_their_file() {
        let (certificate, key, der) = made(2020, 2040);
        let (other, other_key, _) = made(2020, 2040);
        let is = |text: &str, what: &str| is(Holds::CertificateAndKey, text, what);
        is(&format!("{certificate}{key}"), "");
        is(&format!("{key}{certificate}"), "");
        is(
            &format!("Bag Attributes\n  localKeyID: 01\n{certificate}{other}{key}")
                .replace('\n', "\r\n")
                .replace("\r\r", "\r"),
            "",
        );
        is(&certificate, "a certificate and no key");
        is(&key, "a key and no certificate");
        is(&format!("{certificate}{other_key}"), "not that of its first certificate");
        is(&format!("{other}{certificate}{key}"), "not that of its first certificate");
        is(&format!("{certificate}{}", key.replace("PRIVATE", "ENCRYPTED PRIVATE")), "encrypted");
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: \
             AES-256-CBC,00\n\naGVsbG8=\n-----END RSA PRIVATE KEY-----\n";
        is(&format!("{certificate}{old}"), "encrypted");
        is(
            &format!(
                "{certificate}-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n"
            ),
            "cannot be read",
        );
        is(&format!("\u{feff}{certificate}{key}"), "byte order mark");
        let (expired, key, _) = made(2020, 2026);
        is(&format!("{expired}{key}"), "expired at 2026-01-01T00:00:00");
        let (early, key, _) = made(2051, 2060);
        is(&format!("{early}{key}"), "only from 2051-01-01T00:00:00");
        drop(der);
    }
}
