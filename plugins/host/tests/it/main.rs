//! The host against guests that misbehave, files that were changed, and paths that leave.

mod cache;
mod capabilities;
mod guests;
mod hostile;
mod load;
