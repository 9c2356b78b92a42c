//! One request, from its first check to its line in the log: what every route has around it.
//!
//! The order: the Host check, the routes, and behind both a net for panics, which answers 500 with an id that is also in the log. What a
//! browser shows is dressed last, whatever it is.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::body::Incoming;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use super::hosts::KnownHosts;
use super::problem::Refusal;
use super::surface::{self, Insistence};

/// The two ends of the connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// The client's.
    pub(crate) remote: SocketAddr,
    /// Ours.
    pub(crate) local: SocketAddr,
}

/// Answers requests.
pub(crate) struct Answerer {
    router: Router,
    hosts: KnownHosts,
    insistence: Insistence,
    /// Tells this process's requests from those of the one before it in the log.
    process: u32,
    requests: AtomicU64,
}

impl Answerer {
    /// Answers with `router` what is addressed to one of `hosts`.
    pub(crate) fn new(router: Router, hosts: KnownHosts, insistence: Insistence) -> Self {
        Self { router, hosts, insistence, process: std::process::id(), requests: AtomicU64::new(0) }
    }

    /// Answers one request; it never fails.
    pub(crate) async fn answer(&self, request: hyper::Request<Incoming>, peer: Peer) -> Response {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:x}-{number:x}", self.process);
        // The path and never the query or a header: neither holds a secret today, and neither has to be trusted not to.
        let span = tracing::debug_span!("request", id, method = %request.method(), path = request.uri().path());
        self.answer_in_span(request, peer, &id).instrument(span).await
    }

    async fn answer_in_span(&self, request: hyper::Request<Incoming>, peer: Peer, id: &str) -> Response {
        let (mut parts, body) = request.into_parts();
        let stranger = surface::of_stranger(parts.uri.path(), &parts.headers);
        let response = match self.hosts.check(&parts, peer.local) {
            Err(refusal) => refusal.into_response(),
            Ok(()) => {
                parts.extensions.insert(peer);
                let request = http::Request::from_parts(parts, Body::new(body));
                match AssertUnwindSafe(self.router.clone().oneshot(request)).catch_unwind().await {
                    Ok(Ok(response)) => response,
                    Ok(Err(never)) => match never {},
                    Err(_panic) => {
                        tracing::error!(
                            id,
                            "a request panicked: this is a bug in Forge; the panic's own message is above"
                        );
                        Refusal::new(
                            500,
                            "internal",
                            "Internal error",
                            format!("the daemon failed to do this (id {id})"),
                        )
                        .hint("the daemon's log has the cause under that id")
                        .into_response()
                    }
                }
            }
        };
        let mut response = surface::dress(response, stranger, self.insistence);
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        tracing::debug!(remote = %peer.remote, status = response.status().as_u16(), "answered");
        response
    }
}
