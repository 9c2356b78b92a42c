//! A commit read into memory as a tree of files, by the rules that a folder is read by: bounded, without dotfiles, following only
//! symlinks that stay inside. Nothing is checked out, and of a blobless repository only the blobs of the tree are fetched.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forge_config::{Code, Diagnostic, Files, Severity};

use super::super::failure::{SourceCode, SourceFailure};
use super::super::read::{Kind, ReadTree, TREE_BYTES_MAX, TREE_DEPTH_MAX, TREE_FILES_MAX, finding};
use super::program::Bounds;
use super::{Git, LOCAL_TIME_MAX};

/// The most bytes of a listing of a commit's files: about half a million of them.
const LISTING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most bytes that git may say of sizes; a line has less than a hundred.
const SIZES_BYTES_MAX: usize = 128 * (TREE_FILES_MAX + LINKS_MAX);

/// What stands around each blob in git's answer.
const BLOB_HEAD_BYTES_MAX: usize = 128;

/// The longest target of a symlink.
const LINK_BYTES_MAX: u64 = 4096;

/// The most symlinks of a tree.
const LINKS_MAX: usize = 20_000;

/// How many symlinks may lead on to another.
const LINK_HOPS_MAX: u32 = 16;

/// What stands at a path of the commit.
#[derive(Clone, Debug)]
enum Node {
    Folder(BTreeSet<String>),
    File { blob: String },
    Link { target: Option<String>, blob: String },
    Submodule,
}

/// The commit's files, by path; the root is the empty path.
struct Nodes(BTreeMap<String, Node>);

impl Git {
    /// Reads the tree of `commit`.
    pub(super) fn read_tree(&self, commit: &str) -> Result<ReadTree, SourceFailure> {
        let mut nodes = self.nodes(commit)?;
        self.read_links(&mut nodes)?;
        let mut walk = Walk { nodes: &nodes, files: BTreeMap::new(), findings: BTreeMap::new() };
        walk.folder("", "", &mut Vec::new());
        let Walk { nodes: _, files: wanted, mut findings } = walk;
        let files = self.contents(&wanted, &mut findings)?;
        Ok(ReadTree { revision: commit.to_owned(), files, findings: findings.into_values().collect() })
    }

    fn nodes(&self, commit: &str) -> Result<Nodes, SourceFailure> {
        let directory = self.directory();
        let root = format!("{commit}:{directory}");
        let bounds = Bounds { time_max: LOCAL_TIME_MAX, bytes_max: LISTING_BYTES_MAX };
        let ended = self.run(&["ls-tree", "-r", "-z", "--full-tree", &root], b"", bounds)?;
        if ended.code != Some(0) {
            let failure = SourceFailure::new(
                SourceCode::NoDirectory,
                format!("the commit {commit} has no folder {directory:?}: {}", ended.reason()),
                "commit that folder, or correct `source.directory` in forge.toml",
            );
            return Err(failure.about(commit));
        }
        let mut nodes = Nodes(BTreeMap::from([(String::new(), Node::Folder(BTreeSet::new()))]));
        for line in ended.answer.split(|byte| *byte == 0) {
            // A name that is no UTF-8 keeps a mark in it, which no name of an object has: the check says so.
            let line = String::from_utf8_lossy(line);
            let Some((head, path)) = line.split_once('\t') else { continue };
            let mut head = head.split(' ');
            let (Some(mode), Some(_), Some(blob)) = (head.next(), head.next(), head.next()) else { continue };
            let blob = blob.to_owned();
            nodes.add(
                path,
                match mode {
                    "120000" => Node::Link { target: None, blob },
                    "160000" => Node::Submodule,
                    _ => Node::File { blob },
                },
            );
        }
        Ok(nodes)
    }

    fn read_links(&self, nodes: &mut Nodes) -> Result<(), SourceFailure> {
        let links = nodes.0.values().filter_map(|node| match node {
            Node::Link { blob, .. } => Some(blob.clone()),
            Node::Folder(_) | Node::File { .. } | Node::Submodule => None,
        });
        let links: BTreeSet<String> = links.take(LINKS_MAX).collect();
        let sizes = self.sizes(&links)?;
        let small = |blob: &String| sizes.get(blob).is_some_and(|size| *size <= LINK_BYTES_MAX);
        let targets = self.blobs(&links.into_iter().filter(small).collect(), &sizes)?;
        for node in nodes.0.values_mut() {
            if let Node::Link { target, blob } = node {
                *target = targets.get(blob).and_then(|bytes| String::from_utf8(bytes.clone()).ok());
            }
        }
        Ok(())
    }

    /// The files' bytes; what is too large becomes a finding.
    fn contents(
        &self,
        wanted: &BTreeMap<String, (Kind, String)>,
        findings: &mut BTreeMap<String, Diagnostic>,
    ) -> Result<Files, SourceFailure> {
        let mut find = |file: &str, message: String, hint: &str| {
            findings.insert(file.to_owned(), finding(file, Code::TooLarge, message, Some(hint)));
        };
        if wanted.len() > TREE_FILES_MAX {
            let message = format!("the tree holds more than {TREE_FILES_MAX} files");
            find(".", message, "split it over several daemons");
            return Ok(Files::new());
        }
        let sizes = self.sizes(&wanted.values().map(|(_, blob)| blob.clone()).collect())?;
        let (mut taken, mut bytes) = (BTreeSet::new(), 0);
        for (path, (kind, blob)) in wanted {
            let size = sizes.get(blob).copied().unwrap_or_default();
            if size > kind.bytes_max() {
                find(path, format!("the file is larger than {} bytes", kind.bytes_max()), "make it smaller");
            } else if bytes + size > TREE_BYTES_MAX {
                let message = format!("the tree is larger than {TREE_BYTES_MAX} bytes");
                find(".", message, "remove components that no plugin names");
            } else {
                bytes += size;
                taken.insert(blob.clone());
            }
        }
        let blobs = self.blobs(&taken, &sizes)?;
        let file = |(path, (_, blob)): (&String, &(Kind, String))| Some((path.clone(), blobs.get(blob)?.clone()));
        Ok(wanted.iter().filter_map(file).collect())
    }

    /// The sizes of blobs, those that the repository lacks fetched before, all at once.
    fn sizes(&self, blobs: &BTreeSet<String>) -> Result<BTreeMap<String, u64>, SourceFailure> {
        let (sizes, missing) = self.known_sizes(blobs)?;
        if missing.is_empty() {
            return Ok(sizes);
        }
        self.fetch_blobs(&missing)?;
        let (sizes, missing) = self.known_sizes(blobs)?;
        match missing.first() {
            None => Ok(sizes),
            Some(blob) => Err(SourceFailure::new(
                SourceCode::Unreachable,
                format!("the server did not give the file {blob} that it promised"),
                "look for what is wrong with the repository: `git fsck` there says",
            )),
        }
    }

    fn known_sizes(&self, blobs: &BTreeSet<String>) -> Result<(BTreeMap<String, u64>, Vec<String>), SourceFailure> {
        let bounds = Bounds { time_max: LOCAL_TIME_MAX, bytes_max: SIZES_BYTES_MAX };
        let asked = lines(blobs);
        let ended =
            self.succeed(&["cat-file", "--batch-check=%(objectname) %(objectsize)", "--buffer"], &asked, bounds)?;
        let (mut sizes, mut missing) = (BTreeMap::new(), Vec::new());
        for line in String::from_utf8_lossy(&ended.answer).lines() {
            match line.split_once(' ') {
                Some((blob, "missing")) => missing.push(blob.to_owned()),
                Some((blob, size)) => {
                    sizes.insert(blob.to_owned(), size.parse().unwrap_or(u64::MAX));
                }
                None => {}
            }
        }
        Ok((sizes, missing))
    }

    fn blobs(
        &self,
        blobs: &BTreeSet<String>,
        sizes: &BTreeMap<String, u64>,
    ) -> Result<BTreeMap<String, Vec<u8>>, SourceFailure> {
        let bytes = blobs.iter().filter_map(|blob| sizes.get(blob)).sum::<u64>();
        let bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(blobs.len() * BLOB_HEAD_BYTES_MAX);
        let bounds = Bounds { time_max: LOCAL_TIME_MAX, bytes_max };
        let ended = self.succeed(&["cat-file", "--batch", "--buffer"], &lines(blobs), bounds)?;
        let (mut found, mut rest) = (BTreeMap::new(), ended.answer.as_slice());
        while let Some((head, after)) = split_line(rest) {
            let mut head = head.split(' ');
            let (Some(blob), Some(_), Some(size)) = (head.next(), head.next(), head.next()) else { break };
            let Some((content, after)) = size.parse().ok().and_then(|size| after.split_at_checked(size)) else { break };
            found.insert(blob.to_owned(), content.to_vec());
            // A line feed that is no part of the blob ends it.
            rest = after.get(1..).unwrap_or_default();
        }
        match blobs.iter().find(|blob| !found.contains_key(*blob)) {
            None => Ok(found),
            Some(blob) => Err(super::host_failure(format!("git did not read the object {blob}"))),
        }
    }
}

fn lines(blobs: &BTreeSet<String>) -> Vec<u8> {
    blobs.iter().flat_map(|blob| blob.bytes().chain([b'\n'])).collect()
}

fn split_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

/// Where a symlink leads.
#[derive(Debug, PartialEq, Eq)]
enum Lead {
    /// To this path.
    To(String),
    /// Out of the tree.
    Outside,
    /// To nothing, or round in a circle.
    Nowhere,
}

impl Nodes {
    fn add(&mut self, path: &str, node: Node) {
        let (mut above, mut rest) = (String::new(), path);
        while let Some((folder, below)) = rest.split_once('/') {
            let next = join(&above, folder);
            self.child(&above, folder);
            self.0.entry(next.clone()).or_insert_with(|| Node::Folder(BTreeSet::new()));
            (above, rest) = (next, below);
        }
        self.child(&above, rest);
        self.0.insert(path.to_owned(), node);
    }

    fn child(&mut self, folder: &str, name: &str) {
        if let Some(Node::Folder(children)) = self.0.get_mut(folder) {
            children.insert(name.to_owned());
        }
    }

    /// The real path behind a path that may pass through symlinks.
    fn lead(&self, path: &str) -> Lead {
        let mut ahead: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        let (mut real, mut hops) = (Vec::<String>::new(), 0);
        while let Some(part) = ahead.pop_front() {
            match part.as_str() {
                "" | "." => continue,
                ".." if real.pop().is_none() => return Lead::Outside,
                ".." => continue,
                _ => real.push(part),
            }
            match self.0.get(&real.join("/")) {
                None => return Lead::Nowhere,
                Some(Node::Link { target: Some(target), .. }) => {
                    hops += 1;
                    if hops > LINK_HOPS_MAX {
                        return Lead::Nowhere;
                    }
                    if target.starts_with('/') {
                        return Lead::Outside;
                    }
                    real.pop();
                    for part in target.split('/').rev() {
                        ahead.push_front(part.to_owned());
                    }
                }
                Some(Node::Link { target: None, .. }) => return Lead::Nowhere,
                Some(Node::Folder(_) | Node::File { .. } | Node::Submodule) => {}
            }
        }
        Lead::To(real.join("/"))
    }
}

/// Gathers the files of the tree.
struct Walk<'a> {
    nodes: &'a Nodes,
    /// By path as the tree shows it: what it is, and its blob.
    files: BTreeMap<String, (Kind, String)>,
    /// One finding a file is enough.
    findings: BTreeMap<String, Diagnostic>,
}

impl Walk<'_> {
    /// `real` is where the folder is, `shown` how the tree names it; `above` holds the real folders that lead here.
    fn folder(&mut self, real: &str, shown: &str, above: &mut Vec<String>) {
        if above.iter().any(|folder| folder == real) || above.len() >= TREE_DEPTH_MAX {
            let message = format!("the folder {shown} leads into itself or lies too deep");
            let hint = "remove the symlink that leads back, or the folders that nest so deep";
            return self.find(shown, Code::Path, message, hint);
        }
        let Some(Node::Folder(children)) = self.nodes.0.get(real) else { return };
        above.push(real.to_owned());
        for name in children.iter().filter(|name| !name.starts_with('.')) {
            // A tree that links to itself over and over would multiply; beyond this bound it is refused anyway.
            if self.files.len() > TREE_FILES_MAX {
                break;
            }
            self.entry(&join(real, name), &join(shown, name), name, above);
        }
        above.pop();
    }

    fn entry(&mut self, real: &str, shown: &str, name: &str, above: &mut Vec<String>) {
        let kind = Kind::of(name);
        let (real, node) = match self.nodes.0.get(real) {
            Some(Node::Link { .. }) => match self.nodes.lead(real) {
                Lead::To(real) => {
                    let node = self.nodes.0.get(&real);
                    (real, node)
                }
                Lead::Outside if kind.is_some() => {
                    let hint = "keep what it points to inside the tree: only that is reviewed with it";
                    return self.find(shown, Code::Path, "the symlink leaves the tree".to_owned(), hint);
                }
                Lead::Nowhere if kind.is_some() => {
                    let hint = "let it point to a file inside the tree, or remove it";
                    return self.find(shown, Code::Path, "the symlink leads nowhere".to_owned(), hint);
                }
                Lead::Outside | Lead::Nowhere => return,
            },
            node => (real.to_owned(), node),
        };
        match (node, kind) {
            (Some(Node::Folder(_)), _) => self.folder(&real, shown, above),
            (Some(Node::File { blob }), Some(kind)) => {
                self.files.insert(shown.to_owned(), (kind, blob.clone()));
            }
            (Some(Node::Submodule), _) => {
                let message = "a submodule is not read: the tree is what its own repository holds".to_owned();
                let hint = "commit the files themselves, or move the submodule out of the tree";
                self.find(shown, Code::Unused, message, hint);
                if let Some(found) = self.findings.get_mut(shown) {
                    found.severity = Severity::Warning;
                }
            }
            (Some(Node::File { .. } | Node::Link { .. }) | None, _) => {}
        }
    }

    fn find(&mut self, file: &str, code: Code, message: String, hint: &str) {
        self.findings.insert(file.to_owned(), finding(file, code, message, Some(hint)));
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}
