//! What the real host refuses of a command, for the fake host: a plugin that passes its tests is not refused in production.
//!
//! The host has the same in `plugins/host/src/grants.rs` and `limits.rs`, and a test compares the numbers and the names; a plugin's author
//! has no host to depend on.

use crate::{Command, HostError};

/// Variables that only the host sets, since they decide which code runs.
const REFUSED_NAMES: [&str; 3] = ["PATH", "BASH_ENV", "ENV"];
const REFUSED_PREFIXES: [&str; 4] = ["LD_", "PYTHON", "GIT_", "FORGE_"];

/// Bytes of one argument: Linux takes no more.
const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 1;
/// Bytes of all arguments and the environment of a command.
const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// Arguments and variables of a command.
const COMMAND_ITEMS_MAX: usize = 10_000;
/// Bytes of a command's standard input.
const STDIN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whether the host would run it, were its program granted.
pub(crate) fn check(command: &Command) -> Result<(), HostError> {
    check_program(&command.program)?;
    check_env(command)?;
    check_size(command)
}

fn check_program(program: &str) -> Result<(), HostError> {
    if program.is_empty() || program.starts_with('.') || program.contains(['/', '\0']) {
        return Err(HostError::Invalid(format!("{program:?} is not a program's bare name")));
    }
    Ok(())
}

fn check_env(command: &Command) -> Result<(), HostError> {
    for pair in &command.env {
        let (name, value) = (pair.key.as_str(), pair.value.as_str());
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(HostError::Invalid(format!("the variable {name:?} cannot be in an environment")));
        }
        let refused = REFUSED_NAMES.contains(&name) || REFUSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if refused {
            return Err(HostError::Denied(format!("{name} is set by the host alone, not by a plugin")));
        }
    }
    Ok(())
}

fn check_size(command: &Command) -> Result<(), HostError> {
    let Command { args, env, stdin, .. } = command;
    if args.len() + env.len() > COMMAND_ITEMS_MAX {
        return Err(HostError::Invalid(format!("more than {COMMAND_ITEMS_MAX} arguments and variables")));
    }
    if args.iter().any(|argument| argument.contains('\0')) {
        return Err(HostError::Invalid("an argument holds a NUL".to_owned()));
    }
    let variables = env.iter().map(|pair| pair.key.len() + pair.value.len() + 1);
    let lengths: Vec<usize> = args.iter().map(String::len).chain(variables).collect();
    if lengths.iter().any(|length| *length > ARGUMENT_BYTES_MAX) {
        return Err(HostError::Invalid(format!(
            "an argument or variable has more than {ARGUMENT_BYTES_MAX} bytes: write a file instead"
        )));
    }
    if lengths.iter().sum::<usize>() > COMMAND_BYTES_MAX {
        return Err(HostError::Invalid(format!(
            "arguments and variables have more than {COMMAND_BYTES_MAX} bytes: write a file instead"
        )));
    }
    if stdin.as_ref().is_some_and(|stdin| stdin.len() > STDIN_BYTES_MAX) {
        return Err(HostError::Invalid(format!(
            "standard input has more than {STDIN_BYTES_MAX} bytes: write a file instead"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(command: &Command) -> bool {
        matches!(check(command), Err(HostError::Invalid(_)))
    }

    #[test]
    fn what_the_host_refuses_is_refused() {
        let bash = || Command::new("bash");
        assert_eq!(check(&bash().args(["-c", "true"]).env("ANSIBLE_CONFIG", "x").env("PATHS", "x")), Ok(()));
        for program in ["", "/bin/bash", "./bash", ".bash", "ba\0sh"] {
            assert!(invalid(&Command::new(program)), "{program:?}");
        }
        for name in ["PATH", "ENV", "BASH_ENV", "LD_PRELOAD", "PYTHONPATH", "GIT_SSH_COMMAND", "FORGE_TASK"] {
            assert!(matches!(check(&bash().env(name, "x")), Err(HostError::Denied(_))), "{name}");
        }
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0")] {
            assert!(invalid(&bash().env(name, value)), "{name:?}");
        }
        let of = |length: usize| "x".repeat(length);
        assert_eq!(check(&bash().args([of(ARGUMENT_BYTES_MAX)])), Ok(()));
        assert!(invalid(&bash().args([of(ARGUMENT_BYTES_MAX + 1)])));
        assert!(invalid(&bash().args(vec![of(100_000); 11])));
        assert!(invalid(&bash().args(vec![String::new(); COMMAND_ITEMS_MAX + 1])));
        assert!(invalid(&bash().args(["\0"])));
        assert!(invalid(&Command { stdin: Some(vec![0; STDIN_BYTES_MAX + 1]), ..bash() }));
    }
}
