//! A file whose opening waits for the test: fanotify(7) asks it first.

use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};

use super::internet::await_readable;

/// Whoever opens the file waits until this is dropped, however long that takes.
pub struct StalledOpening(Fanotify);

impl StalledOpening {
    pub fn of(file: &Path) -> StalledOpening {
        let asked = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC;
        let group = Fanotify::init(asked, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC).unwrap();
        group.mark(MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_PERM, AT_FDCWD, Some(file)).unwrap();
        StalledOpening(group)
    }

    /// Waits until somebody wants to open it.
    pub fn await_opening(&self) {
        await_readable(&self.0, "somebody to open the file");
    }
}
