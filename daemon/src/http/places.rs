//! Places for bodies that are held in memory before anybody has proved anything: so many of all, and so many of one address, so that
//! who trickles what it sends keeps nobody else out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::network;

/// The places.
#[derive(Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    of_address_max: usize,
    /// Those of addresses that hold one or wait for one.
    of_addresses: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// One of them; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _of_address: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Places {
    /// So many, and of those so many for one address.
    pub(crate) fn new(all_max: usize, of_address_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all_max)), of_address_max, of_addresses: Mutex::default() }
    }

    /// Waits for a place; `None` when there was none in time.
    pub(crate) async fn take(&self, address: IpAddr, time: Duration) -> Option<Place> {
        let own = self.of_address(network(address));
        let taken = async {
            // Its own first: who waits for that keeps none of the others'.
            let of_address = own.acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Place { _of_address: of_address, _of_all: of_all })
        };
        tokio::time::timeout(time, taken).await.ok().flatten()
    }

    fn of_address(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut known = self.of_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(&address).and_then(Weak::upgrade) {
            return own;
        }
        known.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.of_address_max));
        known.insert(address, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is free is given at once.
    const TIME: Duration = Duration::ZERO;

    #[tokio::test]
    async fn one_address_leaves_the_others_theirs() {
        let places = Places::new(3, 2);
        let [greedy, other]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        let first = places.take(greedy, TIME).await.expect("there is room");
        let second = places.take(greedy, TIME).await.expect("there is room");
        assert!(places.take(greedy, TIME).await.is_none(), "it has all of its own");
        let others = places.take(other, TIME).await.expect("another has its own");
        assert!(places.take(other, TIME).await.is_none(), "there are no more");
        drop(first);
        let again = places.take(greedy, TIME).await;
        assert!(again.is_some(), "what is given back is free");
        drop((again, others, second));
        let third = "192.0.2.3".parse().expect("an address");
        assert!(places.take(third, TIME).await.is_some());
        assert_eq!(
            places.of_addresses.lock().expect("nobody panics with it").len(),
            1,
            "who holds nothing is forgotten"
        );
    }
}
