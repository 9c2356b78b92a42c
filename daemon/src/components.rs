//! The components of plugins on disk, `data_dir/plugins/<sha256>.wasm`: runners fetch them by digest.
//!
//! A revision's components are put there before it serves. One stays as long as the tree names it or an open task does, and [`KEPT_MS`] after
//! that: a rollback, or a task that ended and is retried, needs the old one. A file's time of change says when it was last known to be needed.
//! Whoever is about to need one marks it so under the folder's lock, and under that lock nothing is removed that was marked lately. So what is
//! removed is nobody's, whoever asks at the same moment. The last good revision holds its own components, and puts them back where they lack.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use forge_api::Timestamp;
use forge_config::Files;
use forge_config::meant::{Plugin, PluginSource, Tree};
use rustix::fs::FlockOperation;

use crate::files::{self, FileError, MODE_PRIVATE};
use crate::hex;

/// How long a component stays that neither the tree nor an open task names, in milliseconds: 30 days.
pub(crate) const KEPT_MS: u64 = 30 * 24 * 3_600_000;

/// How old a mark may be of what the tree names before it is made anew, in milliseconds.
const MARK_AGAIN_MS: u64 = 24 * 3_600_000;

/// How long what is being written is left alone, in milliseconds.
const UNFINISHED_MS: u64 = 24 * 3_600_000;

/// How a component's file ends.
const END: &str = ".wasm";

/// Puts every component that the tree names where runners are served from.
pub(crate) fn store(folder: &Path, tree: &Tree, files: &Files) -> Result<(), FileError> {
    let components: BTreeMap<String, &[u8]> = tree
        .plugins
        .values()
        .filter_map(|plugin| component(plugin, files).map(|bytes| (hex::encode(&plugin.sha256.0), bytes)))
        .collect();
    let _lock = lock(folder).map_err(|error| FileError::new("lock", folder, error))?;
    for (sha256, bytes) in components {
        let path = path_of(folder, &sha256);
        // Named by digest and written whole: a file of the right length is the right file.
        let is_there = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == bytes.len() as u64);
        if is_there {
            mark(&path, SystemTime::now()).map_err(|error| FileError::new("mark as needed", &path, error))?;
        } else {
            files::write_atomic(&path, bytes, MODE_PRIVATE)?;
        }
    }
    Ok(())
}

fn component<'a>(plugin: &Plugin, files: &'a Files) -> Option<&'a [u8]> {
    match &plugin.source {
        PluginSource::Builtin(name) => forge_plugin_builtins::get(name).map(|builtin| builtin.wasm),
        PluginSource::File(path) => files.get(path).map(Vec::as_slice),
    }
}

/// Where the component of a digest lies.
pub(crate) fn path_of(folder: &Path, sha256: &str) -> PathBuf {
    folder.join(format!("{sha256}{END}"))
}

/// Whether a component is there; from now on it is needed. It blocks.
pub(crate) fn need(folder: &Path, sha256: &str, now: Timestamp) -> io::Result<bool> {
    let marked = lock(folder).and_then(|_lock| mark(&path_of(folder, sha256), at(now)));
    match marked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Marks what the tree names, removes what was left half written, and answers what may be removed unless an open task names it. It blocks.
pub(crate) fn look(folder: &Path, in_tree: &BTreeSet<String>, now: Timestamp) -> io::Result<Vec<String>> {
    let mut unneeded = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // No revision served yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(unneeded),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let age_ms = match age_ms(&entry.path(), now) {
            Ok(age_ms) => age_ms,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match name.strip_suffix(END).filter(|digest| is_digest(digest)) {
            Some(digest) if in_tree.contains(digest) && age_ms < MARK_AGAIN_MS => {}
            Some(digest) if in_tree.contains(digest) => mark(&entry.path(), at(now))?,
            Some(digest) if age_ms >= KEPT_MS => unneeded.push(digest.to_owned()),
            Some(_) => {}
            // `write_atomic` of a daemon that was killed.
            None if name.starts_with('.') && name.contains(END) && age_ms >= UNFINISHED_MS => {
                fs::remove_file(entry.path())?;
            }
            // The folder of compiled ones looks after itself.
            None => {}
        }
    }
    Ok(unneeded)
}

/// Removes a component unless somebody has marked it meanwhile. It blocks.
pub(crate) fn remove_unneeded(folder: &Path, sha256: &str, now: Timestamp) -> io::Result<()> {
    let _lock = lock(folder)?;
    let path = path_of(folder, sha256);
    if age_ms(&path, now)? >= KEPT_MS {
        fs::remove_file(&path)?;
        tracing::info!(sha256, "a plugin's component was removed: nothing has named it for 30 days");
    }
    Ok(())
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Held until what it answers is dropped, or this process ends.
fn lock(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    rustix::fs::flock(&folder, FlockOperation::LockExclusive)?;
    Ok(folder)
}

fn mark(path: &Path, now: SystemTime) -> io::Result<()> {
    File::open(path)?.set_modified(now)
}

/// How long ago it was marked. What lies in the future was just marked, by a clock that was set back since.
fn age_ms(path: &Path, now: Timestamp) -> io::Result<u64> {
    let marked = fs::symlink_metadata(path)?.modified()?;
    let age = at(now).duration_since(marked).unwrap_or_default();
    Ok(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

fn at(now: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(now.unix_micros()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_micros(1_700_000_000_000_000);
    const DAY_MS: u64 = 24 * 3_600_000;

    fn digest(digit: &str) -> String {
        digit.repeat(64)
    }

    fn put(folder: &Path, name: &str, days_ago: u64) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, "component").expect("written");
        mark(&path, at(NOW) - Duration::from_millis(days_ago * DAY_MS)).expect("marked");
        path
    }

    #[test]
    fn what_nothing_has_named_for_long_is_found_and_what_the_tree_names_is_marked() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path();
        let component = |digit: &str, days_ago| put(folder, &format!("{}{END}", digest(digit)), days_ago);
        let in_tree = component("a", 300);
        component("b", 29);
        component("c", 30);
        component("d", 300);
        let half = put(folder, &format!(".{}{END}.4711.new", digest("e")), 2);
        let being_written = put(folder, &format!(".{}{END}.4712.new", digest("e")), 0);
        let others = [put(folder, "notes.wasm", 300), put(folder, "README", 300)];
        fs::create_dir(folder.join("compiled")).expect("a folder");

        let named = BTreeSet::from([digest("a")]);
        let mut found = look(folder, &named, NOW).expect("looked");
        found.sort();
        assert_eq!(found, [digest("c"), digest("d")]);
        assert_eq!(age_ms(&in_tree, NOW).expect("there"), 0);
        assert!(!half.exists() && being_written.exists() && others.iter().all(|path| path.exists()));

        // A task was retried between the two.
        assert!(need(folder, &digest("d"), NOW).expect("marked"));
        assert!(!need(folder, &digest("f"), NOW).expect("it is not there"));
        for unneeded in found {
            remove_unneeded(folder, &unneeded, NOW).expect("removed or left");
        }
        let is_there = |digit: &str| path_of(folder, &digest(digit)).exists();
        assert_eq!(["a", "b", "c", "d"].map(is_there), [true, true, false, true]);
        assert_eq!(look(Path::new("/nowhere"), &named, NOW).expect("nothing serves yet"), [""; 0]);
    }
}
