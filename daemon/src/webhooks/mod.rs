//! Webhooks: what a target's plugin plans is sent from here, under the operator's grants. What remembers deliveries and tries them again
//! stands on this room, and not in it.
//!
//! | module | what it does |
//! |---|---|
//! | `deliver` | one try: plan, send, judge, and what follows |
//! | `prepare` | a planned request with its secrets and its signature: pure |
//! | `policy`, `address` | where a request may go, and what its head may say: pure |
//! | `secrets` | placeholders into secrets, and secrets out of answers |
//! | `sign`, `sigv4` | signatures: pure |
//! | `send` | one look-up, one exchange, one answer, all bounded |
//! | `pool` | connections, made and kept for a moment |
//! | `limits` | every number |
//!
//! A guest never sees a secret, and no request leaves for a host that `[allow].hosts` of the plugin does not name; what a name leads to
//! is looked at before the connection, and the connection goes there. `docs/decisions/0014-hosts-of-webhook-targets.md` says why.

mod address;
mod deliver;
mod limits;
mod policy;
mod pool;
mod prepare;
mod secrets;
mod send;
mod sign;
mod sigv4;
#[cfg(test)]
mod tests;

pub use deliver::{Calls, Exchange, Guest, PluginGuest, Report, Verdict, deliver};
pub(crate) use limits::{PLUGIN_CALLS_MAX, PLUGIN_CALLS_OF_TARGET_MAX};
pub use policy::Refusal;
pub use prepare::Context;
pub use secrets::TargetSecrets;
pub use send::{Resolver, SendError, SendLimits, Sender, SenderError, SenderOptions, SystemResolver};
