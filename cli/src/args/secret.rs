//! Arguments of `forge secret`. No value of a secret is ever one of them: values come on stdin.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use forge_config::Name;

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Make an age identity for a daemon, and print the recipient that secrets.toml lists
    Keygen(Keygen),
    /// Encrypt a value from stdin for one project, and print the TOML to paste
    Encrypt(Encrypt),
    /// Decrypt a value from stdin, as text or as the TOML that it stands in
    Decrypt(Decrypt),
    /// Encrypt every value of a tree anew, to the recipients that its secrets.toml lists now
    Rekey(Rekey),
}

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// Write the identity to this new file, 0600, instead of stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Encrypt {
    /// The project that the value is for: it opens in no other one
    #[arg(long, value_name = "PROJECT")]
    pub(crate) project: Name,
    /// Encrypt to this recipient (age1...) instead of those of secrets.toml
    #[arg(long = "recipient", value_name = "RECIPIENT", conflicts_with = "directory")]
    pub(crate) recipients: Vec<String>,
    /// The tree whose secrets.toml lists the recipients
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Decrypt {
    /// The age identity that opens the value
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: PathBuf,
    /// The project that the value was encrypted for
    #[arg(long, value_name = "PROJECT")]
    pub(crate) project: Name,
}

#[derive(Debug, Args)]
pub(crate) struct Rekey {
    /// The tree's root
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// An age identity that opens the values as they are
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: PathBuf,
}
