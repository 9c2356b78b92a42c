//! How many streams each token has open at a time: each holds a connection for as long as its client likes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use forge_config::Digest;

/// How many streams of one kind each token has open.
#[derive(Debug)]
pub(crate) struct Streams {
    open: Arc<Mutex<HashMap<Digest, u32>>>,
    per_token_max: u32,
}

/// One open stream; gives its place back.
#[derive(Debug)]
pub(crate) struct Place {
    open: Arc<Mutex<HashMap<Digest, u32>>>,
    token: Digest,
}

impl Streams {
    /// None is open.
    pub(crate) fn new(per_token_max: u32) -> Self {
        Self { open: Arc::default(), per_token_max }
    }

    /// A place for one more stream of a token; `None` when it has too many.
    pub(crate) fn open(&self, token: Digest) -> Option<Place> {
        let mut streams = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = streams.entry(token).or_default();
        if *open >= self.per_token_max {
            return None;
        }
        *open += 1;
        Some(Place { open: Arc::clone(&self.open), token })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let left = streams.get(&self.token).map_or(0, |open| open.saturating_sub(1));
        if left == 0 {
            streams.remove(&self.token);
        } else {
            streams.insert(self.token, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_so_many_streams_and_gets_their_places_back() {
        let streams = Streams::new(3);
        let token = Digest([1; 32]);
        let mut open: Vec<Place> = (0..3).map(|_| streams.open(token).expect("a place")).collect();
        assert!(streams.open(token).is_none());
        assert!(streams.open(Digest([2; 32])).is_some(), "another token has places of its own");
        open.pop();
        assert!(streams.open(token).is_some());
        drop(open);
        assert!(streams.open.lock().expect("a lock").is_empty());
    }
}
