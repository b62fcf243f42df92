//! Live logs, read with curl.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docker_worker::config::{ConfigFile, Logging};
use docker_worker::event::{Event, Events};
use docker_worker::live_log::{LiveLogError, LiveLogServer};
use docker_worker::task_log::spool::Spool;
use docker_worker::timestamp::Timestamp;

use crate::support::{Scratch, certify, finish, tool};

const LIMIT: Duration = Duration::from_secs(60);

/// Waits for something else than the server, which is served meanwhile.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn config() -> ConfigFile {
    let live_log_address = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    ConfigFile { logging: Logging { live_log_address, ..Logging::default() }, ..ConfigFile::default() }
}

#[tokio::test]
async fn many_curls_follow_a_log_each_its_own_range_until_it_ends() {
    let scratch = Scratch::new();
    let server = LiveLogServer::start(&config(), Events::none()).await.unwrap();
    let spool = Spool::create(&scratch.join("log"), 1 << 30).unwrap();
    let offer = server.offer(spool.reader(), Timestamp::now()).unwrap();
    spool.output(b"0123456789\r\n");
    let curls: Vec<_> = (0..20)
        .map(|first| {
            let range = format!("{first}-");
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--fail", "--no-buffer", "--ipv4", offer.url()]);
            // Every second one from the start.
            curl.args((first % 2 == 1).then_some(["--range", &range]).into_iter().flatten());
            (first, curl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        })
        .collect();
    for number in 0..1000 {
        spool.output(format!("line {number}\r\n").as_bytes());
        tokio::task::yield_now().await;
    }
    assert!(spool.end().is_none());
    let whole = fs::read(spool.path()).unwrap();
    for (first, curl) in curls {
        let finished = aside(move || finish(curl, LIMIT)).await;
        assert!(finished.status.success(), "{finished:?}");
        let offset = if first % 2 == 1 { first } else { 0 };
        assert!(finished.stdout == whole[offset..], "from {offset}: {finished:?}");
    }
}

#[tokio::test]
async fn a_log_is_served_over_tls_with_the_certificate_that_lies_there_now() {
    let scratch = Scratch::new();
    let ssl = certify(&scratch);
    let mut config = config();
    config.logging.secure_live_logging = Some(true);
    let missing = LiveLogServer::start(&config, Events::none()).await.unwrap_err();
    assert!(matches!(missing, LiveLogError::Tls(_)), "{missing}");
    for word in ["/etc/star_taskcluster-worker_net.crt", "ssl.certificate"] {
        assert!(missing.to_string().contains(word), "{missing}");
    }
    config.ssl = ssl.clone();
    let server = LiveLogServer::start(&config, Events::none()).await.unwrap();
    let spool = Spool::create(&scratch.join("log"), 1 << 30).unwrap();
    spool.output(b"text");
    assert!(spool.end().is_none());
    let offer = server.offer(spool.reader(), Timestamp::now()).unwrap();
    assert!(offer.url().starts_with("https://localhost:"), "{}", offer.url());
    let certificate = ssl.certificate.unwrap();
    for _ in 0..2 {
        let (certificate, url) = (certificate.display().to_string(), offer.url().to_owned());
        let curl =
            move || tool("curl", &["--silent", "--show-error", "--ipv4", "--cacert", &certificate, &url]);
        assert_eq!(aside(curl).await, "text");
        // The next one has another key, and curl trusts no other. The server looks once a second.
        certify(&scratch);
        tokio::time::sleep(Duration::from_millis(1001)).await;
    }
}

#[tokio::test]
async fn a_new_certificate_that_is_of_no_use_is_told_once_and_the_old_one_goes_on() {
    let scratch = Scratch::new();
    let ssl = certify(&scratch);
    let certificate = ssl.certificate.clone().unwrap();
    let trusted = scratch.join("trusted.pem");
    fs::copy(&certificate, &trusted).unwrap();
    let mut config = config();
    config.logging.secure_live_logging = Some(true);
    config.ssl = ssl;
    let told = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&told);
    let events = Events::to(move |event| {
        if let Event::Warning { message } = event {
            hear.lock().unwrap().push((*message).to_owned());
        }
    });
    let server = LiveLogServer::start(&config, events).await.unwrap();
    let spool = Spool::create(&scratch.join("log"), 1 << 30).unwrap();
    spool.output(b"text");
    assert!(spool.end().is_none());
    let offer = server.offer(spool.reader(), Timestamp::now()).unwrap();
    fs::write(&certificate, "no certificate").unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(1001)).await;
        let (trusted, url) = (trusted.display().to_string(), offer.url().to_owned());
        let curl = move || tool("curl", &["--silent", "--show-error", "--ipv4", "--cacert", &trusted, &url]);
        assert_eq!(aside(curl).await, "text");
    }
    let told = told.lock().unwrap();
    let path = certificate.display();
    let expected = format!(
        "failed to find PEM certificates in {path} to serve live logs over TLS; the certificate from before stays in use"
    );
    assert_eq!(*told, [expected]);
}
