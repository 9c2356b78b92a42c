//! Settings files and the environment, read once and handed over as what they mean. Libraries never look at either.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use forge_api::Secret;
use forge_config::{DaemonSettings, Diagnostic, RegistrationTokenSource, RunnerSettings};
use forge_runner::trust::{Fingerprint, Trust};
use forge_runner::{OBEY_MARGIN_MS_DEFAULT, RunAs, STOP_GRACE_MS_DEFAULT, Settings};

use crate::credentials;
use crate::error::{CliError, file_error};
use crate::printer::Printer;

/// What a runner's settings file is called where none is named.
const RUNNER_FILE: &str = "runner.toml";

/// The environment: variables by name.
pub(crate) type Environment = BTreeMap<String, String>;

/// The environment as text; a variable that is no UTF-8 cannot be one of Forge's.
pub(crate) fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads forge.toml, with what the environment overrides and what systemd's credentials add.
pub(crate) fn daemon(path: &Path, environment: &Environment, printer: &Printer) -> Result<DaemonSettings, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let shown = file_error("read", path, &error);
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                shown.hint("name the daemon's settings with --config FILE; `forge demo` shows a daemon without any")
            }
            _ => shown,
        }
    })?;
    let name = path.display().to_string();
    let read = forge_config::daemon_settings(&name, Some(&text), environment);
    let mut settings = accept(read, &name, printer)?;
    if settings.runner_registration_token.is_none() {
        let credential = credentials::find(environment, credentials::REGISTRATION_TOKEN);
        settings.runner_registration_token = credential.map(RegistrationTokenSource::File);
    }
    if settings.secrets.identity_file.is_none() {
        settings.secrets.identity_file = credentials::find(environment, credentials::IDENTITY);
    }
    Ok(settings)
}

/// A runner as its settings describe it, and the token that registers it where the environment holds one.
#[derive(Debug)]
pub(crate) struct RunnerToStart {
    pub(crate) settings: Settings,
    pub(crate) registration_token: Option<Secret>,
}

/// Reads runner.toml, where there is one, with what the environment overrides.
pub(crate) fn runner(
    path: Option<&Path>,
    environment: &Environment,
    printer: &Printer,
) -> Result<RunnerToStart, CliError> {
    let (name, text) = match path {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                file_error("read", path, &error).hint(
                    "a runner needs a file with web_host, tmp_path and a [runner] table, or the same in its environment (FORGE_WEB_ROOT, ...)",
                )
            })?;
            (path.display().to_string(), Some(text))
        }
        None => match std::fs::read_to_string(RUNNER_FILE) {
            Ok(text) => (RUNNER_FILE.to_owned(), Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => ("the environment".to_owned(), None),
            Err(error) => return Err(file_error("read", Path::new(RUNNER_FILE), &error)),
        },
    };
    let read = forge_config::runner_settings(&name, text.as_deref(), environment);
    accept(read, &name, printer).and_then(runner_meant)
}

fn accept<T>(
    read: Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>,
    name: &str,
    printer: &Printer,
) -> Result<T, CliError> {
    match read {
        Ok((settings, warnings)) => {
            if !warnings.is_empty() {
                printer.talk(draw(&warnings, printer).trim_end());
            }
            Ok(settings)
        }
        Err(mistakes) => {
            let count = mistakes.len();
            let noun = if count == 1 { "mistake" } else { "mistakes" };
            Err(CliError::drawn(draw(&mistakes, printer), format_args!("{count} {noun} in {name}")))
        }
    }
}

/// Diagnostics on the user's own lines, for stderr.
pub(crate) fn draw(diagnostics: &[Diagnostic], printer: &Printer) -> String {
    let colour = if printer.has_colour() { forge_config::Colour::Always } else { forge_config::Colour::Never };
    diagnostics.iter().map(|diagnostic| diagnostic.draw(colour)).collect::<Vec<_>>().join("\n")
}

pub(crate) fn runner_meant(settings: RunnerSettings) -> Result<RunnerToStart, CliError> {
    let RunnerSettings {
        web_host,
        tmp_path,
        ssh_config_path,
        git_client,
        run_as,
        keep_failed_workspaces,
        disk_reserve_bytes,
        trust,
        runner,
        token,
        registration_token,
    } = settings;
    let name = match runner.name {
        Some(name) => name.to_string(),
        None => host_name()?,
    };
    let secret = |text: forge_config::SecretText| Secret::new(text.reveal());
    Ok(RunnerToStart {
        registration_token: registration_token.map(secret),
        settings: Settings {
            web_host,
            tmp_path,
            ssh_config_path,
            git_client,
            trust: match trust {
                forge_config::Trust::System => Trust::SystemRoots,
                forge_config::Trust::CaFile(path) => Trust::CaFile(path),
                forge_config::Trust::Fingerprint(digest) => Trust::CaFingerprint(Fingerprint(digest.0)),
            },
            name,
            token_file: runner.token_file,
            token: token.map(secret),
            private_key_file: runner.private_key_file,
            max_parallel_tasks: runner.max_parallel_tasks,
            one_off: runner.one_off,
            supervisor_command: supervisor_command()?,
            stop_grace_ms: STOP_GRACE_MS_DEFAULT,
            obey_margin_ms: OBEY_MARGIN_MS_DEFAULT,
            run_as: run_as.map(|run_as| match run_as {
                forge_config::RunAs::User(name) => RunAs::User(name),
                forge_config::RunAs::Range { first, last } => RunAs::Range { first, last },
            }),
            keep_failed_workspaces,
            disk_reserve_bytes,
            pass_env: Vec::new(),
            alive_interval: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
    })
}

/// The host's own name as a runner's: its first part, in lower case.
pub(crate) fn host_name() -> Result<String, CliError> {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().to_lowercase();
    let first = host.split('.').next().unwrap_or_default();
    first.parse::<forge_config::Name>().map(|name| name.to_string()).map_err(|_| {
        CliError::failed(format_args!("the runner has no name, and the host's own ({first:?}) cannot be one"))
            .hint("write name = \"...\" under [runner], or set FORGE_RUNNER_NAME")
    })
}

/// The program that runs one attempt: this one, with its hidden subcommand.
pub(crate) fn supervisor_command() -> Result<Vec<OsString>, CliError> {
    let program: PathBuf = std::env::current_exe()
        .map_err(|error| CliError::failed(format_args!("cannot tell where this program lies: {error}")))?;
    Ok(vec![program.into_os_string(), OsString::from("supervise")])
}
