//! Random names and numbers.

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

/// A number from 0 to below 1, for what is only to be uneven: a half when the kernel has none.
pub fn random_fraction() -> f64 {
    let mut random = [0_u8; 4];
    match rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => f64::from(u32::from_ne_bytes(random)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}
