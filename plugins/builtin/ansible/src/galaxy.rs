//! What the playbook needs from Galaxy: each requirements file of the checkout is installed before the playbook runs.

use forge_plugin::{Exit, Failed, Failure, Finished, Host, HostError, Level};

use crate::ground::Ground;
use crate::missing_program;

/// The program that installs.
pub(crate) const GALAXY: &str = "ansible-galaxy";

/// Which file is installed with which command. The one at the top may hold both kinds, which only the plain command takes.
const REQUIREMENTS: [(&str, &[&str]); 3] = [
    ("roles/requirements", &["role", "install"]),
    ("collections/requirements", &["collection", "install"]),
    ("requirements", &["install"]),
];

/// How the files' names end.
const ENDINGS: [&str; 2] = ["yml", "yaml"];

/// Installs what the checkout, and the playbook's own folder in it, ask for.
pub(crate) fn install(ground: &Ground, playbook: &str, host: &mut dyn Host) -> Result<(), Failure> {
    let of_playbook = playbook.rsplit_once('/').map(|(folder, _)| format!("{folder}/"));
    let folders = std::iter::once(String::new()).chain(of_playbook);
    for folder in folders {
        for (name, command) in REQUIREMENTS {
            for ending in ENDINGS {
                let file = format!("{folder}{name}.{ending}");
                match host.read(&format!("{}/{file}", ground.checkout), 0, 0) {
                    Ok(_) => install_file(ground, &file, command, host)?,
                    Err(HostError::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

fn install_file(ground: &Ground, file: &str, command: &[&str], host: &mut dyn Host) -> Result<(), Failure> {
    host.log(Level::Info, &format!("installing {file} with {GALAXY}"), &[]);
    // The `./` keeps a name from being an option.
    let command = ground.command(GALAXY).args(command.iter().copied()).args(["-r", &format!("./{file}")]);
    let Finished { exit, stdout_tail: _, stderr_tail: _ } = match host.run(command) {
        Ok(finished) => finished,
        Err(HostError::NotFound(message)) => return Err(missing_program(GALAXY, &message)),
        Err(error) => return Err(error.into()),
    };
    match exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(_) | Exit::Signal(_) | Exit::TimedOut => Err(Failure::Failed(Failed {
            message: format!(
                "{GALAXY} did not install {file}: {exit}; its words are in the log. `galaxy = false` in [params] leaves it out"
            ),
            exit_code: exit.code(),
            output_json: None,
        })),
    }
}
