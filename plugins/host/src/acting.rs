//! Touching files as another user: the kernel then refuses a guest what its job's own user may not do, symlinks included.

use std::marker::PhantomData;

use crate::{CapabilityError, FileUser};

/// This thread's file operations are the user's until it is dropped.
pub(crate) struct Acting {
    before: FileUser,
    /// It belongs to the thread that made it.
    _here: PhantomData<*const ()>,
}

impl Acting {
    /// Acts as `user` from here on.
    pub(crate) fn start(user: FileUser) -> Result<Self, CapabilityError> {
        let before = set(user);
        let acting = Self { before, _here: PhantomData };
        // The calls have no errors: a refusal shows only in what is set afterwards.
        if set(user) == user {
            Ok(acting)
        } else {
            Err(CapabilityError::Io(format!(
                "files cannot be touched as user {}: the process has no right to (CAP_SETUID, CAP_SETGID)",
                user.uid
            )))
        }
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        set(self.before);
    }
}

/// Sets the thread's user and group for files, and answers who it was before.
#[expect(unsafe_code, reason = "only libc has these two calls")]
fn set(user: FileUser) -> FileUser {
    // SAFETY: both take a number, touch no memory of this process and change this thread alone. The group goes first: as
    // another user it could not be set any more; on the way back that holds as well, since only files are the user's.
    let (gid, uid) = unsafe { (libc::setfsgid(user.gid), libc::setfsuid(user.uid)) };
    FileUser { uid: uid.cast_unsigned(), gid: gid.cast_unsigned() }
}
