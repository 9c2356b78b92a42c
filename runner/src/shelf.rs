//! Folders of ended attempts, kept for the next ones: a file system takes longer to make and remove folders and files than a
//! short job takes altogether, and some grow slower with each that was removed lately (ext4 without a journal looks at all of them).
//!
//! What is kept is empty, so that nothing of an attempt is left to the next: files of the spool are cut to nothing, and of
//! workspaces only those are kept that their jobs left as they were made. With `run_as` a workspace is not kept: it belongs to a
//! user, and the next attempt may have another.
//!
//! Where nothing is left over, one of each is made ahead ([`Shelf::stock`]).
//!
//! Folders come and go by being renamed. They lie in a folder of their own that each start of a runner empties.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{files, spool, workspace};

/// How many of each kind are kept.
const KEPT_MAX: usize = 64;

/// How large an empty folder may be, in bytes: one that held much stays large, and slow to look through.
const FOLDER_BYTES_MAX: u64 = 4_096;

/// What is kept.
pub(crate) struct Shelf {
    folder: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Gives each kept folder a name.
    count: u64,
    spools: Vec<PathBuf>,
    workspaces: Vec<PathBuf>,
}

impl Shelf {
    /// An empty one in `folder`, where nobody else keeps anything.
    pub(crate) fn new(folder: PathBuf) -> io::Result<Self> {
        files::remove(&folder)?;
        files::make_private_folder(&folder)?;
        Ok(Self { folder, kept: Mutex::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an attempt's folder at `target`, where nothing is; false when there is none.
    pub(crate) fn take_spool(&self, target: &Path) -> bool {
        let found = self.kept().spools.pop();
        put(found, target)
    }

    /// Puts a workspace at `target`, where nothing is; false when there is none.
    pub(crate) fn take_workspace(&self, target: &Path) -> bool {
        let found = self.kept().workspaces.pop();
        put(found, target)
    }

    /// Keeps the folder of an attempt that is over, or removes it.
    pub(crate) fn keep_spool(&self, folder: &Path) -> io::Result<()> {
        if self.kept().spools.len() >= KEPT_MAX || !empty_spool(folder).unwrap_or(false) {
            return files::remove(folder);
        }
        let name = self.name("spool");
        fs::rename(folder, &name)?;
        self.kept().spools.push(name);
        Ok(())
    }

    /// Keeps the workspace of an attempt that is over, or removes it.
    pub(crate) fn keep_workspace(&self, folder: &Path) -> io::Result<()> {
        if self.kept().workspaces.len() >= KEPT_MAX || !is_as_made(folder) {
            return workspace::remove(folder);
        }
        let name = self.name("workspace");
        fs::rename(folder, &name)?;
        self.kept().workspaces.push(name);
        Ok(())
    }

    /// Makes what the next attempt would find nothing of.
    pub(crate) fn stock(&self) {
        let (has_spool, has_workspace) = {
            let kept = self.kept();
            (!kept.spools.is_empty(), !kept.workspaces.is_empty())
        };
        let made = || -> io::Result<()> {
            if !has_spool {
                let name = self.name("spool");
                files::make_private_folder(&name)?;
                for file in spool::KEPT {
                    files::write_new_private(&name.join(file), b"", 0o600)?;
                }
                self.kept().spools.push(name);
            }
            if !has_workspace {
                let name = self.name("workspace");
                for folder in std::iter::once(name.clone()).chain(workspace::INSIDE.map(|inside| name.join(inside))) {
                    files::make_private_folder(&folder)?;
                }
                self.kept().workspaces.push(name);
            }
            Ok(())
        };
        if let Err(error) = made() {
            // The next attempt makes its own, and says it where somebody looks.
            tracing::debug!(%error, "no folder is kept ready");
        }
    }

    fn name(&self, kind: &str) -> PathBuf {
        let mut kept = self.kept();
        kept.count += 1;
        self.folder.join(format!("{}-{kind}", kept.count))
    }
}

fn put(found: Option<PathBuf>, target: &Path) -> bool {
    // One that is gone is made anew.
    found.is_some_and(|found| fs::rename(found, target).is_ok())
}

/// Cuts the files of a spool folder to nothing; false when it holds others.
fn empty_spool(folder: &Path) -> io::Result<bool> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_known = spool::KEPT.iter().any(|name| entry.file_name() == *name) && entry.file_type()?.is_file();
        if !is_known {
            return Ok(false);
        }
        files.push(entry.path());
    }
    for file in files {
        fs::File::options().write(true).truncate(true).open(file)?;
    }
    Ok(true)
}

/// Removes what lies beside the folders that every workspace has; answers whether these are as they were made.
pub(crate) fn tidy(folder: &Path) -> bool {
    let tidied = || -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if !workspace::INSIDE.iter().any(|name| entry.file_name() == *name) {
                files::remove(&entry.path())?;
            }
        }
        Ok(())
    };
    tidied().is_ok() && is_as_made(folder)
}

/// Whether a job left its workspace as it was made: with nothing in it but an empty home and an empty folder for temporary files.
pub(crate) fn is_as_made(folder: &Path) -> bool {
    let holds = |folder: &Path| -> io::Result<usize> {
        let found = fs::symlink_metadata(folder)?;
        let is_plain = found.is_dir()
            && found.permissions().mode() & 0o7777 == 0o700
            && found.uid() == rustix::process::geteuid().as_raw()
            && found.size() <= FOLDER_BYTES_MAX;
        if is_plain { Ok(fs::read_dir(folder)?.count()) } else { Err(io::ErrorKind::Other.into()) }
    };
    matches!(holds(folder), Ok(2)) && workspace::INSIDE.iter().all(|name| matches!(holds(&folder.join(name)), Ok(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(workspaces: &Path, name: &str) -> PathBuf {
        let folder = workspaces.join(name);
        for path in [folder.clone(), folder.join("home"), folder.join("tmp")] {
            files::make_private_folder(&path).expect("made");
        }
        folder
    }

    #[test]
    fn a_workspace_is_kept_only_as_it_was_made() {
        let place = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::new(place.path().join("shelf")).expect("a shelf");
        let touch = |name: &str, touch: &dyn Fn(&Path)| {
            let folder = made(place.path(), name);
            touch(&folder);
            shelf.keep_workspace(&folder).expect("kept or removed");
            assert!(!folder.exists(), "{name}");
            shelf.take_workspace(&place.path().join("next"))
        };
        assert!(touch("untouched", &|_| {}));
        assert_eq!(fs::read_dir(place.path().join("next")).expect("listed").count(), 2);
        assert!(!touch("in home", &|folder| fs::write(folder.join("home/.profile"), "x").expect("written")));
        assert!(!touch("beside", &|folder| fs::write(folder.join("x"), "x").expect("written")));
        assert!(!touch("another name", &|folder| fs::rename(folder.join("tmp"), folder.join("t")).expect("renamed")));
        assert!(!touch("opened", &|folder| {
            fs::set_permissions(folder.join("tmp"), fs::Permissions::from_mode(0o777)).expect("opened");
        }));
        assert!(!touch("a symlink", &|folder| {
            fs::remove_dir(folder.join("home")).expect("removed");
            std::os::unix::fs::symlink("/", folder.join("home")).expect("linked");
        }));
    }

    #[test]
    fn what_is_made_ahead_is_as_what_is_left_over() {
        let place = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::new(place.path().join("shelf")).expect("a shelf");
        shelf.stock();
        shelf.stock();
        let (spool, workspace) = (place.path().join("1-1"), place.path().join("1-1.workspace"));
        assert!(shelf.take_spool(&spool) && shelf.take_workspace(&workspace));
        assert!(!shelf.take_spool(&place.path().join("2-1")), "one is enough");
        assert!(!shelf.take_workspace(&place.path().join("2-1")), "one is enough");
        assert!(is_as_made(&workspace));
        for file in fs::read_dir(&spool).expect("listed") {
            let file = file.expect("one").metadata().expect("it");
            assert_eq!((file.len(), file.permissions().mode() & 0o777), (0, 0o600));
        }
        shelf.keep_spool(&spool).expect("kept");
        assert!(shelf.take_spool(&spool), "it is one that can be kept");
    }

    #[test]
    fn a_workspace_is_tidied_and_nothing_outside_of_it() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = made(place.path(), "1-1");
        fs::write(place.path().join("outside"), "x").expect("written");
        fs::write(folder.join("forge-script"), "true").expect("written");
        fs::create_dir_all(folder.join("repository/a")).expect("made");
        std::os::unix::fs::symlink(place.path(), folder.join("way-out")).expect("linked");
        assert!(tidy(&folder), "what lies beside goes");
        assert_eq!(fs::read_dir(&folder).expect("listed").count(), 2);
        fs::write(folder.join("tmp/x"), "x").expect("written");
        assert!(!tidy(&folder), "what lies inside stays for whoever removes the whole");
        fs::remove_dir_all(folder.join("tmp")).expect("removed");
        std::os::unix::fs::symlink(place.path(), folder.join("tmp")).expect("linked");
        assert!(!tidy(&folder) && place.path().join("outside").exists());
    }

    #[test]
    fn nothing_of_an_attempt_is_left_in_its_folder() {
        let place = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::new(place.path().join("shelf")).expect("a shelf");
        let folder = place.path().join("1-1");
        files::make_private_folder(&folder).expect("made");
        fs::write(folder.join("attempt.json"), "a token").expect("written");
        fs::write(folder.join("log"), "a log").expect("written");
        shelf.keep_spool(&folder).expect("kept");
        let next = place.path().join("2-1");
        assert!(shelf.take_spool(&next) && !folder.exists());
        assert!(fs::read_dir(&next).expect("listed").all(|file| file.expect("one").metadata().expect("it").len() == 0));
        fs::write(next.join("git-askpass"), "a secret").expect("written");
        shelf.keep_spool(&next).expect("removed");
        assert!(!next.exists() && !shelf.take_spool(&next));
        fs::create_dir(place.path().join("shelf/left")).expect("made");
        Shelf::new(place.path().join("shelf")).expect("another");
        assert_eq!(fs::read_dir(place.path().join("shelf")).expect("listed").count(), 0, "a start empties it");
    }
}
