use std::os::unix::fs::PermissionsExt;

use super::*;

/// Directories whose run directory is there, as it is when a run begins.
fn directories() -> (tempfile::TempDir, Directories) {
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path();
    let directories = Directories { data: place.join("data"), run: place.join("run"), volume_caches: None };
    std::fs::create_dir(&directories.run).unwrap();
    (scratch, directories)
}

fn held(run_id: u32) -> HeldRun {
    let at = |text| Timestamp::parse(text).unwrap();
    HeldRun {
        root_url: "https://tc.example.com".to_owned(),
        worker: WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() },
        run: RunId { task_id: TaskId::parse("fN1SbArXTPSVFNUvaOlinQ").unwrap(), run_id },
        taken_until: at("2026-11-24T08:20:00Z"),
        expires: at("2027-11-24T08:00:00Z"),
        began: at("2026-11-24T08:00:00Z"),
        container_id: format!("{run_id:064}"),
        logs: Logs { live: ArtifactName::new("public/live.log").ok(), bulk: true },
        credentials: credentials("sesame"),
    }
}

fn credentials(token: &str) -> Credentials {
    Credentials {
        client_id: "task".to_owned(),
        access_token: token.to_owned(),
        certificate: Some("{}".to_owned()),
    }
}

fn modes(directories: &Directories) -> Vec<u32> {
    let claims = directories.claims();
    let files = std::fs::read_dir(&claims).unwrap().map(|entry| entry.unwrap().path());
    let paths = [claims.clone()].into_iter().chain(files);
    paths.map(|path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777).collect()
}

#[test]
fn a_run_is_found_as_it_was_written_down_last_and_nobody_else_reads_it() {
    let (_scratch, directories) = directories();
    assert!(find(&directories).runs.is_empty());
    let file = ClaimFile::create(&directories, &held(0)).unwrap();
    assert_eq!(find(&directories).runs, [held(0)]);
    let later = held(0).taken_until.plus(Duration::from_secs(600));
    file.renew(later, credentials("open")).unwrap();
    let renewed = HeldRun { taken_until: later, credentials: credentials("open"), ..held(0) };
    assert_eq!(find(&directories).runs, [renewed]);
    assert_eq!(modes(&directories), [0o700, 0o600]);
    file.remove().unwrap();
    file.remove().unwrap();
    assert!(find(&directories).runs.is_empty() && find(&directories).notes.is_empty());
}

#[test]
fn a_file_that_is_not_there_is_removed_already() {
    let (_scratch, directories) = directories();
    held(0).file(&directories).remove().unwrap();
    rehearse(&directories).unwrap();
    held(0).file(&directories).remove().unwrap();
    assert_eq!(std::fs::read_dir(directories.claims()).unwrap().count(), 0, "a rehearsal leaves nothing");
}

#[test]
fn a_run_that_is_over_does_not_touch_the_file_of_the_tasks_next_one() {
    let (_scratch, directories) = directories();
    let first = ClaimFile::create(&directories, &held(0)).unwrap();
    let second = ClaimFile::create(&directories, &held(1)).unwrap();
    first.renew(held(0).expires, credentials("open")).unwrap();
    first.remove().unwrap();
    assert!(!first.is_there().unwrap() && second.is_there().unwrap());
    assert_eq!(find(&directories).runs, [held(1)]);
}

#[test]
fn what_is_no_claim_is_a_line_and_no_failure() {
    let (scratch, directories) = directories();
    ClaimFile::create(&directories, &held(0)).unwrap();
    let claims = directories.claims();
    let (secret, other) = (scratch.path().join("secret"), "XN1SbArXTPSVFNUvaOlinQ");
    std::fs::write(&secret, "the host's").unwrap();
    let whole = std::fs::read_to_string(claims.join("fN1SbArXTPSVFNUvaOlinQ")).unwrap();
    let cases: [(&str, &[u8], &str); 6] = [
        (other, b"", "lost the claim in"),
        (other, b"\xff\0", ": it is no claim (line 1, column"),
        (other, &whole.as_bytes()[..whole.len() / 2], ": it is no claim"),
        (other, whole.as_bytes(), ": it is another task's"),
        ("fN1SbArXTPSVFNUvaOlinQ.new", whole.as_bytes(), "removed"),
        ("README", b"sesame", "left alone"),
    ];
    for (name, content, note) in cases {
        std::fs::write(claims.join(name), content).unwrap();
        let found = find(&directories);
        assert_eq!(found.runs, [held(0)], "{name}");
        assert!(found.notes.len() == 1 && found.notes[0].contains(note), "{name}: {:?}", found.notes);
        assert!(!found.notes[0].contains("sesame"), "{:?}", found.notes);
        assert!(!found.is_partial, "{name} is no claim that somebody may have");
        assert_eq!(claims.join(name).exists(), name == "README");
    }
    std::fs::remove_file(claims.join("README")).unwrap();
    std::os::unix::fs::symlink(&secret, claims.join(other)).unwrap();
    assert_eq!(find(&directories).notes.len(), 1);
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "the host's");
    std::fs::remove_file(claims.join(other)).expect("what cannot be read is left alone");
    std::fs::create_dir(claims.join(other)).unwrap();
    let found = find(&directories);
    assert_eq!(found.notes.len(), 1, "a directory stays, and is told of");
    assert!(found.is_partial, "nobody knows what is in it");
    assert_eq!(find(&directories).runs, [held(0)]);
}

#[test]
fn a_place_that_is_no_directory_is_a_line_and_no_failure() {
    let (scratch, directories) = directories();
    std::os::unix::fs::symlink(scratch.path(), directories.claims()).unwrap();
    assert_eq!(find(&directories).notes.len(), 1);
    assert!(ClaimFile::create(&directories, &held(0)).is_err());
}

#[test]
fn a_claim_is_its_own_workers() {
    let (url, worker) = ("https://tc.example.com/", held(0).worker);
    assert!(held(0).is_of(url, &worker));
    assert!(!held(0).is_of("https://other.example.com", &worker));
    assert!(!held(0).is_of(url, &WorkerIdentity { worker_id: "v".to_owned(), ..worker }));
}

#[test]
fn a_secret_is_written_and_never_shown() {
    assert!(serde_json::to_string(&held(0)).unwrap().contains("sesame"));
    assert!(!format!("{:?}", held(0)).contains("sesame"));
}
