use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// What a program that takes the parser's place comes to.
fn compiled(script: &str) -> Result<Vec<u8>, CompileError> {
    compiled_while(script, &|| true)
}

fn compiled_while(script: &str, wanted: &dyn Fn() -> bool) -> Result<Vec<u8>, CompileError> {
    let directory = tempfile::tempdir().unwrap();
    // Not executed by itself: another test's process may still have the file open for writing.
    let program = directory.path().join("script");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    loop {
        match compile(&program, "profile x { }\n", directory.path(), wanted) {
            Err(CompileError::Run { source, .. }) if source.kind() == io::ErrorKind::ExecutableFileBusy => {}
            ended => return ended,
        }
    }
}

fn refusal(script: &str) -> String {
    compiled(script).unwrap_err().to_string()
}

#[test]
fn what_it_writes_is_the_profile_and_it_sees_nothing_of_the_caller() {
    assert_eq!(compiled("cat; echo noise >&2").unwrap(), b"profile x { }\n");
    let seen = compiled("pwd; env | grep -v '^PWD=\\|^SHLVL=\\|^_=' || true").unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), "/\n");
}

#[test]
fn why_there_is_no_profile_is_one_sentence() {
    let old =
        "[ \"$1\" = --version ] && echo 'AppArmor parser version 2.13.6' && exit; echo usage >&2; exit 1";
    let refused = "[ \"$1\" = --version ] && echo 'AppArmor parser version 4.1'; echo; echo '  syntax error in line 3' >&2; exit 1";
    for (script, expected) in [
        (old, "is of version 2.13, and 3.0 is needed; install a newer package apparmor"),
        (refused, "refused it: syntax error in line 3"),
        ("exit 1", "refused it: it does not say why"),
        ("kill -9 $$", "refused it: it does not say why"),
        ("exit 0", "writes none"),
    ] {
        let said = refusal(script);
        assert!(said.ends_with(expected) && said.lines().count() == 1, "{script}: {said}");
    }
    let absent = compile(Path::new("/nonexistent"), "", Path::new("/tmp"), &|| true).unwrap_err();
    assert!(absent.to_string().starts_with("run /nonexistent"), "{absent}");
}

#[test]
fn megabytes_are_not_kept_whichever_way_they_come() {
    assert!(refusal("head -c 8000000 /dev/zero; sleep 60").ends_with("writes more than 1048576 bytes"));
    let said = refusal("head -c 8000000 /dev/zero | tr '\\0' x >&2; exit 1");
    assert!(said.len() < 3000, "{}", said.len());
    assert_eq!(compiled("head -c 1048576 /dev/zero").unwrap().len(), 1 << 20);
}

#[test]
fn whoever_waits_for_it_can_be_called_back_and_it_is_dead_then() {
    let scratch = tempfile::tempdir().unwrap();
    let pid = scratch.path().join("pid");
    let looks = Cell::new(0);
    let wanted = || looks.replace(looks.get() + 1) < 3 || !pid.exists();
    let script = format!("echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000", pid.display());
    let ended = compiled_while(&script, &wanted);
    assert!(matches!(ended, Err(CompileError::Unwanted)), "{ended:?}");
    let process = std::fs::read_to_string(&pid).unwrap();
    assert!(!Path::new("/proc").join(process.trim()).exists(), "{process}");
}

#[test]
fn a_child_that_keeps_its_streams_does_not_keep_the_caller() {
    let begun = Instant::now();
    assert_eq!(compiled("echo text; sleep 30 & exit 0").unwrap(), b"text\n");
    assert!(begun.elapsed() < TIME, "{:?}", begun.elapsed());
}
