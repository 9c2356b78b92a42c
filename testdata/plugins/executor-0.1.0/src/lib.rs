//! An executor that uses all of `forge:plugin@0.1.0`: it greets in a file, in the log, and with a program.

use forge_plugin::{
    Command, Done, Event, Executor, Failed, Failure, Host, Info, Job, JsonSchema, Level, Outcome, Pending, Retry, schemars,
};
use serde::{Deserialize, Serialize};

/// Where the greeting is written.
const FILE: &str = "greetings/last.txt";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How it greets
    greeting: String,
    /// How it ends
    #[serde(default)]
    ending: Ending,
}

/// How it ends
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Ending {
    /// Well
    #[default]
    Done,
    /// Waiting for a person
    Pending,
    /// With work that failed
    Failed,
    /// Worth another try
    Retry,
    /// By a panic
    Panic,
}

/// For machines.
#[derive(Serialize)]
struct Greeted {
    bytes: usize,
    names: Vec<String>,
    elapsed: bool,
    spawned: bool,
}

/// The plugin.
pub struct Kept;

forge_plugin::export!(Kept);

impl Executor for Kept {
    fn describe() -> Info {
        Info::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .params::<Params>()
            .wants_programs(&["true"])
    }

    fn execute(job: Job, host: &mut dyn Host) -> Result<Done, Failure> {
        let Params { greeting, ending } = job.params()?;
        host.log(Level::Info, &greeting, &[("task", &job.id)]);
        host.progress(1, Some(2), Some("writing"));
        host.write(FILE, greeting.as_bytes())?;
        host.append(FILE, b"!")?;
        let read = host.read(FILE, 0, 1_000)?;
        let names = host.list("greetings")?.into_iter().map(|entry| entry.name).collect();
        host.remove(FILE)?;
        host.run(Command::new("true").arg(greeting.as_str()).env("GREETING", greeting.as_str()))?.exit.success()?;
        let mut child = host.spawn(Command::new("true"))?;
        let spawned = loop {
            match child.next()? {
                Event::Stdout(_) | Event::Stderr(_) => {}
                Event::Exited(exit) => break exit.success().is_ok(),
            }
        };
        let elapsed = host.elapsed_ms() < u64::MAX;
        if host.canceled() {
            return Err(Failure::Canceled);
        }
        let greeted = Greeted { bytes: read.len(), names, elapsed, spawned };
        let outcome = Outcome::new(format!("greeted: {greeting}")).exit_code(0).output(&greeted)?;
        match ending {
            Ending::Done => Ok(Done::Finished(outcome)),
            Ending::Pending => Ok(Done::Pending(Pending { outcome, carry: vec!["plan".to_owned()] })),
            Ending::Failed => Err(Failure::Failed(Failed {
                message: "as asked".to_owned(),
                exit_code: Some(3),
                output_json: outcome.output_json,
            })),
            Ending::Retry => Err(Failure::Retry(Retry { message: "later".to_owned(), after_ms: Some(5) })),
            Ending::Panic => panic!("as asked"),
        }
    }
}
