//! `history`: start, claims and an unrelated request once more, with a long history in the store.
//!
//! The history is not made over the protocol, which would take most of an hour: a few tasks are, and the daemon's
//! [`forge_daemon::seed_history`] copies their rows while no daemon runs. Its tasks have no logs.

use std::time::Instant;

use super::Bench;
use super::machine;
use super::report::{Measured, Unit};
use super::world::World;
use super::{claims, parked, start};
use crate::error::CliError;

/// How many tasks are made over the protocol first.
const PATTERN_TASKS: u32 = 100;

/// How many tasks are started one after the other.
const STARTED_TASKS: u32 = 50;

/// How many tasks are claimed.
const CLAIMED_TASKS: u32 = 5_000;

/// How many runners claim them.
const RUNNERS: u32 = 64;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Measured, CliError> {
    let tasks = bench.history;
    let world = World::start().await?;
    claims::run(&world, "pattern", 1, PATTERN_TASKS).await?;
    bench.progress(&format!("history: putting {tasks} finished tasks into the store"));
    let begin = Instant::now();
    let world =
        world.restart(move |data| forge_daemon::seed_history(data, tasks).map(drop).map_err(CliError::failed)).await?;
    let seeded = begin.elapsed();
    let mut measured = Measured::new("history", format!("a store with {tasks} finished tasks"));
    measured.value("tasks", "finished tasks in the store", world.succeeded().await? as f64, Unit::Count);
    measured.value("database", "the database", world.database_mib()?, Unit::Mebibytes);
    measured.value("seeded", "to put them there and start a daemon", seeded.as_secs_f64() * 1e3, Unit::Millis);
    let requests = parked::unrelated(&world).await?;
    measured.percentiles("request", "GET /tasks", &requests);
    bench.progress("history: claims");
    let (claimed, runners) = (bench.tasks.unwrap_or(CLAIMED_TASKS), bench.runners.unwrap_or(RUNNERS));
    let found = claims::run(&world, "claims", runners, claimed).await?;
    claims::report(&mut measured, &found, runners, claimed);
    bench.progress("history: starts");
    let runner = world.runner("start", 0, bench.printer).await?;
    world.wait_parked(1).await?;
    let starts = start::sample(&world, bench.tasks.unwrap_or(STARTED_TASKS)).await?;
    start::report(&mut measured, &starts);
    tokio::task::spawn_blocking(move || drop(runner)).await.map_err(CliError::failed)?;
    let memory = machine::memory_of(world.daemon_pid())?;
    measured.value("daemon_rss", "daemon, resident", memory.rss_mib(), Unit::Mebibytes);
    Ok(measured)
}
