//! A host for a plugin's own tests: it records what the plugin asks for, answers what the test says, and holds the
//! workspace in memory. It refuses what the real one refuses of paths, programs' names, variables and sizes; it grants every
//! program unless a test says otherwise, and it never starts one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::checks;
use crate::{Child, Command, Entry, Event, Exit, Finished, Host, HostError, Level};

/// The fake. Its fields are what a test sets before, and looks at after.
#[derive(Debug, Default)]
pub struct FakeHost {
    /// Files of the workspace, by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Every command that was run or spawned, in order.
    pub commands: Vec<Command>,
    /// Every line that was logged.
    pub log: Vec<(Level, String)>,
    /// Every progress that was told.
    pub progress: Vec<(u64, Option<u64>)>,
    /// Whether the task is to end.
    pub canceled: bool,
    /// What `elapsed_ms` answers.
    pub elapsed_ms: u64,
    denied: BTreeSet<String>,
    answers: VecDeque<Result<Answer, HostError>>,
}

/// What a process does.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// How it ends.
    pub exit: Exit,
    /// All its output.
    pub stdout: Vec<u8>,
    /// All its errors.
    pub stderr: Vec<u8>,
}

impl Answer {
    /// A silent process that ends with this code.
    pub fn code(code: i32) -> Self {
        Self { exit: Exit::Code(code), stdout: Vec::new(), stderr: Vec::new() }
    }

    /// With this output.
    #[must_use]
    pub fn stdout(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdout = bytes.into();
        self
    }
}

impl FakeHost {
    /// An empty workspace, and processes that all end with exit code 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a file in the workspace.
    #[must_use]
    pub fn file(mut self, path: &str, data: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.to_owned(), data.into());
        self
    }

    /// The next process that has no answer yet does this. Without one, exit code 0.
    #[must_use]
    pub fn answer(mut self, answer: Answer) -> Self {
        self.answers.push_back(Ok(answer));
        self
    }

    /// The next process that has no answer yet is refused.
    #[must_use]
    pub fn refuse(mut self, error: HostError) -> Self {
        self.answers.push_back(Err(error));
        self
    }

    /// A program that is not granted.
    #[must_use]
    pub fn deny(mut self, program: &str) -> Self {
        self.denied.insert(program.to_owned());
        self
    }

    fn start(&mut self, command: Command) -> Result<Answer, HostError> {
        if self.canceled {
            return Err(HostError::Canceled);
        }
        checks::check(&command)?;
        let program = &command.program;
        if self.denied.contains(program) {
            return Err(HostError::Denied(format!("{program} is not in [allow].programs of plugins/fake.toml")));
        }
        if let Some(folder) = &command.cwd {
            inside(folder)?;
        }
        self.commands.push(command);
        self.answers.pop_front().unwrap_or_else(|| Ok(Answer::code(0)))
    }
}

/// As the real host, lexically: nothing leaves the workspace.
fn inside(path: &str) -> Result<String, HostError> {
    if path.is_empty() || path.contains('\0') {
        return Err(HostError::Invalid("a path is neither empty nor holds a NUL".to_owned()));
    }
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(HostError::Denied(format!("{path} leaves the workspace")));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    Ok(parts.join("/"))
}

impl Host for FakeHost {
    fn log(&mut self, level: Level, message: &str, _fields: &[(&str, &str)]) {
        self.log.push((level, message.to_owned()));
    }

    fn progress(&mut self, current: u64, total: Option<u64>, _message: Option<&str>) {
        self.progress.push((current, total));
    }

    fn elapsed_ms(&self) -> u64 {
        self.elapsed_ms
    }

    fn canceled(&self) -> bool {
        self.canceled
    }

    fn read(&mut self, path: &str, offset: u64, max_bytes: u32) -> Result<Vec<u8>, HostError> {
        let key = inside(path)?;
        let data = self.files.get(&key).ok_or_else(|| HostError::NotFound(format!("{path} in the workspace")))?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        Ok(data.iter().skip(start).take(max_bytes as usize).copied().collect())
    }

    fn write(&mut self, path: &str, data: &[u8]) -> Result<(), HostError> {
        self.files.insert(inside(path)?, data.to_vec());
        Ok(())
    }

    fn append(&mut self, path: &str, data: &[u8]) -> Result<(), HostError> {
        self.files.entry(inside(path)?).or_default().extend_from_slice(data);
        Ok(())
    }

    fn list(&mut self, path: &str) -> Result<Vec<Entry>, HostError> {
        let folder = inside(path)?;
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        for (file, data) in &self.files {
            let Some(rest) = file.strip_prefix(&prefix) else { continue };
            let (name, size, is_dir) = match rest.split_once('/') {
                Some((name, _)) => (name, 0, true),
                None => (rest, data.len() as u64, false),
            };
            entries.insert(name.to_owned(), Entry { name: name.to_owned(), size, is_dir });
        }
        if entries.is_empty() && !folder.is_empty() {
            return Err(HostError::NotFound(format!("{path} in the workspace")));
        }
        Ok(entries.into_values().collect())
    }

    fn remove(&mut self, path: &str) -> Result<(), HostError> {
        let removed = self.files.remove(&inside(path)?);
        removed.map(drop).ok_or_else(|| HostError::NotFound(format!("{path} in the workspace")))
    }

    fn run(&mut self, command: Command) -> Result<Finished, HostError> {
        let Answer { exit, stdout, stderr } = self.start(command)?;
        Ok(Finished { exit, stdout_tail: stdout, stderr_tail: stderr })
    }

    fn spawn(&mut self, command: Command) -> Result<Box<dyn Child>, HostError> {
        let Answer { exit, stdout, stderr } = self.start(command)?;
        let output = [Event::Stdout(stdout), Event::Stderr(stderr)];
        let events = output.into_iter().filter(|event| !is_silent(event)).collect();
        Ok(Box::new(FakeChild { events, exit }))
    }
}

fn is_silent(event: &Event) -> bool {
    match event {
        Event::Stdout(bytes) | Event::Stderr(bytes) => bytes.is_empty(),
        Event::Exited(_) => false,
    }
}

struct FakeChild {
    events: VecDeque<Event>,
    exit: Exit,
}

impl Child for FakeChild {
    fn next(&mut self) -> Result<Event, HostError> {
        Ok(self.events.pop_front().unwrap_or(Event::Exited(self.exit)))
    }

    fn kill(&mut self) {
        self.events.clear();
        self.exit = Exit::Signal(9);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_a_workspace_in_memory() {
        let mut host = FakeHost::new().file("checkout/site.yml", "- hosts: all");
        host.append("out/log", b"one").expect("it is inside");
        host.append("./out/log", b"two").expect("it is inside");
        assert_eq!(host.read("out/log", 3, 10), Ok(b"two".to_vec()));
        let names: Vec<String> = host.list(".").expect("it is there").into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["checkout", "out"]);
        assert!(matches!(host.read("../etc/passwd", 0, 1), Err(HostError::Denied(_))));
        assert!(matches!(host.write("/etc/passwd", b""), Err(HostError::Denied(_))));
        host.remove("out/log").expect("it is there");
        assert!(matches!(host.list("out"), Err(HostError::NotFound(_))));
    }

    #[test]
    fn answers_as_told_and_records_what_ran() {
        let mut host = FakeHost::new().answer(Answer::code(2).stdout("seen")).deny("rm");
        let mut child = host.spawn(Command::new("cat")).expect("it is granted");
        assert_eq!(child.next(), Ok(Event::Stdout(b"seen".to_vec())));
        assert_eq!(child.next(), Ok(Event::Exited(Exit::Code(2))));
        assert_eq!(host.run(Command::new("true")).map(|finished| finished.exit), Ok(Exit::Code(0)));
        assert!(matches!(host.run(Command::new("rm")), Err(HostError::Denied(_))));
        let programs: Vec<&str> = host.commands.iter().map(|command| command.program.as_str()).collect();
        assert_eq!(programs, ["cat", "true"]);
    }
}
