//! `claims`: how many tasks a second the daemon hands out and takes back, each step durable, without any process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Bench;
use super::machine;
use super::report::{Aim, Measured, Unit};
use super::samples::Samples;
use super::simulated::Simulated;
use super::world::{NOTHING, World, all};
use crate::error::CliError;

/// How many tasks each setting runs.
const TASKS: u32 = 20_000;

/// How many runners ask at a time.
const RUNNERS: [u32; 2] = [64, 256];

/// The SHA-256 of nothing, which is what these attempts log.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What the best setting should reach, in tasks a second.
const CLAIMS_PER_SECOND_MIN: f64 = 7_500.0;

/// What one run showed.
pub(super) struct Claims {
    created: Duration,
    took: Duration,
    cycles: Samples,
    daemon: Duration,
    bench: Duration,
}

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Measured, CliError> {
    let tasks = bench.tasks.unwrap_or(TASKS);
    let counts = bench.runners.map_or_else(|| RUNNERS.to_vec(), |runners| vec![runners]);
    let world = World::start().await?;
    let mut measured = Measured::new(
        "claims",
        format!("{tasks} tasks that wait, taken by simulated runners: claim, open, start, result; one slot each"),
    );
    for count in counts {
        bench.progress(&format!("claims: {count} runners"));
        let claims = run(&world, "claims", count, tasks).await?;
        report(&mut measured, &claims, count, tasks);
    }
    Ok(measured)
}

/// Adds the numbers of a run.
pub(super) fn report(measured: &mut Measured, claims: &Claims, runners: u32, tasks: u32) {
    let Claims { created, took, cycles, daemon, bench } = claims;
    let per_second = |took: &Duration| f64::from(tasks) / took.as_secs_f64();
    let per_task = |used: &Duration| used.as_secs_f64() * 1e6 / f64::from(tasks);
    measured.value(
        format!("claims_per_s_{runners}"),
        format!("claim and end, {runners} runners"),
        per_second(took),
        Unit::PerSecond,
    );
    measured.aim(Aim::AtLeast(CLAIMS_PER_SECOND_MIN));
    let what = format!("from asking to the end's acknowledgement, {runners} runners");
    measured.percentiles(&format!("cycle_{runners}"), &what, cycles);
    measured.value(
        format!("daemon_cpu_per_task_{runners}"),
        format!("processor time of the daemon a task, {runners} runners"),
        per_task(daemon),
        Unit::Micros,
    );
    measured.value(
        format!("bench_cpu_per_task_{runners}"),
        format!("processor time of the simulated runners a task, {runners} runners"),
        per_task(bench),
        Unit::Micros,
    );
    measured.value(
        format!("creates_per_s_{runners}"),
        "tasks triggered, 16 connections",
        per_second(created),
        Unit::PerSecond,
    );
}

/// Has tasks wait, then has simulated runners take them all.
pub(super) async fn run(world: &World, prefix: &str, runners: u32, tasks: u32) -> Result<Claims, CliError> {
    let before = world.succeeded().await?;
    let created = world.create_tasks(NOTHING, tasks).await?;
    let registered = world.simulated(&format!("{prefix}-{runners}"), runners).await?;
    let left = Arc::new(AtomicU32::new(tasks));
    let (daemon, bench) = (machine::cpu_time_of(world.daemon_pid()), machine::cpu_time_of(std::process::id()));
    let begin = Instant::now();
    let mut working = JoinSet::new();
    for runner in registered {
        working.spawn(work(runner, Arc::clone(&left)));
    }
    let samples = all(working).await?;
    let took = begin.elapsed();
    let daemon = machine::cpu_time_of(world.daemon_pid()).saturating_sub(daemon);
    let bench = machine::cpu_time_of(std::process::id()).saturating_sub(bench);
    world.wait_succeeded(before + u64::from(tasks)).await?;
    let mut cycles = Samples::default();
    for one in samples {
        cycles.extend(one);
    }
    Ok(Claims { created, took, cycles, daemon, bench })
}

/// Takes one task after the other while there are any.
async fn work(mut runner: Simulated, left: Arc<AtomicU32>) -> Result<Samples, CliError> {
    let mut cycles = Samples::default();
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    while take() {
        let begin = Instant::now();
        let held = runner.claim(1).await?.pop();
        let held = held.ok_or_else(|| CliError::failed("a claim was not answered with a task that waits"))?;
        runner.start(&held).await?;
        runner.finish(held, 0, EMPTY_SHA256).await?;
        cycles.add(begin.elapsed());
    }
    Ok(cycles)
}
