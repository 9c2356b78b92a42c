//! The settings that stand on a host and not in git: forge.toml of the daemon and runner.toml of a runner, each key with its
//! environment variable. They are read here and nowhere else; files that they name are not opened.

mod daemon;
mod runner;
mod source;

pub use daemon::{
    DaemonListen, DaemonLogs, DaemonSecrets, DaemonSettings, DaemonTls, DaemonWebhooks, RegistrationTokenSource,
    StoreKind, daemon_settings,
};
pub use runner::{RunAs, RunnerIdentity, RunnerSettings, Trust, runner_settings};
pub use source::{DaemonSource, SourceAccess, SourceLocation};

use crate::diagnostic::Diagnostic;
use crate::written::declare::Table;
use crate::written::read_file;
use crate::written::reader::{Environment, TableInfo, Written};
use crate::written::sheet::{At, Sheet, Span};

/// forge.toml as data.
pub(crate) fn daemon_info() -> TableInfo {
    daemon::WrittenDaemon::info()
}

/// runner.toml as data.
pub(crate) fn runner_info() -> TableInfo {
    runner::WrittenRunner::info()
}

/// Reads a file of settings and lets the environment override it.
fn read_settings<T: Written + Table>(sheet: &Sheet, environment: &Environment) -> Option<T> {
    let written = read_file::<T>(sheet)?;
    let mut slot = Some(At { value: written, span: Span::FILE });
    T::overridden(&mut slot, "", None, environment, sheet);
    slot.map(|read| read.value)
}

/// What came of reading: settings count only when no mistake was noted.
struct Outcome<T> {
    settings: Option<T>,
    sheet: Sheet,
}

impl<T> Outcome<T> {
    fn into_result(self) -> Result<(T, Vec<Diagnostic>), Vec<Diagnostic>> {
        let diagnostics = self.sheet.finish();
        match self.settings {
            Some(settings) if !diagnostics.iter().any(Diagnostic::is_error) => Ok((settings, diagnostics)),
            _ => Err(diagnostics),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env;
    use crate::written::reader::Shape;

    /// The variables of a table's keys, with the name that the rule gives each: `FORGE_<SECTION>_<KEY>`.
    fn variables(table: TableInfo, section: &str, found: &mut Vec<(&'static str, String)>) {
        for field in table.fields {
            let path = format!("{section}_{}", field.key.to_uppercase());
            match (field.environment_variable, field.shape) {
                (Some(variable), _) => found.push((variable, path)),
                (None, Shape::Table(inner)) => variables(inner, &path, found),
                // `[secrets.allow.<project>]` has variables with the project's name in them.
                (None, Shape::Named(_)) => assert_eq!(path, "FORGE_SECRETS_ALLOW"),
                (None, shape) => panic!("{path} has no variable: {shape:?}"),
            }
        }
    }

    #[test]
    fn every_key_has_the_variable_that_the_rule_gives_it() {
        let mut daemon = Vec::new();
        variables(daemon::WrittenDaemon::info(), "FORGE", &mut daemon);
        let mut runner = Vec::new();
        variables(runner::WrittenRunner::info(), "FORGE", &mut runner);
        for (variable, rule) in daemon.iter().chain(&runner) {
            // The runner's web_host keeps its older name, since FORGE_WEB_HOST is the daemon's.
            assert!(variable == rule || *variable == env::WEB_ROOT, "{variable} should be {rule}");
        }
        let mut used: Vec<_> = daemon.iter().chain(&runner).map(|(variable, _)| *variable).collect();
        used.push(env::RUNNER_TOKEN);
        used.sort_unstable();
        let mut listed: Vec<_> = env::ALL.iter().map(|(name, _)| *name).collect();
        listed.sort_unstable();
        assert_eq!(used, listed);
    }
}
