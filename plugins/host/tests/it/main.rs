//! The host against guests that misbehave, files that were changed, and paths that leave.

mod cache;
mod cache_processes;
mod capabilities;
mod guests;
mod hostile;
mod kept;
mod load;
mod mutations;
mod packed;
mod pool;
mod targets;
