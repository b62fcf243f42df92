//! Uploads to a storage that is strict, and sometimes worse.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::*;
use crate::artifact::ContentEncoding;
use crate::artifact::spooled::Spooler;
use crate::artifact::storage::{Answer, Storage};
use crate::interrupt::{Interrupt, Interrupts, Notice, channel};
use crate::text::chain;
use crate::timestamp::Timestamp;

const PACE: Pace = Pace {
    attempts: 6,
    refusals: 3,
    wait: Duration::from_millis(1),
    connect: Duration::from_secs(10),
    silence: Duration::from_secs(60),
};

/// More than is held in memory, and more than the kernel's buffers take of a connection that nobody reads.
const LONG: u64 = 32 << 20;

/// A file of so many bytes that do not compress well, but for a hole in a long one.
fn file(size: u64) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let mut text =
        (0..5000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<_>>();
    text.truncate(usize::try_from(size).unwrap());
    file.write_all(&text).unwrap();
    file.set_len(size).unwrap();
    file
}

fn spooler() -> Spooler {
    Spooler::in_directory(std::env::temp_dir())
}

fn spooled(size: u64, encoding: ContentEncoding) -> Spooled {
    let (_interrupter, interrupts) = channel();
    let patience = Patience::with_artifact(&interrupts);
    spooler().spool(file(size), encoding, &patience).unwrap()
}

fn target(url: String) -> PutTarget {
    let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
    PutTarget { url, headers, until: Timestamp::now() }
}

/// Uploads to `/1`, and to `/2` and so on after each new URL.
async fn upload(storage: &Storage, spooled: &Spooled, pace: Pace) -> Result<Copied, UploadError> {
    let (_interrupter, interrupts) = channel();
    upload_until(&interrupts, storage, spooled, pace).await
}

async fn upload_until(
    interrupts: &Interrupts,
    storage: &Storage,
    spooled: &Spooled,
    pace: Pace,
) -> Result<Copied, UploadError> {
    let mut urls = 0;
    let next = async || {
        urls += 1;
        Ok(target(storage.url(&format!("/{urls}"))))
    };
    let patience = Patience::with_artifact(interrupts);
    Uploader::new(pace).unwrap().upload(spooled, &patience, next, &|_| {}).await
}

fn paths(storage: &Storage) -> Vec<String> {
    storage.received().iter().map(|received| received.path.clone()).collect()
}

#[tokio::test]
async fn what_is_put_is_whole_and_its_length_is_told() {
    for size in [0, 1, 4096, 64 << 10, (64 << 10) + 1, 700_000] {
        for encoding in [ContentEncoding::Identity, ContentEncoding::Gzip] {
            let storage = Storage::start(&[]).await;
            let spooled = spooled(size, encoding);
            let copied = upload(&storage, &spooled, PACE).await.unwrap();
            let mut expected = Vec::new();
            let mut source = file(size);
            std::io::Seek::rewind(&mut source).unwrap();
            source.read_to_end(&mut expected).unwrap();
            let received = storage.received()[0].clone();
            let content = match encoding {
                ContentEncoding::Identity => received.body,
                ContentEncoding::Gzip => {
                    let mut text = Vec::new();
                    flate2::read::GzDecoder::new(&received.body[..]).read_to_end(&mut text).unwrap();
                    text
                }
            };
            assert!(content == expected, "{size} {encoding:?}");
            assert_eq!(copied.size, size);
            assert_eq!(received.headers["content-length"], spooled.length().to_string());
            assert_eq!(received.headers["content-type"], "text/plain");
            assert_eq!(received.headers.get("content-encoding").map(String::as_str), encoding.header());
        }
    }
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    for answer in [
        Answer::Refuse(500, "InternalError"),
        Answer::Refuse(503, "SlowDown"),
        Answer::Refuse(429, ""),
        Answer::Refuse(400, "RequestTimeout"),
        Answer::Refuse(404, ""),
        Answer::Refuse(302, ""),
        Answer::RefuseEarly(503, "SlowDown"),
        Answer::Cut(0),
        Answer::Cut(9),
    ] {
        for size in [10, LONG] {
            let storage = Storage::start(&[answer, answer]).await;
            let spooled = spooled(size, ContentEncoding::Identity);
            let copied = upload(&storage, &spooled, PACE).await;
            assert_eq!(copied.unwrap().size, size, "{answer:?}");
            let complete = storage.received().last().unwrap().length;
            assert_eq!(complete, size, "{answer:?}");
            assert!(paths(&storage).iter().all(|path| path == "/1"), "{answer:?}: the same URL");
        }
    }
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_tried_again() {
    let refusals =
        [(413, "EntityTooLarge"), (400, "BadDigest"), (404, "NoSuchBucket"), (301, "PermanentRedirect")];
    for (status, code) in refusals {
        for answer in [Answer::Refuse(status, code), Answer::RefuseEarly(status, code)] {
            let storage = Storage::start(&[answer]).await;
            let error = upload(&storage, &spooled(LONG, ContentEncoding::Identity), PACE).await.unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("upload it to 127.0.0.1: status code"), "{text}");
            assert!(text.contains(&format!("status code {status}")) && text.contains(code), "{text}");
            assert_eq!(paths(&storage), ["/1"]);
        }
    }
}

#[tokio::test]
async fn a_url_that_is_over_is_replaced_and_not_for_ever() {
    let denied = Answer::Refuse(403, "AccessDenied");
    let short = spooled(10, ContentEncoding::Identity);
    let storage =
        Storage::start(&[denied, Answer::Refuse(500, ""), Answer::Refuse(400, "ExpiredToken")]).await;
    upload(&storage, &short, PACE).await.unwrap();
    assert_eq!(paths(&storage), ["/1", "/2", "/2", "/3"]);

    let storage = Storage::start(&[denied; 9]).await;
    let error = upload(&storage, &short, PACE).await.unwrap_err();
    assert!(matches!(error, UploadError::Refused { .. }), "{error}");
    assert_eq!(paths(&storage), ["/1", "/2", "/3"]);
}

#[tokio::test]
async fn attempts_come_to_an_end() {
    let storage = Storage::start(&[Answer::Refuse(500, "InternalError"); 9]).await;
    let error = upload(&storage, &spooled(10, ContentEncoding::Gzip), PACE).await.unwrap_err();
    let said = "upload it to 127.0.0.1 in 6 attempts: status code 500 (InternalError)";
    assert_eq!(error.to_string(), said);
    assert_eq!(paths(&storage).len(), 6);
}

#[tokio::test]
async fn a_storage_that_is_not_there_yet_is_waited_for() {
    let address = Storage::start(&[]).await.url("").replace("http://", "").parse().unwrap();
    let later = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Storage::start_at(address, &[]).await
    };
    let (interrupter, interrupts) = channel();
    let patience = Patience::with_artifact(&interrupts);
    let pace = Pace { wait: Duration::from_millis(20), ..PACE };
    let uploader = Uploader::new(pace).unwrap();
    let spooled = spooled(10, ContentEncoding::Identity);
    let next = async || -> Result<PutTarget, UploadError> { Ok(target(format!("http://{address}/1"))) };
    let attempts = RefCell::new(Vec::new());
    let tell = |attempt: Attempt<'_>| attempts.borrow_mut().push(format!("{attempt:?}"));
    let (storage, copied) = tokio::join!(later, uploader.upload(&spooled, &patience, next, &tell));
    assert_eq!(copied.unwrap().size, 10);
    assert_eq!(paths(&storage), ["/1"]);
    let attempts = attempts.into_inner();
    assert!(attempts[1].starts_with("Failed(\"") && attempts[2] == "Begins(2)", "{attempts:?}");
    // The last one is the one that succeeds.
    assert_eq!((attempts.first().unwrap().as_str(), attempts.len() % 2), ("Begins(1)", 1), "{attempts:?}");
    drop(interrupter);
}

#[tokio::test]
async fn a_storage_that_falls_silent_is_left() {
    let pace = Pace { silence: Duration::from_millis(100), ..PACE };
    for size in [10, LONG] {
        let storage = Storage::start(&[Answer::Hang, Answer::Hang]).await;
        let copied = upload(&storage, &spooled(size, ContentEncoding::Identity), pace).await.unwrap();
        assert_eq!(copied.size, size);
        assert_eq!(storage.received().len(), 3);
    }
}

#[tokio::test]
async fn an_interrupt_ends_an_upload_at_once_and_its_connection_too() {
    for (size, answer, pace) in [
        (LONG, Answer::Hang, PACE),
        (10, Answer::Hang, PACE),
        (10, Answer::Refuse(500, ""), Pace { wait: Duration::from_secs(60), ..PACE }),
    ] {
        let storage = Storage::start(&[answer]).await;
        let (interrupter, interrupts) = channel();
        let spooled = spooled(size, ContentEncoding::Identity);
        let interrupt = async {
            storage.connections(1).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            interrupter.interrupt(Interrupt::Cancelled, Notice::Signal);
        };
        let both = async { tokio::join!(upload_until(&interrupts, &storage, &spooled, pace), interrupt) };
        let (result, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("an early end");
        assert!(matches!(result, Err(UploadError::Interrupted)), "{result:?}");
        storage.wake();
        tokio::time::timeout(Duration::from_secs(20), storage.connections(0)).await.unwrap();
        assert!(size == 10 || storage.received()[0].length < size, "the rest is not sent");
    }
}

#[tokio::test]
async fn a_file_that_has_become_shorter_is_not_taken_for_whole() {
    let storage = Storage::start(&[]).await;
    let source = file(LONG);
    let (_interrupter, interrupts) = channel();
    let patience = Patience::with_artifact(&interrupts);
    let reader = source.try_clone().unwrap();
    let spooled = spooler().spool(reader, ContentEncoding::Identity, &patience).unwrap();
    source.set_len(LONG / 2).unwrap();
    let error = upload(&storage, &spooled, PACE).await.unwrap_err();
    assert!(matches!(error, UploadError::Read(_)), "{error}");
    assert_eq!(storage.received().len(), 0, "{error}");
}

#[tokio::test]
async fn a_file_that_grows_meanwhile_is_stored_as_long_as_it_was_and_hashed_as_it_is_stored() {
    for encoding in [ContentEncoding::Identity, ContentEncoding::Gzip] {
        let storage = Storage::start(&[Answer::Cut(9)]).await;
        let source = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(source.path(), "text ".repeat(100_000)).unwrap();
        let mut survivor = File::options().append(true).open(source.path()).unwrap();
        let goes_on = Arc::new(AtomicBool::new(true));
        let appending = std::thread::spawn({
            let goes_on = Arc::clone(&goes_on);
            move || {
                // Whatever it may be scheduled after, once at least.
                let mut appended = 0;
                while appended == 0 || (goes_on.load(Ordering::Relaxed) && appended < 100_000_000) {
                    appended += survivor.write(&[b'x'; 1000]).unwrap();
                }
            }
        });
        let (_interrupter, interrupts) = channel();
        let patience = Patience::with_artifact(&interrupts);
        let opened = File::open(source.path()).unwrap();
        let spooled = spooler().spool(opened, encoding, &patience).unwrap();
        let copied = upload(&storage, &spooled, PACE).await.unwrap();
        goes_on.store(false, Ordering::Relaxed);
        appending.join().unwrap();
        let received = storage.received().last().unwrap().clone();
        assert_eq!(received.headers["content-length"], received.length.to_string());
        // What was there is still there.
        let mut first = Vec::new();
        File::open(source.path()).unwrap().take(copied.size).read_to_end(&mut first).unwrap();
        let sha256: String = Sha256::digest(&first).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(copied.sha256, sha256, "{encoding:?}");
        let stored = match encoding {
            ContentEncoding::Identity => received.length,
            ContentEncoding::Gzip => {
                let mut stored = flate2::read::GzDecoder::new(&received.body[..]);
                std::io::copy(&mut stored, &mut std::io::sink()).unwrap()
            }
        };
        assert_eq!(copied.size, stored, "{encoding:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_minute_without_a_storage_is_borne() {
    let storage = Storage::start(&[]).await;
    let address = storage.url("/1");
    drop(storage);
    let (_interrupter, interrupts) = channel();
    let patience = Patience::with_artifact(&interrupts);
    let spooled = spooled(10, ContentEncoding::Gzip);
    let next = async || -> Result<PutTarget, UploadError> { Ok(target(address.clone())) };
    let began = tokio::time::Instant::now();
    let error =
        Uploader::new(Pace::default()).unwrap().upload(&spooled, &patience, next, &|_| {}).await.unwrap_err();
    assert!(matches!(error, UploadError::Unavailable { attempts: 11, .. }), "{error}");
    assert!(began.elapsed() >= Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_url_of_no_use_is_an_error_and_not_told() {
    let (_interrupter, interrupts) = channel();
    let patience = Patience::with_artifact(&interrupts);
    let spooled = spooled(10, ContentEncoding::Identity);
    let length = |value: &str| vec![("Content-Length".to_owned(), value.to_owned())];
    for (url, headers) in [
        ("http://[secret", Vec::new()),
        ("ftp://127.0.0.1/secret", Vec::new()),
        ("/secret", Vec::new()),
        ("http://127.0.0.1:1/secret", length("9")),
    ] {
        let next = async || -> Result<PutTarget, UploadError> {
            Ok(PutTarget { headers: headers.clone(), ..target(url.to_owned()) })
        };
        let error =
            Uploader::new(PACE).unwrap().upload(&spooled, &patience, next, &|_| {}).await.unwrap_err();
        let text = chain(&error);
        assert!(matches!(error, UploadError::Target(_)) && !text.contains("secret"), "{text}");
    }
}

/// Tells the second process of a test that it is that.
const ALONE: &str = "DOCKER_WORKER_TEST_ALONE";

#[test]
fn a_long_file_takes_little_memory_however_long_it_is() {
    if std::env::var_os(ALONE).is_some() {
        return upload_a_gigabyte();
    }
    // In a process of its own: others take memory as well.
    let name = "artifact::upload::tests::a_long_file_takes_little_memory_however_long_it_is";
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let output = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "yes").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let grown = said.split_once("grown by ").and_then(|(_, rest)| rest.split_once(' ')).unwrap().0;
    assert!(grown.parse::<u64>().unwrap() < 4 << 20, "{grown} bytes, the storage's included");
}

fn upload_a_gigabyte() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let storage = Storage::start(&[]).await;
        // What any upload takes, pages of this program among it, is there before the one that counts.
        upload(&storage, &spooled(1 << 20, ContentEncoding::Identity), PACE).await.unwrap();
        let before = most_memory();
        upload(&storage, &spooled(1 << 30, ContentEncoding::Identity), PACE).await.unwrap();
        assert_eq!(storage.received()[1].length, 1 << 30);
        eprintln!("grown by {} bytes", most_memory() - before);
    });
}

/// Most memory that this process has used at once.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}
