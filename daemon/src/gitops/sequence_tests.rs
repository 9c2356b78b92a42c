//! The promise of this module, against real repositories: whatever is pushed, in whatever order, and whenever the daemon restarts, the
//! last valid commit of an unbroken history serves.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use forge_config::CheckOptions;
use forge_plugin_host::{Host, HostOptions};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio_util::sync::CancellationToken;

use super::apply::{Applier, ApplyOptions, Look, Source};
use super::git::{Git, GitOptions};
use crate::clock::Clock;
use crate::plugins::Catalog;

/// How many sequences are tried, and how many steps each has at most: every step is a dozen processes.
const SEQUENCES: u32 = 10;
const STEPS_MAX: usize = 10;

/// What somebody does to the repository, or to the daemon.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Valid,
    /// A file that is no TOML, or one that breaks a rule.
    Broken {
        syntax: bool,
    },
    /// The newest commit is replaced by another one.
    Amended {
        valid: bool,
    },
    /// The branch is set back by so many commits.
    SetBack(u8),
    /// The branch goes, or comes back.
    Renamed,
    /// The repository goes, or comes back.
    Moved,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Valid),
        3 => any::<bool>().prop_map(|syntax| Step::Broken { syntax }),
        1 => any::<bool>().prop_map(|valid| Step::Amended { valid }),
        1 => (1_u8..4).prop_map(Step::SetBack),
        1 => Just(Step::Renamed),
        1 => Just(Step::Moved),
        2 => Just(Step::Restart),
    ]
}

pub(super) struct Commit {
    pub(super) id: String,
    parent: Option<usize>,
    /// What its project says, where it is valid.
    says: Option<String>,
}

/// The repository, and what ought to serve.
pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) commits: Vec<Commit>,
    pub(super) head: usize,
    serving: Option<usize>,
    branch_is_there: bool,
    repository_is_there: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("tree/projects/shop")).expect("made");
        let mut world = Self {
            folder,
            commits: Vec::new(),
            head: 0,
            serving: None,
            branch_is_there: true,
            repository_is_there: true,
        };
        world.git(&["init", "--quiet", "--initial-branch=main"]);
        world.commit(None, Some(true));
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(if self.repository_is_there { "tree" } else { "aside" })
    }

    pub(super) fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git runs");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// `valid` is `None` for a file that is not even TOML.
    fn commit(&mut self, parent: Option<usize>, valid: Option<bool>) {
        let text = format!("commit {}", self.commits.len());
        let file = match valid {
            Some(true) => format!("description = {text:?}\n"),
            Some(false) => format!("description = 7 # {text}\n"),
            None => format!("[ # {text}\n"),
        };
        std::fs::write(self.path().join("projects/shop/project.toml"), file).expect("written");
        self.git(&["add", "--all"]);
        let mut commit = vec!["commit", "--quiet", "--message", &text];
        if self.commits.get(self.head).is_some() && parent != Some(self.head) {
            commit.push("--amend");
        }
        self.git(&commit);
        let id = self.git(&["rev-parse", "HEAD"]);
        self.commits.push(Commit { id, parent, says: (valid == Some(true)).then_some(text) });
        self.head = self.commits.len() - 1;
    }

    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Valid => self.commit(Some(self.head), Some(true)),
            Step::Broken { syntax } => self.commit(Some(self.head), (!syntax).then_some(false)),
            Step::Amended { valid } => self.commit(self.commits[self.head].parent, Some(valid)),
            Step::SetBack(count) => {
                for _ in 0..count {
                    self.head = self.commits[self.head].parent.unwrap_or(self.head);
                }
                self.git(&["reset", "--quiet", "--hard", &self.commits[self.head].id]);
            }
            Step::Renamed => {
                let (from, to) = if self.branch_is_there { ("main", "gone") } else { ("gone", "main") };
                self.git(&["branch", "--move", from, to]);
                self.branch_is_there = !self.branch_is_there;
            }
            Step::Moved => {
                let before = self.path();
                self.repository_is_there = !self.repository_is_there;
                std::fs::rename(before, self.path()).expect("moved");
            }
            Step::Restart => {}
        }
    }

    fn descends(&self, from: usize) -> bool {
        std::iter::successors(Some(self.head), |commit| self.commits[*commit].parent).any(|commit| commit == from)
    }

    /// What the daemon does when it looks; answers whether the newest commit serves.
    pub(super) fn look(&mut self) -> bool {
        if !self.branch_is_there || !self.repository_is_there {
            return false;
        }
        let follows = self.serving.is_none_or(|serving| self.descends(serving));
        if follows && self.commits[self.head].says.is_some() {
            self.serving = Some(self.head);
        }
        self.serving == Some(self.head)
    }

    /// The newest commit serves, since an admin said so.
    pub(super) fn serves_newest(&mut self) {
        self.serving = Some(self.head);
    }

    /// Gives the newest commit a signature, whatever that is worth.
    pub(super) fn sign(&mut self, signature: &str) {
        let commit = self.git(&["cat-file", "commit", "HEAD"]);
        let signed = commit.replacen("\n\n", &format!("\ngpgsig {signature}\n\n"), 1) + "\n";
        let file = self.folder.path().join("signed");
        std::fs::write(&file, signed).expect("written");
        let file = file.to_str().expect("UTF-8").to_owned();
        let id = self.git(&["hash-object", "-t", "commit", "-w", &file]);
        self.git(&["reset", "--quiet", "--hard", &id]);
        self.commits[self.head].id = id;
    }

    pub(super) fn applier(&self) -> Applier {
        self.applier_with(|_| {})
    }

    /// The same with other options of the source.
    pub(super) fn applier_with(&self, change: impl FnOnce(&mut GitOptions)) -> Applier {
        let data_dir = self.folder.path().join("data");
        let plugin_dir = data_dir.join("plugins");
        std::fs::create_dir_all(&plugin_dir).expect("made");
        let mut git = GitOptions {
            url: format!("file://{}", self.folder.path().join("tree").display()),
            branch: "main".to_owned(),
            directory: String::new(),
            access: forge_config::SourceAccess::default(),
            allowed_signers_file: None,
            folder: data_dir.join("source"),
            stopping: CancellationToken::new(),
        };
        change(&mut git);
        let git = Git::new(git);
        let options = ApplyOptions {
            data_dir,
            plugin_dir,
            catalog: Arc::new(Catalog::new(Host::new(HostOptions::default()).expect("the host starts"))),
            check: CheckOptions::default(),
            identity_file: None,
            clock: Clock::system(),
        };
        let applier = Applier::new(options, Source::Git(Box::new(git)));
        applier.first();
        applier.own_data_folder();
        applier
    }

    pub(super) fn assert_serves(&self, applier: &Applier) {
        let applied = applier.applied().borrow().clone();
        let expected = self.serving.map(|serving| &self.commits[serving]);
        assert_eq!(applied.revision, expected.map(|commit| commit.id.clone()).unwrap_or_default());
        let says = applied.tree.projects.get("shop").map(|project| project.description.clone());
        assert_eq!(says, expected.and_then(|commit| commit.says.clone()), "the tree is the commit's own");
        let subject = applied.commit.as_ref().map(|commit| commit.subject.clone());
        assert_eq!(subject, says, "and so is who made it");
    }
}

fn run(steps: &[Step]) {
    let mut world = World::new();
    let mut applier = world.applier();
    world.look();
    world.assert_serves(&applier);
    for step in steps {
        world.take(*step);
        if matches!(step, Step::Restart) {
            drop(applier);
            applier = world.applier();
            world.assert_serves(&applier);
        }
        applier.look(&Look::Again);
        let newest_serves = world.look();
        world.assert_serves(&applier);
        assert_eq!(applier.view().status().last_error.is_none(), newest_serves, "{:?}", applier.view().status());
    }
}

#[test]
fn any_sequence_of_commits_leaves_the_last_valid_one_serving() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let config = Config { cases: SEQUENCES, failure_persistence: None, max_shrink_iters: 30, ..Config::default() };
    let steps = proptest::collection::vec(step(), 1..=STEPS_MAX);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        run(&steps);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
