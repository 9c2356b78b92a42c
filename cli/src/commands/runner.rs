//! `forge runner`: start, register, unregister; `setup` has a file of its own.

use std::convert::Infallible;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;

use forge_api::Secret;
use forge_runner::{Ended, Event, Registered, Settings, Shutdown};

use super::CLIENT_THREADS;
use crate::args::{RegistrationToken, RunnerArguments, RunnerCommand};
use crate::credentials;
use crate::error::{CliError, file_error};
use crate::printer::Printer;
use crate::runtime::Signals;
use crate::service::ServiceManager;
use crate::settings::RunnerToStart;
use crate::{logging, runtime, settings};

/// The most bytes that are read as a token.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Threads of a runner: its work happens in supervisor processes of their own.
const RUNNER_THREADS: usize = 2;

pub(crate) fn run(arguments: RunnerArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    logging::start(arguments.log_format)?;
    let config = arguments.config.as_deref();
    if let Some(RunnerCommand::Setup(answers)) = &arguments.command {
        return super::setup::run(answers, config, printer);
    }
    let environment = settings::environment();
    let mut runner = settings::runner(config, &environment, printer)?;
    if runner.registration_token.is_none()
        && let Some(path) = credentials::find(&environment, credentials::REGISTRATION_TOKEN)
    {
        runner.registration_token = Some(read_token_file(&path)?);
    }
    match arguments.command.unwrap_or(RunnerCommand::Start) {
        // Setup makes the file that everything else here reads; it was done above.
        RunnerCommand::Start | RunnerCommand::Setup(_) => start(runner, ServiceManager::of(&environment)),
        RunnerCommand::Register(source) => {
            let token = registration_token(&source, std::io::stdin().lock(), runner.registration_token.as_ref())?;
            let registered = runtime::run(CLIENT_THREADS, register(&runner.settings, token))?;
            say_registered(&registered, config, printer);
            Ok(ExitCode::SUCCESS)
        }
        RunnerCommand::Unregister => {
            runtime::run(CLIENT_THREADS, async {
                forge_runner::unregister(&runner.settings).await.map_err(CliError::failed)
            })?;
            printer.done(&format!("{} is unregistered, and its token file is gone", runner.settings.name));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn start(runner: RunnerToStart, manager: ServiceManager) -> Result<ExitCode, CliError> {
    runtime::run(RUNNER_THREADS, async {
        let RunnerToStart { mut settings, registration_token } = runner;
        settings.alive_interval = manager.sign_interval();
        let signals = Signals::listen()?;
        let shutdown = Shutdown::default();
        let mut forwarding = std::pin::pin!(signals.forward(shutdown.drain.clone(), shutdown.abort.clone()));
        if let Some(token) = registration_token
            && settings.token.is_none()
            && !settings.token_file.exists()
        {
            let registered = tokio::select! {
                registered = register(&settings, token) => registered?,
                () = shutdown.drain.cancelled() => return Ok(ExitCode::SUCCESS),
                never = &mut forwarding => match never {},
            };
            tracing::info!(runner = registered.name, "registered");
            if let Some(disabled) = registered.disabled {
                tracing::warn!(disabled, "it takes no work");
            }
        }
        let stopping = async {
            shutdown.drain.cancelled().await;
            manager.stopping();
            std::future::pending::<Infallible>().await
        };
        let told = manager.clone();
        let observe = move |event| match event {
            Event::Ready => told.ready(),
            Event::Alive => told.alive(),
            event => log_event(event),
        };
        let ended = tokio::select! {
            ended = forge_runner::run(settings, shutdown.clone(), observe) => ended.map_err(CliError::failed)?,
            never = forwarding => match never {},
            never = stopping => match never {},
        };
        manager.stopping();
        match ended {
            Ended::Drained => tracing::info!("drained: nothing runs any more"),
            Ended::Aborted => tracing::info!("stopped: what ran was ended and handed in"),
            Ended::OneOff { attempt } => tracing::info!(%attempt, "one-off runner: its task has ended"),
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Registers a runner: the one path for `forge runner register`, a start that registers first, and `forge demo`.
pub(crate) async fn register(settings: &Settings, token: Secret) -> Result<Registered, CliError> {
    make_private_folder(&settings.tmp_path)?;
    forge_runner::register(settings, token).await.map_err(CliError::failed)
}

/// Makes the runner's own folder where it is missing: token and key lie there by default, and only this user may read them.
fn make_private_folder(path: &Path) -> Result<(), CliError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        file_error("make the folder", path, &error)
            .hint("make it as root and give it to the runner's user, or set tmp_path (FORGE_TMP_PATH) to a folder of this user")
    })
}

/// The registration token from where the arguments say, else from the environment.
pub(crate) fn registration_token(
    source: &RegistrationToken,
    stdin: impl Read,
    from_environment: Option<&Secret>,
) -> Result<Secret, CliError> {
    if source.stdin_registration_token {
        return read_token(stdin, Path::new("stdin"));
    }
    if let Some(path) = &source.registration_token_file {
        return read_token_file(path);
    }
    from_environment.cloned().ok_or_else(|| {
        CliError::usage("no registration token was given").hint(
            "pipe it into `forge runner register --stdin-registration-token`, or name a file with --registration-token-file, or set FORGE_RUNNER_REGISTRATION_TOKEN",
        )
    })
}

fn read_token_file(path: &Path) -> Result<Secret, CliError> {
    let file =
        std::fs::File::open(path).map_err(|error| file_error("read the registration token from", path, &error))?;
    read_token(file, path)
}

fn read_token(source: impl Read, path: &Path) -> Result<Secret, CliError> {
    let mut text = String::new();
    source
        .take(TOKEN_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| file_error("read the registration token from", path, &error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(CliError::failed(format_args!("{} holds no registration token", path.display())).hint(
            "it is the token whose hash stands in registration-tokens/NAME.toml, or the one that forge.toml names",
        ));
    }
    if text.len() as u64 > TOKEN_BYTES_MAX
        || token.chars().any(|character| character.is_whitespace() || character.is_control())
    {
        return Err(CliError::failed(format_args!(
            "{} holds more than one line: that is no registration token",
            path.display()
        )));
    }
    Ok(Secret::new(token))
}

fn say_registered(registered: &Registered, config: Option<&Path>, printer: &Printer) {
    let project =
        registered.project.as_deref().map_or_else(|| "every project".to_owned(), |name| format!("project {name}"));
    let tags =
        if registered.tags.is_empty() { "no tags".to_owned() } else { format!("tags {}", registered.tags.join(", ")) };
    printer.done(&format!("{} is registered, for {project}, with {tags}", registered.name));
    if let Some(disabled) = &registered.disabled {
        printer.warning(&format!("it takes no work: {disabled}"));
    }
    let start =
        config.map_or_else(|| "forge runner".to_owned(), |path| format!("forge runner --config {}", path.display()));
    printer.hint(&format!("start it with `{start}`"));
}

/// What a person at the terminal, or the journal, wants to know of a runner.
pub(crate) fn log_event(event: Event) {
    match event {
        // For a service manager, who hears them from `start`.
        Event::Ready | Event::Alive => {}
        Event::Warning(text) => tracing::warn!("{text}"),
        Event::Connected { web_host } => tracing::info!(web_host, "connected"),
        Event::WaitingForDaemon { reason } => tracing::warn!(reason, "waiting for the daemon"),
        Event::Draining(true) => tracing::info!("draining: taking nothing new"),
        Event::Draining(false) => tracing::info!("taking work again"),
        Event::DiskFull(true) => tracing::warn!(
            "too little room on the disk where tmp_path lies: taking nothing new until there is more; free some, or lower disk_reserve in \
             runner.toml"
        ),
        Event::DiskFull(false) => tracing::info!("there is room on the disk again: taking work"),
        Event::AttemptStarted { attempt, project, template } => {
            tracing::info!(%attempt, project, template, "attempt started");
        }
        Event::AttemptFound { attempt, alive } => tracing::info!(%attempt, alive, "attempt of an earlier start found"),
        Event::AttemptEnded { attempt, outcome, reason } => {
            tracing::info!(%attempt, ?outcome, reason, "attempt ended");
        }
        Event::KeyFollowed => {
            tracing::info!("the daemon signs jobs with a new key, which the old one vouches for: pinned it")
        }
        Event::JobRefused { attempt, reason } => tracing::error!(%attempt, reason, "job refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_stdin(text: &str) -> Result<Secret, CliError> {
        let source = RegistrationToken { stdin_registration_token: true, registration_token_file: None };
        registration_token(&source, text.as_bytes(), None)
    }

    #[test]
    fn a_token_from_stdin_loses_its_line_end_and_must_be_one() {
        assert_eq!(from_stdin("abc\n").expect("a token").reveal(), "abc");
        assert_eq!(from_stdin("  abc \r\n").expect("a token").reveal(), "abc");
        assert!(from_stdin("").is_err());
        assert!(from_stdin("\n").is_err());
        assert!(from_stdin("abc\ndef\n").is_err());
        assert!(from_stdin(&"a".repeat(5_000)).is_err());
    }
}
