//! One supervisor seen from the runner: orders go to it, news comes from it, until its result is there or it is dead.
//!
//! A connection that breaks says nothing: only a supervisor that is dead and left no result has failed. One that does not
//! obey an order in time (it was stopped, it hangs) is killed, and its runner ends what it leaves: nothing waits forever.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forge_api::{AttemptOutcome, AttemptResult};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::executor::MEMORY_RAN_OUT;
use crate::job::Context;
use crate::launch::LastWords;
use crate::session::EndWhy;
use crate::spool::{self, Ran, Record};
use crate::state::boottime_ms;
use crate::upload::Available;
use crate::warden::alive_interval_ms;
use crate::wire::{self, FromSupervisor, LINE_BYTES_MAX, Order, ToSupervisor};
use crate::{files, health, kept, orphans, process, procfs};

/// How long to wait before looking again at a supervisor that cannot be talked with.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long a supervisor may take to read a message: one that hangs must not hold its runner.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// How an attempt ended whose machine was started anew meanwhile.
const MACHINE_WENT_DOWN: &str = "the runner's machine went down";

/// What comes in while a supervisor is attended.
pub(crate) struct Inboxes<'a> {
    /// The daemon's and the operator's orders.
    pub(crate) orders: &'a mut mpsc::Receiver<EndWhy>,
    /// The daemon takes no more of the log, in its words.
    pub(crate) refusals: mpsc::Receiver<String>,
}

impl Inboxes<'_> {
    async fn order(&mut self) -> Order {
        let asked = tokio::select! {
            Some(why) = self.orders.recv() => Some(why.order()),
            Some(words) = self.refusals.recv() => Some(Order { outcome: AttemptOutcome::Failed, reason: words }),
            else => None,
        };
        match asked {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }
}

/// An order to end that was given, and when it should have been obeyed.
struct Given {
    order: Order,
    overdue_at: Instant,
}

/// The way to a supervisor, as far as there is one.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) stream: Option<UnixStream>,
    /// What it says when it dies; only the runner that started it has it.
    pub(crate) words: Option<LastWords>,
    /// When the request was sent that renewed the attempt's lease last, as far as the supervisor was told at its beginning.
    pub(crate) told_ms: u64,
}

/// Passes orders on until there is a result, and makes it available. `early` is how an attempt ended that no supervisor began.
pub(crate) async fn attend(
    context: &Context,
    folder: &Path,
    record: &Record,
    line: &mut Line,
    early: Option<Order>,
    mut inboxes: Inboxes<'_>,
    available: &watch::Sender<Available>,
) {
    let patience =
        Duration::from_millis(context.settings.stop_grace_ms.saturating_add(context.settings.obey_margin_ms));
    let ran = if early.is_some() { Ran::Nothing } else { Ran::Perhaps };
    let mut given = early.map(|order| Given { order, overdue_at: Instant::now() + patience });
    let kills_before = health::oom_kills();
    // Only who started it talks with it from the beginning.
    let mut has_brief = line.words.is_some();
    let result = loop {
        if let Some(stream) = &mut line.stream {
            let told_ms = has_brief.then_some(line.told_ms);
            talk(context, record, (stream, told_ms), &mut given, patience, &mut inboxes, available).await;
            has_brief = false;
        }
        if given.as_ref().is_some_and(|given| Instant::now() >= given.overdue_at)
            && let Some(handle) = procfs::open_same(record.supervisor_pid, record.supervisor_start_ticks)
        {
            tracing::error!(attempt = %record.attempt, "the supervisor does not end its job: killing it");
            process::signal(&handle, Signal::KILL);
        }
        // Most often it is there; else in this order, since a supervisor leaves its result before it dies.
        let (is_alive, found) = match spool::read_result(folder, record.attempt) {
            Ok(Some(result)) => break result,
            _ => (record.is_alive(), spool::read_result(folder, record.attempt)),
        };
        match found {
            Ok(Some(result)) => break result,
            Ok(None) if is_alive => {}
            Err(error) if is_alive => tracing::warn!(attempt = %record.attempt, %error, "the result cannot be read"),
            Ok(None) => {
                let memory = health::has_more(kills_before, health::oom_kills());
                let died = || format!("its supervisor died without a result{}{}", words_of(line), memory_words(memory));
                let unexplained = || match record.boot_id == spool::boot_id() {
                    true => Order { outcome: AttemptOutcome::Failed, reason: died() },
                    // Nothing is known of the job's own end.
                    false => Order { outcome: AttemptOutcome::Lost, reason: MACHINE_WENT_DOWN.to_owned() },
                };
                let order = given.map_or_else(unexplained, |given| given.order);
                break bury(context, folder, record, (order, ran)).await;
            }
            Err(error) => {
                let reason = format!("the result in the runner's spool cannot be read: {error}");
                let order = Order { outcome: AttemptOutcome::Failed, reason };
                break bury(context, folder, record, (order, Ran::Perhaps)).await;
            }
        }
        tokio::select! {
            order = inboxes.order() => {
                given.get_or_insert(Given { order, overdue_at: Instant::now() + patience });
            }
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        line.stream = UnixStream::connect(folder.join(spool::CONTROL)).await.ok();
    };
    available.send_modify(|now| {
        now.log_length = result.log_length;
        now.result = Some(Arc::new(result));
    });
    if let Some(kept) = context.settings.kept_workspaces() {
        let attempt = record.attempt;
        let told = tokio::task::spawn_blocking(move || kept::tell_and_prune(&kept, attempt)).await;
        if let Err(error) = told {
            tracing::error!(%error, "the removal of kept workspaces ended badly");
        }
    }
}

fn words_of(line: &Line) -> String {
    line.words.as_ref().map(LastWords::read).unwrap_or_default()
}

/// What to say of a death for which memory may be to blame.
fn memory_words(ran_out: bool) -> String {
    if ran_out { format!("; {MEMORY_RAN_OUT}") } else { String::new() }
}

/// Talks with the supervisor until it has ended, the connection breaks or an order is overdue. A supervisor that just got its
/// brief over the connection knows all that there is to say.
async fn talk(
    context: &Context,
    record: &Record,
    (stream, told_ms): (&mut UnixStream, Option<u64>),
    given: &mut Option<Given>,
    patience: Duration,
    inboxes: &mut Inboxes<'_>,
    available: &watch::Sender<Available>,
) {
    let (reader, mut writer) = stream.split();
    let listen = listen(reader, available);
    tokio::pin!(listen);
    let mut leases = context.leased_ms.clone();
    let known_ms = *leases.borrow_and_update();
    if told_ms.is_none_or(|told_ms| told_ms < known_ms) {
        leases.mark_changed();
    }
    let interval = Duration::from_millis(alive_interval_ms(record.runner_grace_ms));
    let mut alive = tokio::time::interval_at(Instant::now() + interval, interval);
    alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // An order that an earlier connection may have lost is given again; the first one counts.
    let mut message = given.as_ref().map(|given| ToSupervisor::Cancel(given.order.clone()));
    loop {
        if let Some(message) = message.take()
            && !send(&mut writer, &message).await
        {
            // What it said last may still lie in the connection.
            let _ = tokio::time::timeout(LOOK_AGAIN, &mut listen).await;
            return;
        }
        let overdue_at = given.as_ref().map(|given| given.overdue_at);
        let overdue = async {
            match overdue_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        message = tokio::select! {
            () = &mut listen => return,
            () = overdue => return,
            order = inboxes.order() => {
                given.get_or_insert_with(|| Given { order: order.clone(), overdue_at: Instant::now() + patience });
                Some(ToSupervisor::Cancel(order))
            }
            Ok(()) = leases.changed() => {
                let sent_ms = *leases.borrow_and_update();
                let ago_ms = boottime_ms().saturating_sub(sent_ms);
                Some(if sent_ms == 0 { ToSupervisor::Alive } else { ToSupervisor::LeaseMs(ago_ms) })
            }
            _ = alive.tick() => Some(ToSupervisor::Alive),
        };
    }
}

/// Does what a dead supervisor cannot: ends what it left, removes its secrets, writes the result.
async fn bury(context: &Context, folder: &Path, record: &Record, (order, ran): (Order, Ran)) -> AttemptResult {
    let Order { outcome, mut reason } = order;
    let stop_grace_ms = context.settings.stop_grace_ms;
    let left = record.clone();
    match tokio::task::spawn_blocking(move || orphans::end(&left, stop_grace_ms)).await {
        Ok(survivors) if survivors.is_empty() => {}
        Ok(survivors) => reason.push_str(&format!("; these processes cannot be ended: {survivors:?}")),
        Err(error) => tracing::error!(%error, "the search for processes ended badly"),
    }
    // The daemon may be away for long: secrets do not wait for its acknowledgement.
    if let Err(error) = files::remove(&record.private) {
        tracing::warn!(attempt = %record.attempt, %error, "secret files cannot be removed");
    }
    let kept = context.settings.kept_workspaces();
    let words = kept::keep(kept.as_deref(), folder, &record.workspace, record.attempt, outcome);
    let last = words.iter().fold(reason.clone(), |lines, words| format!("{lines}\n{words}"));
    spool::result_without_supervisor(folder, record.attempt, (outcome, ran), &reason, &last).unwrap_or_else(|error| {
        tracing::error!(attempt = %record.attempt, %error, "the spool cannot be written");
        AttemptResult {
            outcome,
            reason: Some(reason),
            exit_code: None,
            summary: None,
            commit: None,
            log_length: 0,
            log_sha256: files::sha256_hex(b""),
            carry: None,
            no_retry: false,
            retry_after_ms: None,
            nothing_ran: ran == Ran::Nothing,
        }
    })
}

/// False when the supervisor does not hear.
async fn send(writer: &mut WriteHalf<'_>, message: &ToSupervisor) -> bool {
    let sent = async { writer.write_all(&wire::line(message)?).await };
    match tokio::time::timeout(SEND_TIMEOUT, sent).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the supervisor does not hear");
            false
        }
        Err(_) => {
            tracing::warn!("the supervisor reads nothing: is it stopped?");
            false
        }
    }
}

/// Hears what the supervisor says until it is done or gone.
async fn listen(reader: ReadHalf<'_>, available: &watch::Sender<Available>) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        match serde_json::from_slice(&line) {
            Ok(FromSupervisor::Log(length)) => {
                available.send_if_modified(|now| std::mem::replace(&mut now.log_length, length) != length);
            }
            Ok(FromSupervisor::Commit(commit)) => available.send_modify(|now| now.commit = Some(commit)),
            Ok(FromSupervisor::Ended) => return,
            Err(error) => tracing::warn!(%error, "a supervisor said what this runner does not understand"),
        }
    }
}
