//! The built-in `terraform` executor: plans a configuration of the template's repository, applies what was planned, and reports
//! how many resources were added, changed and destroyed.
//!
//! Every change goes through a saved plan: `apply` and `destroy` plan first and apply that very plan, and so does
//! `plan-then-apply` once a person has said yes, in a later attempt that may run on another runner. What that attempt needs lies in
//! one folder beside the checkout: the plan (which holds the configuration, the variables and the backend's settings), what is known
//! of it, and the dependency lock file, so that init chooses the same providers again.
//!
//! No secret passes through here: the variables are a file of the host's, and only its path stands on a command line.

mod ground;
mod machine;
mod outputs;
mod params;
mod plan;
mod state;
mod steps;
mod trouble;

use forge_plugin::{Done, Executor, Failed, Failure, Host, HostError, Info, Job, Level, Outcome, Pending};
use ground::{Ground, LOCK_COPY, LOCK_FILE, PLAN_FILE, PLANNED_FILE, read_file};
use outputs::Outputs;
use params::{Action, Binary, Params};
use plan::{Counts, Planned};
use serde::Serialize;

/// The most bytes of a dependency lock file.
const LOCK_FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most bytes of what is known of a plan.
const PLANNED_BYTES_MAX: usize = 64 * 1024;

/// The executor.
#[derive(Debug)]
pub struct Terraform;

forge_plugin::export!(Terraform);

/// What a task's `summary` holds.
#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    counts: Option<Counts>,
    /// Whether that was done, and not only planned.
    applied: bool,
    #[serde(flatten)]
    outputs: Option<Outputs>,
}

impl Executor for Terraform {
    fn describe() -> Info {
        Info::new(
            "terraform",
            env!("CARGO_PKG_VERSION"),
            "Plans and applies a Terraform or OpenTofu configuration, with an approval between the two if wanted",
        )
        .params_schema(&params::schema())
        .wants_programs(&[Binary::Terraform.program(), Binary::Tofu.program()])
    }

    fn execute(job: Job, host: &mut dyn Host) -> Result<Done, Failure> {
        let params = Params::of(&job)?;
        let ground = Ground::prepare(&job, &params, host)?;
        let done = if job.resume { resume(&ground, host) } else { begin(&ground, host) };
        if done.is_err() {
            // A runner may keep the workspace of what failed, and a plan holds secrets in plain text. There may be none.
            let _ = host.remove(PLAN_FILE);
        }
        done
    }
}

/// Plans, and goes on as the command says.
fn begin(ground: &Ground<'_>, host: &mut dyn Host) -> Result<Done, Failure> {
    let action = ground.params.command;
    // The folder that the plan is written to comes with it.
    host.write(PLANNED_FILE, b"{}")?;
    steps::init(ground, host)?;
    state::tell(action, host)?;
    let Some(planned) = steps::plan(ground, host)? else {
        let outputs = if action == Action::Plan { None } else { steps::outputs(ground, host) };
        return finished("no changes", Summary { counts: Some(Counts::default()), applied: false, outputs });
    };
    match action {
        Action::Plan => finished(planned.to_do(), Summary { counts: planned.counts, applied: false, outputs: None }),
        Action::Apply | Action::Destroy => apply(ground, planned, host),
        Action::PlanThenApply | Action::PlanThenDestroy => pending(ground, planned, host),
    }
}

/// Applies what an earlier attempt planned and a person approved. It never plans: what was approved is done, or nothing is.
fn resume(ground: &Ground<'_>, host: &mut dyn Host) -> Result<Done, Failure> {
    match ground.params.command {
        Action::PlanThenApply | Action::PlanThenDestroy => {}
        Action::Plan | Action::Apply | Action::Destroy => {
            return Err(Failure::Invalid(
                "a plan was approved, and [params].command asks for no approval: run the template again".to_owned(),
            ));
        }
    }
    match host.read(PLAN_FILE, 0, 0) {
        Ok(_) => {}
        Err(HostError::NotFound(_)) => {
            return Err(Failure::failed(
                "the approved plan did not come with this attempt, and nothing was applied: run the template again for a new plan",
            ));
        }
        Err(error) => return Err(error.into()),
    }
    let known = read_file(PLANNED_FILE, PLANNED_BYTES_MAX, host)?.unwrap_or_default();
    // What is not known goes uncounted; the plan itself decides what is done.
    let planned = serde_json::from_slice(&known).unwrap_or_default();
    if let Some(lock) = read_file(LOCK_COPY, LOCK_FILE_BYTES_MAX, host)? {
        host.write(&format!("{}/{LOCK_FILE}", ground.folder), &lock)?;
    }
    steps::init(ground, host)?;
    state::tell(ground.params.command, host)?;
    apply(ground, planned, host)
}

/// Leaves the plan to a person, with all that applying it takes in another workspace.
fn pending(ground: &Ground<'_>, planned: Planned, host: &mut dyn Host) -> Result<Done, Failure> {
    let known = serde_json::to_vec(&planned)
        .map_err(|error| Failure::failed(format!("what is known of the plan does not go into JSON: {error}")))?;
    host.write(PLANNED_FILE, &known)?;
    let mut carry = vec![PLAN_FILE.to_owned(), PLANNED_FILE.to_owned()];
    if let Some(lock) = read_file(&format!("{}/{LOCK_FILE}", ground.folder), LOCK_FILE_BYTES_MAX, host)? {
        host.write(LOCK_COPY, &lock)?;
        carry.push(LOCK_COPY.to_owned());
    }
    for file in &ground.params.carry {
        let path = ground.file("carry", file)?;
        match host.read(&path, 0, 0) {
            Ok(_) => carry.push(path),
            Err(HostError::NotFound(_)) => {
                return Err(Failure::failed(format!(
                    "[params].carry: {file:?} is not there after planning, seen from working_dir: name what planning makes"
                )));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let summary = Summary { counts: planned.counts, applied: false, outputs: None };
    let outcome = outcome(planned.to_do(), summary)?;
    host.log(Level::Info, &format!("planned: {}; it waits for approval", outcome.summary), &[]);
    Ok(Done::Pending(Pending { outcome, carry }))
}

fn apply(ground: &Ground<'_>, planned: Planned, host: &mut dyn Host) -> Result<Done, Failure> {
    match steps::apply(ground, planned, host) {
        Ok(()) => {
            let outputs = steps::outputs(ground, host);
            finished(planned.done(), Summary { counts: planned.counts, applied: true, outputs })
        }
        // What was planned belongs to the report of an apply that ended in the middle.
        Err(Failure::Failed(Failed { message, exit_code, output_json: _ })) => {
            let planned = Summary { counts: planned.counts, applied: false, outputs: None };
            Err(Failure::Failed(Failed { message, exit_code, output_json: outcome("", planned)?.output_json }))
        }
        Err(failure @ (Failure::Invalid(_) | Failure::Retry(_) | Failure::Canceled)) => Err(failure),
    }
}

fn finished(text: impl Into<String>, summary: Summary) -> Result<Done, Failure> {
    outcome(text, summary).map(Done::Finished)
}

/// The exit code of what went well is 0, also where `plan -detailed-exitcode` says 2 for "there are changes".
fn outcome(text: impl Into<String>, summary: Summary) -> Result<Outcome, Failure> {
    Outcome::new(text).exit_code(0).output(&summary)
}
