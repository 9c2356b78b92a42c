//! What a service manager such as systemd is told (the protocol of sd_notify): that the process serves, reloads, stops, and lives.
//! Without `NOTIFY_SOCKET` it is nobody's business.
//!
//! It stands here and not in the daemon or the runner, which must not know each other and need not know who started them: those
//! prove that they work, and this says so. A message that cannot be sent is logged and otherwise ignored.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::settings::Environment;

/// Where systemd names its socket.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// How often it wants to hear that the process lives, in microseconds.
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";

/// Which process it wants to hear it from: a child that inherits the variables must not speak for its parent.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// A sign of life is sent so many times within the manager's patience: one that comes late is no reason for a restart.
const SIGNS_PER_PATIENCE: u32 = 2;

/// The service manager, if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceManager {
    socket: Option<OsString>,
    patience: Option<Duration>,
    said_stopping: Arc<AtomicBool>,
}

impl ServiceManager {
    /// The manager that this process's environment names.
    pub(crate) fn of(environment: &Environment) -> Self {
        Self::for_process(environment, std::process::id())
    }

    fn for_process(environment: &Environment, pid: u32) -> Self {
        let said = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let is_ours = said(WATCHDOG_PID).is_none_or(|text| text.parse() == Ok(pid));
        let patience = said(WATCHDOG_USEC).and_then(|text| text.parse().ok()).filter(|micros| *micros > 0);
        Self {
            socket: said(NOTIFY_SOCKET).map(OsString::from),
            patience: patience.map(Duration::from_micros).filter(|_| is_ours),
            said_stopping: Arc::default(),
        }
    }

    /// How often a sign of life is due; `None` where nobody waits for one.
    pub(crate) fn sign_interval(&self) -> Option<Duration> {
        self.socket.as_ref().and(self.patience).map(|patience| patience / SIGNS_PER_PATIENCE)
    }

    /// It serves, or its reload is over.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// It drains and ends. Said once: a drain may be over before whoever waits for its beginning gets a turn.
    pub(crate) fn stopping(&self) {
        if !self.said_stopping.swap(true, Ordering::Relaxed) {
            self.tell("STOPPING=1");
        }
    }

    /// It proved that it works.
    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// It reads its configuration again; [`Self::ready`] follows.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = send(socket, text)
        {
            tracing::warn!(?socket, %error, "the service manager could not be told {text:?}");
        }
    }
}

/// A name that begins with `@` is in Linux's abstract namespace.
fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up who speaks to it.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(text.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(variables: &[(&str, &str)]) -> ServiceManager {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ServiceManager::for_process(&environment, 42)
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 128];
        let length = socket.recv(&mut buffer).expect("received");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_socket_by_path_or_abstract_name_hears_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bound");
        manager(&[(NOTIFY_SOCKET, path.to_str().expect("text"))]).ready();
        assert_eq!(heard(&by_path), "READY=1");

        let name = format!("forge-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&address).expect("bound");
        let manager = manager(&[(NOTIFY_SOCKET, &format!("@{name}"))]);
        manager.stopping();
        assert_eq!(heard(&by_name), "STOPPING=1");
        manager.reloading();
        let text = heard(&by_name);
        let micros = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("both lines");
        assert!(micros.parse::<u64>().is_ok_and(|micros| micros > 0), "{text}");
    }

    #[test]
    fn signs_of_life_are_for_the_process_that_is_asked() {
        let socket = (NOTIFY_SOCKET, "@x");
        let second = Some(Duration::from_secs(1));
        assert_eq!(manager(&[socket, (WATCHDOG_USEC, "2000000")]).sign_interval(), second);
        assert_eq!(manager(&[socket, (WATCHDOG_USEC, "2000000"), (WATCHDOG_PID, "42")]).sign_interval(), second);
        assert_eq!(manager(&[socket, (WATCHDOG_USEC, "2000000"), (WATCHDOG_PID, "43")]).sign_interval(), None);
        for nothing in ["", "0", "soon"] {
            assert_eq!(manager(&[socket, (WATCHDOG_USEC, nothing)]).sign_interval(), None, "{nothing:?}");
        }
        assert_eq!(manager(&[(WATCHDOG_USEC, "2000000")]).sign_interval(), None, "nobody listens");
    }
}
