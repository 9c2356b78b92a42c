//! Arguments of what sets a host up and keeps it alive: setup, doctor, backup, restore, completions, man pages.

use std::path::PathBuf;

use clap::Args;

use super::OutputFormat;
use super::host::RegistrationToken;

/// The answers of `forge runner setup`; what is not given here is asked for.
#[derive(Debug, Args)]
pub(crate) struct SetupArguments {
    /// The daemon's URL
    #[arg(long, value_name = "URL")]
    pub(crate) web_host: Option<String>,
    /// The CA's certificate, for a daemon with a self-made one
    #[arg(long, value_name = "FILE", conflicts_with = "ca_fingerprint")]
    pub(crate) ca_file: Option<String>,
    /// The CA's fingerprint, as the daemon prints it
    #[arg(long, value_name = "sha256:HEX")]
    pub(crate) ca_fingerprint: Option<String>,
    /// The runner's name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The folder for workspaces, git cache and log spool
    #[arg(long, value_name = "DIR")]
    pub(crate) tmp_path: Option<String>,
    /// Where the runner's token will lie
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<String>,
    /// Where the runner's private key will lie
    #[arg(long, value_name = "FILE")]
    pub(crate) private_key_file: Option<String>,
    /// How many tasks it runs at a time; 0 is unlimited
    #[arg(long, value_name = "N")]
    pub(crate) max_parallel_tasks: Option<u32>,
    /// Ask nothing: what is not given takes its default
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Write the file anew where there is one
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) registration: RegistrationToken,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// Settings of a daemon or of a runner; without it, what the environment and this folder hold
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How to write the findings
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// Where to write the backup; it holds keys, and is written for its owner alone
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The daemon's settings
    #[arg(long, value_name = "FILE", default_value = "forge.toml")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// A backup that `forge backup` wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The settings of the daemon that is to have it
    #[arg(long, value_name = "FILE", default_value = "forge.toml")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell to complete in
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// The folder for the pages, one a command; made when it is missing
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
