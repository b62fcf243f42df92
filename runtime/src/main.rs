//! The runtime's executable: everything is in `runtime::cli`.

fn main() -> std::process::ExitCode {
    runtime::cli::main()
}
