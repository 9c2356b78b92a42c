//! Calls that take their memory from a pool: bounded as the others, and nothing of one call is left to the next.

use std::sync::{Arc, Barrier};

use forge_plugin_host::{Done, ExecuteError, Host, HostOptions, Limits, Memory, TrapCause};

use crate::guests::{Seen, bytes, execute};

fn host(calls: u32) -> Host {
    Host::new(HostOptions { memory: Memory::Pool { calls }, ..HostOptions::default() }).expect("the engine starts")
}

#[test]
fn a_slot_is_used_again_and_limits_hold_in_it() {
    let host = host(1);
    let (bomb, good) =
        (host.load(&bytes("memory-bomb")).expect("it loads"), host.load(&bytes("run")).expect("it loads"));
    let workspace = tempfile::tempdir().expect("a folder");
    let limits = Limits { memory_bytes: 3 * 1024 * 1024, ..Limits::default() };
    for _ in 0..20 {
        match execute(&bomb, &Seen::default(), workspace.path(), limits, &[]) {
            Err(ExecuteError::Trapped(trap)) => {
                let said = trap.to_string();
                assert!(said.starts_with("plugins/x.toml [limits].memory = \"3MiB\" used up: "), "{said}");
            }
            other => panic!("{other:?}"),
        }
        execute(&good, &Seen::default(), workspace.path(), limits, &["true"]).expect("the slot is free, and as new");
    }
}

#[test]
fn a_call_finds_nothing_of_the_one_before() {
    let workspace = tempfile::tempdir().expect("a folder");
    for memory in [Memory::OnDemand, Memory::Pool { calls: 1 }] {
        let host = Host::new(HostOptions { memory, ..HostOptions::default() }).expect("the engine starts");
        let guest = host.load(&bytes("remembers")).expect("it loads");
        for call in 0..3 {
            match execute(&guest, &Seen::default(), workspace.path(), Limits::default(), &[]) {
                Ok(Done::Finished(outcome)) => assert_eq!(outcome.summary, "11", "call {call}, memory {memory:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn one_call_more_than_there_is_room_for_is_told_so() {
    let host = host(1);
    let guest = host.load(&bytes("run")).expect("it loads");
    let workspace = tempfile::tempdir().expect("a folder");
    let run = |seen: &Seen| execute(&guest, seen, workspace.path(), Limits::default(), &["true"]);
    let (inside, over) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    std::thread::scope(|scope| {
        let waits = Seen { waits: Some((Arc::clone(&inside), Arc::clone(&over))), ..Seen::default() };
        let first = scope.spawn(move || run(&waits));
        inside.wait();
        match run(&Seen::default()) {
            Err(ExecuteError::Trapped(trap)) => assert_eq!(trap.cause, TrapCause::Busy),
            other => panic!("{other:?}"),
        }
        over.wait();
        first.join().expect("no panic").expect("it ends well");
    });
    run(&Seen::default()).expect("there is room again");
}

#[test]
fn what_no_slot_holds_is_refused_with_its_number() {
    let host = host(1);
    let bomb = host.load(&bytes("memory-bomb")).expect("it loads");
    let workspace = tempfile::tempdir().expect("a folder");
    let limits = Limits { memory_bytes: 2 << 30, time_ms: 60_000 };
    match execute(&bomb, &Seen::default(), workspace.path(), limits, &[]) {
        Err(ExecuteError::Trapped(trap)) => {
            assert_eq!(trap.cause, TrapCause::PoolMemory);
            assert!(trap.to_string().contains("grew beyond 1GiB"), "{trap}");
        }
        other => panic!("{other:?}"),
    }
    let refused = host.load(&bytes("many-memories")).expect_err("a slot has four memories").to_string();
    assert!(refused.contains("more than this host has for one call") && refused.contains("memories"), "{refused}");
}
