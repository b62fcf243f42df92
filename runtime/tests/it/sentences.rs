//! Errors are sentences, one line each, whatever the host and the Spec hold.
use crate::busybox::Bundle;
use serde_json::json;
use std::process::{Command, Stdio};

#[test]
fn a_limit_on_the_callers_files_is_told_and_leaves_nothing() {
    for (command, blocks) in [("run", 0), ("create", 0), ("run", 1)] {
        let bundle = Bundle::shell("exec sleep 1000");
        let runtime = bundle.command(&[command, &bundle.id]);
        let mut limited = Command::new("sh");
        let script = format!("ulimit -f {blocks}; exec \"$@\"");
        limited.args(["-c", &script, "sh"]).arg(runtime.get_program()).args(runtime.get_args());
        let ran = limited.current_dir(bundle.path("")).stdin(Stdio::null()).output().unwrap();
        let told = String::from_utf8_lossy(&ran.stderr);
        assert!(
            ran.status.code() == Some(1) && told.contains("File too large"),
            "{command} {blocks}: {told}"
        );
        bundle.assert_nothing_left();
    }
}

#[test]
fn what_a_path_holds_stays_on_one_line() {
    let mut bundle = Bundle::shell("true");
    bundle.config["linux"]["maskedPaths"] = json!(["/a\n  root.pivot"]);
    bundle.config["process"]["cwd"] = "/bin/sh\n/x".into();
    let planned = bundle.tell(&["plan"]).stdout;
    assert!(planned.contains("  mask /a\\n  root.pivot\n"), "{planned}");
    assert_eq!(planned.matches("\n  root.pivot\n").count(), 1, "{planned}");
    std::fs::write(bundle.rootfs().join("file\n"), "").unwrap();
    bundle.config["process"]["cwd"] = "/file\n".into();
    let ran = bundle.run();
    assert!(ran.status == 1 && ran.stderr.trim_end().lines().count() == 1, "{ran:?}");
    bundle.assert_nothing_left();
}

#[test]
fn the_state_of_a_container_that_goes_meanwhile_is_that_it_does_not_exist() {
    let bundle = Bundle::shell("true");
    assert_eq!(bundle.tell(&["create", &bundle.id]).status, 0);
    let directory = bundle.path("state").join(&bundle.id);
    std::fs::rename(directory.join("config.json"), bundle.path("kept")).unwrap();
    let told = bundle.tell(&["state", &bundle.id]);
    assert!(told.status == 1 && told.stderr.contains("does not exist"), "{told:?}");
    std::fs::rename(bundle.path("kept"), directory.join("config.json")).unwrap();
    let deleted = bundle.tell(&["delete", "--force", &bundle.id]);
    assert_eq!(deleted.status, 0, "{deleted:?}");
    bundle.assert_nothing_left();
}
