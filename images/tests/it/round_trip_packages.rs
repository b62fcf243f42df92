//! What real packages bring, against what umoci unpacks from the same image.
use std::path::Path;
use std::process::Command;

use crate::round_trip::check_tars;

/// Programs, libraries, links and owners as Debian's packages bring them, packed by GNU tar in both
/// of its formats, the second layer on the first.
#[test]
fn real_packages_of_this_host_are_as_umoci_unpacks_them() {
    let pack = |arguments: &[&str]| {
        let output =
            Command::new("tar").args(["-C", "/", "--sort=name", "-c"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let usr = ["usr/sbin", "usr/lib/python3", "usr/lib/python3.11", "usr/share/perl5"];
    let usr: Vec<_> = usr.into_iter().filter(|path| Path::new("/").join(path).exists()).collect();
    let layers = [
        pack(
            &[
                &["--format=gnu", "--no-recursion", ".", "usr", "usr/lib", "usr/share", "--recursion"],
                &usr[..],
            ]
            .concat(),
        ),
        pack(&["--format=posix", "--xattrs", "--no-recursion", ".", "usr", "--recursion", "usr/sbin", "etc"]),
    ];
    assert!(check_tars(&layers).len() > 2000);
}
