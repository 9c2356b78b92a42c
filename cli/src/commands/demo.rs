//! `forge demo`: the main job on one machine, told step by step, in a temporary folder.
//!
//! Nothing here is a shortcut: the daemon serves over HTTPS with a CA that it made, the runner registers with a token that is
//! piped into the code behind `forge runner register --stdin-registration-token`, and both tasks are created, followed and listed through the API.

mod tree;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forge_api::{CreateTask, Task, TaskState};
use forge_runner::trust::Trust;
use forge_runner::{Settings, Shutdown};
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::runner::{register, registration_token};
use super::scratch::{self, RunnerFile, Tokens};
use super::{follow::follow, task::table};
use crate::args::{DemoArguments, RegistrationToken};
use crate::client::Client;
use crate::error::CliError;
use crate::printer::Printer;
use crate::runtime::Signals;
use crate::{runtime, settings};

/// The demo's runner; `examples/quickstart/runners` declares it.
const RUNNER: &str = "demo-runner";

/// A task of the demo.
struct Shown {
    template: &'static str,
    /// A question of its survey, and the answer.
    answer: Option<(&'static str, &'static str)>,
    /// What a newcomer sees in it.
    about: &'static str,
}

/// What the demo runs: templates of project `demo`.
const TASKS: [Shown; 2] = [
    Shown { template: "hello", answer: Some(("name", "newcomer")), about: "a script that stands in the template" },
    Shown {
        template: "from-git",
        answer: None,
        about: "a script from a git repository, at the commit that the branch points to",
    },
];

/// How long a finished demo waits for its parts to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// What runs beside the story: the daemon and the runner.
type Parts = JoinSet<Result<(), CliError>>;

pub(crate) fn run(arguments: &DemoArguments, printer: &Printer) -> Result<ExitCode, CliError> {
    let folder = scratch::folder("forge-demo-")?;
    let keep = arguments.keep;
    runtime::run(runtime::server_threads(), demo(folder.path(), keep, printer))
}

async fn demo(folder: &Path, keep: bool, printer: &Printer) -> Result<ExitCode, CliError> {
    printer.heading("Forge demo: a daemon, a runner and two tasks on this machine");
    printer.aside(&format!("everything lies in {} and goes away at the end", folder.display()));
    let tokens = tree::prepare(folder, RUNNER)?;
    printer.done("wrote a tree of configuration (a copy of examples/quickstart) and a git repository");

    let stop = CancellationToken::new();
    let mut parts: Parts = JoinSet::new();
    let signals = Signals::listen()?.forward(stop.clone(), stop.clone());
    let told = tokio::select! {
        told = tell(folder, keep, &tokens, &stop, &mut parts, printer) => told,
        never = signals => match never {},
    };
    stop.cancel();
    let stopping = printer.spinner("stopping");
    let stopped = tokio::time::timeout(STOP_DEADLINE, async {
        while let Some(ended) = parts.join_next().await {
            ended.map_err(CliError::failed)??;
        }
        Ok(())
    });
    let stopped = stopped.await.unwrap_or_else(|_| Err(CliError::failed("the demo's daemon or runner did not stop")));
    drop(stopping);
    let code = told?;
    stopped?;
    Ok(code)
}

/// Tells the story up to its end, or until `stop`.
async fn tell(
    folder: &Path,
    keep: bool,
    tokens: &Tokens,
    stop: &CancellationToken,
    parts: &mut Parts,
    printer: &Printer,
) -> Result<ExitCode, CliError> {
    // Variables of a real daemon or runner on this machine must not reach into the demo.
    let no_environment = BTreeMap::new();
    let spinner = printer.spinner("starting a daemon: a store, a CA, the tree");
    let daemon_settings = settings::daemon(&folder.join(scratch::DAEMON_FILE), &no_environment, printer)?;
    let daemon = forge_daemon::start(daemon_settings).await.map_err(super::daemon::start_error)?;
    let addresses = daemon.addresses().clone();
    let ca_file = addresses.ca_file.clone().ok_or_else(|| CliError::failed("the daemon made no CA"))?;
    let daemon_stop = CancellationToken::new();
    {
        let daemon_stop = daemon_stop.clone();
        parts.spawn(async move { daemon.run_until(daemon_stop).await.map_err(CliError::failed) });
    }
    drop(spinner);
    printer.done(&format!("daemon: serves the tree at {} (HTTPS, with a CA that it made itself)", addresses.api));

    let file = RunnerFile { api: &addresses.api, ca_file: &ca_file, name: RUNNER, max_parallel_tasks: 0 };
    let file = scratch::write_runner(&folder.join("runner"), &file)?;
    let runner = settings::runner(Some(&file), &no_environment, printer)?;
    let piped = RegistrationToken { stdin_registration_token: true, registration_token_file: None };
    let token = registration_token(&piped, tokens.registration.reveal().as_bytes(), None)?;
    let registered = register(&runner.settings, token).await?;
    printer.done(&format!(
        "runner: {} registered by token, made a key pair, and has the tags {}",
        registered.name,
        registered.tags.join(", ")
    ));
    parts.spawn(run_runner(runner.settings, stop.clone(), daemon_stop));

    let client = Client::new(&addresses.api, tokens.access.reveal(), &Trust::CaFile(ca_file.clone()))?;
    let mut ended = Vec::new();
    for shown in &TASKS {
        ended.push(run_task(&client, shown, printer).await?);
    }
    printer.talk("");
    printer.data(&table(&ended));
    let all_succeeded = ended.iter().all(|task| task.state == TaskState::Succeeded);
    if !all_succeeded {
        return Err(CliError::failed("not every task of the demo succeeded"));
    }
    printer.talk("");
    if keep {
        keep_serving(folder, &addresses.api, tokens, &ca_file, stop, printer).await;
    } else {
        printer.talk("That was the main job. Next: `forge demo --keep` goes on serving, so that you can try the client yourself;");
        printer.talk("README.md shows how to set a daemon and a runner up for real.");
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the runner until `stop`, and lets the daemon go after it: its last result is acknowledged first.
async fn run_runner(
    settings: Settings,
    stop: CancellationToken,
    daemon_stop: CancellationToken,
) -> Result<(), CliError> {
    let shutdown = Shutdown { drain: stop.clone(), abort: stop };
    let ended = forge_runner::run(settings, shutdown, |_event| ()).await;
    daemon_stop.cancel();
    ended.map(drop).map_err(CliError::failed)
}

async fn run_task(client: &Client, shown: &Shown, printer: &Printer) -> Result<Task, CliError> {
    let Shown { template, answer, about } = shown;
    printer.talk("");
    printer.heading(&format!("demo/{template}: {about}"));
    let variables: Map<String, Value> =
        answer.iter().map(|(name, value)| ((*name).to_owned(), Value::String((*value).to_owned()))).collect();
    let created = client.create_task("demo", template, &CreateTask { variables, arguments: Vec::new() }).await?;
    let spinner = printer.spinner(&format!("task {}: waiting for its first line", created.number));
    let spinning = std::cell::Cell::new(Some(spinner));
    let at_line_start = AtomicBool::new(true);
    let task = follow(client, created.number, printer, |bytes| {
        drop(spinning.take());
        printer.data_bytes(&indented(bytes, &at_line_start));
    })
    .await?;
    drop(spinning.take());
    super::run::report(&task, printer);
    Ok(task)
}

/// The bytes with a bar before each line, so that a log stands out from the story around it.
fn indented(bytes: &[u8], at_line_start: &AtomicBool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 8);
    for byte in bytes {
        if at_line_start.swap(*byte == b'\n', Ordering::Relaxed) {
            out.extend_from_slice("  | ".as_bytes());
        }
        out.push(*byte);
    }
    out
}

async fn keep_serving(
    folder: &Path,
    api: &str,
    tokens: &Tokens,
    ca_file: &Path,
    stop: &CancellationToken,
    printer: &Printer,
) {
    printer.talk("The demo keeps serving until Ctrl-C. In another terminal:");
    printer.talk("");
    printer.data(&format!("  export FORGE_URL={api}"));
    printer.data(&format!("  export FORGE_TOKEN={}", tokens.access.reveal()));
    printer.data(&format!("  export FORGE_CA_FILE={}", ca_file.display()));
    printer.data("  forge run demo/hello --var name=Ada");
    printer.data("  forge task list");
    printer.talk("");
    printer.talk(&format!(
        "The tree is {}: change a template, break it, and see `forge config status`.",
        folder.join(scratch::TREE).display()
    ));
    stop.cancelled().await;
}
