//! A holder's room for waiting signals, which takes CAP_SYS_RESOURCE.
use crate::hold_ends::{probed, state, takes_all, until};
use std::process::{Command, Stdio};

#[test]
fn a_signal_that_finds_no_room_does_not_pass_for_one_from_outside() {
    let bundle = probed(&["true"]);
    // A runtime with little room: its holder has more.
    let told = bundle.command(&["create", "--hold", &bundle.id]);
    let mut shell = Command::new("/usr/bin/bash");
    shell.args(["-c", "ulimit -i 100; exec \"$0\" \"$@\""]).arg(told.get_program()).args(told.get_args());
    shell.current_dir(bundle.path("")).stdin(Stdio::null()).stdout(Stdio::null());
    assert!(shell.status().unwrap().success());
    assert_eq!(bundle.tell(&["start", &bundle.id]).status, 0);
    until("the command's end", || state(&bundle)["command"]["status"] == "ended");
    assert_eq!(bundle.inside(&[], "/probe nameless 15"), "ok\n");
    takes_all(&bundle);
    bundle.down();
}
