//! Arguments of what runs on a host: the daemon, the runner and the demo.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// How the program's own log is written to stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON document a line
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct DaemonArguments {
    #[command(subcommand)]
    pub(crate) command: Option<DaemonCommand>,
    /// The daemon's settings
    #[arg(long, value_name = "FILE", default_value = "forge.toml", global = true)]
    pub(crate) config: PathBuf,
    /// How to write the daemon's own log
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, env = "FORGE_LOG_FORMAT", global = true)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Make a new key to sign jobs with; runners follow it by themselves
    RotateSigningKey,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(crate) struct RunnerArguments {
    #[command(subcommand)]
    pub(crate) command: Option<RunnerCommand>,
    /// The runner's settings; without it, and without a runner.toml here, the environment alone
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// How to write the runner's own log
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, env = "FORGE_LOG_FORMAT", global = true)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunnerCommand {
    /// Start the runner; this is what bare `forge runner` does
    Start,
    /// Ask for the settings, write runner.toml and register
    Setup(super::SetupArguments),
    /// Register this runner with a registration token and write its token file
    Register(RegistrationToken),
    /// Tell the daemon that this runner is gone and remove its token file
    Unregister,
}

#[derive(Debug, Args)]
pub(crate) struct RegistrationToken {
    /// Read the registration token from stdin
    #[arg(long, conflicts_with = "registration_token_file")]
    pub(crate) stdin_registration_token: bool,
    /// Read the registration token from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) registration_token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Keep serving after the two tasks, and print the URL and a token
    #[arg(long)]
    pub(crate) keep: bool,
}
