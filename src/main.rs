//! The worker's executable: argv to command, nothing else.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    docker_worker::cli::main()
}
