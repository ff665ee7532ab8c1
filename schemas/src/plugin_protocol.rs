//! Terraform's plugin protocol: the generated types, and the facts of its start that are in no
//! message.

/// The generated types of `tfplugin6`: what a provider answers.
#[expect(missing_docs, reason = "generated; the .proto file has the documentation")]
#[expect(clippy::allow_attributes_without_reason, clippy::allow_attributes, reason = "generated")]
pub mod tfplugin6 {
    tonic::include_proto!("tfplugin6");
}

/// The generated types of go-plugin's `plugin`: how the plugin's process is told to end.
#[expect(missing_docs, reason = "generated; the .proto file has the documentation")]
#[expect(clippy::allow_attributes_without_reason, clippy::allow_attributes, reason = "generated")]
pub mod go_plugin {
    tonic::include_proto!("plugin");
}

/// The version of the plugin protocol that is spoken.
pub const PROTOCOL_VERSION: u32 = 6;

/// The variable by which a plugin knows that Terraform started it, and not a person.
pub const COOKIE_VARIABLE: &str = "TF_PLUGIN_MAGIC_COOKIE";

/// What that variable holds. It is no secret.
pub const COOKIE: &str = "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2";

/// The variable that holds the client's certificate, PEM.
pub const CLIENT_CERTIFICATE_VARIABLE: &str = "PLUGIN_CLIENT_CERT";

/// The variable that holds the protocol versions that the client speaks, with commas between.
pub const VERSIONS_VARIABLE: &str = "PLUGIN_PROTOCOL_VERSIONS";

/// The variable that names the folder for the socket; the temporary folder, where it is not set.
pub const SOCKET_FOLDER_VARIABLE: &str = "PLUGIN_UNIX_SOCKET_DIR";
