//! What lies behind an inode and what in blocks of its own, against umoci's unpacking.
use crate::layer_tar::{dir, file, symlink};
use crate::round_trip::check;

/// Directories and links whose bytes end around a block's: those behind an inode must not cross one.
#[test]
fn contents_of_every_length_around_a_block_read_back() {
    let mut entries = vec![dir(".")];
    for length in 3900..4230_usize {
        // `.`, `..` and twenty names: 12 bytes for each, and the names' own.
        let names = length - 12 * 22 - 3;
        let directory = format!("d{length}");
        entries.push(dir(&directory));
        for number in 0..20 {
            let share = names / 20 + usize::from(number < names % 20);
            entries.push(file(format!("{directory}/{number:02}{}", "n".repeat(share - 2)), ""));
        }
        if length <= 4095 {
            entries.push(symlink(format!("l{length}"), "t".repeat(length)));
        }
    }
    check(&[entries]);
}
