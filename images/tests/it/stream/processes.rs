//! A load that is killed: the next process removes what it has left.
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use super::*;
use crate::sample::open_store;

/// Names the store, for a child.
const STORE: &str = "IMAGES_TEST_STORE";

fn archive() -> (Sample, Vec<u8>) {
    let tars = [noise_tar("a", 2_000_000), noise_tar("b", 2_000_000)];
    let sample = Sample::of(&tars, Compression::Plain);
    let archive = tar(&saved(&sample, &tars, "config.json", &["0/layer.tar", "1/layer.tar"]));
    (sample, archive)
}

/// In a child: sends three quarters, and waits to be killed.
fn loaded_as_child() -> bool {
    let Some(root) = std::env::var_os(STORE) else { return false };
    let store = open_store(Path::new(&root));
    let (_, archive) = archive();
    block_on(async {
        let (sender, stream) = Stream::new(Encoding::Identity, None);
        let (name, options) = (name("a"), options());
        let sending = async {
            for piece in archive[..archive.len() * 3 / 4].chunks(10_000) {
                sender.send(Bytes::copy_from_slice(piece)).await;
            }
            // Chunks are full when they go on, so what stands before the last ones is there.
            tokio::time::sleep(Duration::from_millis(200)).await;
            println!("half");
            std::future::pending::<()>().await;
        };
        drop(tokio::join!(load_stream(&store, &name, stream, &options, &|_| {}), sending));
    });
    true
}

#[test]
fn what_a_load_that_was_killed_has_left_is_swept() {
    if loaded_as_child() {
        return;
    }
    let test = TestStore::new();
    let before = test.files();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stream::processes::what_a_load_that_was_killed_has_left_is_swept", "--nocapture"])
        .env(STORE, test.root())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with("half")));
    // While it is alive it is nobody's to sweep.
    let data = |test: &TestStore| test.files().iter().filter(|path| path.ends_with("data")).count();
    open_store(&test.root());
    assert_eq!(data(&test), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(data(&test), 2);
    let store = open_store(&test.root());
    assert_eq!(test.files(), before);
    let (sample, archive) = archive();
    assert_eq!(load(&store, "a", &archive).unwrap().image().id.to_string(), sample.id());
    check_kept(&test, 2);
}
