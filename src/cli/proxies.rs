//! Proxies that the environment names, and which a worker of a deployment does not use.
//!
//! Registries and storage are called directly. The crate that calls the deployment goes by the environment, and knows no
//! other way: half of a worker's traffic by way of a proxy helps nobody who needs one, and who reads its calls is for the
//! configuration to say. What has been in a process's environment can be taken away only where a process begins, so the
//! worker executes itself once more without it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::operator::Operator;

/// The variables, in upper or lower case.
const VARIABLES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];

/// Goes on without them. Before anything is begun that a process cannot do twice.
///
/// # Errors
///
/// The executable is not where it was, or cannot be executed.
pub(super) fn leave_out(operator: &Operator) -> io::Result<()> {
    let names: Vec<OsString> =
        env::vars_os().map(|(name, _)| name).filter(|name| names_a_proxy(name)).collect();
    if names.is_empty() {
        return Ok(());
    }
    for name in &names {
        operator.note(&format!("{} is not used: the worker makes its connections itself", name.display()));
    }
    let mut again = Command::new(env::current_exe()?);
    again.args(env::args_os().skip(1));
    for name in &names {
        again.env_remove(name);
    }
    Err(again.exec())
}

fn names_a_proxy(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| VARIABLES.contains(&name.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_in_either_case_and_its_exceptions_name_none() {
        for (name, expected) in [
            ("HTTP_PROXY", true),
            ("https_proxy", true),
            ("ALL_PROXY", true),
            ("NO_PROXY", false),
            ("HTTP_PROXY_USER", false),
            ("PATH", false),
        ] {
            assert_eq!(names_a_proxy(OsStr::new(name)), expected, "{name}");
        }
    }
}
