//! A proxy between runners and a daemon that does to connections what networks do: it delays, cuts, truncates, swallows and
//! repeats. What it does follows from its seed and from the order in which connections come.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Random;

/// A fault comes after at most so many bytes of one direction.
const FAULT_BYTES_MAX: u64 = 48 * 1024;

/// How long a swallowed connection stays open without a word.
const SILENCE: Duration = Duration::from_secs(8);

/// The longest delay of one piece, in milliseconds.
const DELAY_MS_MAX: u64 = 60;

/// How often a connection that stands still looks whether the trouble is over.
const LOOK: Duration = Duration::from_millis(50);

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Each piece is late.
    Delay,
    /// Closed in the middle.
    Cut,
    /// A piece arrives in part, then nothing more.
    Truncate,
    /// Open, and nothing arrives any more.
    Swallow,
    /// A piece arrives twice.
    Repeat,
}

/// The proxy; it ends with the program.
pub(crate) struct Proxy {
    port: u16,
    calm: Arc<AtomicBool>,
    faults: Arc<AtomicU64>,
}

impl Proxy {
    /// Forwards from a port of its own to `to` on loopback.
    pub(crate) fn start(to: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (calm, faults) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (quiet, counted) = (Arc::clone(&calm), Arc::clone(&faults));
        std::thread::spawn(move || {
            let mut random = Random::new(seed);
            for client in listener.incoming().flatten() {
                // Nobody listens while the daemon is away: the connection just ends.
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let fault = choose(&mut random);
                let at_bytes = random.between(0, FAULT_BYTES_MAX);
                let seed = random.next();
                let pairs = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
                for (from, to) in pairs {
                    let (Ok(from), Ok(to)) = (from, to) else { continue };
                    let (calm, faults) = (Arc::clone(&quiet), Arc::clone(&counted));
                    let random = Random::new(seed ^ u64::from(from.peer_addr().map_or(0, |peer| peer.port())));
                    std::thread::spawn(move || {
                        forward(&from, &to, fault, at_bytes, random, &calm, &faults);
                        // Whatever is not open any more needs no closing.
                        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    });
                }
            }
        });
        Self { port, calm, faults }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Does nothing bad any more.
    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// How many faults there were.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}

fn choose(random: &mut Random) -> Fault {
    match random.between(0, 9) {
        0 | 1 => Fault::Delay,
        2 | 3 => Fault::Cut,
        4 => Fault::Truncate,
        5 => Fault::Swallow,
        6 => Fault::Repeat,
        _ => Fault::None,
    }
}

fn forward(
    mut from: &TcpStream,
    mut to: &TcpStream,
    fault: Fault,
    at_bytes: u64,
    mut random: Random,
    calm: &AtomicBool,
    faults: &AtomicU64,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed: u64 = 0;
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer) else { return };
        let piece = buffer.get(..length).unwrap_or_default();
        passed += length as u64;
        let strikes = passed > at_bytes && !calm.load(Ordering::Relaxed);
        if strikes && fault != Fault::None && fault != Fault::Delay {
            faults.fetch_add(1, Ordering::Relaxed);
        }
        let written = match fault {
            Fault::Cut if strikes => return,
            Fault::Truncate if strikes => {
                // The rest is cut off either way.
                let _ = to.write_all(piece.get(..length / 2).unwrap_or_default());
                return;
            }
            Fault::Swallow if strikes => {
                let mut silent = Duration::ZERO;
                while silent < SILENCE && !calm.load(Ordering::Relaxed) {
                    std::thread::sleep(LOOK);
                    silent += LOOK;
                }
                return;
            }
            Fault::Repeat if strikes => to.write_all(piece).and_then(|()| to.write_all(piece)),
            Fault::Delay if strikes => {
                std::thread::sleep(Duration::from_millis(random.between(0, DELAY_MS_MAX)));
                to.write_all(piece)
            }
            Fault::None | Fault::Delay | Fault::Cut | Fault::Truncate | Fault::Swallow | Fault::Repeat => {
                to.write_all(piece)
            }
        };
        if written.is_err() {
            return;
        }
    }
}
