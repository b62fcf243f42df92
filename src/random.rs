//! Random names.

use std::io;

/// `bytes` random bytes of the kernel's as hexadecimal digits.
///
/// # Errors
///
/// When the kernel has none.
pub fn random_hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0_u8; bytes];
    let filled = rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())?;
    if filled != bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
