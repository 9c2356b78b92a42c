//! What a command may be: pure, and asked before the embedder hears of it.

use crate::limits::{ARGUMENT_BYTES_MAX, COMMAND_BYTES_MAX, COMMAND_ITEMS_MAX, STDIN_BYTES_MAX};
use crate::{CapabilityError, Grants};

/// Variables that only the host sets, since they decide which code runs.
const REFUSED_NAMES: [&str; 3] = ["PATH", "BASH_ENV", "ENV"];
const REFUSED_PREFIXES: [&str; 4] = ["LD_", "PYTHON", "GIT_", "FORGE_"];

/// A program is a bare name that the operator granted.
pub(crate) fn check_program(grants: &Grants, program: &str) -> Result<(), CapabilityError> {
    if program.is_empty() || program.starts_with('.') || program.contains(['/', '\0']) {
        return Err(CapabilityError::Invalid(format!(
            "{program:?} is not a program's bare name, such as \"bash\"; it is found on the runner's PATH"
        )));
    }
    if grants.programs.iter().any(|granted| granted == program) {
        return Ok(());
    }
    Err(CapabilityError::Denied(format!("{program} is not in [allow].programs of plugins/{}.toml", grants.plugin_name)))
}

/// No variable that decides which code runs, and none that cannot be one.
pub(crate) fn check_env(env: &[(String, String)]) -> Result<(), CapabilityError> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(CapabilityError::Invalid(format!(
                "the variable {name:?} cannot be in an environment: a name has no `=`, and neither holds a NUL"
            )));
        }
        let refused =
            REFUSED_NAMES.contains(&name.as_str()) || REFUSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if refused {
            return Err(CapabilityError::Denied(format!("{name} is set by the host alone, not by a plugin")));
        }
    }
    Ok(())
}

/// What the system takes, and no more than a job needs.
pub(crate) fn check_size(
    args: &[String],
    env: &[(String, String)],
    stdin: Option<&[u8]>,
) -> Result<(), CapabilityError> {
    if args.len() + env.len() > COMMAND_ITEMS_MAX {
        return Err(CapabilityError::Invalid(format!("more than {COMMAND_ITEMS_MAX} arguments and variables")));
    }
    if args.iter().any(|argument| argument.contains('\0')) {
        return Err(CapabilityError::Invalid("an argument holds a NUL".to_owned()));
    }
    let variables = env.iter().map(|(name, value)| name.len() + value.len() + 1);
    let mut bytes = 0;
    for length in args.iter().map(String::len).chain(variables) {
        if length > ARGUMENT_BYTES_MAX {
            return Err(CapabilityError::Invalid(format!(
                "an argument or variable has {length} bytes; at most {ARGUMENT_BYTES_MAX} are taken: write a file instead"
            )));
        }
        bytes += length;
    }
    if bytes > COMMAND_BYTES_MAX {
        return Err(CapabilityError::Invalid(format!(
            "arguments and variables have {bytes} bytes; at most {COMMAND_BYTES_MAX} are taken: write a file instead"
        )));
    }
    match stdin {
        Some(stdin) if stdin.len() > STDIN_BYTES_MAX => Err(CapabilityError::Invalid(format!(
            "standard input has {} bytes; at most {STDIN_BYTES_MAX} are taken: write a file instead",
            stdin.len()
        ))),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants() -> Grants {
        Grants { plugin_name: "ansible".to_owned(), programs: vec!["bash".to_owned()] }
    }

    #[test]
    fn only_bare_granted_names_run() {
        assert_eq!(check_program(&grants(), "bash"), Ok(()));
        let denied = check_program(&grants(), "ansible-playbook").expect_err("not granted");
        assert_eq!(denied.to_string(), "denied: ansible-playbook is not in [allow].programs of plugins/ansible.toml");
        for program in ["", "/bin/bash", "./bash", "..", "ba\0sh"] {
            let error = check_program(&grants(), program).expect_err("not a bare name");
            assert!(matches!(error, CapabilityError::Invalid(_)), "{program:?}: {error}");
        }
    }

    #[test]
    fn variables_that_decide_which_code_runs_are_the_hosts() {
        let one = |name: &str| check_env(&[(name.to_owned(), "value".to_owned())]);
        for name in ["ANSIBLE_CONFIG", "ENVIRONMENT", "PATHS", "BUILD_GIT_SHA", "L"] {
            assert_eq!(one(name), Ok(()), "{name}");
        }
        for name in ["PATH", "ENV", "BASH_ENV", "LD_PRELOAD", "PYTHONPATH", "GIT_SSH_COMMAND", "FORGE_TASK"] {
            assert!(matches!(one(name), Err(CapabilityError::Denied(_))), "{name}");
        }
        for name in ["", "A=B", "A\0"] {
            assert!(matches!(one(name), Err(CapabilityError::Invalid(_))), "{name:?}");
        }
        assert!(matches!(check_env(&[("A".to_owned(), "\0".to_owned())]), Err(CapabilityError::Invalid(_))));
    }

    #[test]
    fn commands_are_bounded() {
        let of = |length: usize| "x".repeat(length);
        assert_eq!(check_size(&[of(ARGUMENT_BYTES_MAX)], &[], None), Ok(()));
        assert!(check_size(&[of(ARGUMENT_BYTES_MAX + 1)], &[], None).is_err());
        assert!(check_size(&vec![of(100_000); 11], &[], None).is_err());
        assert!(check_size(&vec![String::new(); COMMAND_ITEMS_MAX + 1], &[], None).is_err());
        assert!(check_size(&["\0".to_owned()], &[], None).is_err());
        assert!(check_size(&[], &[], Some(&vec![0; STDIN_BYTES_MAX + 1])).is_err());
    }
}
