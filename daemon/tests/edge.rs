//! The daemon from outside: what strangers, operators and editors of the tree see of it. Real TLS, real files, real sockets.

#[path = "edge/by_hand.rs"]
mod by_hand;
#[path = "edge/harness.rs"]
mod harness;

#[path = "edge/access.rs"]
mod access;
#[path = "edge/audit.rs"]
mod audit;
#[path = "edge/contract.rs"]
mod contract;
#[path = "edge/events.rs"]
mod events;
#[path = "edge/hooks.rs"]
mod hooks;
#[path = "edge/hostile.rs"]
mod hostile;
#[path = "edge/insight.rs"]
mod insight;
#[path = "edge/integrations.rs"]
mod integrations;
#[path = "edge/life.rs"]
mod life;
#[path = "edge/listing.rs"]
mod listing;
#[path = "edge/registration.rs"]
mod registration;
#[path = "edge/sessions.rs"]
mod sessions;
#[path = "edge/standing.rs"]
mod standing;
#[path = "edge/tree.rs"]
mod tree;
#[path = "edge/walk.rs"]
mod walk;
#[path = "edge/watch.rs"]
mod watch;
