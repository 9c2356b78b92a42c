//! The embedded components on the real host, with real processes.

mod ansible;
mod ansible_core;
mod processes;
mod shell;
