//! Each guest ends its own call with a clear error, and nothing else.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use forge_plugin_host::{CallError, ExecuteError, Host, HostOptions, Level, Limits, Memory, Trap, TrapCause};

use crate::guests::{Seen, bytes, execute, host, load};

const LIMITS: Limits = Limits { memory_bytes: 64 * 1024 * 1024, time_ms: 5_000 };

fn trap(name: &str, seen: &Seen, limits: Limits) -> Trap {
    let workspace = tempfile::tempdir().expect("a folder");
    match execute(&load(name), seen, workspace.path(), limits, &[]) {
        Err(ExecuteError::Trapped(trap)) => trap,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn an_endless_loop_ends_at_its_time_limit() {
    let limits = Limits { time_ms: 100, ..LIMITS };
    let trap = trap("endless-loop", &Seen::default(), limits);
    assert_eq!(
        trap.to_string(),
        "plugins/x.toml [limits].time = \"100ms\" used up: if it needs more, write `time = \"200ms\"` there (in spin < execute)"
    );
}

#[test]
fn an_endless_start_ends_at_its_time_limit_while_it_describes_itself() {
    let error = load("endless-describe").describe().expect_err("it never answers");
    let CallError::Trapped(trap) = error else { panic!("{error:?}") };
    assert_eq!(trap.cause.to_string(), "[limits].time = \"5s\" used up, which every plugin has to describe itself");
}

#[test]
fn an_endless_loop_ends_soon_after_a_cancel() {
    let seen = Seen::default();
    seen.canceled.store(true, Ordering::Relaxed);
    let workspace = tempfile::tempdir().expect("a folder");
    let limits = Limits { time_ms: 3_600_000, ..LIMITS };
    let ended = execute(&load("endless-loop"), &seen, workspace.path(), limits, &[]);
    assert_eq!(ended, Err(ExecuteError::Canceled));
}

#[test]
fn a_memory_bomb_ends_at_its_memory_limit() {
    let limits = Limits { memory_bytes: 3 * 1024 * 1024, ..LIMITS };
    let trap = trap("memory-bomb", &Seen::default(), limits);
    assert_eq!(
        trap.to_string(),
        "plugins/x.toml [limits].memory = \"3MiB\" used up: if it needs more, write `memory = \"6MiB\"` there (in bomb < execute)"
    );
}

#[test]
fn a_limit_that_nobody_wrote_is_said_to_be_the_default() {
    let trap = trap("memory-bomb", &Seen::default(), Limits { time_ms: 60_000, ..Limits::default() });
    assert_eq!(
        trap.to_string(),
        "plugins/x.toml [limits].memory = \"64MiB\" used up, the default: if it needs more, write `memory = \"128MiB\"` there \
         (in bomb < execute)"
    );
}

#[test]
fn a_guest_that_begins_above_its_memory_limit_does_not_begin() {
    let limits = Limits { memory_bytes: 1024, ..LIMITS };
    let trap = trap("endless-loop", &Seen::default(), limits);
    let said = trap.to_string();
    assert!(said.starts_with("plugins/x.toml [limits].memory = \"1KiB\" used up: "), "{said}");
}

#[test]
fn tables_and_the_stack_are_bounded() {
    let tables = trap("table-bomb", &Seen::default(), LIMITS);
    assert_eq!((&tables.cause, tables.frames.last().map(String::as_str)), (&TrapCause::TableElements, Some("execute")));
    let recursion = trap("recursion", &Seen::default(), LIMITS);
    assert_eq!(recursion.cause, TrapCause::StackOverflow);
    assert_eq!(
        recursion.to_string(),
        "the plugin's stack is used up: a recursion without an end? (in deeper)",
        "its name stands there once, however often it called itself"
    );
}

#[test]
fn a_panic_shows_its_message_and_the_guests_functions() {
    let trap = trap("panic", &Seen::default(), LIMITS);
    assert_eq!(
        trap.to_string(),
        "the plugin panicked at src/lib.rs:67:5: no inventory (in give_up < plan_the_work < \
         execute)"
    );
}

#[test]
fn a_flood_of_log_lines_ends() {
    let seen = Seen::default();
    let trap = trap("log-flood", &seen, Limits { time_ms: 60_000, ..LIMITS });
    assert_eq!(trap.cause, TrapCause::Log);
    assert_eq!(
        trap.to_string(),
        "the plugin logged more than 100000 lines or 16MiB itself, which no key changes: let it log less, or a process print, whose \
         output does not count (in execute)"
    );
    assert_eq!(seen.log.lock().expect("nobody panics with it").len(), 100_000);
}

#[test]
fn huge_strings_are_cut_or_refused() {
    let seen = Seen::default();
    let limits = Limits { memory_bytes: 128 * 1024 * 1024, time_ms: 60_000 };
    let trap = trap("huge-log-line", &seen, limits);
    assert!(matches!(trap.cause, TrapCause::Other(_)), "{trap}");
    let log = seen.log.lock().expect("nobody panics with it");
    let [(Level::Info, line)] = log.as_slice() else { panic!("{} lines", log.len()) };
    assert_eq!(line.len(), 64 * 1024 + '…'.len_utf8());

    let workspace = tempfile::tempdir().expect("a folder");
    let ended = execute(&load("huge-summary"), &Seen::default(), workspace.path(), limits, &[]);
    let Err(ExecuteError::BadAnswer(message)) = ended else { panic!("it was taken") };
    assert_eq!(message, "its summary has 5242880 bytes; at most 4194304 are taken");
}

#[test]
fn a_string_outside_of_its_memory_is_not_read() {
    let trap = trap("outside-of-memory", &Seen::default(), LIMITS);
    assert!(matches!(trap.cause, TrapCause::Other(_)), "{trap}");
    assert_eq!(trap.frames, ["execute"], "{trap}");
}

#[test]
fn what_it_waits_for_is_not_its_computing() {
    fn compute() {
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(300) {
            std::hint::spin_loop();
        }
    }
    let seen = Seen { while_running: Some(compute), ..Seen::default() };
    let workspace = tempfile::tempdir().expect("a folder");
    let limits = Limits { time_ms: 50, ..LIMITS };
    execute(&load("run"), &seen, workspace.path(), limits, &["true"]).expect("the embedder's time is not the guest's");
}

/// What this process holds, in bytes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * rustix::param::page_size()
}

/// Run by the test below in a process of its own: what other tests hold is not counted.
#[test]
#[ignore = "it is run by `what_a_bad_end_took_is_given_back`"]
fn bad_ends_alone() {
    const CALLS: usize = 10;
    let limits = Limits { time_ms: 50, ..LIMITS };
    let workspace = tempfile::tempdir().expect("a folder");
    let names = ["memory-bomb", "table-bomb", "recursion", "panic", "endless-loop", "outside-of-memory", "log-flood"];
    for name in names {
        let guest = load(name);
        // What floods the log comes to its own end.
        let limits = if name == "log-flood" { Limits { time_ms: 60_000, ..limits } } else { limits };
        // What the embedder keeps is not the host's.
        let end = || {
            let seen = Seen { forgets: true, ..Seen::default() };
            drop(execute(&guest, &seen, workspace.path(), limits, &[]).expect_err("it ends badly"));
        };
        end();
        let before = resident_bytes();
        (0..CALLS).for_each(|_| end());
        let more = resident_bytes().saturating_sub(before);
        assert!(more < 4 * 1024 * 1024, "{name}: {more} bytes more after {CALLS} calls");
    }
}

/// Runs an ignored test of this file in a process of its own.
fn run_alone(test: &str) {
    let this = std::env::current_exe().expect("it runs");
    let test = format!("hostile::{test}");
    let alone = ["--exact", &test, "--ignored", "--nocapture"];
    let output = std::process::Command::new(this).args(alone).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_a_bad_end_took_is_given_back() {
    run_alone("bad_ends_alone");
}

/// Run by the test below in a process of its own.
#[test]
#[ignore = "it is run by `a_thousand_calls_at_a_time_take_little_each`"]
fn a_thousand_calls_alone() {
    const CALLS: u32 = 1_000;
    const BYTES_EACH_MAX: usize = 100 * 1024;
    const STACK_BYTES: usize = 2 * 1024 * 1024;
    for memory in [Memory::OnDemand, Memory::Pool { calls: CALLS }] {
        let host = Host::new(HostOptions { memory, ..HostOptions::default() }).expect("the engine starts");
        let guest = host.load(&bytes("run")).expect("it loads");
        let workspace = tempfile::tempdir().expect("a folder");
        let run = |seen: &Seen| execute(&guest, seen, workspace.path(), LIMITS, &["true"]).expect("it ends well");
        run(&Seen::default());
        let all = CALLS as usize + 1;
        let (inside, over) = (Arc::new(Barrier::new(all)), Arc::new(Barrier::new(all)));
        let before = resident_bytes();
        std::thread::scope(|scope| {
            for _ in 0..CALLS {
                let waits = Seen { waits: Some((Arc::clone(&inside), Arc::clone(&over))), ..Seen::default() };
                let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
                thread.spawn_scoped(scope, move || run(&waits)).expect("a thread");
            }
            inside.wait();
            let each = resident_bytes().saturating_sub(before) / CALLS as usize;
            over.wait();
            assert!(each < BYTES_EACH_MAX, "{each} bytes each, memory {memory:?}");
        });
    }
}

#[test]
fn a_thousand_calls_at_a_time_take_little_each() {
    run_alone("a_thousand_calls_alone");
}

#[test]
fn one_that_ends_badly_leaves_the_others_alone() {
    let host = host();
    let good = host.load(&bytes("run")).expect("it loads");
    let workspace = tempfile::tempdir().expect("a folder");
    let limits = Limits { time_ms: 200, ..LIMITS };
    for name in ["memory-bomb", "endless-loop", "panic"] {
        let bad = host.load(&bytes(name)).expect("it loads");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let ended = execute(&bad, &Seen::default(), workspace.path(), limits, &[]);
                    assert!(matches!(ended, Err(ExecuteError::Trapped(_))), "{name}: {ended:?}");
                });
                scope.spawn(|| {
                    execute(&good, &Seen::default(), workspace.path(), LIMITS, &["true"]).expect("it ends well");
                });
            }
        });
    }
}

#[test]
fn what_it_writes_itself_is_bounded() {
    let workspace = tempfile::tempdir().expect("a folder");
    let limits = Limits { time_ms: 60_000, ..LIMITS };
    let flood = load("workspace-flood");
    for arguments in [&[][..], &["files"]] {
        let ended = execute(&flood, &Seen::default(), workspace.path(), limits, arguments);
        let Err(ExecuteError::Invalid(said)) = ended else { panic!("{ended:?}") };
        assert!(said.contains("at most 256 MiB and makes at most 10000 files and folders itself"), "{said}");
    }
    let made = std::fs::read_dir(workspace.path()).expect("the workspace").count();
    assert_eq!(made, 10_001, "what the first call has made is not made again by the second");
}

#[test]
fn children_are_bounded_and_end_with_the_call() {
    let seen = Seen::default();
    let workspace = tempfile::tempdir().expect("a folder");
    let ended = execute(&load("hoarder"), &seen, workspace.path(), LIMITS, &[]);
    let message = "a plugin holds at most 64 processes at a time".to_owned();
    assert_eq!(ended, Err(ExecuteError::Invalid(message)));
    assert_eq!(*seen.children.lock().expect("nobody panics with it"), 0);
}
