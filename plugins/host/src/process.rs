//! The capability `process`: a command is checked here and run by the embedder.

use wasmtime::component::Resource;

use crate::bindings::forge::plugin::{process, types};
use crate::limits::CHILDREN_MAX;
use crate::state::State;
use crate::{CapabilityError, ChildProcess, Command, convert, grants};

/// A child that the guest holds. Dropping it ends its process tree.
#[expect(unreachable_pub, reason = "bindgen re-exports it inside a private module")]
pub struct RunningChild(Box<dyn ChildProcess>);

impl State {
    /// The command as the embedder gets it, when nothing speaks against it.
    fn checked(&self, command: process::Command) -> Result<Command, CapabilityError> {
        let process::Command { program, args, env, cwd, stdin, timeout_ms } = command;
        let env = convert::pairs(env);
        grants::check_program(&self.grants, &program)?;
        grants::check_env(&env)?;
        grants::check_size(&args, &env, stdin.as_deref())?;
        let cwd = match cwd {
            Some(folder) => self.workspace_path.join(self.workspace()?.folder(&folder)?),
            None => self.workspace_path.clone(),
        };
        Ok(Command { program, args, env, cwd, stdin, timeout_ms })
    }

    fn spawn_checked(&mut self, command: process::Command) -> Result<Resource<RunningChild>, CapabilityError> {
        let command = self.checked(command)?;
        let child = self.outside(|state| state.services.spawn(command))?;
        // A full table drops the child, which ends it.
        self.children
            .push(RunningChild(child))
            .map_err(|_| CapabilityError::Denied(format!("a plugin holds at most {CHILDREN_MAX} processes at a time")))
    }
}

impl process::Host for State {
    fn spawn(
        &mut self,
        command: process::Command,
    ) -> wasmtime::Result<Result<Resource<RunningChild>, types::HostError>> {
        Ok(self.spawn_checked(command).map_err(convert::host_error))
    }

    fn run(&mut self, command: process::Command) -> wasmtime::Result<Result<process::Finished, types::HostError>> {
        let finished = self.checked(command).and_then(|command| self.outside(|state| state.services.run(command)));
        Ok(finished.map(convert::finished).map_err(convert::host_error))
    }
}

impl process::HostChild for State {
    fn next(&mut self, child: Resource<RunningChild>) -> wasmtime::Result<Result<process::Event, types::HostError>> {
        let event = self.outside(|state| state.children.get_mut(&child).map(|child| child.0.next()))?;
        Ok(event.map(convert::event).map_err(convert::host_error))
    }

    fn kill(&mut self, child: Resource<RunningChild>) -> wasmtime::Result<()> {
        self.outside(|state| state.children.get_mut(&child).map(|child| child.0.kill()))?;
        Ok(())
    }

    fn drop(&mut self, child: Resource<RunningChild>) -> wasmtime::Result<()> {
        self.outside(|state| state.children.delete(child).map(drop))?;
        Ok(())
    }
}
