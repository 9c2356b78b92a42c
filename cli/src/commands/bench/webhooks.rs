//! `webhooks`: how many deliveries a second reach a receiver on this machine, each planned and judged by the plugin `http`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use forge_api::{Page, WebhookTarget};
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::scratch;
use super::Bench;
use super::report::{Aim, Measured, Unit};
use super::wire::{Body, Connection};
use super::world::{NOTHING, PROJECT, World, wait_for};
use crate::error::CliError;

/// How many targets are told of each task.
const TARGETS: u32 = 50;

/// How many tasks are made: each is one event for each target.
const TASKS: u32 = 400;

/// What a receiver on the same machine should get, a second.
const DELIVERIES_PER_SECOND_MIN: f64 = 2_000.0;

/// The most bytes of a request that the receiver takes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// What the requests are signed with.
const SECRET: &str = "a secret of the receiver";

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Measured, CliError> {
    let tasks = bench.tasks.unwrap_or(TASKS);
    let all = u64::from(tasks) * u64::from(TARGETS);
    let setting =
        format!("{tasks} tasks are made, and {TARGETS} targets are told of each, signed, at a receiver on loopback");
    let mut measured = Measured::new("webhooks", setting);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(CliError::failed)?;
    let address = listener.local_addr().map_err(CliError::failed)?.to_string();
    let (received, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let _stops = stop.clone().drop_guard();
    tokio::spawn(receive(listener, Arc::clone(&received), stop));
    let world = World::start().await?;
    declare(&world, &address)?;
    let mut connection = Connection::new(&world.endpoint);
    wait_for("the targets to be known", async || {
        let token = world.access().reveal();
        let page: Page<WebhookTarget> = connection.json(Method::GET, "/webhooks", token, Body::Nothing).await?;
        Ok((page.items.len() == TARGETS as usize).then_some(()))
    })
    .await?;
    bench.progress(&format!("webhooks: {all} deliveries"));
    let begin = Instant::now();
    let making = world.create_tasks(NOTHING, tasks).await?;
    wait_for("everything to be received", async || Ok((received.load(Ordering::Relaxed) >= all).then_some(()))).await?;
    let rate = all as f64 / begin.elapsed().as_secs_f64();
    measured.value("deliveries_per_s", "deliveries, from the first task to the last delivery", rate, Unit::PerSecond);
    measured.aim(Aim::AtLeast(DELIVERIES_PER_SECOND_MIN));
    let made = f64::from(tasks) / making.as_secs_f64();
    measured.value("tasks_per_s", "tasks made meanwhile, each with its events written", made, Unit::PerSecond);
    Ok(measured)
}

fn declare(world: &World, address: &str) -> Result<(), CliError> {
    let tree = world.tree();
    let write = |path: String, text: String| scratch::write(&tree.join(path), &text);
    write(
        "plugins/http.toml".to_owned(),
        format!("source = \"builtin:http\"\n[allow]\nhosts = [\"http://{address}\"]\n"),
    )?;
    let secret = world.secret_file();
    scratch::write(&secret, SECRET)?;
    let mut names = Vec::new();
    for number in 0..TARGETS {
        let name = format!("t{number}");
        let text = format!(
            "plugin = \"http\"\nevents = [\"task.queued\"]\nsecret = {{ file = {secret:?} }}\n[config]\nurl = \"http://{address}/{name}\"\n"
        );
        write(format!("webhooks/{name}.toml"), text)?;
        names.push(name);
    }
    let project = format!("webhooks = {names:?}\nretention = {{ tasks = 0, age = \"0s\" }}\n");
    write(format!("projects/{PROJECT}/project.toml"), project)
}

/// Takes requests, one after the other on each connection, until it is told to stop.
async fn receive(listener: TcpListener, received: Arc<AtomicU64>, stop: CancellationToken) {
    let mut taking = JoinSet::new();
    while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
        taking.spawn(take(stream, Arc::clone(&received)));
        while taking.try_join_next().is_some() {}
    }
}

/// Answers what comes over a connection, until the other side has enough.
async fn take(mut stream: TcpStream, received: Arc<AtomicU64>) {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let Ok(length @ 1..) = stream.read(&mut part).await else { return };
        bytes.extend_from_slice(&part[..length]);
        if let Some(request) = request_bytes(&bytes) {
            bytes.drain(..request);
            received.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        } else if bytes.len() > REQUEST_BYTES_MAX {
            return;
        }
    }
}

/// How long the first request is, when it is there to its end and signed.
fn request_bytes(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let whole = head + 4 + length.unwrap_or(0_usize);
    (bytes.len() >= whole && text.contains("\r\nforge-signature: ")).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::request_bytes;

    #[test]
    fn a_request_is_whole_with_its_body_and_counts_when_it_is_signed() {
        let request = b"POST / HTTP/1.1\r\nForge-Signature: t=1,v1=0\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(request_bytes(request), Some(request.len()));
        assert_eq!(request_bytes(&[&request[..], b"POST"].concat()), Some(request.len()));
        assert_eq!(request_bytes(&request[..request.len() - 1]), None);
        assert_eq!(request_bytes(&request[..30]), None);
        assert_eq!(request_bytes(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"), None);
    }
}
