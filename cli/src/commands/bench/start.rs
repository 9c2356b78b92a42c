//! `start`: from the trigger to the task's own process, one task after the other.
//!
//! The clock that a process can show is its script's first line, and bash takes milliseconds to get there, with Forge or without. So a bash is
//! started by hand, too, and its time taken off.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Bench;
use super::report::{Aim, Measured, Unit};
use super::samples::Samples;
use super::world::{self, MOMENT, PROJECT, World};
use crate::commands::doctor::host;
use crate::error::CliError;

/// How many tasks are timed.
const TASKS: u32 = 200;

/// Tasks before that: the first one of a runner fetches and compiles its plugin.
const WARM_UP_TASKS: u32 = 3;

/// What the median to the process should be, in milliseconds.
const START_MS_MAX: f64 = 5.0;

/// How many shells are started by hand.
const SHELLS: u32 = 50;

/// What one run of tasks showed.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// From before the trigger to the process's own clock.
    process: Samples,
    /// From before the trigger until who follows the log has all of it.
    seen: Samples,
    /// The part of it that no scheduler can spare: from before a bash is started by hand to its own clock.
    shell: Samples,
}

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Measured, CliError> {
    let tasks = bench.tasks.unwrap_or(TASKS);
    let world = World::start().await?;
    let _runner = world.runner("start", 0, bench.printer).await?;
    world.wait_parked(1).await?;
    let starts = sample(&world, tasks).await?;
    let mut measured = Measured::new("start", format!("{tasks} tasks, one after the other, on one runner with bash"));
    report(&mut measured, &starts);
    Ok(measured)
}

/// Adds the numbers of a run.
pub(super) fn report(measured: &mut Measured, starts: &Starts) {
    measured.value("start_tasks", "tasks timed", starts.process.len() as f64, Unit::Count);
    for percent in [50, 95, 99] {
        let what = format!("trigger to the script's first line, p{percent}");
        measured.value(format!("start_p{percent}"), what, starts.process.percentile_ms(percent), Unit::Millis);
    }
    let shell = starts.shell.percentile_ms(50);
    measured.value("shell_p50", "of it, bash's own: one that is started by hand, p50", shell, Unit::Millis);
    let process = starts.process.percentile_ms(50) - shell;
    measured.value("process_p50", "trigger to process, p50: the first less bash's own", process, Unit::Millis);
    measured.aim(Aim::AtMost(START_MS_MAX));
    measured.percentiles("followed", "trigger to the end of its followed log", &starts.seen);
}

/// Runs tasks one after the other and times each; a runner must wait for work.
pub(super) async fn sample(world: &World, tasks: u32) -> Result<Starts, CliError> {
    for _ in 0..WARM_UP_TASKS {
        one(world).await?;
    }
    let mut starts = Starts::default();
    for _ in 0..tasks {
        let (process, seen) = one(world).await?;
        starts.process.add(process);
        starts.seen.add(seen);
    }
    let bash = host::program("bash", std::env::var("PATH").ok().as_deref())
        .ok_or_else(|| CliError::failed("there is no bash on PATH").hint("install bash 5 or newer"))?;
    for _ in 0..SHELLS {
        let bash = bash.clone();
        starts.shell.add(tokio::task::spawn_blocking(move || shell(&bash)).await.map_err(CliError::failed)??);
    }
    Ok(starts)
}

/// Starts the task's script without Forge. By its path: a program that is looked for would be forked, and this process is large.
fn shell(bash: &Path) -> Result<Duration, CliError> {
    let triggered = since_epoch()?;
    let output = std::process::Command::new(bash)
        .args(["-c", "echo $EPOCHREALTIME"])
        .env_clear()
        .envs(["PATH", "LANG", "TZ"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| CliError::failed(error).hint("bash 5 or newer must be on PATH"))?;
    let started = moment(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| CliError::failed("bash did not print when it began: it must be 5 or newer"))?;
    Ok(started.saturating_sub(triggered))
}

async fn one(world: &World) -> Result<(Duration, Duration), CliError> {
    let (begin, triggered) = (Instant::now(), since_epoch()?);
    let task = world.client.create_task(PROJECT, MOMENT, &world::nothing_asked()).await?;
    let mut log = Vec::new();
    world.client.follow_log(task.number, 0, 0).await?.copy_to(|bytes| log.extend_from_slice(bytes)).await?;
    let seen = begin.elapsed();
    let log = String::from_utf8_lossy(&log).into_owned();
    let started = moment(&log).ok_or_else(|| {
        CliError::failed(format_args!("task {} did not print when it began, but {log:?}", task.number))
            .hint("bash 5 or newer must be on PATH: it has EPOCHREALTIME")
    })?;
    Ok((started.saturating_sub(triggered), seen))
}

fn since_epoch() -> Result<Duration, CliError> {
    SystemTime::now().duration_since(UNIX_EPOCH).map_err(CliError::failed)
}

/// What bash's EPOCHREALTIME says: seconds, a point or the locale's comma, six digits.
fn moment(log: &str) -> Option<Duration> {
    let (seconds, micros) = log.lines().find_map(|line| line.trim().split_once(['.', ',']))?;
    let (seconds, micros) = (seconds.parse::<u64>().ok()?, micros.parse::<u64>().ok()?);
    Some(Duration::from_secs(seconds) + Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_bash_writes_it() {
        let expected = Some(Duration::from_micros(1_700_000_000_001_234));
        assert_eq!(moment("1700000000.001234\n"), expected);
        assert_eq!(moment("1700000000,001234\n"), expected);
        assert_eq!(moment("bash: no such thing\n"), None);
    }
}
