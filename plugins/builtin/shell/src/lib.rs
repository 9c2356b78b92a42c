//! The built-in `shell` executor: runs a script with an interpreter, and its exit code decides.
//!
//! A script that stands in the template is written into the workspace, beside the checkout, and passed as a file. So
//! standard input stays free, any interpreter works (they disagree on `-c`), `$0` and the line numbers in errors lead to the
//! script, its length has no limit, and it does not show in `ps`. The output goes straight to the task's log.

mod params;

use forge_plugin::{Command, Done, Executor, Exit, Failed, Failure, Finished, Host, HostError, Info, Job, Outcome};
use params::{Params, Source};
use serde::Serialize;

/// Where an inline script is written, in the workspace. Never inside the checkout: `git status` of a job stays clean.
const SCRIPT_FILE: &str = "forge-script";

/// The executor.
#[derive(Debug)]
pub struct Shell;

forge_plugin::export!(Shell);

/// What a task's `summary` holds.
#[derive(Serialize)]
struct Output {
    exit_code: i32,
}

impl Executor for Shell {
    fn describe() -> Info {
        Info::new("shell", env!("CARGO_PKG_VERSION"), "Runs a script with bash or another interpreter")
            .params_schema(&params::schema())
            .wants_programs(&[params::DEFAULT_INTERPRETER])
    }

    fn execute(job: Job, host: &mut dyn Host) -> Result<Done, Failure> {
        let Params { source, interpreter, arguments } = Params::of(&job)?;
        let script = match source {
            Source::Script(script) => inline_script(&script, job.checkout.as_deref(), host)?,
            Source::File(file) => file_in_checkout(&file, job.checkout.as_deref(), host)?,
        };
        let command =
            Command::new(&interpreter).arg(script).args(arguments).args(job.arguments).cwd(job.checkout.as_deref());
        match host.run(command) {
            Ok(Finished { exit, stdout_tail: _, stderr_tail: _ }) => ending(exit),
            Err(HostError::NotFound(message)) => Err(Failure::failed(format!(
                "the interpreter {interpreter} is not on this runner ({message}): install it there, or give the \
                 template a runner_tag of runners that have it"
            ))),
            Err(error) => Err(error.into()),
        }
    }
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

/// Writes the script and answers with its path as the process sees it, whose folder is the checkout or the workspace.
fn inline_script(script: &str, checkout: Option<&str>, host: &mut dyn Host) -> Result<String, Failure> {
    let mut text = script.to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    host.write(SCRIPT_FILE, text.as_bytes())?;
    let depth = checkout.map_or(0, |path| path.split('/').filter(|part| !matches!(*part, "" | ".")).count());
    // A name without a slash would be looked up on PATH by some interpreters.
    let up = if depth == 0 { "./".to_owned() } else { "../".repeat(depth) };
    Ok(format!("{up}{SCRIPT_FILE}"))
}

/// Checks that the file is there before an interpreter complains in words of its own.
fn file_in_checkout(file: &str, checkout: Option<&str>, host: &mut dyn Host) -> Result<String, Failure> {
    let Some(checkout) = checkout else {
        return Err(Failure::Invalid(format!(
            "[params].file = {file:?} lies in a repository, and the template names none: set `repository`, or write \
             the script itself as `script`"
        )));
    };
    match host.read(&format!("{checkout}/{file}"), 0, 0) {
        // The `./` keeps a name that begins with `-` from being an option.
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
