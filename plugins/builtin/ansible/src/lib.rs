//! The built-in `ansible` executor: runs a playbook of the template's repository and reports the recap by host.
//!
//! The recap is what a callback of ours wrote as JSON (`forge_recap.py`), never what the output looks like. No secret passes
//! through here: variables, keys and vault passwords are files of the host, and only their paths stand on a command line.

mod galaxy;
mod ground;
mod params;
mod recap;

use forge_plugin::{Command, Done, Executor, Exit, Failed, Failure, Finished, Host, HostError, Info, Job, Outcome};
use ground::{Ground, key_file};
use params::Params;
use recap::Recap;

/// The program that runs playbooks.
const PLAYBOOK: &str = "ansible-playbook";

/// How the roles of vault passwords begin; the vault's id follows.
const VAULT_ROLE: &str = "vault:";

/// The executor.
#[derive(Debug)]
pub struct Ansible;

forge_plugin::export!(Ansible);

impl Executor for Ansible {
    fn describe() -> Info {
        Info::new("ansible", env!("CARGO_PKG_VERSION"), "Runs an Ansible playbook, and reports the recap by host")
            .params_schema(&params::schema())
            .wants_programs(&[PLAYBOOK, galaxy::GALAXY])
    }

    fn execute(job: Job, host: &mut dyn Host) -> Result<Done, Failure> {
        let params = Params::of(&job)?;
        let checkout = checkout(&job, &params.playbook, host)?;
        let ground = Ground::prepare(&checkout, params.color, host)?;
        let installed = if params.galaxy { galaxy::install(&ground, &job, &params.playbook, host)? } else { None };
        let logins = ground.logins(&job, host)?;
        let command = playbook(&ground, &params, &job, logins);
        let command = match &installed {
            Some(set) => set.found_by(command),
            None => command,
        };
        let command = match key_file(&job, "ssh:passphrase") {
            Some(file) => ground.with_passphrase(command, file, host)?,
            None => command,
        };
        match host.run(command) {
            Ok(Finished { exit, stdout_tail: _, stderr_tail: _ }) => ending(exit, Recap::take(host)?),
            Err(HostError::NotFound(message)) => Err(missing_program(PLAYBOOK, &message)),
            Err(error) => Err(error.into()),
        }
    }
}

/// The folder that the playbook lies in, after a look that it does: Ansible would complain in words of its own.
fn checkout(job: &Job, playbook: &str, host: &mut dyn Host) -> Result<String, Failure> {
    let Some(checkout) = &job.checkout else {
        return Err(Failure::Invalid(format!(
            "[params].playbook = {playbook:?} lies in a repository, and the template names none: set `repository`"
        )));
    };
    match host.read(&format!("{checkout}/{playbook}"), 0, 0) {
        Ok(_) => Ok(checkout.clone()),
        Err(HostError::NotFound(_)) => {
            Err(Failure::Invalid(format!("[params].playbook = {playbook:?} is not in the repository at this commit")))
        }
        Err(HostError::Denied(message) | HostError::Invalid(message)) => {
            Err(Failure::Invalid(format!("[params].playbook: {message}")))
        }
        Err(error @ (HostError::Canceled | HostError::Io(_))) => Err(error.into()),
    }
}

/// The whole command line. It holds paths and what stands in git or was asked for, and no secret.
fn playbook(ground: &Ground, params: &Params, job: &Job, logins: Option<String>) -> Command {
    let mut args: Vec<String> = Vec::new();
    let mut option = |name: &str, value: &str| args.push(format!("{name}={value}"));
    if let Some(inventory) = &job.inventory {
        option("--inventory", inventory);
    }
    if let Some(logins) = &logins {
        option("--inventory", logins);
    }
    if !job.variables_file.is_empty() {
        option("--extra-vars", &format!("@{}", job.variables_file));
    }
    for (name, file) in keys(job) {
        option(name, &file);
    }
    let list = |tags: &[String]| (!tags.is_empty()).then(|| tags.join(","));
    let values = [
        ("--limit", params.limit.clone()),
        ("--tags", list(&params.tags)),
        ("--skip-tags", list(&params.skip_tags)),
        ("--become-user", params.become_user.clone()),
        ("--forks", params.forks.map(|forks| forks.to_string())),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            option(name, &value);
        }
    }
    let flags = [("--become", params.becomes), ("--check", params.check), ("--diff", params.diff)];
    args.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (*name).to_owned()));
    if params.verbosity > 0 {
        args.push(format!("-{}", "v".repeat(params.verbosity.into())));
    }
    // The `./` keeps a name that begins with `-` from being an option.
    args.push(format!("./{}", params.playbook));
    ground.command(PLAYBOOK).args(args).args(&params.arguments).args(&job.arguments)
}

/// Which option takes which key file.
fn keys(job: &Job) -> Vec<(&'static str, String)> {
    let mut options = Vec::new();
    match (key_file(job, "ssh:password"), key_file(job, "ssh")) {
        (Some(file), _) => options.push(("--connection-password-file", file.to_owned())),
        (None, Some(file)) => options.push(("--private-key", file.to_owned())),
        (None, None) => {}
    }
    if let Some(file) = key_file(job, "become") {
        options.push(("--become-password-file", file.to_owned()));
    }
    for pair in &job.key_files {
        // What follows an id after another colon, such as its key's login, opens no vault.
        if let Some(id) = pair.key.strip_prefix(VAULT_ROLE).filter(|id| !id.contains(':')) {
            options.push(("--vault-id", format!("{id}@{}", pair.value)));
        }
    }
    options
}

fn ending(exit: Exit, recap: Option<Recap>) -> Result<Done, Failure> {
    let text = recap.as_ref().map(Recap::text);
    let trouble = recap.as_ref().and_then(Recap::trouble);
    let recap = recap.map(Recap::bounded);
    let failed = |message: String| -> Result<Done, Failure> {
        let output = match &recap {
            Some(recap) => Outcome::new("").output(recap)?.output_json,
            None => None,
        };
        Err(Failure::Failed(Failed { message, exit_code: exit.code(), output_json: output }))
    };
    match (exit, text) {
        (Exit::Code(0), Some(text)) => {
            let outcome = Outcome::new(text).exit_code(0);
            Ok(Done::Finished(match &recap {
                Some(recap) => outcome.output(recap)?,
                None => outcome,
            }))
        }
        // A run that only lists (`--list-hosts`, `--syntax-check`) counts nothing.
        (Exit::Code(0), None) => Ok(Done::Finished(Outcome::new("nothing was run").exit_code(0))),
        (Exit::Code(code), Some(text)) => match trouble {
            Some(trouble) => failed(format!("{trouble} ({text})")),
            None => failed(format!("{PLAYBOOK} ended with exit code {code} ({text})")),
        },
        (Exit::Code(code), None) => {
            failed(format!("{PLAYBOOK} ended with exit code {code} before it worked on a host: the log says why"))
        }
        (Exit::Signal(_), _) => failed(format!("{PLAYBOOK} was {exit}")),
        (Exit::TimedOut, _) => failed(format!("the time of {PLAYBOOK} ran out")),
    }
}

/// The failure when the runner lacks a program.
pub(crate) fn missing_program(program: &str, message: &str) -> Failure {
    Failure::failed(format!(
        "{program} is not on this runner ({message}): install ansible-core there (`pipx install ansible-core`, or the \
         package of the distribution), or give the template a runner_tag of runners that have it"
    ))
}
