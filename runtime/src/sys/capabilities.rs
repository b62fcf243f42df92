//! Capability numbers that no crate has a name for yet.
use std::io;

/// Takes `first` and every higher capability that the kernel knows out of the bounding set.
///
/// # Errors
///
/// `EPERM` without CAP_SETPCAP.
pub fn drop_bounding_from(first: u8) -> io::Result<()> {
    for number in first..64 {
        // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory of ours.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            // EINVAL: there is no such capability, and so none above it either.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}
