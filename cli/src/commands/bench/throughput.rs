//! `throughput`: how many tasks a second real runners bring to their end, each with a process that does nothing.

use std::time::Instant;

use super::Bench;
use super::report::{Aim, Measured, Unit};
use super::world::{NOTHING, World};
use crate::error::CliError;

/// How many tasks each setting runs.
const TASKS: u32 = 2_000;

/// How many run before: the first ones of a runner fetch and compile its plugin.
const WARM_UP_TASKS: u32 = 8;

/// How many tasks at a time a runner with a limit takes.
const LIMIT: u32 = 8;

/// What the best setting should reach on one host, in tasks a second.
const TASKS_PER_SECOND_MIN: f64 = 1_500.0;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Measured, CliError> {
    let tasks = bench.tasks.unwrap_or(TASKS);
    let counts = bench.runners.map_or_else(|| vec![1, 2], |runners| vec![runners]);
    let mut measured = Measured::new(
        "throughput",
        format!("{tasks} tasks whose script is `true`, all triggered at once; from the first trigger to the last end"),
    );
    let world = World::start().await?;
    for count in counts {
        for limit in [LIMIT, 0] {
            let slots = if limit == 0 { "unlimited".to_owned() } else { format!("{limit} at a time each") };
            let noun = if count == 1 { "runner" } else { "runners" };
            bench.progress(&format!("throughput: {count} {noun}, {slots}"));
            let rate = run(&world, count, limit, tasks, bench).await?;
            let key = format!("tasks_per_s_{count}x{limit}");
            measured.value(key, format!("{count} {noun}, {slots}"), rate, Unit::PerSecond);
            measured.aim(Aim::AtLeast(TASKS_PER_SECOND_MIN));
        }
    }
    Ok(measured)
}

async fn run(world: &World, count: u32, limit: u32, tasks: u32, bench: &Bench<'_>) -> Result<f64, CliError> {
    let mut runners = Vec::new();
    for number in 1..=count {
        runners.push(world.runner(&format!("real-{count}x{limit}-{number}"), limit, bench.printer).await?);
    }
    world.wait_parked(u64::from(count)).await?;
    let before = world.succeeded().await?;
    world.create_tasks(NOTHING, WARM_UP_TASKS).await?;
    world.wait_succeeded(before + u64::from(WARM_UP_TASKS)).await?;
    let before = world.succeeded().await?;
    let begin = Instant::now();
    world.create_tasks(NOTHING, tasks).await?;
    world.wait_succeeded(before + u64::from(tasks)).await?;
    let rate = f64::from(tasks) / begin.elapsed().as_secs_f64();
    // Dropping ends them, one after the other: the next setting has its own.
    tokio::task::spawn_blocking(move || drop(runners)).await.map_err(CliError::failed)?;
    Ok(rate)
}
