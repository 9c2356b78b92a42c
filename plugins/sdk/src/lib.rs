//! What the author of a Forge plugin imports.
//!
//! An executor is a type that implements [`Executor`] and one line, [`export!`]. It reaches the outside through a
//! [`Host`] that it is given, so its tests run on any machine against [`fake::FakeHost`], and the same code runs in the
//! sandbox against the real one. A guest has no clock, no randomness, no network and no environment: what is not in
//! [`Host`] is not there.
//!
//! ```
//! use forge_plugin::{Command, Done, Executor, Failure, Host, Info, Job, Outcome};
//!
//! struct Greeter;
//!
//! impl Executor for Greeter {
//!     fn describe() -> Info {
//!         Info::new("greeter", "0.1.0", "Greets").wants_programs(&["echo"])
//!     }
//!
//!     fn execute(job: Job, host: &mut dyn Host) -> Result<Done, Failure> {
//!         let finished = host.run(Command::new("echo").arg(format!("hello, {}", job.project)))?;
//!         finished.exit.success()?;
//!         Ok(Done::Finished(Outcome::new("greeted")))
//!     }
//! }
//!
//! forge_plugin::export!(Greeter);
//!
//! let mut host = forge_plugin::fake::FakeHost::new();
//! let done = Greeter::execute(Job::default(), &mut host);
//! assert_eq!(done, Ok(Done::Finished(Outcome::new("greeted"))));
//! assert_eq!(host.commands[0].program, "echo");
//! ```
//!
//! A webhook target implements [`WebhookTarget`], and its line ends in `as WebhookTarget`; see [`webhook`] for the words of it.

#[doc(hidden)]
pub mod bindings;
#[cfg(not(target_arch = "wasm32"))]
mod checks;
#[cfg(not(target_arch = "wasm32"))]
pub mod fake;
mod guest;
mod host;
mod schema;
mod values;
pub mod webhook;

pub use bindings::exports::forge::plugin::executor::{Done, Pending};
pub use bindings::forge::plugin::process::{Command, Event, Exit, Finished};
pub use bindings::forge::plugin::types::{
    Capability, Failed, Failure, HostError, Job, Level, Outcome, Pair, PluginInfo as Info, Retry,
};
pub use bindings::forge::plugin::workspace::Entry;
pub use guest::log;
#[doc(hidden)]
pub use guest::{Exported, ExportedTarget};
pub use host::{Child, Host};
pub use schemars::{self, JsonSchema};
pub use webhook::WebhookTarget;

/// What an executor plugin does.
pub trait Executor {
    /// Says what the plugin is. It is asked before anything is granted, and says the same each time.
    fn describe() -> Info;

    /// Does the job: turns it into processes and says how they went.
    ///
    /// # Errors
    /// The params make no sense, the work failed, it is worth another try, or it was canceled.
    fn execute(job: Job, host: &mut dyn Host) -> Result<Done, Failure>;
}

/// Makes a type the plugin that this crate is, once in a crate of type `cdylib`.
///
/// `export!(Shell)` exports an [`Executor`], `export!(Notify as WebhookTarget)` a [`WebhookTarget`]. On another target than WebAssembly
/// it does nothing, so that tests run natively.
#[macro_export]
macro_rules! export {
    ($target:ty as WebhookTarget) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Guest = $crate::ExportedTarget<$target>;
    $crate::bindings::webhook::__export_webhook_plugin!(Guest with_types_in $crate::bindings::webhook);
        };
    };
    ($executor:ty as Executor) => {
        $crate::export!($executor);
    };
    ($executor:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Guest = $crate::Exported<$executor>;
    $crate::bindings::__export_executor_plugin!(Guest with_types_in $crate::bindings);
        };
    };
}
