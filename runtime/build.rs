//! Makes `sys::entry` the first code that the executable runs. It then stands before libc's own start, which it calls.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bin=docker-worker-runtime=-Wl,--entry=docker_worker_runtime_entry");
}
