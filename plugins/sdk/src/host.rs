//! What a plugin reaches, as traits: the sandbox and the fake host of its tests are the same to it.

use crate::{Command, Entry, Event, Finished, HostError, Level};

/// The outside, as far as a plugin sees it.
pub trait Host {
    /// Writes a line to the task's log.
    fn log(&mut self, level: Level, message: &str, fields: &[(&str, &str)]);

    /// Says how far the work is.
    fn progress(&mut self, current: u64, total: Option<u64>, message: Option<&str>);

    /// How long the call has taken so far.
    fn elapsed_ms(&self) -> u64;

    /// Whether the task is to end. A plugin that goes on computing is stopped soon after.
    fn canceled(&self) -> bool;

    /// Reads at most `max_bytes` of a workspace file, from `offset`; the host may answer with less. Empty at the end.
    ///
    /// # Errors
    /// The file is not there, is not a regular file, or lies outside of the workspace.
    fn read(&mut self, path: &str, offset: u64, max_bytes: u32) -> Result<Vec<u8>, HostError>;

    /// Replaces a workspace file; its folders are made.
    ///
    /// # Errors
    /// The path lies outside of the workspace, or the system refuses.
    fn write(&mut self, path: &str, data: &[u8]) -> Result<(), HostError>;

    /// Appends to a workspace file; it and its folders are made.
    ///
    /// # Errors
    /// As for [`Host::write`].
    fn append(&mut self, path: &str, data: &[u8]) -> Result<(), HostError>;

    /// What a workspace folder holds, sorted by name; `.` is the workspace.
    ///
    /// # Errors
    /// The folder is not there, or lies outside of the workspace.
    fn list(&mut self, path: &str) -> Result<Vec<Entry>, HostError>;

    /// Removes a workspace file or an empty folder.
    ///
    /// # Errors
    /// It is not there, is not empty, or lies outside of the workspace.
    fn remove(&mut self, path: &str) -> Result<(), HostError>;

    /// Runs a process to its end; its output goes straight to the task's log.
    ///
    /// # Errors
    /// The program is not granted or not there, or the task was canceled.
    fn run(&mut self, command: Command) -> Result<Finished, HostError>;

    /// Starts a process whose output the plugin reads. Dropping the child ends its whole process tree.
    ///
    /// # Errors
    /// As for [`Host::run`].
    fn spawn(&mut self, command: Command) -> Result<Box<dyn Child>, HostError>;
}

/// A running process.
pub trait Child {
    /// Waits for what comes next; [`Event::Exited`] is the last.
    ///
    /// # Errors
    /// The task was canceled, or the system refuses.
    fn next(&mut self) -> Result<Event, HostError>;

    /// Ends the whole process tree.
    fn kill(&mut self);
}
