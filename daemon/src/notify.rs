//! What systemd is told: that the daemon serves, and that it stops. Without `NOTIFY_SOCKET` it is nobody's business.
//!
//! A message that cannot be sent is logged and otherwise ignored: the daemon works the same without a service manager.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable in which systemd names its socket.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// What the service manager hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Every listener is bound and the first revision serves.
    Ready,
    /// The daemon drains and ends.
    Stopping,
}

impl Notice {
    const fn text(self) -> &'static str {
        match self {
            Self::Ready => "READY=1",
            Self::Stopping => "STOPPING=1",
        }
    }
}

/// Tells the service manager, where there is one.
pub(crate) fn tell(notice: Notice) {
    if let Some(socket) = std::env::var_os(NOTIFY_SOCKET).filter(|socket| !socket.is_empty())
        && let Err(error) = send(&socket, notice)
    {
        tracing::warn!(?socket, %error, "systemd could not be told {}", notice.text());
    }
}

/// A name that begins with `@` is in Linux's abstract namespace.
fn send(socket: &OsStr, notice: Notice) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(notice.text().as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_by_path_or_abstract_name_hears_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bound");
        send(path.as_os_str(), Notice::Ready).expect("sent");
        let mut buffer = [0; 32];
        let length = by_path.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], b"READY=1");

        let name = format!("forge-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&address).expect("bound");
        send(OsStr::new(&format!("@{name}")), Notice::Stopping).expect("sent");
        let length = by_name.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], b"STOPPING=1");
    }
}
