//! The words that this process was started with: others can read them as long as they stand in its memory.

use std::io;
use std::ptr::with_exposed_provenance_mut;

/// Overwrites the arguments and the environment of this process, as `/proc/<pid>/cmdline` and `environ` show them, with
/// zeros. Whatever reads them again finds empty texts. This process has one thread.
///
/// # Errors
///
/// `/proc/self/stat` cannot be read: call it while `/proc` is the host's.
pub fn wipe_start_words() -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let [arguments, environment] = start_words(&stat).ok_or(io::ErrorKind::InvalidData)?;
    for (start, end) in [arguments, environment] {
        // SAFETY: the kernel has put these texts on this process's own stack, where it may write; each ends with a NUL,
        // and does so still. The one thread holds no reference into them: what libc and Rust's library keep are
        // pointers, which they follow anew each time.
        unsafe { with_exposed_provenance_mut::<u8>(start).write_bytes(0, end.saturating_sub(start)) };
    }
    Ok(())
}

/// Where the arguments and the environment begin and end: fields 48 to 51 (proc_pid_stat(5)).
fn start_words(stat: &str) -> Option<[(usize, usize); 2]> {
    // The second field is the program's name, in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_whitespace().skip(45).map_while(|field| field.parse().ok());
    let mut pair = || Some((fields.next()?, fields.next()?));
    let places = [pair()?, pair()?];
    // The kernel shows zeros to who may not know.
    places.iter().all(|(start, end)| *start != 0 && start <= end).then_some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_found_behind_any_name() {
        let fields = (3..=52).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let stat = format!("1 (a) b ) {fields}\n");
        assert_eq!(start_words(&stat), Some([(48, 49), (50, 51)]));
        assert_eq!(start_words(&stat.replace(" 48 ", " 0 ")), None);
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(start_words(&own).is_some(), "{own}");
    }
}
