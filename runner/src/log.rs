//! An attempt's log while it is written: one pipe for all its processes, so that the order of their output is kept; masked
//! while it streams; appended to the spool's file; its length told to the runner.
//!
//! Most attempts are short and say little, so nothing is made before it is needed: the file comes with the first byte, the thread
//! that copies output (the pump) only when nobody else waits for processes anyway, and room is kept once the attempt lasts.
//!
//! The only one that writes the file is [`Log`]. Forge's own lines begin with `[forge] ` and stand on lines of their own.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;
use serde_json::Value;

use crate::files;
use crate::mask::Masker;
use crate::spool;
use crate::state::Shared;
use crate::wire::Order;

/// How much of the newest output is kept for the plugin and for reasons, in bytes.
const TAIL_BYTES_MAX: usize = 64 * 1024;

/// How much a process may write before it waits for the log, in bytes; the system may grant less.
const PIPE_BYTES: usize = 1024 * 1024;

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// How much of the disk is kept for the last lines and the result, in bytes: a disk that is full must not hide that it is.
const RESERVE_BYTES: u64 = 64 * 1024;

/// The attempt's log.
pub(crate) struct Log {
    inner: Mutex<Inner>,
    pipe_reader: Mutex<PipeReader>,
    pipe_writer: Mutex<Option<OwnedFd>>,
    has_pump: AtomicBool,
    shared: Arc<Shared>,
    path: PathBuf,
}

struct PipeReader {
    pipe: Arc<OwnedFd>,
    /// Empty until the first byte comes.
    buffer: Vec<u8>,
}

struct Inner {
    /// `None` until the first byte comes.
    file: Option<File>,
    masker: Masker,
    own_masker: Masker,
    masked: Vec<u8>,
    digest: ring::digest::Context,
    length: u64,
    at_line_start: bool,
    tail: Vec<u8>,
    /// Output is not taken any more: what comes after a gap would only mislead.
    is_full: bool,
    /// No room is kept any more: it was given free.
    is_reserve_over: bool,
}

/// What a whole log amounts to.
pub(crate) struct Total {
    pub(crate) length: u64,
    pub(crate) sha256: String,
}

/// A lock is only ever poisoned by a panic of another thread; the log is still the best place to say what happened.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Opens a new log at `path` that masks `secrets`.
    pub(crate) fn create(path: &Path, secrets: &[&str], shared: Arc<Shared>) -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // A refusal (the user's pipe budget is used up) only makes writers wait sooner.
        let _ = rustix::pipe::fcntl_setpipe_size(&reader, PIPE_BYTES);
        let flags = rustix::fs::fcntl_getfl(&reader)?;
        rustix::fs::fcntl_setfl(&reader, flags | rustix::fs::OFlags::NONBLOCK)?;
        let masker = Masker::new(secrets.iter().copied());
        let inner = Inner {
            file: None,
            own_masker: masker.another(),
            masker,
            masked: Vec::new(),
            digest: ring::digest::Context::new(&ring::digest::SHA256),
            length: 0,
            at_line_start: true,
            tail: Vec::new(),
            is_full: false,
            is_reserve_over: false,
        };
        Ok(Self {
            inner: Mutex::new(inner),
            pipe_reader: Mutex::new(PipeReader { pipe: Arc::new(reader), buffer: Vec::new() }),
            pipe_writer: Mutex::new(Some(writer)),
            has_pump: AtomicBool::new(false),
            shared,
            path: path.to_owned(),
        })
    }

    /// The end of the pipe that a process writes to.
    pub(crate) fn writer(&self) -> io::Result<OwnedFd> {
        match lock(&self.pipe_writer).as_ref() {
            Some(writer) => writer.try_clone(),
            None => Err(io::Error::other("the log is closed")),
        }
    }

    /// From now on output is copied by a thread, whatever else this process does. Until then whoever waits for a process
    /// calls [`Log::read_once`] when [`Log::reader`] has something.
    pub(crate) fn start_pump(self: &Arc<Self>) {
        if self.has_pump.swap(true, Ordering::SeqCst) {
            return;
        }
        let log = Arc::clone(self);
        if let Err(error) = std::thread::Builder::new().name("pump".to_owned()).spawn(move || log.pump()) {
            self.fail(&error);
        }
    }

    /// What output comes out of; `None` when the pump copies it.
    pub(crate) fn reader(&self) -> Option<Arc<OwnedFd>> {
        (!self.has_pump.load(Ordering::SeqCst)).then(|| Arc::clone(&lock(&self.pipe_reader).pipe))
    }

    /// Copies output from the pipe until every writer is gone: the body of the log's own thread.
    fn pump(&self) {
        let pipe = Arc::clone(&lock(&self.pipe_reader).pipe);
        loop {
            let mut waiting = [PollFd::new(&pipe, PollFlags::IN)];
            match rustix::event::poll(&mut waiting, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    self.fail(&error.into());
                    return;
                }
            }
            if !self.read_once() {
                return;
            }
        }
    }

    /// Reads what lies in the pipe at this moment: what an ended process wrote is in the log afterwards.
    pub(crate) fn drain(&self) {
        let ready = rustix::io::ioctl_fionread(lock(&self.pipe_reader).pipe.as_fd()).unwrap_or(0);
        // Background processes may go on writing; what they write later is not waited for.
        let reads_max = ready.div_ceil(READ_BYTES as u64) + 1;
        for _ in 0..reads_max {
            let left = rustix::io::ioctl_fionread(lock(&self.pipe_reader).pipe.as_fd()).unwrap_or(0);
            if left == 0 || !self.read_once() {
                break;
            }
        }
        let mut inner = lock(&self.inner);
        inner.masked.clear();
        let Inner { masker, masked, .. } = &mut *inner;
        masker.finish(masked);
        self.append(&mut inner, Keep::Tail);
    }

    /// One read from the pipe into the file; false at the end of the pipe.
    pub(crate) fn read_once(&self) -> bool {
        // The lock is held until the bytes are in the file: two readers never swap what they read.
        let mut reader = lock(&self.pipe_reader);
        let PipeReader { pipe, buffer } = &mut *reader;
        buffer.resize(READ_BYTES, 0);
        match rustix::io::read(&**pipe, buffer.as_mut_slice()) {
            Ok(0) => false,
            Ok(length) => {
                self.output(buffer.get(..length).unwrap_or_default());
                true
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
            Err(error) => {
                self.fail(&error.into());
                false
            }
        }
    }

    /// Takes output of a process.
    pub(crate) fn output(&self, bytes: &[u8]) {
        let mut inner = lock(&self.inner);
        inner.masked.clear();
        let Inner { masker, masked, .. } = &mut *inner;
        masker.push(bytes, masked);
        self.append(&mut inner, Keep::Tail);
    }

    /// Writes lines of Forge's own.
    pub(crate) fn forge(&self, text: &str) {
        let mut inner = lock(&self.inner);
        inner.masked.clear();
        let Inner { own_masker, masked, at_line_start, .. } = &mut *inner;
        if !*at_line_start {
            masked.push(b'\n');
        }
        for line in text.lines() {
            masked.extend_from_slice(b"[forge] ");
            own_masker.push(line.as_bytes(), masked);
            own_masker.finish(masked);
            masked.push(b'\n');
        }
        self.append(&mut inner, Keep::Nothing);
    }

    /// `text` as the log would show it.
    pub(crate) fn masked(&self, text: &str) -> String {
        let mut inner = lock(&self.inner);
        let mut out = Vec::new();
        inner.own_masker.push(text.as_bytes(), &mut out);
        inner.own_masker.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// A plugin's report as the log would show it: every text in it, and every key.
    pub(crate) fn masked_json(&self, value: Value) -> Value {
        match value {
            Value::Null | Value::Bool(_) => value,
            Value::String(text) => Value::String(self.masked(&text)),
            // A PIN, or a password of digits alone.
            Value::Number(number) => {
                let text = number.to_string();
                let masked = self.masked(&text);
                if masked == text { Value::Number(number) } else { Value::String(masked) }
            }
            Value::Array(values) => values.into_iter().map(|value| self.masked_json(value)).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(key, value)| (self.masked(&key), self.masked_json(value))).collect()
            }
        }
    }

    /// Masks another stream as this log is masked.
    pub(crate) fn new_masker(&self) -> Masker {
        lock(&self.inner).own_masker.another()
    }

    /// Forgets the newest output: [`Log::tail`] begins here.
    pub(crate) fn mark(&self) {
        lock(&self.inner).tail.clear();
    }

    /// The newest output since the last mark, masked.
    pub(crate) fn tail(&self) -> Vec<u8> {
        let inner = lock(&self.inner);
        let from = inner.tail.len().saturating_sub(TAIL_BYTES_MAX);
        inner.tail.get(from..).unwrap_or_default().to_vec()
    }

    /// Lets go of the pipe's writing end: the pump ends with the last process that holds one.
    pub(crate) fn close_pipe(&self) {
        lock(&self.pipe_writer).take();
    }

    /// Writes out what is held, syncs, and answers what the whole log amounts to.
    pub(crate) fn finish(&self) -> io::Result<Total> {
        self.drain();
        let inner = lock(&self.inner);
        let found = inner.file.as_ref().map_or(Ok(0), |file| file.metadata().map(|file| file.len()))?;
        if found != inner.length {
            // A write stopped halfway (the disk was full): the file is the truth.
            let (length, sha256) = files::measure(&self.path)?;
            return Ok(Total { length, sha256 });
        }
        Ok(Total { length: inner.length, sha256: files::hex(inner.digest.clone().finish().as_ref()) })
    }

    fn append(&self, inner: &mut Inner, keep: Keep) {
        let Inner { file, masked, digest, length, at_line_start, tail, is_full, is_reserve_over, .. } = inner;
        if masked.is_empty() || (*is_full && keep == Keep::Tail) {
            return;
        }
        let appended = match file {
            Some(file) => file.write_all(masked),
            None => open(&self.path).and_then(|opened| file.insert(opened).write_all(masked)),
        };
        let written = match appended {
            Ok(()) => masked.as_slice(),
            Err(error) => {
                *is_full = true;
                *is_reserve_over = true;
                self.fail(&error);
                // What was written in part stands in the file: length and digest follow the file, not the intent.
                let found = file.as_ref().and_then(|file| file.metadata().ok()).map_or(*length, |file| file.len());
                let written = usize::try_from(found.saturating_sub(*length)).unwrap_or(usize::MAX);
                masked.get(..written).unwrap_or_default()
            }
        };
        let Some(last) = written.last() else { return };
        *at_line_start = *last == b'\n';
        digest.update(written);
        *length += written.len() as u64;
        if keep == Keep::Tail {
            let newest = written.len().saturating_sub(TAIL_BYTES_MAX);
            tail.extend_from_slice(written.get(newest..).unwrap_or_default());
            if tail.len() > 2 * TAIL_BYTES_MAX {
                tail.drain(..tail.len() - TAIL_BYTES_MAX);
            }
        }
        self.shared.log_grew(*length);
    }

    fn fail(&self, error: &io::Error) {
        self.remove_reserve();
        self.shared.end(Order {
            outcome: forge_api::AttemptOutcome::Failed,
            reason: format!("the log cannot be written on the runner: {error}; is its disk full?"),
        });
    }

    /// Keeps room for the last lines and the result, should the disk be full by then.
    pub(crate) fn keep_reserve(&self) {
        // Held meanwhile, so that nobody gives free what is about to be kept.
        let inner = lock(&self.inner);
        if inner.is_reserve_over {
            return;
        }
        if let Err(error) = reserve(&self.path.with_file_name(spool::RESERVE)) {
            tracing::debug!(%error, "no room can be kept for the end of the log");
        }
    }

    /// Gives the room free that was kept for the end.
    pub(crate) fn release_reserve(&self) {
        lock(&self.inner).is_reserve_over = true;
        self.remove_reserve();
    }

    fn remove_reserve(&self) {
        if let Err(error) = files::remove(&self.path.with_file_name(spool::RESERVE)) {
            tracing::debug!(%error, "the reserve cannot be removed");
        }
    }
}

/// The spool's file. One that is there is empty: it was kept from an attempt before.
fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

fn reserve(path: &Path) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).open(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES)?;
    Ok(())
}

/// Whether appended bytes are output of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Tail,
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warden::Contact;

    #[test]
    fn a_full_disk_ends_the_attempt_and_still_takes_the_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let bell = Arc::new(crate::bell::Bell::new().expect("a bell"));
        let shared = Arc::new(Shared::new(Contact { started_ms: 0, heard_ms: 0, leased_ms: 0 }, bell));
        let log = Log::create(&path, &[], Arc::clone(&shared)).expect("a log");
        let kept = folder.path().join(spool::RESERVE);
        log.keep_reserve();
        assert_eq!(std::fs::metadata(&kept).expect("kept").len(), RESERVE_BYTES);
        log.output(b"one\ntw");
        let full = File::options().append(true).open("/dev/full").expect("opened");
        let file = lock(&log.inner).file.replace(full);
        log.output(b"o\n");
        let reason = shared.now().ending.expect("an order").reason;
        assert!(reason.contains("is its disk full?"), "{reason}");
        log.keep_reserve();
        assert!(!kept.exists(), "there is room now");
        lock(&log.inner).file = file;
        log.output(b"three\n");
        log.forge("why");
        let total = log.finish().expect("finished");
        assert_eq!(std::fs::read(&path).expect("read"), b"one\ntw\n[forge] why\n");
        assert_eq!((total.length, total.sha256), files::measure(&path).expect("measured"));
    }

    #[test]
    fn no_text_key_or_number_of_a_report_shows_a_secret() {
        let folder = tempfile::tempdir().expect("a folder");
        let bell = Arc::new(crate::bell::Bell::new().expect("a bell"));
        let shared = Arc::new(Shared::new(Contact { started_ms: 0, heard_ms: 0, leased_ms: 0 }, bell));
        let log = Log::create(&folder.path().join("log"), &["correct-horse", "20251128"], shared).expect("a log");
        let report = serde_json::json!({
            "text": "it said correct-horse",
            "hosts": [{ "correct-horse": 20_251_128, "changed": 3, "fine": true, "none": null }],
        });
        let expected = serde_json::json!({
            "text": "it said [masked]",
            "hosts": [{ "[masked]": "[masked]", "changed": 3, "fine": true, "none": null }],
        });
        assert_eq!(log.masked_json(report), expected);
    }
}
