//! A receiver of webhooks on loopback: it keeps what it was sent, and answers as the story says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::wait_for;

/// One request that came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// A header by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("there is a header {name}: {:?}", self.headers), |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// Its event and the number of the task that it is about.
    pub(crate) fn told(&self) -> (String, u64) {
        let body = self.json();
        let number = body["task"]["number"].as_u64().unwrap_or_default();
        (body["event"].as_str().expect("an event").to_owned(), number)
    }
}

/// What it answers: whatever it writes, and `false` to be asked with nothing more.
type Answer = dyn Fn(&Received, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// The receiver; it listens as long as the story's process lives.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

/// Answers with a status, and no body.
pub(crate) fn status(line: &'static str) -> impl Fn(&Received, &mut TcpStream) -> std::io::Result<()> + Send + Sync {
    move |_, stream| write!(stream, "HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

impl Receiver {
    /// One that takes everything.
    pub(crate) fn good() -> Self {
        Self::start(status("204 No Content"))
    }

    /// One that answers by `answer`, on a thread a connection.
    pub(crate) fn start(
        answer: impl Fn(&Received, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), answer)
    }

    /// The same on a port that the story chose.
    pub(crate) fn on(
        listener: TcpListener,
        answer: impl Fn(&Received, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (kept, answer): (_, Arc<Answer>) = (Arc::clone(&received), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                // A client that goes away is part of some stories.
                std::thread::spawn(move || drop(serve(stream, &kept, &*answer)));
            }
        });
        Self { address, received }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// What came until now.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("nobody panics with it").clone()
    }

    /// Waits until at least `count` requests came.
    pub(crate) fn wait(&self, count: usize) -> Vec<Received> {
        wait_for(&format!("{count} webhooks came"), || Some(self.received()).filter(|received| received.len() >= count))
    }
}

fn serve(mut stream: TcpStream, kept: &Mutex<Vec<Received>>, answer: &Answer) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.trim_end().split_once(": ") {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or_default()];
    reader.read_exact(&mut body)?;
    let received = Received { headers, body };
    kept.lock().expect("nobody panics with it").push(received.clone());
    answer(&received, &mut stream)
}
