//! The accept loop: from a socket to requests, with a bound on everything that a client can hold.
//!
//! Connections are owned by a tracker and end in order: at shutdown each answers what it has begun, and what is left after
//! ten seconds is cut. A failing accept (descriptors ran out, say) is tried again and never ends the loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::{Answerer, Peer};
use super::hosts::KnownHosts;
use super::limits;
use super::stall::StallGuard;
use super::surface::Insistence;

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a listener speaks.
#[derive(Clone)]
pub(crate) enum Speech {
    /// HTTP over TLS.
    Tls(TlsAcceptor),
    /// HTTP in clear: behind a proxy, or for metrics on loopback.
    Plain,
}

/// A bound listener and what is served on it.
pub(crate) struct Server {
    /// The socket.
    pub(crate) listener: TcpListener,
    /// What it speaks.
    pub(crate) speech: Speech,
    /// What answers.
    pub(crate) answerer: Arc<Answerer>,
    /// How many connections at a time.
    pub(crate) connections_max: u64,
}

/// A listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (`{key}`): {cause}")]
pub struct BindError {
    key: &'static str,
    address: SocketAddr,
    cause: String,
    hint: String,
}

impl BindError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        self.hint.clone()
    }
}

/// Binds `address`; `key` is where it stands in forge.toml.
pub(crate) fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|error| {
        let (cause, hint) = match error.kind() {
            io::ErrorKind::AddrInUse => (
                "another process listens there already".to_owned(),
                format!(
                    "find it with `ss -ltnp 'sport = :{}'` and stop it, or set `{key}` in forge.toml to another port (0 takes any)",
                    address.port()
                ),
            ),
            io::ErrorKind::AddrNotAvailable => (
                "no interface of this machine has that address".to_owned(),
                format!("set `{key}` in forge.toml to an address of this machine, or to 0.0.0.0"),
            ),
            io::ErrorKind::PermissionDenied => (
                "ports below 1024 need a right that this user does not have".to_owned(),
                format!("set `{key}` in forge.toml to a port above 1023, or grant CAP_NET_BIND_SERVICE"),
            ),
            _ => (error.to_string(), format!("correct `{key}` in forge.toml")),
        };
        BindError { key, address, cause, hint }
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // std sets SO_REUSEADDR, so that a restart is not refused while old connections linger.
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl Server {
    /// Serves until `shutdown`, then until every connection has ended or the drain is over.
    pub(crate) async fn serve(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let cut = CancellationToken::new();
        let slots = Arc::new(Semaphore::new(usize::try_from(self.connections_max).unwrap_or(Semaphore::MAX_PERMITS)));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            match accepted {
                Ok((stream, remote, slot)) => {
                    let connection = Connection {
                        speech: self.speech.clone(),
                        answerer: Arc::clone(&self.answerer),
                        shutdown: shutdown.clone(),
                        remote,
                    };
                    let cut = cut.clone();
                    connections.spawn(async move {
                        tokio::select! {
                            () = cut.cancelled() => {}
                            () = connection.serve(stream) => {}
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(limits::ACCEPT_RETRY).await;
                }
            }
        }
        // Nobody new: the port is free for the next daemon while this one drains.
        drop(self.listener);
        connections.close();
        if tokio::time::timeout(limits::DRAIN_MAX, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "the drain is over: what still runs is cut");
            cut.cancel();
            connections.wait().await;
        }
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // The slot comes first: a connection that has none waits in the kernel's queue and costs no descriptor.
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, remote) = listener.accept().await?;
    Ok((stream, remote, slot))
}

struct Connection {
    speech: Speech,
    answerer: Arc<Answerer>,
    shutdown: CancellationToken,
    remote: SocketAddr,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let (Ok(local), Ok(())) = (stream.local_addr(), stream.set_nodelay(true)) else { return };
        let peer = Peer { remote: self.remote, local };
        match self.speech.clone() {
            Speech::Plain => self.requests(StallGuard::new(stream, limits::WRITE_STALL_MAX), peer).await,
            Speech::Tls(acceptor) => {
                let handshake = tokio::time::timeout(limits::HANDSHAKE_MAX, shake_hands(&acceptor, stream));
                let shaken = tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    shaken = handshake => shaken,
                };
                match shaken {
                    Ok(Ok(Some(stream))) => self.requests(stream, peer).await,
                    Ok(Ok(None)) => {}
                    Ok(Err(error)) => tracing::debug!(remote = %self.remote, %error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!(remote = %self.remote, "a TLS handshake took too long"),
                }
            }
        }
    }

    async fn requests(self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
        let answerer = Arc::clone(&self.answerer);
        let service = hyper::service::service_fn(move |request| {
            let answerer = Arc::clone(&answerer);
            async move { Ok::<_, std::convert::Infallible>(answerer.answer(request, peer).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::HEADER_READ_MAX)
            .max_header_size(limits::HEADER_BYTES_MAX)
            .max_buf_size(limits::CONNECTION_BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(remote = %self.remote, %error, "a connection ended badly");
        }
    }
}

/// The stream after its handshake; `None` when the client speaks plain HTTP, and was told so.
async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<Option<tokio_rustls::server::TlsStream<StallGuard>>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first[0] != TLS_HANDSHAKE {
        return refuse_plain(stream).await.map(|()| None);
    }
    acceptor.accept(StallGuard::new(stream, limits::WRITE_STALL_MAX)).await.map(Some)
}

/// Answers a plain-HTTP request in its own language. Its headers are read first: an answer to unread bytes is reset on its way.
async fn refuse_plain(mut stream: TcpStream) -> io::Result<()> {
    let mut request = Vec::with_capacity(1024);
    let read = async {
        let mut part = [0; 1024];
        while request.len() < limits::PLAIN_REQUEST_BYTES_MAX && !request.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut part).await? {
                0 => break,
                length => request.extend_from_slice(&part[..length]),
            }
        }
        io::Result::Ok(())
    };
    if let Ok(failed @ Err(_)) = tokio::time::timeout(limits::PLAIN_REQUEST_MAX, read).await {
        return failed;
    }
    let body = concat!(
        r#"{"type":"/problems/plain-http","title":"Plain HTTP","status":400,"#,
        r#""detail":"this port speaks HTTPS and got plain HTTP","hint":"use https:// in the URL"}"#
    );
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        forge_api::PROBLEM_MEDIA_TYPE,
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await?;
    // Until the client has closed, or a moment later: closing on unread bytes would reset the answer.
    let mut rest = [0; 1024];
    let drained = async { while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {} };
    let _ = tokio::time::timeout(Duration::from_millis(200), drained).await;
    Ok(())
}

/// How many connections the descriptors allow.
pub(crate) fn connections_max(descriptors: u64) -> u64 {
    let reserved = limits::DESCRIPTORS_RESERVED_MIN.max(descriptors / limits::DESCRIPTORS_PER_RESERVED);
    descriptors.saturating_sub(reserved).clamp(16, limits::CONNECTIONS_MAX)
}

/// What answers on a listener.
pub(crate) fn answerer(router: Router, hosts: KnownHosts, insistence: Insistence) -> Arc<Answerer> {
    Arc::new(Answerer::new(router, hosts, insistence))
}
