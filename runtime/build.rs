//! Makes `sys::entry` the first code that the executable runs. It then stands before libc's own start, which it calls.
//!
//! Not in a static executable, as musl's is, without optimisation: there the compiler makes calls of what is otherwise inlined,
//! by a table of addresses that nobody has relocated yet. `launch::self_exec` does without.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_ENV", "musl") && is("OPT_LEVEL", "0") {
        return;
    }
    println!("cargo::rustc-link-arg-bin=docker-worker-runtime=-Wl,--entry=docker_worker_runtime_entry");
}
