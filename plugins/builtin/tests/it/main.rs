//! The embedded components on the real host, with real processes.

mod ansible;
mod ansible_core;
mod ansible_galaxy;
mod papers;
mod powershell;
mod processes;
mod python;
mod shell;
mod terraform;
