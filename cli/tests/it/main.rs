//! Stories about the binary, one a file, in one test program: real processes, real TLS, real git, a real SQLite file.

mod alone;
mod ansible;
#[path = "../../../plugins/builtin/tests/it/ansible_core.rs"]
mod ansible_core;
mod arrows;
mod bench;
mod cancel;
mod chaos;
mod client;
mod config;
mod config_diff;
mod config_files;
mod crash;
mod daemon;
mod demo;
mod doctor;
mod fleet;
mod git;
mod git_keys;
mod gitops;
mod gitops_access;
mod gitops_guards;
mod harness;
mod living;
mod logs;
mod newcomer;
mod overrides;
mod readme;
mod register;
mod run_as;
mod secrets;
mod setup;
mod walk;
