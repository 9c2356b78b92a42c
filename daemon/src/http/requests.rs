//! How long the API takes to answer, by route, and how its answers end: for metrics.
//!
//! A route is named as the table of routes writes it, so that no name of a project or a task stands in a metric. What is measured ends with the
//! answer's head: a log that is followed is not slow.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::histogram::{self, Counted, Histogram};

/// What a request that met no route is counted under.
const NO_ROUTE: &str = "other";

/// Answers are told apart by the first digit of their status.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What was asked, as far as metrics tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    /// By method and route: as many as the table of routes has.
    times: Mutex<BTreeMap<(String, String), Arc<Histogram>>>,
    answers: [AtomicU64; CLASSES.len()],
}

impl Requests {
    fn of(&self, method: &http::Method, route: &str) -> Arc<Histogram> {
        // A method of a stranger's own making must not become a label of its own.
        let method = if matches!(method.as_str(), "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD") {
            method.as_str()
        } else {
            NO_ROUTE
        };
        let mut times = self.0.times.lock().unwrap_or_else(PoisonError::into_inner);
        let found = times.entry((method.to_owned(), route.to_owned()));
        Arc::clone(found.or_insert_with(|| Arc::new(Histogram::new(histogram::MICROS))))
    }

    /// How long each route took: method, route, microseconds.
    pub(crate) fn times(&self) -> Vec<(String, String, Counted)> {
        let times = self.0.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.iter().map(|((method, route), times)| (method.clone(), route.clone(), times.counted())).collect()
    }

    /// How many answers there were of each class.
    pub(crate) fn answers(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        CLASSES.into_iter().zip(self.0.answers.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// Goes around every route of the API.
pub(super) async fn measure(State(requests): State<Requests>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str);
    let times = requests.of(request.method(), route);
    let began = Instant::now();
    let response = next.run(request).await;
    times.time(began.elapsed());
    let class = usize::from(response.status().as_u16() / 100).saturating_sub(1);
    if let Some(count) = requests.0.answers.get(class) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    response
}
