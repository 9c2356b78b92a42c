//! The daemon: it decides, remembers and answers. It runs no job, and never meets a terminal.
//!
//! | module | what it does |
//! |---|---|
//! | [`core`] | the face of scheduler, store and logs; every route ends there |
//! | `scheduler` | task states, assignment, deadlines |
//! | [`store`] | SQLite behind one writer |
//! | [`logs`] | one append-only file an attempt |
//! | [`secrets`] | tokens, keys, what a job may see |
//! | `gitops` | from a watched folder or a repository to the revision that serves |
//! | `plugins` | what plugins say of themselves |
//! | `http` | the public API and the metrics listener |
//! | `local` | the operator socket |
//! | `tls` | the certificate that is shown |
//! | `backup` | what is remembered, in one file and back |
//! | `settings`, `files`, `addresses` | the machine underneath |
//! | `histogram` | counting for metrics |
//! | [`clock`] | the only reader of time |
//!
//! The order of a start is: data folder, first revision, core (which locks the data folder and reconciles), certificate,
//! listeners, then `addresses.json`. Nothing is served before all of it stands; an end is the same backwards.

mod addresses;
mod backup;
mod check;
pub mod clock;
pub mod core;
mod daemon;
mod files;
mod gitops;
mod hex;
mod histogram;
mod http;
mod local;
pub mod logs;
mod plugins;
mod scheduler;
pub mod secrets;
mod settings;
pub mod store;
mod tls;

pub use self::core::revoke_token_on_host;
pub use self::http::serve::BindError;
pub use addresses::{ADDRESSES_FILE, Addresses};
pub use backup::{BackupError, BackupReport, backup, restore};
pub use check::{CheckReport, check_folder};
pub use daemon::{Daemon, Liveness, Reloader, StartError, StopError, start};
pub use files::FileError;
pub use local::{LOCAL_SOCKET, LocalError};
pub use secrets::{NoRandomness, TokenKind, new_token};
pub use settings::SettingsError;
pub use store::seed_history;
pub use tls::TlsError;
