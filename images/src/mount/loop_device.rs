//! Loop devices, for file systems that EROFS cannot mount files of.
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::MountError;
use crate::layer::BLOCK_BYTES;
use crate::sys;

const CONTROL: &str = "/dev/loop-control";
/// How often another process may take the free device before us.
const ATTEMPTS: u32 = 64;

/// A file behind a loop device. The kernel detaches it when this value and every mount of it are gone.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _open: File,
}

impl LoopDevice {
    /// Takes a free device for the file.
    pub fn attach(file: &Path) -> Result<LoopDevice, MountError> {
        let wrong =
            |call: &str, source| MountError::LoopDevice { file: file.into(), call: call.into(), source };
        let backing = File::open(file).map_err(|source| wrong("open it", source))?;
        let control = File::options()
            .read(true)
            .write(true)
            .open(CONTROL)
            .map_err(|source| wrong("open /dev/loop-control", source))?;
        let block_bytes = u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX);
        for _ in 0..ATTEMPTS {
            let number = sys::free_loop_device(control.as_fd());
            let number = number.map_err(|source| wrong("ask for a free loop device", source))?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device =
                File::open(&path).map_err(|source| wrong(&format!("open {}", path.display()), source))?;
            match sys::configure_loop(device.as_fd(), backing.as_fd(), block_bytes) {
                Ok(()) => return Ok(LoopDevice { path, _open: device }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(source) => return Err(wrong(&format!("configure {}", path.display()), source)),
            }
        }
        Err(wrong("take a free loop device", io::ErrorKind::ResourceBusy.into()))
    }

    /// Its name in `/dev`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
