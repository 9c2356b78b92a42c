//! Connections to targets: made to addresses that were checked, and kept for a moment for the next request to the same place.
//!
//! Nothing is spawned: a connection moves while a request on it is waited for, and rests in between. Which one is used again is asked
//! after the look-up and the check of each request, so that a name which leads elsewhere by now is never answered by where it led before.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::limits::{IDLE_CONNECTIONS_MAX, IDLE_OF_PLACE_MAX, IDLE_TIME_MAX, NEXT_ADDRESS_WAIT};

/// Whom a connection leads to. That of one host is never used for another, whatever address they share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) is_tls: bool,
    pub(super) host: String,
    pub(super) address: SocketAddr,
}

/// What bytes go over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection, and the way to ask something over it.
pub(super) struct Connection {
    place: Place,
    requests: http1::SendRequest<Full<Bytes>>,
    driver: http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>,
    is_over: bool,
}

/// Why no connection stands.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The network, or the other's TLS.
    #[error("no connection stands")]
    Io(#[from] io::Error),
    /// The first bytes of HTTP.
    #[error("no exchange begins")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no connection stood within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
}

impl Connection {
    /// Connects to one of the addresses, the first of them that answers.
    pub(super) async fn open(
        host: &str,
        addresses: &[SocketAddr],
        tls: Option<&Arc<rustls::ClientConfig>>,
        time: Duration,
    ) -> Result<Self, ConnectError> {
        match tokio::time::timeout(time, Self::connect(host, addresses, tls)).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(ConnectError::TimedOut(time)),
        }
    }

    async fn connect(
        host: &str,
        addresses: &[SocketAddr],
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> Result<Self, ConnectError> {
        let stream = first_of(addresses).await?;
        stream.set_nodelay(true)?;
        let address = stream.peer_addr()?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                    Ok(address) => ServerName::IpAddress(address.into()),
                    Err(_name) => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
                };
                Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?)
            }
        };
        let (requests, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let place = Place { is_tls: tls.is_some(), host: host.to_owned(), address };
        Ok(Self { place, requests, driver, is_over: false })
    }

    /// Sends a request; answers with the head of what comes back.
    pub(super) async fn ask(
        &mut self,
        request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<hyper::body::Incoming>, hyper::Error> {
        let asked = self.requests.send_request(request);
        driven(&mut self.driver, &mut self.is_over, asked).await
    }

    /// Waits for something that comes over this connection.
    pub(super) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        driven(&mut self.driver, &mut self.is_over, work).await
    }

    /// Whether another request could go out at once: what is not so is not waited for, a new connection is quicker than a doubtful one.
    fn is_ready(&mut self) -> bool {
        let moved = poll_fn(|context| {
            // A connection that the other side has closed says so here.
            self.is_over = self.is_over || self.driver.poll_unpin(context).is_ready();
            Poll::Ready(())
        });
        moved.now_or_never();
        !self.is_over && self.requests.is_ready()
    }
}

/// Moves a connection on while something is waited for.
async fn driven<T>(
    driver: &mut http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>,
    is_over: &mut bool,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        // How it ended is told to whoever waits for an answer.
        if !*is_over && driver.poll_unpin(context).is_ready() {
            *is_over = true;
        }
        work.as_mut().poll(context)
    })
    .await
}

/// The first address that takes a connection: the next is tried when one refuses, or says nothing for a moment.
async fn first_of(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut left = addresses.iter();
    let mut under_way = FuturesUnordered::new();
    let mut refused = io::Error::other("there is no address");
    loop {
        if under_way.is_empty() {
            match left.next() {
                Some(address) => under_way.push(TcpStream::connect(address)),
                None => return Err(refused),
            }
        }
        tokio::select! {
            Some(connected) = under_way.next() => match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    refused = error;
                    under_way.extend(left.next().map(TcpStream::connect));
                }
            },
            () = tokio::time::sleep(NEXT_ADDRESS_WAIT), if !left.as_slice().is_empty() => {
                under_way.extend(left.next().map(TcpStream::connect));
            }
        }
    }
}

/// Connections that rest.
#[derive(Default)]
pub(super) struct Pool {
    resting: Mutex<HashMap<Place, Vec<(Instant, Connection)>>>,
}

impl Pool {
    /// A connection to one of the addresses, if one rests that still stands.
    pub(super) fn take(&self, is_tls: bool, host: &str, addresses: &[SocketAddr]) -> Option<Connection> {
        for &address in addresses {
            let place = Place { is_tls, host: host.to_owned(), address };
            loop {
                // The newest: it is the likeliest to stand. Whether it does is asked outside of the lock.
                let Some((since, mut connection)) = self.lock().get_mut(&place).and_then(Vec::pop) else { break };
                if since.elapsed() < IDLE_TIME_MAX && connection.is_ready() {
                    return Some(connection);
                }
            }
        }
        None
    }

    /// Takes a connection back whose answer was read to its end.
    pub(super) fn put(&self, mut connection: Connection) {
        if !connection.is_ready() {
            return;
        }
        let mut resting = self.lock();
        if resting.values().map(Vec::len).sum::<usize>() >= IDLE_CONNECTIONS_MAX {
            return;
        }
        let of_place = resting.entry(connection.place.clone()).or_default();
        if of_place.len() < IDLE_OF_PLACE_MAX {
            of_place.push((Instant::now(), connection));
        }
    }

    /// Closes what has rested for long; answers whether any is left.
    pub(super) fn sweep(&self) -> bool {
        let mut resting = self.lock();
        resting.retain(|_, of_place| {
            of_place.retain(|(since, _)| since.elapsed() < IDLE_TIME_MAX);
            !of_place.is_empty()
        });
        !resting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Vec<(Instant, Connection)>>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
