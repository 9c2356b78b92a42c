//! Sees that the folder changed. It never says what changed: whoever listens reads the whole tree anyway.
//!
//! inotify tells at once, wherever a symlink leads; the watches are set anew before every read, since a swapped symlink or a
//! folder made anew has other folders behind it. Where watches run out it falls back to looking every two seconds and says so. A slow look at
//! every `source.poll_interval` stands behind both: network file systems tell nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::Instant;

/// A burst is over when this much time has passed without a change.
const QUIET: Duration = Duration::from_millis(100);

/// A burst that does not end is looked at after this.
const BURST_MAX: Duration = Duration::from_millis(500);

/// How often the folder is looked at when it cannot be watched.
const POLLING_LOOK: Duration = Duration::from_secs(2);

/// Watches one folder.
pub(crate) struct FolderWatch {
    root: PathBuf,
    changed: Arc<Notify>,
    state: State,
    /// How often the folder is looked at even when nothing was heard: `source.poll_interval`.
    safety_look: Duration,
    next_look: Instant,
}

/// How changes are heard of.
enum State {
    /// By inotify; dropping the watcher ends it.
    Watching { _watcher: RecommendedWatcher },
    /// By looking.
    Polling,
}

impl FolderWatch {
    /// Begins to watch. What happens from here on is not missed, so read the tree after this.
    pub(crate) fn new(root: &Path, safety_look: Duration) -> Self {
        let mut watch = Self {
            root: root.to_owned(),
            changed: Arc::new(Notify::new()),
            state: State::Polling,
            safety_look,
            next_look: Instant::now() + safety_look,
        };
        watch.arm(true);
        watch
    }

    /// What another part of the daemon calls to have the folder looked at now.
    pub(crate) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Waits until something changed and the burst is over, or until it is time to look anyway; then sets the watches anew.
    pub(crate) async fn settled(&mut self) {
        tokio::select! {
            () = self.changed.notified() => self.burst_over().await,
            () = tokio::time::sleep_until(self.next_look) => {}
        }
        let was_watching = matches!(self.state, State::Watching { .. });
        // Setting watches walks the folders: on a large tree that takes a while, and other tasks share this thread.
        tokio::task::block_in_place(|| self.arm(was_watching));
    }

    async fn burst_over(&self) {
        let end = Instant::now() + BURST_MAX;
        loop {
            let quiet = (Instant::now() + QUIET).min(end);
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(quiet) => return,
            }
            if Instant::now() >= end {
                return;
            }
        }
    }

    /// `announce` keeps a folder that stays unwatchable from being complained of every two seconds.
    fn arm(&mut self, announce: bool) {
        match watcher(&self.root, &self.changed) {
            Ok(watcher) => {
                if !announce {
                    tracing::info!(folder = %self.root.display(), "the folder is watched again");
                }
                self.state = State::Watching { _watcher: watcher };
                self.next_look = Instant::now() + self.safety_look;
            }
            Err(error) => {
                if announce {
                    tracing::warn!(
                        folder = %self.root.display(),
                        %error,
                        "the folder cannot be watched, so it is looked at every {} s (where watches ran out, raise fs.inotify.max_user_watches)",
                        POLLING_LOOK.as_secs()
                    );
                }
                self.state = State::Polling;
                self.next_look = Instant::now() + POLLING_LOOK.min(self.safety_look);
            }
        }
    }
}

/// Watches the folder with all below it, and its parent for the folder's own name: it may be swapped or made anew.
fn watcher(root: &Path, changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let bell = Arc::clone(changed);
    let (watched, name) = (root.to_owned(), root.file_name().map(OsString::from));
    let concerns = move |path: &PathBuf| path.starts_with(&watched) || path.file_name() == name.as_deref();
    let heard = move |event: notify::Result<Event>| match event {
        Ok(event) => {
            let concerned = event.need_rescan() || event.paths.iter().any(&concerns);
            if concerned && is_change(event.kind) {
                bell.notify_one();
            }
        }
        // Whatever was missed, a look at the tree makes up for it.
        Err(_) => bell.notify_one(),
    };
    let mut watcher = RecommendedWatcher::new(heard, Config::default())?;
    if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        watcher.watch(parent, RecursiveMode::NonRecursive)?;
    }
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Reading the tree opens and closes its files: that must not count, or every look would cause the next.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A safety look that no test lives to see: whoever answers has heard the change.
    const NEVER: Duration = Duration::from_secs(3600);

    const HEARD_WITHIN: Duration = Duration::from_secs(10);

    async fn hears(watch: &mut FolderWatch, what: &str, change: impl FnOnce()) {
        change();
        tokio::time::timeout(HEARD_WITHIN, watch.settled()).await.unwrap_or_else(|_| panic!("{what} was not heard"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_way_to_change_a_folder_is_heard() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("tree");
        fs::create_dir_all(root.join("..one/runners")).expect("made");
        fs::create_dir_all(root.join("..two/runners")).expect("made");
        fs::write(root.join("..two/runners/a.toml"), "").expect("written");
        symlink("..one", root.join("..data")).expect("linked");
        symlink("..data/runners", root.join("runners")).expect("linked");
        let mut watch = FolderWatch::new(&root, NEVER);
        hears(&mut watch, "a new file", || fs::write(root.join("a.toml"), "1").expect("written")).await;
        hears(&mut watch, "a rename over it", || {
            fs::write(root.join(".a.new"), "2").expect("written");
            fs::rename(root.join(".a.new"), root.join("a.toml")).expect("renamed");
        })
        .await;
        hears(&mut watch, "a swapped symlink", || {
            symlink("..two", root.join("..data_tmp")).expect("linked");
            fs::rename(root.join("..data_tmp"), root.join("..data")).expect("swapped");
        })
        .await;
        hears(&mut watch, "a file behind the new symlink", || {
            fs::write(root.join("..two/runners/a.toml"), "3").expect("written");
        })
        .await;
        hears(&mut watch, "a removed folder", || fs::remove_dir_all(&root).expect("removed")).await;
        hears(&mut watch, "a folder made anew", || fs::create_dir_all(root.join("runners")).expect("made")).await;
        hears(&mut watch, "a file in it", || fs::write(root.join("runners/b.toml"), "4").expect("written")).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn reading_is_no_change_and_a_burst_is_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut watch = FolderWatch::new(folder.path(), NEVER);
        hears(&mut watch, "a burst", || {
            for number in 0..300 {
                fs::write(folder.path().join(format!("{number}.toml")), "x").expect("written");
            }
        })
        .await;
        for _ in 0..3 {
            assert_eq!(super::super::read::read_once(folder.path()).files.len(), 300);
        }
        // The bell keeps one ring: none may be kept from the burst's tail or from our reading.
        let silence = tokio::time::timeout(Duration::from_millis(700), watch.settled()).await;
        assert!(silence.is_err(), "reading rang the bell");
    }
}
