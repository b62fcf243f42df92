//! The runtime's executable: everything is in `runtime::cli`.

/// musl's own allocator gives each page back to the kernel at once and asks for it again: 60 calls in a start.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> std::process::ExitCode {
    runtime::cli::main()
}
