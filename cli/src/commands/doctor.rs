//! `forge doctor`: looks at what a daemon, a runner or a client needs on this host, and says in one line each what is wrong and how to
//! mend it. It changes nothing, and shows no secret.

mod client;
mod daemon;
pub(super) mod host;
mod probe;
mod runner;

use std::path::Path;
use std::process::ExitCode;

use forge_config::{Diagnostic, env};
use serde::Serialize;

use super::CLIENT_THREADS;
use crate::args::{DoctorArguments, OutputFormat};
use crate::error::{CliError, file_error};
use crate::printer::Printer;
use crate::settings::Environment;
use crate::{runtime, settings};

/// Files that are looked at where none is named.
const FILES_HERE: [&str; 2] = ["runner.toml", "forge.toml"];

/// Keys that only a runner's settings have.
const KEYS_OF_RUNNERS: [&str; 9] = [
    "runner",
    "tmp_path",
    "ca_file",
    "ca_fingerprint",
    "git_client",
    "run_as",
    "keep_failed_workspaces",
    "disk_reserve",
    "ssh_config_path",
];

/// Keys that only a daemon's settings have.
const KEYS_OF_DAEMONS: [&str; 10] = [
    "data_dir",
    "listen",
    "source",
    "tls",
    "secrets",
    "logs",
    "store",
    "use_remote_runner",
    "runner_registration_token",
    "runner_registration_token_file",
];

/// Variables that only a client's environment has; `FORGE_CA_FILE` is a runner's too.
const URL_OF_CLIENTS: &str = "FORGE_URL";

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Standing {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// To be mended.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at; a stable name.
    check: &'static str,
    status: Standing,
    message: String,
    /// What to do; only where something is to be done.
    mend: Option<String>,
}

/// Everything that was found, in the order in which it was looked at.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.0.push(Finding { check, status: Standing::Ok, message: message.into(), mend: None });
    }

    fn note(&mut self, check: &'static str, message: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Finding { check, status: Standing::Note, message: message.into(), mend: Some(mend.into()) });
    }

    fn error(&mut self, check: &'static str, message: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Finding { check, status: Standing::Error, message: message.into(), mend: Some(mend.into()) });
    }

    /// What the settings' or the tree's own reader says.
    fn diagnostics(&mut self, check: &'static str, diagnostics: &[Diagnostic]) {
        for found in diagnostics {
            let message = format!("{}:{}:{}: {}", found.file, found.line, found.column, found.message);
            let mend = found.hint.clone().unwrap_or_else(|| "correct that line".to_owned());
            if found.is_error() { self.error(check, message, mend) } else { self.note(check, message, mend) }
        }
    }

    fn is_bad(&self) -> bool {
        self.0.iter().any(|finding| finding.status == Standing::Error)
    }
}

pub(crate) fn run(arguments: &DoctorArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    let environment = settings::environment();
    let mut findings = Findings::default();
    runtime::run(CLIENT_THREADS, look(arguments, &environment, &mut findings))?;
    match arguments.output {
        OutputFormat::Json => printer.json(&findings.0),
        OutputFormat::Text => {
            for Finding { check, status, message, mend } in &findings.0 {
                let mark = match status {
                    Standing::Ok => "ok   ",
                    Standing::Note => "note ",
                    Standing::Error => "ERROR",
                };
                let mend = mend.as_deref().map(|mend| format!("; {mend}")).unwrap_or_default();
                printer.data(&one_line(&format!("{mark} {check}: {message}{mend}")));
            }
        }
    }
    Ok(if findings.is_bad() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

async fn look(arguments: &DoctorArguments, environment: &Environment, findings: &mut Findings) -> Result<(), CliError> {
    if let Some(path) = &arguments.config {
        return look_at_file(path, environment, findings).await;
    }
    let has = |name: &str| environment.get(name).is_some_and(|text| !text.is_empty());
    let here: Vec<&Path> = FILES_HERE.iter().map(Path::new).filter(|path| path.exists()).collect();
    let mut looked = !here.is_empty();
    for path in here {
        look_at_file(path, environment, findings).await?;
    }
    if !looked && has(env::WEB_ROOT) {
        runner::look("the environment", None, environment, findings).await;
        looked = true;
    } else if !looked && (has(env::SOURCE_PATH) || has(env::SOURCE_GIT)) {
        daemon::look("the environment", None, environment, findings).await;
        looked = true;
    }
    if has(URL_OF_CLIENTS) {
        client::look(environment, findings).await;
        looked = true;
    }
    if looked {
        return Ok(());
    }
    Err(CliError::usage("there is nothing to look at: no --config, no runner.toml or forge.toml here, and none of FORGE_WEB_ROOT, FORGE_SOURCE_PATH and FORGE_URL is set")
        .hint("name the settings of the daemon or the runner with --config FILE"))
}

/// Looks at a file as what its keys say that it is.
async fn look_at_file(path: &Path, environment: &Environment, findings: &mut Findings) -> Result<(), CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| file_error("read", path, &error))?;
    let name = path.display().to_string();
    let table: toml::Table = match toml::from_str(&text) {
        Ok(table) => table,
        Err(error) => {
            let line = error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
            findings.error("settings", format!("{name}:{line}: {}", error.message()), "correct that line");
            return Ok(());
        }
    };
    let count = |keys: &[&str]| keys.iter().filter(|key| table.contains_key(**key)).count();
    let (runner, daemon) = (count(&KEYS_OF_RUNNERS), count(&KEYS_OF_DAEMONS));
    if runner == 0 && daemon == 0 {
        findings.error(
            "settings",
            format!("{name} holds neither a daemon's settings nor a runner's"),
            "a daemon's have `data_dir` and `[source]`, a runner's have `tmp_path` and `[runner]`",
        );
    } else if runner > daemon {
        runner::look(&name, Some(&text), environment, findings).await;
    } else {
        daemon::look(&name, Some(&text), environment, findings).await;
    }
    Ok(())
}

/// A finding stays on its line whatever its parts hold.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ").replace(char::is_control, "\u{fffd}")
}
