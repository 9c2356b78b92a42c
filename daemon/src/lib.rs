//! The daemon: it decides, remembers and answers. It runs no job, and never meets a terminal.
//!
//! | module | what it does |
//! |---|---|
//! | [`core`] | the face of scheduler, store and logs; every route ends there |
//! | `scheduler` | task states, assignment, deadlines |
//! | [`store`] | SQLite behind one writer |
//! | [`logs`] | one append-only file an attempt |
//! | `carries` | what a plan hands to the attempt that does it |
//! | [`secrets`] | tokens, keys, what a job may see |
//! | `gitops` | from a watched folder or a repository to the revision that serves |
//! | `plugins`, `examine` | what plugins say of themselves |
//! | `components` | plugins as runners fetch them, and when they go |
//! | `http` | the public API and the metrics listener |
//! | `web` | the pages of the dashboard |
//! | `local` | the operator socket |
//! | `tls` | the certificate that is shown |
//! | `backup` | what is remembered, in one file and back |
//! | `settings`, `files`, `addresses` | the machine underneath |
//! | `histogram` | counting for metrics |
//! | [`webhooks`] | sending what webhook targets plan |
//! | `dispatch` | which deliveries are due, and what became of them |
//! | [`clock`] | the only reader of time |
//!
//! The order of a start is: data folder, first revision, core (which locks the data folder and reconciles), certificate,
//! listeners, then `addresses.json`. Nothing is served before all of it stands; an end is the same backwards.

mod addresses;
mod backup;
mod carries;
mod check;
pub mod clock;
mod components;
pub mod core;
mod daemon;
mod dispatch;
mod examine;
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
mod web;
pub mod webhooks;

pub use self::core::revoke_token_on_host;
pub use self::http::serve::BindError;
pub use self::http::table::{Needs, RouteFacts, Scope, routes};
pub use addresses::{ADDRESSES_FILE, Addresses};
pub use backup::{BackupError, BackupReport, backup, restore};
pub use check::{CheckReport, check_folder};
pub use daemon::{Daemon, Liveness, Reloader, StartError, StopError, start};
pub use examine::{ExaminedPlugin, PluginExaminer, PluginWords};
pub use files::FileError;
pub use local::{LOCAL_SOCKET, LocalError};
pub use secrets::{KeysError, NoRandomness, RotatedKey, TokenKind, new_token, rotate_signing_key};
pub use settings::SettingsError;
pub use store::seed_history;
pub use tls::TlsError;
