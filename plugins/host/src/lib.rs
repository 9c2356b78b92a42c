//! Loads Forge's WASM plugins and enforces what they may do.
//!
//! A guest gets what `plugins/wit` names and nothing else: no WASI, no clock, no randomness, no network, no environment.
//! Programs are granted by name, files lie inside the attempt's workspace, memory and computing time are bounded, and a
//! guest that breaks a bound ends its own call and nothing else. This crate depends on none of ours: the runner brings
//! processes and the log as [`Services`], the daemon the log of webhook targets as [`TargetServices`]. It never starts a process, and never runs compiled code that it did not make.
//!
//! | module | what it does |
//! |---|---|
//! | `engine` | [`Host`]: the engine, and the thread that ticks while guests compute |
//! | `load` | [`Plugin`]: digest, imports checked, compiled once |
//! | `refusal` | why bytes are no plugin, in words: pure |
//! | `cache` | compiled code on disk |
//! | `acting` | touching files as another user |
//! | `call` | one call of a guest, and how it may end |
//! | `state`, `meter`, `memory` | what a call holds, and what it has used up |
//! | `target` | the calls of a webhook target |
//! | `request` | what a target plans, in bounds: pure |
//! | `grants` | what a command may be: pure |
//! | `log`, `workspace`, `process` | the capabilities, one a file |

mod acting;
mod bindings;
mod cache;
mod call;
mod convert;
mod engine;
mod grants;
mod limits;
mod load;
mod log;
mod memory;
mod meter;
mod process;
mod refusal;
mod request;
mod state;
mod target;
mod trap;
mod types;
mod workspace;

pub use cache::KEPT_AT_LEAST;
pub use call::{CallError, ExecuteError};
pub use engine::{Host, HostError, HostOptions, Memory, Ticks};
pub use limits::{Limits, TICK_MS};
pub use load::Plugin;
pub use refusal::{LoadError, looks_like};
pub use request::{
    AwsCredentials, Disposition, HmacHeader, HttpRequest, HttpResponse, Method, Sent, Signing, WebhookEvent,
};
pub use target::{TargetCall, TargetError, TargetServices};
pub use trap::{Trap, TrapCause};
pub use types::{
    Capability, CapabilityError, ChildProcess, Command, Done, Event, ExecuteRequest, Exit, FileUser, Finished, Grants,
    Job, Kind, Level, Outcome, PluginInfo, Services,
};
pub use workspace::{WholeFile, Workspace};
