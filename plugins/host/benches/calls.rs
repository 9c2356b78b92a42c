//! What a call of a plugin costs: `cargo bench -p forge-plugin-host`. It measures and asserts nothing.
//!
//! | line | what is measured |
//! |---|---|
//! | describe, execute | one call each of a guest that does nothing, after the first ones; the median |
//! | cold | a component of about 100 KB from its bytes to its first answer, compiled; then from the cache |
//! | 1,000 calls | what the process holds more while so many calls stand still in the middle, divided by their number |

use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use forge_plugin_host::{
    CapabilityError, ChildProcess, Command, ExecuteRequest, Exit, Finished, Grants, Host, HostOptions, Job, Level,
    Limits, Memory, Plugin, Services,
};

#[path = "../tests/it/packed.rs"]
mod packed;

/// How often a call is measured; the median counts.
const ROUNDS: usize = 2_001;

/// How often a compilation is measured.
const COLD_ROUNDS: usize = 7;

/// How many calls stand still at a time.
const CALLS: u32 = 1_000;

/// The stack of a calling thread, in bytes: a guest's own is beside it.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// An embedder that does nothing at once, or waits in the middle of a call for all others.
#[derive(Clone)]
struct Embedder(Option<Arc<(Barrier, Barrier)>>);

impl Services for Embedder {
    fn log(&mut self, _level: Level, _message: &str, _fields: &[(String, String)]) {}

    fn progress(&mut self, _current: u64, _total: Option<u64>, _message: Option<&str>) {}

    fn canceled(&self) -> bool {
        false
    }

    fn run(&mut self, _command: Command) -> Result<Finished, CapabilityError> {
        if let Some(barriers) = &self.0 {
            let (here, on) = &**barriers;
            here.wait();
            on.wait();
        }
        Ok(Finished { exit: Exit::Code(0), stdout_tail: Vec::new(), stderr_tail: Vec::new() })
    }

    fn spawn(&mut self, _command: Command) -> Result<Box<dyn ChildProcess>, CapabilityError> {
        Err(CapabilityError::Denied("not here".to_owned()))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn host(memory: Memory, cache_dir: Option<PathBuf>) -> Host {
    Host::new(HostOptions { cache_dir, memory, ..HostOptions::default() }).expect("the engine starts")
}

fn execute(plugin: &Plugin, workspace: &Path, embedder: Embedder) {
    let request = ExecuteRequest {
        job: Job { arguments: vec!["true".to_owned()], ..Job::default() },
        workspace: workspace.to_owned(),
        grants: Grants { plugin_name: "x".to_owned(), programs: vec!["true".to_owned()] },
        limits: Limits::default(),
        file_user: None,
    };
    plugin.execute(request, Box::new(embedder)).expect("it ends well");
}

fn median(rounds: usize, mut work: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..rounds).map(|_| work()).collect();
    times.sort_unstable();
    times[rounds / 2]
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * rustix::param::page_size()
}

#[expect(clippy::print_stdout, reason = "a benchmark says what it measured")]
fn say(what: &str, value: impl std::fmt::Display) {
    println!("{what:<44} {value}");
}

fn main() {
    let workspace = tempfile::tempdir().expect("a folder");
    let workspace = workspace.path();
    let nothing = packed::component(&root(), "run");
    for (name, memory) in [("on demand", Memory::OnDemand), ("from a pool", Memory::Pool { calls: CALLS })] {
        let plugin = host(memory, None).load(&nothing).expect("it loads");
        let both = || {
            plugin.describe().expect("described");
            execute(&plugin, workspace, Embedder(None));
        };
        (0..100).for_each(|_| both());
        let describe = median(ROUNDS, || timed(|| drop(plugin.describe().expect("described"))));
        let execute_alone = median(ROUNDS, || timed(|| execute(&plugin, workspace, Embedder(None))));
        say(&format!("describe, memory {name}"), format_args!("{describe:.1?}"));
        say(&format!("execute, memory {name}"), format_args!("{execute_alone:.1?}"));
        say(&format!("describe and execute, memory {name}"), format_args!("{:.1?}", median(ROUNDS, || timed(both))));

        let before = resident_bytes();
        let barriers = Arc::new((Barrier::new(CALLS as usize + 1), Barrier::new(CALLS as usize + 1)));
        std::thread::scope(|scope| {
            for _ in 0..CALLS {
                let (plugin, embedder) = (plugin.clone(), Embedder(Some(Arc::clone(&barriers))));
                let caller = std::thread::Builder::new().stack_size(STACK_BYTES);
                caller.spawn_scoped(scope, move || execute(&plugin, workspace, embedder)).expect("a thread");
            }
            barriers.0.wait();
            let of_one = resident_bytes().saturating_sub(before) / CALLS as usize;
            say(&format!("1,000 calls at a time, memory {name}, each"), format_args!("{} KiB", of_one / 1024));
            barriers.1.wait();
        });
    }

    // The sdk's own guests are about as large as what people write.
    let Some(bytes) = std::env::args_os().skip(1).find(|argument| !argument.to_string_lossy().starts_with('-')) else {
        say("cold", "name a component: cargo bench -p forge-plugin-host -- FILE.wasm");
        return;
    };
    let bytes = std::fs::read(bytes).expect("the component");
    let cold = |cache_dir: Option<PathBuf>| {
        let host = host(Memory::OnDemand, cache_dir);
        timed(|| drop(host.load(&bytes).expect("it loads").describe().expect("described")))
    };
    let compiled = median(COLD_ROUNDS, || cold(None));
    say(&format!("cold, {} KB, compiled", bytes.len() / 1000), format_args!("{compiled:.1?}"));
    let cache = tempfile::tempdir().expect("a folder");
    let folder = cache.path().join("compiled");
    cold(Some(folder.clone()));
    let cached = median(COLD_ROUNDS, || cold(Some(folder.clone())));
    say("cold, from the cache", format_args!("{cached:.1?}"));
}
