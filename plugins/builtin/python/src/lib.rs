//! The built-in `python` executor: runs Python code, in an environment with what it requires; its exit code decides.
//!
//! A guest has no lock and no hash of its own, and the venv is made where only processes reach. So a program of ours
//! (`forge_python.py`), run by the interpreter that was asked for, makes or finds the environment and then becomes the user's
//! code. What went wrong before that it leaves in a file.

mod params;

use forge_plugin::{Command, Done, Executor, Exit, Failed, Failure, Finished, Host, HostError, Info, Job, Outcome};
use params::{Params, Requirements, Source};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What makes environments and starts the code.
const STARTER: &str = include_str!("forge_python.py");

/// Where the starter is written, beside the checkout: `git status` of a job stays clean. It has a folder of its own.
const STARTER_FILE: &str = "forge-python/forge_python.py";

/// What the starter is told.
const PLAN_FILE: &str = "forge-python/plan.json";

/// Where requirements that stand in the template are written.
const REQUIREMENTS_FILE: &str = "forge-python/requirements.txt";

/// What the starter tells.
const OUTCOME_FILE: &str = "forge-python/outcome.json";

/// The most that the starter tells, in bytes.
const OUTCOME_BYTES_MAX: u32 = 64 * 1024;

/// Where an inline script is written. Not beside the starter: Python looks for modules in a script's folder first.
const SCRIPT_FILE: &str = "forge-script.py";

/// What pip goes by in the runner's own environment, where an operator grants it.
const PIP_VARIABLES: [&str; 6] =
    ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_TRUSTED_HOST", "HTTPS_PROXY", "NO_PROXY"];

/// The executor.
#[derive(Debug)]
pub struct Python;

forge_plugin::export!(Python);

/// What a task's `summary` holds.
#[derive(Serialize)]
struct Output {
    exit_code: i32,
    /// The interpreter's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    python: Option<String>,
    /// `made` or `kept`; nothing without requirements.
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<String>,
}

/// What the starter left.
#[derive(Default, Deserialize)]
struct Told {
    failed: Option<String>,
    python: Option<String>,
    environment: Option<String>,
}

impl Executor for Python {
    fn describe() -> Info {
        Info::new("python", env!("CARGO_PKG_VERSION"), "Runs Python code in an environment with its requirements")
            .params_schema(&params::schema())
            .wants_programs(&[params::DEFAULT_INTERPRETER])
            .wants_env(&PIP_VARIABLES)
    }

    fn execute(job: Job, host: &mut dyn Host) -> Result<Done, Failure> {
        let Params { source, interpreter, mut arguments, requirements, pip_arguments } = Params::of(&job)?;
        let checkout = job.checkout.as_deref();
        let up = way_up(checkout);
        let requirements = match requirements {
            None => None,
            Some(Requirements::File(file)) => Some(in_checkout("requirements", &file, checkout, host)?),
            Some(Requirements::Lines(lines)) => {
                host.write(REQUIREMENTS_FILE, format!("{}\n", lines.join("\n")).as_bytes())?;
                Some(format!("{up}{REQUIREMENTS_FILE}"))
            }
        };
        let (kind, name) = match source {
            Source::File(file) => ("file", in_checkout("file", &file, checkout, host)?),
            Source::Module(module) => ("module", module),
            Source::Script(script) => {
                host.write(SCRIPT_FILE, format!("{}\n", script.trim_end_matches('\n')).as_bytes())?;
                ("script", format!("{up}{SCRIPT_FILE}"))
            }
        };
        arguments.extend(job.arguments);
        let plan = json!({
            "kind": kind,
            "name": name,
            "arguments": arguments,
            "requirements": requirements,
            "pip_arguments": pip_arguments,
            "cache": job.cache,
        });
        host.write(PLAN_FILE, plan.to_string().as_bytes())?;
        host.write(STARTER_FILE, STARTER.as_bytes())?;
        // Isolated: the starter hears of no PYTHONPATH, and the checkout's `json.py` is not its `json`.
        let command = Command::new(&interpreter).args(["-I", &format!("{up}{STARTER_FILE}")]).cwd(checkout);
        match host.run(command) {
            Ok(Finished { exit, stdout_tail: _, stderr_tail: _ }) => ending(exit, told(host)?),
            Err(HostError::NotFound(message)) => Err(Failure::failed(format!(
                "the interpreter {interpreter} is not on this runner ({message}): install it there, or give the \
                 template a runner_tag of runners that have it"
            ))),
            Err(error) => Err(error.into()),
        }
    }
}

fn told(host: &mut dyn Host) -> Result<Told, Failure> {
    match host.read(OUTCOME_FILE, 0, OUTCOME_BYTES_MAX) {
        // The user's code may have changed it, which is its own loss.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(HostError::Canceled) => Err(Failure::Canceled),
        Err(HostError::NotFound(_) | HostError::Denied(_) | HostError::Invalid(_) | HostError::Io(_)) => {
            Ok(Told::default())
        }
    }
}

fn ending(exit: Exit, told: Told) -> Result<Done, Failure> {
    let Told { failed, python, environment } = told;
    if let Some(message) = failed {
        return Err(Failure::failed(message));
    }
    match exit {
        Exit::Code(code) => {
            let output = Output { exit_code: code, python, environment };
            let outcome = Outcome::new(exit.to_string()).exit_code(code).output(&output)?;
            if code == 0 {
                return Ok(Done::Finished(outcome));
            }
            let Outcome { summary, output_json, exit_code } = outcome;
            Err(Failure::Failed(Failed { message: summary, exit_code, output_json }))
        }
        Exit::Signal(_) => Err(Failure::failed(format!("the code was {exit}"))),
        Exit::TimedOut => Err(Failure::failed("the code's time ran out")),
    }
}

/// From the folder that processes run in to the workspace, with a `/` at the end.
fn way_up(checkout: Option<&str>) -> String {
    let depth = checkout.map_or(0, |path| path.split('/').filter(|part| !matches!(*part, "" | ".")).count());
    if depth == 0 { "./".to_owned() } else { "../".repeat(depth) }
}

/// Checks that a file is there before Python or pip complains in words of its own.
fn in_checkout(param: &str, file: &str, checkout: Option<&str>, host: &mut dyn Host) -> Result<String, Failure> {
    let Some(checkout) = checkout else {
        let instead = if param == "file" { "the code itself as `script`" } else { "them as a list of lines" };
        return Err(Failure::Invalid(format!(
            "[params].{param} = {file:?} lies in a repository, and the template names none: set `repository`, or write \
             {instead}"
        )));
    };
    match host.read(&format!("{checkout}/{file}"), 0, 0) {
        // The `./` keeps a name that begins with `-` from being an option.
        Ok(_) => Ok(format!("./{file}")),
        Err(HostError::NotFound(_)) => {
            Err(Failure::Invalid(format!("[params].{param} = {file:?} is not in the repository at this commit")))
        }
        Err(HostError::Denied(message) | HostError::Invalid(message)) => {
            Err(Failure::Invalid(format!("[params].{param}: {message}")))
        }
        Err(error @ (HostError::Canceled | HostError::Io(_))) => Err(error.into()),
    }
}
