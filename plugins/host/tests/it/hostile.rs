//! Each guest ends its own call with a clear error, and nothing else.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forge_plugin_host::{CallError, ExecuteError, Level, Limits, Trap, TrapCause};

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
    assert_eq!(trap.to_string(), "plugins/x.toml [limits].time = \"100ms\" used up (in spin < execute)");
}

#[test]
fn an_endless_start_ends_at_its_time_limit_while_it_describes_itself() {
    let error = load("endless-describe").describe().expect_err("it never answers");
    let CallError::Trapped(trap) = error else { panic!("{error:?}") };
    assert_eq!(trap.cause.to_string(), "[limits].time = \"5s\" used up");
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
    assert_eq!(trap.cause.to_string(), "plugins/x.toml [limits].memory = \"3MiB\" used up");
    assert_eq!(trap.frames, ["bomb", "execute"]);
}

#[test]
fn a_guest_that_begins_above_its_memory_limit_does_not_begin() {
    let limits = Limits { memory_bytes: 1024, ..LIMITS };
    let trap = trap("endless-loop", &Seen::default(), limits);
    assert_eq!(trap.cause.to_string(), "plugins/x.toml [limits].memory = \"1KiB\" used up");
}

#[test]
fn tables_and_the_stack_are_bounded() {
    assert_eq!(trap("table-bomb", &Seen::default(), LIMITS).cause, TrapCause::TableElements);
    assert_eq!(trap("recursion", &Seen::default(), LIMITS).cause, TrapCause::StackOverflow);
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

#[test]
fn one_that_ends_badly_leaves_the_others_alone() {
    let host = host();
    let (bomb, good) = (host.load(&bytes("memory-bomb")), host.load(&bytes("run")));
    let (bomb, good) = (bomb.expect("it loads"), good.expect("it loads"));
    let workspace = tempfile::tempdir().expect("a folder");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let ended = execute(&bomb, &Seen::default(), workspace.path(), LIMITS, &[]);
                assert!(matches!(ended, Err(ExecuteError::Trapped(_))), "{ended:?}");
            });
            scope.spawn(|| {
                execute(&good, &Seen::default(), workspace.path(), LIMITS, &["true"]).expect("it ends well");
            });
        }
    });
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
