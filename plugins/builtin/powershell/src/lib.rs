//! The built-in `powershell` executor: runs a script with PowerShell (`pwsh`), and its exit code decides.
//!
//! What PowerShell is told to run (`-File`) is a starter of ours beside the checkout, which calls the script. By itself PowerShell
//! ends with 0 whatever a script's commands reported, and whatever its last program ended with: a failed job would be a green
//! one. The starter makes errors end the script, and passes on the exit code of the script or of its last program. It cannot
//! stand in front of the script's own text, since `param`, `using` and `#requires` must come first there; and called as a file
//! the script keeps its name and its lines in errors.
//!
//! Files are written without a byte order mark: `pwsh` reads UTF-8 without one.

mod params;

use forge_plugin::{Command, Done, Executor, Exit, Failed, Failure, Finished, Host, HostError, Info, Job, Outcome};
use params::{ErrorAction, Params, Source};
use serde::Serialize;

/// PowerShell's program.
const PROGRAM: &str = "pwsh";

/// Where an inline script is written, in the workspace. Never inside the checkout: `git status` of a job stays clean.
const SCRIPT_FILE: &str = "forge-powershell/script.ps1";

/// The starter.
const STARTER_FILE: &str = "forge-powershell/start.ps1";

/// What PowerShell takes for a single quote, in a text that single quotes enclose: typographic ones too.
const QUOTES: [char; 5] = ['\'', '\u{2018}', '\u{2019}', '\u{201a}', '\u{201b}'];

/// The executor.
#[derive(Debug)]
pub struct PowerShell;

forge_plugin::export!(PowerShell);

/// What a task's `summary` holds.
#[derive(Serialize)]
struct Output {
    exit_code: i32,
}

impl Executor for PowerShell {
    fn describe() -> Info {
        Info::new("powershell", env!("CARGO_PKG_VERSION"), "Runs a script with PowerShell")
            .params_schema(&params::schema())
            .wants_programs(&[PROGRAM])
    }

    fn execute(job: Job, host: &mut dyn Host) -> Result<Done, Failure> {
        let Params { source, error_action, arguments } = Params::of(&job)?;
        let checkout = job.checkout.as_deref();
        let script = match source {
            Source::Script(script) => {
                host.write(SCRIPT_FILE, format!("{}\n", script.trim_end_matches('\n')).as_bytes())?;
                seen(SCRIPT_FILE, checkout)
            }
            Source::File(file) => file_in_checkout(&file, checkout, host)?,
        };
        host.write(STARTER_FILE, starter(&script, error_action).as_bytes())?;
        let command = Command::new(PROGRAM)
            .args(["-NoLogo", "-NoProfile", "-NonInteractive", "-File"])
            .arg(seen(STARTER_FILE, checkout))
            .args(arguments)
            .args(job.arguments)
            .env("POWERSHELL_TELEMETRY_OPTOUT", "1")
            .env("POWERSHELL_UPDATECHECK", "Off")
            .cwd(checkout);
        match host.run(command) {
            Ok(Finished { exit, stdout_tail: _, stderr_tail: _ }) => ending(exit),
            Err(HostError::NotFound(message)) => Err(Failure::failed(format!(
                "{PROGRAM} is not on this runner ({message}): install PowerShell 7 there, or give the template a \
                 runner_tag of runners that have it"
            ))),
            Err(error) => Err(error.into()),
        }
    }
}

/// Calls the script with what it is given: `@args` keeps names of parameters what they are.
fn starter(script: &str, error_action: ErrorAction) -> String {
    let quoted: String = script
        .chars()
        .flat_map(|character| std::iter::repeat_n(character, if QUOTES.contains(&character) { 2 } else { 1 }))
        .collect();
    format!(
        "# Written by Forge's powershell executor.\n\
         $ErrorActionPreference = '{}'\n\
         # A bar of progress is for a terminal.\n\
         $ProgressPreference = 'SilentlyContinue'\n\
         & '{quoted}' @args\n\
         # Of the script's `exit`, or else of the last program that it ran.\n\
         if ($null -ne $LASTEXITCODE) {{ exit $LASTEXITCODE }}\n",
        error_action.name()
    )
}

fn ending(exit: Exit) -> Result<Done, Failure> {
    match exit {
        Exit::Code(code) => {
            let outcome = Outcome::new(exit.to_string()).exit_code(code).output(&Output { exit_code: code })?;
            if code == 0 {
                return Ok(Done::Finished(outcome));
            }
            let Outcome { summary, output_json, exit_code } = outcome;
            Err(Failure::Failed(Failed { message: summary, exit_code, output_json }))
        }
        Exit::Signal(_) => Err(Failure::failed(format!("the script was {exit}"))),
        Exit::TimedOut => Err(Failure::failed("the script's time ran out")),
    }
}

/// A file of ours as the process sees it, whose folder is the checkout or the workspace.
fn seen(file: &str, checkout: Option<&str>) -> String {
    let depth = checkout.map_or(0, |path| path.split('/').filter(|part| !matches!(*part, "" | ".")).count());
    let up = if depth == 0 { "./".to_owned() } else { "../".repeat(depth) };
    format!("{up}{file}")
}

/// Checks that the file is there before PowerShell complains in words of its own.
fn file_in_checkout(file: &str, checkout: Option<&str>, host: &mut dyn Host) -> Result<String, Failure> {
    let Some(checkout) = checkout else {
        return Err(Failure::Invalid(format!(
            "[params].file = {file:?} lies in a repository, and the template names none: set `repository`, or write \
             the script itself as `script`"
        )));
    };
    match host.read(&format!("{checkout}/{file}"), 0, 0) {
        // A name without a folder would be looked up on PATH.
        Ok(_) => Ok(format!("./{file}")),
        Err(HostError::NotFound(_)) => {
            Err(Failure::Invalid(format!("[params].file = {file:?} is not in the repository at this commit")))
        }
        Err(HostError::Denied(message) | HostError::Invalid(message)) => {
            Err(Failure::Invalid(format!("[params].file: {message}")))
        }
        Err(error @ (HostError::Canceled | HostError::Io(_))) => Err(error.into()),
    }
}
