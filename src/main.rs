//! The worker's executable: argv to command, nothing else.
fn main() {}
