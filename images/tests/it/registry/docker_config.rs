//! Docker's `config.json`, and the programs that it names.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use images::registry::{CredentialsError, DockerConfig, HelperError, Place, RegistryError};
use images::store::{PullError, PullErrorKind, PullOptions};
use serde_json::{Value, json};

use super::credentials::{BASIC, password};
use super::{chain, pull, quick};
use crate::sample::{Compression, Sample, TestStore};
use crate::scripted::{Reply, Request, ScriptedServer, honest};
use crate::store::{block_on, source};
use crate::token_server::TokenServer;

const ANSWER: &str = r#"echo '{"ServerURL":"x","Username":"user","Secret":"pa55word"}'"#;

/// A directory with helpers, each of which notes that it was started, and with what.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        Host { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program that notes its arguments and what it is asked, and then does what the script says.
    fn helper(&self, name: &str, script: &str) {
        let path = self.path(&format!("docker-credential-{name}"));
        let notes = self.path(&format!("{name}.asked")).display().to_string();
        let text = format!("#!/bin/sh\nasked=$(cat)\necho \"$* $asked $GREETING\" >>{notes}\n{script}\n");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }

    /// What it was asked, a line each time.
    fn asked(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.asked"))).unwrap_or_default()
    }

    fn options(&self, config: &Value) -> PullOptions {
        fs::write(self.path("config.json"), config.to_string()).unwrap();
        let mut options = quick();
        options.limits.helper = Duration::from_secs(5);
        let path = format!("{}:/usr/bin:/bin", self.directory.path().display());
        options.access.credentials.docker_config = Some(DockerConfig {
            path: self.path("config.json"),
            environment: vec![("PATH".into(), path.into()), ("GREETING".into(), "hello".into())],
        });
        options
    }

    /// Does what the script says when the server's helper is asked.
    fn attempt(&self, server: &ScriptedServer, script: &str) -> Result<String, PullError> {
        self.helper("h", script);
        let options = self.options(&json!({ "credHelpers": { server.address.to_string(): "h" } }));
        pull(&TestStore::new(), server, &options).map(|image| image.id.to_string())
    }
}

/// A registry for user and password.
fn server() -> ScriptedServer {
    let sample = Sample::small(Compression::Gzip);
    ScriptedServer::start(move |request| match request.header("authorization") {
        Some(BASIC) => honest(&sample, request),
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
    })
}

fn helper_error(error: &PullError) -> &HelperError {
    let text = chain(error);
    assert!(!text.contains("pa55word") && !text.contains("sesame") && text.len() < 500, "{text}");
    assert_eq!(error.kind(), PullErrorKind::Host, "{text}");
    match error {
        PullError::Registry(RegistryError::Credentials(CredentialsError::Helper(error))) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn what_stands_in_dockers_file_is_used_and_read_anew_each_time() {
    let (host, server) = (Host::new(), server());
    let auths = |auth: &str| json!({ "auths": { server.address.to_string(): { "auth": auth } } });
    let options = host.options(&auths(BASIC.strip_prefix("Basic ").unwrap()));
    pull(&TestStore::new(), &server, &options).unwrap();
    host.options(&auths("dXNlcjpzZXNhbWU="));
    let error = pull(&TestStore::new(), &server, &options).unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unauthorized, "{error}");
    // The caller's own come first.
    let mut both = options.clone();
    both.access
        .credentials
        .held
        .insert(Place::new(&server.address.to_string()), password("user", "pa55word"));
    pull(&TestStore::new(), &server, &both).unwrap();
    fs::write(host.path("config.json"), "sesame").unwrap();
    let error = pull(&TestStore::new(), &server, &options).unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Host, "{error}");
    fs::remove_file(host.path("config.json")).unwrap();
    let error = pull(&TestStore::new(), &server, &options).unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unauthorized, "{error}");
}

#[test]
fn a_hosts_own_helper_is_asked_for_it_and_no_other() {
    let (host, server) = (Host::new(), server());
    let address = server.address.to_string();
    host.helper("other", "exit 7");
    host.helper("h", ANSWER);
    let options = host.options(&json!({
        "credHelpers": { address.clone(): "h", "other.example.com": "other" }, "credsStore": "other",
    }));
    pull(&TestStore::new(), &server, &options).unwrap();
    assert_eq!(host.asked("h"), format!("get {address} hello\n"));
    assert_eq!(host.asked("other"), "");
}

#[test]
fn the_helper_of_all_is_asked_for_every_host_that_has_no_entry() {
    let (host, server) = (Host::new(), server());
    host.helper("all", ANSWER);
    let options = host.options(&json!({ "credsStore": "all", "auths": { server.address.to_string(): {} } }));
    pull(&TestStore::new(), &server, &options).unwrap();
    assert_eq!(host.asked("all"), format!("get {} hello\n", server.address));
}

#[test]
fn a_user_that_is_called_token_means_an_identity_token() {
    let host = Host::new();
    let (sample, tokens) = (Sample::small(Compression::Gzip), TokenServer::new("/token"));
    let server = ScriptedServer::start(move |request| tokens.answer(request, |it| honest(&sample, it)));
    host.attempt(&server, r#"echo '{"Username":"<token>","Secret":"identity&token="}'"#).unwrap();
    assert!(server.requests().iter().any(|request| request.method == "POST"));
    let basic = |header: &str| header.starts_with("Basic");
    assert!(!server.requests().iter().any(|request| request.header("authorization").is_some_and(basic)));
}

#[test]
fn a_host_that_a_helper_does_not_know_is_asked_by_nobody() {
    let host = Host::new();
    let (sample, mut tokens) = (Sample::small(Compression::Gzip), TokenServer::new("/token"));
    tokens.is_public = true;
    let server = ScriptedServer::start(move |request| tokens.answer(request, |it| honest(&sample, it)));
    host.attempt(&server, "echo credentials not found in native keychain; exit 1").unwrap();
    assert_eq!(host.asked("h").lines().count(), 1);
    let told = |request: &Request| request.path.contains("account=") || request.method == "POST";
    assert!(!server.requests().iter().any(told));
}

#[test]
fn a_helper_that_does_anything_else_ends_the_pull() {
    let (host, server) = (Host::new(), server());
    type Check = fn(&HelperError) -> bool;
    let failed: Check = |error| matches!(error, HelperError::Failed { .. });
    let no_answer: Check = |error| matches!(error, HelperError::Answer { .. });
    let too_long: Check = |error| matches!(error, HelperError::TooLong { .. });
    let cases: [(&str, Check); 10] = [
        ("echo sesame; exit 1", failed),
        ("echo '{\"Username\":\"user\",\"Secret\":\"sesame\"}'; exit 2", failed),
        ("kill -9 $$", failed),
        ("echo sesame", no_answer),
        ("echo '{\"Username\":\"\",\"Secret\":\"sesame\"}'", no_answer),
        ("echo '{\"Secret\":\"sesame\"}'", no_answer),
        ("head -c 1000 /dev/urandom", no_answer),
        (":", no_answer),
        ("yes sesame | head -c 3000000", too_long),
        ("yes sesame", too_long),
    ];
    for (script, is_expected) in cases {
        let error = host.attempt(&server, script).unwrap_err();
        assert!(is_expected(helper_error(&error)), "{script}: {}", chain(&error));
    }
    // Each has brought the question, and nothing after it.
    assert_eq!(server.requests().len(), cases.len());
    assert!(server.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_helper_that_hangs_is_killed_with_all_that_it_has_started() {
    let (host, server) = (Host::new(), server());
    let pid = host.path("pid");
    let script = format!("sleep 1000 & echo $! >{}; wait", pid.display());
    host.helper("h", &script);
    let config = json!({ "credHelpers": { server.address.to_string(): "h" } });
    let mut options = host.options(&config);
    options.limits.helper = Duration::from_secs(1);
    let began = Instant::now();
    let error = pull(&TestStore::new(), &server, &options).unwrap_err();
    assert!(matches!(helper_error(&error), HelperError::Timeout { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    await_end(&pid);
    // And where the pull is ended by others.
    fs::remove_file(&pid).unwrap();
    let options = host.options(&config);
    let cancel = options.cancel.clone();
    let (test, image) = (TestStore::new(), source(&server.name()));
    let cancelling = async {
        while !fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (pulled, ()) =
        block_on(async { tokio::join!(test.store.pull(&image, &options, &|_| {}), cancelling) });
    assert_eq!(pulled.unwrap_err().kind(), PullErrorKind::Cancelled);
    await_end(&pid);
}

/// Until the process whose number stands there is gone.
fn await_end(pid: &PathBuf) {
    let pid = fs::read_to_string(pid).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    // Whoever takes in orphans here may not look after them.
    while !(state().is_empty() || state().contains(") Z ")) {
        assert!(Instant::now() < deadline, "process {pid} is left");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_helper_has_to_be_a_program_in_a_directory_of_path() {
    let (host, server) = (Host::new(), server());
    let attempt = |name: &str| {
        let options = host.options(&json!({ "credHelpers": { server.address.to_string(): name } }));
        pull(&TestStore::new(), &server, &options).unwrap_err()
    };
    for name in ["../h", "/bin/sh", "a b", "a\u{1b}[31m"] {
        let error = attempt(name);
        assert!(matches!(helper_error(&error), HelperError::Name { .. }), "{name}: {error}");
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }
    fs::write(host.path("docker-credential-file"), "").unwrap();
    fs::create_dir(host.path("docker-credential-directory")).unwrap();
    for name in ["nowhere", "file", "directory"] {
        let error = attempt(name);
        assert!(matches!(helper_error(&error), HelperError::Missing { .. }), "{name}: {error}");
    }
    fs::write(host.path("docker-credential-broken"), "\x7fELF").unwrap();
    fs::set_permissions(host.path("docker-credential-broken"), fs::Permissions::from_mode(0o700)).unwrap();
    let error = attempt("broken");
    assert!(matches!(helper_error(&error), HelperError::Io { .. }), "{error}");
}
