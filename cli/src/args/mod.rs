//! What the command line takes. Help is imperative, one line, no full stop; names follow the contract in `docs/`.

mod audit;
mod bench;
mod client;
mod host;
mod living;
mod plugin;
mod secret;
mod webhook;

use clap::{Parser, Subcommand};

pub(crate) use audit::AuditArguments;
pub(crate) use bench::{BenchArguments, BenchOutput, Measurement};
pub(crate) use client::{
    Ask, CheckOutput, ConfigCommand, Connection, DecideTask, IntegrationCommand, ListTasks, OneTask, OutputFormat,
    RetryTask, RunArguments, RunnersCommand, ScheduleCommand, TaskCommand, TokenCommand, TokenFor, Variable,
};
pub(crate) use host::{
    DaemonArguments, DaemonCommand, DemoArguments, LogFormat, RegistrationToken, RunnerArguments, RunnerCommand,
};
pub(crate) use living::{
    BackupArguments, CompletionsArguments, DoctorArguments, ManArguments, RestoreArguments, SetupArguments,
};
pub(crate) use plugin::{PluginCommand, PluginOutput, PluginTemplate};
pub(crate) use secret::{Decrypt, Encrypt, Keygen, Rekey, SecretCommand};
pub(crate) use webhook::WebhookCommand;

/// Run a company's operations from git, on runners in any network
#[derive(Debug, Parser)]
#[command(name = "forge", version, propagate_version = true, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve: read the tree, keep tasks and logs, answer runners and people
    Daemon(DaemonArguments),
    /// Run jobs on this machine: setup, register, start, unregister
    Runner(RunnerArguments),
    /// Start a task and follow its log until it ends
    Run(RunArguments),
    /// List, show, follow, cancel and retry tasks
    #[command(subcommand)]
    Task(TaskCommand),
    /// List, show, drain, resume and remove runners
    #[command(subcommand)]
    Runners(RunnersCommand),
    /// Make, check and compare trees of configuration, and show what the daemon serves
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show what came to integrations
    #[command(subcommand)]
    Integration(IntegrationCommand),
    /// List schedules
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// List, show, repeat and test what webhook targets are told
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// Show who did what, newest first
    Audit(AuditArguments),
    /// Write, build, check and list plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Encrypt secrets for a tree, and decrypt them
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Make and revoke tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show the main job on this machine: a daemon, a runner and two tasks in a temporary folder
    Demo(DemoArguments),
    /// Measure this machine: a daemon and runners in a temporary folder, over the real protocol
    Bench(BenchArguments),
    /// Find what is wrong on this host and say how to mend it
    Doctor(DoctorArguments),
    /// Write what a daemon remembers into one file, while it runs
    Backup(BackupArguments),
    /// Bring a backup back into an empty data folder
    Restore(RestoreArguments),
    /// Print a script that completes `forge` in a shell
    Completions(CompletionsArguments),
    /// Write the man pages
    Man(ManArguments),
    /// Run one attempt; the runner starts this itself and hands the job over on stdin
    #[command(hide = true)]
    Supervise,
}
