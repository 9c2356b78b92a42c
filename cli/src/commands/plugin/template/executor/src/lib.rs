//! An executor for Forge: it looks how full a file system of the runner is, and fails when too little room is left.

use forge_plugin::{
    Command, Done, Executor, Failed, Failure, Host, Info, Job, JsonSchema, Outcome, schemars,
};
use serde::{Deserialize, Serialize};

/// What a template writes below `[params]`. The doc comments become the descriptions in its schema, which the daemon checks the tree
/// against: `forge plugin check` shows it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// A folder on the file system that is looked at
    #[serde(default = "root")]
    path: String,
    /// The least room that has to be left, in percent
    #[schemars(range(min = 1, max = 99))]
    min_free_percent: u8,
}

fn root() -> String {
    "/".to_owned()
}

/// What a task shows, and hands on to machines.
#[derive(Serialize)]
struct Room {
    path: String,
    free_percent: u8,
}

/// The plugin.
pub struct Plugin;

forge_plugin::export!(Plugin);

impl Executor for Plugin {
    fn describe() -> Info {
        Info::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            env!("CARGO_PKG_DESCRIPTION"),
        )
        .params::<Params>()
        .wants_programs(&["df"])
    }

    fn execute(job: Job, host: &mut dyn Host) -> Result<Done, Failure> {
        let Params {
            path,
            min_free_percent,
        } = job.params()?;
        // -P: one line a file system, whatever the name's length.
        let finished = host.run(Command::new("df").args(["-P", "--", path.as_str()]))?;
        finished.exit.success()?;
        let free_percent = free_percent(&String::from_utf8_lossy(&finished.stdout_tail))
            .ok_or_else(|| Failure::failed("df says nothing of how full it is"))?;
        let summary = format!("{free_percent} % of {path} are free");
        let outcome = Outcome::new(summary).output(&Room { path, free_percent })?;
        if free_percent >= min_free_percent {
            return Ok(Done::Finished(outcome));
        }
        let message = format!(
            "{}, and {min_free_percent} % are asked for",
            outcome.summary
        );
        Err(Failure::Failed(Failed {
            message,
            exit_code: None,
            output_json: outcome.output_json,
        }))
    }
}

/// Out of what `df -P` prints: the column of how full it is is the only one with a percent sign.
fn free_percent(printed: &str) -> Option<u8> {
    let full = printed
        .lines()
        .last()?
        .split_whitespace()
        .find_map(|word| word.strip_suffix('%'))?;
    100_u8.checked_sub(full.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use forge_plugin::fake::{Answer, FakeHost};

    use super::*;

    const DF: &str =
        "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 100 60 40 60% /\n";

    fn run(params: &str, host: &mut FakeHost) -> Result<Done, Failure> {
        Plugin::execute(
            Job {
                params_json: params.to_owned(),
                ..Job::default()
            },
            host,
        )
    }

    #[test]
    fn enough_room_is_a_success() {
        let mut host = FakeHost::new().answer(Answer::code(0).stdout(DF));
        let Ok(Done::Finished(outcome)) = run(r#"{ "min_free_percent": 20 }"#, &mut host) else {
            panic!("40 % are enough")
        };
        assert_eq!(outcome.summary, "40 % of / are free");
        assert_eq!(
            outcome.output_json.as_deref(),
            Some(r#"{"path":"/","free_percent":40}"#)
        );
        assert_eq!(host.commands, [Command::new("df").args(["-P", "--", "/"])]);
    }

    #[test]
    fn too_little_room_fails_and_says_how_much() {
        let mut host = FakeHost::new().answer(Answer::code(0).stdout(DF));
        let Err(Failure::Failed(failed)) = run(r#"{ "min_free_percent": 50 }"#, &mut host) else {
            panic!("40 % are not enough")
        };
        assert_eq!(failed.message, "40 % of / are free, and 50 % are asked for");
    }

    #[test]
    fn what_df_refuses_fails() {
        let mut host = FakeHost::new().answer(Answer::code(1));
        assert!(run(r#"{ "path": "/gone", "min_free_percent": 20 }"#, &mut host).is_err());
    }

    #[test]
    fn params_are_checked() {
        let wrong = run(r#"{ "min_fre_percent": 20 }"#, &mut FakeHost::new());
        let Err(Failure::Invalid(message)) = wrong else {
            panic!("{wrong:?}")
        };
        assert!(
            message.contains("unknown field `min_fre_percent`"),
            "{message}"
        );
    }

    #[test]
    fn it_asks_for_df_alone() {
        assert_eq!(
            Plugin::describe().wants,
            Info::new("", "", "").wants_programs(&["df"]).wants
        );
    }
}
