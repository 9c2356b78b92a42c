//! The steps, each one process: init, the workspace, the plan, what it would do, the apply, the outputs.

use forge_plugin::{Command, Exit, Failure, Finished, Host, HostError, Level};

use crate::ground::{Ground, LOCK_FILE, PLAN_FILE, PluginCache};
use crate::machine::{self, NoAnswer};
use crate::outputs::{self, Outputs};
use crate::plan::{Planned, Shown};
use crate::trouble::{explain, is_about_packages};

/// What `plan -detailed-exitcode` ends with when there are changes.
const CHANGES: i32 = 2;

/// Runs a step that people follow in the log; every exit code is an answer, a signal is not.
fn run(ground: &Ground<'_>, command: Command, host: &mut dyn Host) -> Result<(Exit, Vec<u8>), Failure> {
    match host.run(command) {
        Ok(Finished { exit, mut stdout_tail, stderr_tail }) => {
            // A runner hands both streams back in one; a test's host, or another runner, may not.
            stdout_tail.extend(stderr_tail);
            Ok((exit, stdout_tail))
        }
        Err(HostError::NotFound(message)) => {
            let program = ground.program();
            Err(Failure::failed(format!(
                "{program} is not on this runner ({message}): install it there, or give the template a runner_tag of runners that have it"
            )))
        }
        Err(error) => Err(error.into()),
    }
}

fn succeed(ground: &Ground<'_>, step: &str, command: Command, host: &mut dyn Host) -> Result<(), Failure> {
    match run(ground, command, host)? {
        (Exit::Code(0), _) => Ok(()),
        (exit, tail) => Err(explain(ground.program(), step, exit, &tail)),
    }
}

/// Initializes, and steps into the workspace.
pub(crate) fn init(ground: &Ground<'_>, host: &mut dyn Host) -> Result<(), Failure> {
    let has_lock_file = match host.read(&format!("{}/{LOCK_FILE}", ground.folder), 0, 0) {
        Ok(_) => true,
        Err(HostError::NotFound(_)) => false,
        Err(error) => return Err(error.into()),
    };
    let cache = if has_lock_file { PluginCache::Used } else { PluginCache::LeftOut };
    match run(ground, ground.init(cache), host)? {
        (Exit::Code(0), _) => {}
        (Exit::Code(_), tail)
            if cache == PluginCache::Used && ground.job.cache.is_some() && is_about_packages(&tail) =>
        {
            host.log(Level::Warn, "a provider could not be taken from this runner's cache: trying without it", &[]);
            succeed(ground, "init", ground.init(PluginCache::LeftOut), host)?;
        }
        (exit, tail) => return Err(explain(ground.program(), "init", exit, &tail)),
    }
    match &ground.params.workspace {
        Some(name) => {
            // This subcommand takes no -input=false, and asks nothing.
            let command = ground.shown(&["workspace", "select", "-or-create=true"]).arg(name);
            succeed(ground, "workspace select", command, host)
        }
        None => Ok(()),
    }
}

/// Makes the plan; none when nothing changes.
pub(crate) fn plan(ground: &Ground<'_>, host: &mut dyn Host) -> Result<Option<Planned>, Failure> {
    let params = ground.params;
    let mut args = ground.limits();
    if params.command.destroys() {
        args.push("-destroy".to_owned());
    }
    args.extend(params.targets.iter().map(|address| format!("-target={address}")));
    args.extend(params.replace.iter().map(|address| format!("-replace={address}")));
    args.extend(ground.variables());
    args.extend(params.arguments.iter().chain(&ground.job.arguments).cloned());
    // The last one counts: an argument from outside does not move the plan.
    args.extend(["-detailed-exitcode".to_owned(), format!("-out={}", ground.seen(PLAN_FILE))]);
    match run(ground, ground.shown(&["plan", "-input=false"]).args(args), host)? {
        (Exit::Code(0), _) => Ok(None),
        (Exit::Code(CHANGES), _) => count(ground, host).map(Some),
        (exit, tail) => Err(explain(ground.program(), "plan", exit, &tail)),
    }
}

/// What the plan would do. Where that cannot be read the plan is as good as before, and goes uncounted.
fn count(ground: &Ground<'_>, host: &mut dyn Host) -> Result<Planned, Failure> {
    let command = ground.command(&["show", "-json", "-no-color"]).arg(ground.seen(PLAN_FILE));
    match machine::ask::<Shown>(command, host) {
        Ok(shown) => Ok(Planned::from(&shown)),
        Err(NoAnswer::Canceled) => Err(Failure::Canceled),
        Err(NoAnswer::Why(why)) => {
            host.log(Level::Warn, &format!("the plan's changes are not counted: `show -json`: {why}"), &[]);
            Ok(Planned::default())
        }
    }
}

/// Applies the saved plan, and no other.
pub(crate) fn apply(ground: &Ground<'_>, planned: Planned, host: &mut dyn Host) -> Result<(), Failure> {
    let variables = if planned.needs_variables { ground.variables() } else { Vec::new() };
    let command = ground.shown(&["apply", "-input=false"]).args(ground.limits()).args(variables);
    succeed(ground, "apply", command.arg(ground.seen(PLAN_FILE)), host)
}

/// The outputs of the state. The work is done by then, so none is no failure.
pub(crate) fn outputs(ground: &Ground<'_>, host: &mut dyn Host) -> Option<Outputs> {
    match machine::ask::<outputs::Read>(ground.command(&["output", "-json", "-no-color"]), host) {
        Ok(read) => Some(read.into()),
        Err(NoAnswer::Canceled) => None,
        Err(NoAnswer::Why(why)) => {
            host.log(Level::Warn, &format!("the outputs are not in the summary: `output -json`: {why}"), &[]);
            None
        }
    }
}
