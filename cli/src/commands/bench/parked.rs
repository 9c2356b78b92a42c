//! `parked`: many runners that wait for work, what they cost the daemon, and how fast it answers others meanwhile.

use std::time::{Duration, Instant};

use forge_api::{Page, Task};
use http::Method;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Bench;
use super::machine;
use super::report::{Aim, Measured, Unit};
use super::samples::Samples;
use super::simulated::Simulated;
use super::wire::{Body, Connection};
use super::world::{NOTHING, PROJECT, World, nothing_asked};
use crate::error::CliError;

/// How many runners wait.
const RUNNERS: [u32; 2] = [1_000, 10_000];

/// How many unrelated requests are timed.
const REQUESTS: u32 = 500;

/// How many tasks are given to the runners that wait.
const TASKS: u32 = 100;

/// How many tasks end before, so that a page of the listing is full.
const HISTORY_TASKS: u32 = 60;

/// Descriptors that this process needs beside the connections.
const DESCRIPTORS_RESERVED: u64 = 256;

/// The SHA-256 of nothing, which is what these attempts log.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What a daemon with 10,000 parked runners may hold, in MiB.
const DAEMON_MIB_MAX: f64 = 300.0;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Measured, CliError> {
    let counts = bench.runners.map_or_else(|| RUNNERS.to_vec(), |runners| vec![runners]);
    let mut measured = Measured::new(
        "parked",
        "simulated runners in a long poll, each with a connection of its own; the daemon's memory, GET /tasks meanwhile, and from a trigger to the job in a runner's hands",
    );
    for wanted in counts {
        let count = u64::from(wanted).min(bench.descriptors.saturating_sub(DESCRIPTORS_RESERVED));
        let count = u32::try_from(count).unwrap_or(wanted);
        if count < wanted {
            bench.printer.warning(&format!(
                "this process may have {} descriptors: {count} runners wait instead of {wanted}; raise `ulimit -Hn`",
                bench.descriptors
            ));
        }
        bench.progress(&format!("parked: {count} runners"));
        one(bench, &mut measured, count).await?;
    }
    Ok(measured)
}

async fn one(bench: &Bench<'_>, measured: &mut Measured, count: u32) -> Result<(), CliError> {
    let world = World::start().await?;
    super::claims::run(&world, "before", 1, HISTORY_TASKS).await?;
    let empty = machine::memory_of(world.daemon_pid())?;
    let runners = world.simulated("parked", count).await?;
    let (deliver, mut delivered) = mpsc::channel(1);
    let mut waiting = JoinSet::new();
    for runner in runners {
        waiting.spawn(wait(runner, deliver.clone()));
    }
    drop(deliver);
    world.wait_parked(u64::from(count)).await?;
    let full = machine::memory_of(world.daemon_pid())?;
    measured.value(format!("runners_{count}"), "runners that wait", f64::from(count), Unit::Count);
    measured.value(
        format!("daemon_rss_{count}"),
        format!("daemon, resident, {count} runners"),
        full.rss_mib(),
        Unit::Mebibytes,
    );
    measured.aim(Aim::AtMost(DAEMON_MIB_MAX));
    measured.value(
        format!("daemon_pss_{count}"),
        format!("daemon, its share (PSS), {count} runners"),
        full.pss_mib(),
        Unit::Mebibytes,
    );
    let each = full.rss_kib.saturating_sub(empty.rss_kib) as f64 / f64::from(count);
    measured.value(format!("kib_per_runner_{count}"), format!("each of {count} runners"), each, Unit::Kibibytes);
    let requests = unrelated(&world).await?;
    measured.percentiles(&format!("request_{count}"), &format!("GET /tasks, {count} runners"), &requests);
    let dispatches = dispatch(&world, bench.tasks.unwrap_or(TASKS), &mut delivered, &mut waiting).await?;
    measured.percentiles(&format!("dispatch_{count}"), &format!("trigger to job, {count} runners"), &dispatches);
    waiting.shutdown().await;
    Ok(())
}

/// Times a request that has nothing to do with runners.
pub(super) async fn unrelated(world: &World) -> Result<Samples, CliError> {
    let mut connection = Connection::new(&world.endpoint);
    let mut samples = Samples::default();
    connection.open().await?;
    for _ in 0..REQUESTS {
        let begin = Instant::now();
        let _page: Page<Task> = connection.json(Method::GET, "/tasks", world.access().reveal(), Body::Nothing).await?;
        samples.add(begin.elapsed());
    }
    Ok(samples)
}

/// Triggers tasks one after the other and times how long each takes into a runner's hands.
async fn dispatch(
    world: &World,
    tasks: u32,
    delivered: &mut mpsc::Receiver<Instant>,
    waiting: &mut JoinSet<Result<(), CliError>>,
) -> Result<Samples, CliError> {
    let mut samples = Samples::default();
    for _ in 0..tasks {
        let begin = Instant::now();
        world.client.create_task(PROJECT, NOTHING, &nothing_asked()).await?;
        let arrived = tokio::select! {
            arrived = delivered.recv() => arrived,
            Some(ended) = waiting.join_next() => {
                ended.map_err(CliError::failed)??;
                None
            }
        };
        let arrived = arrived.ok_or_else(|| CliError::failed("a runner stopped waiting"))?;
        samples.add(arrived.saturating_duration_since(begin).max(Duration::from_micros(1)));
    }
    Ok(samples)
}

/// Waits for work for as long as it is asked to, and ends at once what it gets.
async fn wait(mut runner: Simulated, delivered: mpsc::Sender<Instant>) -> Result<(), CliError> {
    loop {
        for held in runner.claim(1).await? {
            let arrived = Instant::now();
            runner.start(&held).await?;
            runner.finish(held, 0, EMPTY_SHA256).await?;
            if delivered.send(arrived).await.is_err() {
                return Ok(());
            }
        }
    }
}
