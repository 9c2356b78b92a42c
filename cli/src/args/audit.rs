//! `forge audit`.

use clap::Args;
use forge_api::{AuditAction, Timestamp};

use super::client::Ask;

/// How many rows a listing shows when nothing is said.
const LISTED: u32 = 50;

#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    /// Only what is about this project
    #[arg(long, value_name = "PROJECT")]
    pub(crate) project: Option<String>,
    /// Only what this actor did: an access token, a runner, a schedule, an integration
    #[arg(long, value_name = "NAME")]
    pub(crate) actor: Option<String>,
    /// Only this action, such as task.create or runner.drain
    #[arg(long, value_name = "ACTION")]
    pub(crate) action: Option<AuditAction>,
    /// Only from this moment on, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Timestamp>,
    /// Only before this moment
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Timestamp>,
    /// The most rows to list, newest first
    #[arg(long, value_name = "COUNT", default_value_t = LISTED, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) at: Ask,
}
