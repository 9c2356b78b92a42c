//! `idle`: what a daemon and a runner hold in memory while they have nothing to do.

use std::time::Duration;

use super::Bench;
use super::machine;
use super::report::{Aim, Measured, Unit};
use super::world::World;
use crate::error::CliError;

/// How long both may put down what they needed to start.
const SETTLE: Duration = Duration::from_secs(3);

/// What a daemon may hold, in MiB.
const DAEMON_MIB_MAX: f64 = 40.0;

/// What a runner may hold with every process of its own, in MiB.
const RUNNER_MIB_MAX: f64 = 20.0;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Measured, CliError> {
    let world = World::start().await?;
    let runner = world.runner("idle", 0, bench.printer).await?;
    world.wait_parked(1).await?;
    tokio::time::sleep(SETTLE).await;
    let mut measured = Measured::new("idle", "a daemon and a runner that wait for work, 3 s after their start");
    let daemon = machine::memory_of(world.daemon_pid())?;
    measured.value("daemon_rss", "daemon, resident", daemon.rss_mib(), Unit::Mebibytes);
    measured.aim(Aim::AtMost(DAEMON_MIB_MAX));
    measured.value("daemon_pss", "daemon, its share (PSS)", daemon.pss_mib(), Unit::Mebibytes);
    let own = machine::memory_of(runner.pid())?;
    measured.value("runner_rss", "runner, resident", own.rss_mib(), Unit::Mebibytes);
    measured.aim(Aim::AtMost(RUNNER_MIB_MAX));
    measured.value("runner_pss", "runner, its share (PSS)", own.pss_mib(), Unit::Mebibytes);
    let mut whole = own;
    for (number, (pid, name)) in machine::descendants(runner.pid()).into_iter().enumerate() {
        // One that has ended since is nothing that the runner holds.
        let Ok(memory) = machine::memory_of(pid) else { continue };
        let key = format!("runner_child_{}", number + 1);
        measured.value(key, format!("the runner's process `{name}`, PSS"), memory.pss_mib(), Unit::Mebibytes);
        whole = whole + memory;
    }
    measured.value("runner_all_pss", "runner with all its processes, PSS", whole.pss_mib(), Unit::Mebibytes);
    measured.aim(Aim::AtMost(RUNNER_MIB_MAX));
    Ok(measured)
}
