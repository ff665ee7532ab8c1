//! SCRAM-SHA-256 as a client: how the members of a cluster know each other by their key file (RFC
//! 5802, RFC 7677).

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use sha2::{Digest as _, Sha256};

use super::link::Link;
use super::{Router, wire};

/// The user that every member of a cluster is.
const USER: &str = "__system";
const BLOCK: usize = 64;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The cluster's key, and what was derived of it for each salt: that takes thousands of hashes.
pub(super) struct Key {
    secret: String,
    salted: Mutex<HashMap<String, [u8; 32]>>,
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("logging in by the key file: {what}"))
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; BLOCK];
    match key.len() {
        0..=BLOCK => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let inner =
        Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

/// PBKDF2 of one block.
fn salted(secret: &str, salt: &[u8], rounds: u32) -> [u8; 32] {
    let mut last = hmac(secret.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
    let mut all = last;
    for _ in 1..rounds {
        last = hmac(secret.as_bytes(), &last);
        all.iter_mut().zip(last).for_each(|(all, last)| *all ^= last);
    }
    all
}

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let all = three.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for place in 0..4 {
            let six = (all >> (18 - 6 * place)) & 0x3f;
            text.push(if place <= three.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut all, mut bits) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        all = all << 6 | u32::try_from(ALPHABET.iter().position(|known| *known == letter)?).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((all >> bits) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

fn payload(reply: &RawDocument) -> io::Result<String> {
    match reply.get("payload") {
        Ok(Some(RawBsonRef::Binary(payload))) => {
            Ok(String::from_utf8_lossy(payload.bytes).into_owned())
        }
        _ => Err(refused(reply.get_str("errmsg").unwrap_or("the server answers something else"))),
    }
}

fn binary(text: &str) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: text.as_bytes().to_vec() }
}

impl Key {
    /// A key as its file holds it, where white space does not count.
    pub(super) fn new(file: &str) -> Self {
        Self { secret: file.split_whitespace().collect(), salted: Mutex::default() }
    }

    /// Makes a new connection one of the cluster's own.
    pub(super) async fn log_in(&self, stream: &mut Link) -> io::Result<()> {
        let nonce = to_base64(&rand::random::<[u8; 24]>());
        let bare = format!("n={USER},r={nonce}");
        let start = rawdoc! {
            "saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": binary(&format!("n,,{bare}")),
            "options": { "skipEmptyExchange": true }, "$db": "local",
        };
        let reply = wire::ask(stream, &start, None).await?;
        let first = payload(&reply)?;
        let part = |name: &str| {
            first
                .split(',')
                .find_map(|part| part.strip_prefix(name))
                .ok_or_else(|| refused("a part is missing"))
        };
        let (theirs, salt, rounds) = (part("r=")?, part("s=")?, part("i=")?);
        if !theirs.starts_with(&nonce) {
            return Err(refused("the server answers another's question"));
        }
        let known = Router::lock(&self.salted).get(salt).copied();
        let salted = match known {
            Some(salted) => salted,
            None => {
                let bytes = from_base64(salt).ok_or_else(|| refused("the salt is no base64"))?;
                let made = salted(&self.secret, &bytes, rounds.parse().map_err(io::Error::other)?);
                Router::lock(&self.salted).insert(salt.to_owned(), made);
                made
            }
        };
        let client = hmac(&salted, b"Client Key");
        let without_proof = format!("c=biws,r={theirs}");
        let signature =
            hmac(&Sha256::digest(client), format!("{bare},{first},{without_proof}").as_bytes());
        let proof: Vec<u8> =
            client.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        let last = format!("{without_proof},p={}", to_base64(&proof));
        let id = reply.get_i32("conversationId").map_err(io::Error::other)?;
        let end = rawdoc! {
            "saslContinue": 1, "conversationId": id, "payload": binary(&last), "$db": "local",
        };
        let reply: RawDocumentBuf = wire::ask(stream, &end, None).await?;
        match reply.get_bool("done") {
            Ok(true) => Ok(()),
            _ => Err(refused(reply.get_str("errmsg").unwrap_or("the server asks for more"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{from_base64, hmac, salted, to_base64};

    #[test]
    fn the_proof_is_that_of_the_standards_example() {
        // RFC 7677, section 3.
        let (first, last) = (
            "n=user,r=rOprNGfwEbeRWgbNEkqO",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        );
        let server = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let salt = from_base64("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let client = hmac(&salted("pencil", &salt, 4096), b"Client Key");
        let stored: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
            <sha2::Sha256 as sha2::Digest>::new(),
            client,
        ))
        .into();
        let signature = hmac(&stored, format!("{first},{server},{last}").as_bytes());
        let proof: Vec<u8> = client.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        assert_eq!(to_base64(&proof), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    }
}
