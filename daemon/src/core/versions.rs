//! Which runners are too old for this daemon, and how one is told.

use forge_api::Version;

use super::CoreError;

/// This daemon's version.
pub const DAEMON_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The oldest runner that is given jobs. It is raised when a job says something that older runners would pass over and must not.
pub const RUNNER_VERSION_MIN: Version = Version::new(0, 1, 0);

/// Refuses a runner that is too old. What it holds already goes on: heartbeats, logs and results are not asked for a version.
pub(super) fn check(runner: &str, said: &str) -> Result<(), CoreError> {
    if Version::is_older(said, RUNNER_VERSION_MIN) {
        return Err(CoreError::RunnerTooOld { runner: runner.to_owned(), version: said.to_owned() });
    }
    Ok(())
}
