//! What is held ready and under way of each target: pure. Each has places of its own, and who has the fewest under way begins next, so
//! that those that hang keep nobody waiting.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::webhooks::PLUGIN_CALLS_OF_TARGET_MAX;

/// Tries of one target at a time.
const TRIES_OF_TARGET_MAX: usize = 16;

/// Tries that each target may have under way whatever the others take.
const TRIES_OF_TARGET_MIN: usize = 4;

/// Tries of all targets at a time, but for the first of each.
const TRIES_MAX: usize = 1_024;

/// Deliveries of one target that are held ready and under way at a time.
pub(super) const HELD_OF_TARGET_MAX: usize = 256;

/// While so many of a target are ready it is not looked whether more are due.
const READY_OF_TARGET_MIN: usize = 32;

/// What is held of one target.
struct Queue {
    ready: VecDeque<i64>,
    /// Those of `ready` and those under way.
    taken: HashSet<i64>,
    under_way: usize,
    /// Whether more may be due than is held.
    has_more: bool,
    /// Places for its plugin's calls.
    calls: Arc<Semaphore>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            taken: HashSet::new(),
            under_way: 0,
            has_more: false,
            calls: Arc::new(Semaphore::new(PLUGIN_CALLS_OF_TARGET_MAX as usize)),
        }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Queues {
    of_targets: HashMap<String, Queue>,
    under_way: usize,
}

/// A delivery whose try begins.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub(super) target: String,
    pub(super) number: i64,
    pub(super) calls: Arc<Semaphore>,
}

impl Queues {
    /// Targets of which enough is ready: what is due for them is not looked for.
    pub(super) fn supplied(&mut self) -> HashSet<String> {
        self.of_targets.retain(|_, queue| !queue.taken.is_empty());
        let supplied = self.of_targets.iter_mut().filter(|(_, queue)| queue.ready.len() >= READY_OF_TARGET_MIN);
        supplied
            .map(|(target, queue)| {
                queue.has_more = true;
                target.clone()
            })
            .collect()
    }

    /// Takes what was found due for a target, the oldest first; `has_more` says whether there was more of it.
    pub(super) fn take(&mut self, target: String, found: Vec<i64>, has_more: bool) {
        let queue = self.of_targets.entry(target).or_default();
        queue.has_more = has_more;
        for number in found {
            queue.take(number);
        }
    }

    /// The next delivery to be tried, if there is a place for it: of the target that has the fewest under way.
    pub(super) fn begin(&mut self) -> Option<Begun> {
        let is_full = self.under_way >= TRIES_MAX;
        let most = if is_full { TRIES_OF_TARGET_MIN } else { TRIES_OF_TARGET_MAX };
        let startable = self.of_targets.iter_mut().filter(|(_, queue)| queue.under_way < most);
        let (target, queue) =
            startable.filter(|(_, queue)| !queue.ready.is_empty()).min_by_key(|(_, queue)| queue.under_way)?;
        let number = queue.ready.pop_front()?;
        queue.under_way += 1;
        self.under_way += 1;
        Some(Begun { target: target.clone(), number, calls: Arc::clone(&queue.calls) })
    }

    /// Gives a place back, and takes the delivery that had to wait for the one that ended; answers whether more is to be looked for.
    pub(super) fn end(&mut self, target: &str, number: i64, follower: Option<i64>) -> bool {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(queue) = self.of_targets.get_mut(target) else { return true };
        queue.under_way = queue.under_way.saturating_sub(1);
        queue.taken.remove(&number);
        if let Some(follower) = follower {
            queue.take(follower);
        }
        queue.has_more && queue.ready.len() < READY_OF_TARGET_MIN
    }
}

impl Queue {
    fn take(&mut self, number: i64) {
        if self.taken.len() >= HELD_OF_TARGET_MAX {
            self.has_more = true;
        } else if self.taken.insert(number) {
            self.ready.push_back(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(queues: &mut Queues) -> Vec<(String, i64)> {
        std::iter::from_fn(|| queues.begin()).map(|begun| (begun.target, begun.number)).collect()
    }

    fn of<'a>(begun: &'a [(String, i64)], target: &'a str) -> Vec<i64> {
        begun.iter().filter(|(of, _)| of == target).map(|(_, number)| *number).collect()
    }

    #[test]
    fn targets_that_hang_leave_the_others_their_places() {
        let mut queues = Queues::default();
        for target in 0..100 {
            queues.take(format!("hangs-{target}"), (0..50).collect(), false);
        }
        let hanging = begun(&mut queues);
        assert_eq!(hanging.len(), TRIES_MAX);
        for target in 0..100 {
            let of_one = of(&hanging, &format!("hangs-{target}")).len();
            assert!((10..=11).contains(&of_one), "each has as many as the others: {of_one}");
        }
        queues.take("good".to_owned(), (0..50).collect(), false);
        let good = begun(&mut queues);
        assert_eq!(of(&good, "good"), [0, 1, 2, 3], "and one that comes late has its own");
        assert!(!queues.end("good", 0, None));
        assert_eq!(of(&begun(&mut queues), "good"), [4]);
    }

    #[test]
    fn one_target_has_so_many_places_and_takes_its_deliveries_in_turn() {
        let mut queues = Queues::default();
        queues.take("a".to_owned(), (0..20).collect(), false);
        assert_eq!(of(&begun(&mut queues), "a"), (0..16).collect::<Vec<_>>());
        queues.take("a".to_owned(), (0..21).collect(), false);
        assert!(!queues.end("a", 3, Some(77)), "what is due next was found already");
        queues.end("a", 4, None);
        assert_eq!(of(&begun(&mut queues), "a"), [16, 17], "what is taken is not taken twice");
        for number in (5..16).chain(0..3) {
            queues.end("a", number, None);
        }
        assert_eq!(of(&begun(&mut queues), "a"), [18, 19, 20, 77], "and what was waited for comes behind");
    }

    #[test]
    fn what_is_due_is_looked_for_when_little_is_left_and_there_is_more() {
        let mut queues = Queues::default();
        let most = i64::try_from(HELD_OF_TARGET_MAX).expect("small");
        queues.take("a".to_owned(), (0..most).collect(), true);
        assert_eq!(queues.supplied(), HashSet::from(["a".to_owned()]));
        let (mut looked, mut ended) = (0, 0);
        while let Some(begun) = queues.begin() {
            ended += 1;
            looked += u32::from(queues.end("a", begun.number, None));
        }
        assert_eq!((ended, looked), (most, u32::try_from(READY_OF_TARGET_MIN).expect("small")));
        assert!(queues.supplied().is_empty());
        queues.take("a".to_owned(), vec![most], false);
        let last = queues.begin().expect("it is ready");
        assert!(!queues.end("a", last.number, None), "there was no more");
    }
}
