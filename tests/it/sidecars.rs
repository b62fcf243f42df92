//! Features that put an image of the administrator's beside the task: what that is given, what the task finds, what both do
//! not, and what is left. The image is a program of the test's, `tests/beside.c`.

mod crash;
mod taskcluster;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    Image, Internet, OwnQueue, Run, WatchedRegistry, Worker, busybox_image, compiled, file, shell_payload,
};

/// `ask PATH` of whoever the task knows by a name.
const TOOLS: &str = r#"ask() { wget -q -O - "http://$1$2"; }; "#;

/// An image of that program with these variables.
fn beside(variables: &[&str]) -> Image {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/beside.c");
    let program = fs::read(compiled("beside", &fs::read_to_string(source).unwrap())).unwrap();
    Image::new()
        .layer(&[file("beside", program).mode(0o755)])
        .set("Entrypoint", json!(["/beside"]))
        .set("Env", json!(variables))
}

/// A host of the test's own with a configuration for `docker-worker run`.
struct Host {
    internet: Internet,
    worker: Worker,
    config: String,
    /// What the task runs in.
    image: String,
}

impl Host {
    /// `config` makes a configuration of the image's name.
    fn with(variables: &[&str], config: impl FnOnce(&str) -> Value) -> Host {
        let internet = Internet::new();
        let worker = Worker::on(&internet);
        let written = config(&worker.image(&beside(variables)).source);
        let path = worker.fresh("config");
        fs::write(&path, written.to_string()).unwrap();
        let image = worker.image(&busybox_image()).source;
        Host { internet, worker, config: path.to_str().unwrap().to_owned(), image }
    }

    /// A payload that has one feature.
    fn payload(&self, feature: &str, script: &str) -> Value {
        let mut payload = shell_payload(&self.image, &format!("{TOOLS}{script}"));
        payload["features"] = json!({ feature: true });
        payload
    }

    fn run(&self, payload: &Value) -> Run {
        let run = self.worker.task_with(payload, &["--config", &self.config]);
        self.worker.assert_nothing_left("after the run");
        self.internet.assert_as_before();
        run
    }
}

/// A task with these scopes and no others.
fn with_scopes(payload: &Value, scopes: &[&str]) -> Value {
    let mut definition =
        crate::support::task_definition("p/w", docker_worker::timestamp::Timestamp::now(), payload);
    definition["scopes"] = json!(scopes);
    definition
}

fn balrog(image: &str) -> Value {
    json!({ "balrogVPNProxyImage": image })
}

fn testdroid(image: &str) -> Value {
    let lender = json!({ "url": "https://lender.example", "username": "worker", "password": "sesame" });
    json!({ "testdroid": lender, "testdroidProxyImage": image })
}

fn releng_api(image: &str) -> Value {
    json!({ "features": { "relengAPIProxy": { "image": image, "token": "sesame" } } })
}

const FAILED: i32 = 123;

#[test]
fn balrog_is_behind_a_tunnel_that_only_its_container_can_make() {
    for (feature, server, host) in [
        ("balrogVPNProxy", "https://aus4-admin.mozilla.org", "52.26.16.60\taus4-admin.mozilla.org"),
        (
            "balrogStageVPNProxy",
            "https://balrog-admin.stage.mozaws.net/",
            "52.71.237.144\tbalrog-admin.stage.mozaws.net",
        ),
    ] {
        let host_of_test = Host::with(&["ANSWERS=401"], balrog);
        let script = "ping -c 1 balrog >/dev/null && echo pinged; ask balrog /environment; ask balrog /hosts; \
                      ask balrog /tun; ls /dev/net || echo none here; grep balrog /etc/hosts | wc -l";
        let run = host_of_test.run(&host_of_test.payload(feature, script)).expect(0, feature);
        for expected in [&format!("PROXIED_SERVER={server}"), host, "pinged", "tun made", "none here"] {
            assert!(run.log.contains(expected), "{expected}: {run:?}");
        }
        assert!(!run.log.contains("given "), "no arguments, and no words in the log: {run:?}");
    }
}

#[test]
fn whoever_answers_in_balrogs_place_is_not_balrog() {
    let host = Host::with(&["ANSWERS=200", "SAYS=no tunnel"], balrog);
    let run = host.run(&host.payload("balrogVPNProxy", "echo ran")).expect(FAILED, "200");
    let expected = "Task was aborted because states could not be created successfully. Error calling 'link' for \
                    balrogVPNProxy : Failed to initialize balrog vpn proxy service. Could not connect to balrog \
                    server and receive expected response Status code: 200";
    assert!(run.log.contains(expected) && run.log.contains("balrogVPNProxy: no tunnel"), "{run:?}");
    assert!(!run.log.contains("ran\r"), "{run:?}");
}

#[test]
fn a_scope_that_is_missing_is_named() {
    let host = Host::with(&["ANSWERS=401"], balrog);
    let payload = host.payload("balrogVPNProxy", "ask balrog /arguments; echo ran");
    let run = host.run(&with_scopes(&payload, &["docker-worker:feature:balrogStageVPNProxy"]));
    let expected = "Error calling 'link' for balrogVPNProxy : Insufficient scopes to use 'balrogVPNProxy' feature.  \
                    Try adding docker-worker:feature:balrogVPNProxy to the .scopes array.";
    assert!(run.status == FAILED && run.log.contains(expected), "{run:?}");
    let run = host.run(&with_scopes(&payload, &["docker-worker:feature:balrogVPNProxy"]));
    assert!(run.status == 0 && run.log.contains("ran\r"), "{run:?}");
}

#[test]
fn what_the_administrator_has_not_configured_no_task_has() {
    let host = Host::with(&[], |_| json!({ "testdroid": { "url": "https://lender.example" } }));
    for (feature, key) in [
        ("balrogVPNProxy", "balrogVPNProxyImage"),
        ("relengAPIProxy", "features.relengAPIProxy.token"),
        ("testdroidProxy", "testdroid.password"),
    ] {
        let mut payload = host.payload(feature, "true");
        payload["capabilities"] = phone();
        let run = host.run(&payload).expect(FAILED, feature);
        assert!(run.log.contains("This worker's configuration does not have what it takes: "), "{run:?}");
        assert!(run.log.contains(key), "{key}: {run:?}");
    }
}

#[test]
fn releng_api_gets_its_token_and_the_tasks_id_and_the_task_no_token() {
    let host = Host::with(&["PLAIN=1"], releng_api);
    let script = "ask relengapi /arguments; echo = $TASK_ID; cat /proc/[0-9]*/cmdline | grep -c ses[a]me; \
                  env | grep -c ses[a]me; true";
    let payload = host.payload("relengAPIProxy", script);
    let run = host.run(&payload).expect(0, "a token");
    let lines: Vec<&str> = run.log.lines().skip_while(|line| !line.starts_with("--relengapi")).collect();
    let id = lines[3].strip_prefix("= ").unwrap();
    assert_eq!(lines[..3], ["--relengapi-token=sesame", "--", id], "{run:?}");
    assert_eq!(lines[4..6], ["0", "0"], "{run:?}");
    let scope = "docker-worker:relengapi-proxy:*";
    let run = host
        .run(&with_scopes(&payload, &["docker-worker:relengapi-proxy:tooltool.download.internal", scope]));
    assert!(run.status == FAILED && run.log.contains(&format!("The scope {scope} does not name")), "{run:?}");
}

fn phone() -> Value {
    json!({ "devices": { "phone": { "type": "flame", "sims": "1", "build": "b", "memory": "319" } } })
}

#[test]
fn testdroid_lends_a_phone_and_has_it_back_when_the_task_is_over() {
    let host = Host::with(&["PLAIN=1"], testdroid);
    let mut payload = host.payload(
        "testdroidProxy",
        "ask testdroid /arguments; ask testdroid /; echo \"$DEVICE_CAPABILITIES\"",
    );
    let run = host.run(&payload).expect(FAILED, "nothing is said of a phone");
    let nothing =
        "Error calling 'link' for testdroidProxy : Device configuration must be supplied in task payload";
    assert!(run.log.contains(nothing), "{run:?}");
    payload["capabilities"] = json!({ "devices": {} });
    let run = host.run(&payload).expect(FAILED, "no phone");
    assert!(run.log.contains(" : Phone device configuration must be supplied in task payload"), "{run:?}");

    payload["capabilities"] = phone();
    let run = host.run(&payload).expect(0, "a phone");
    let arguments = "--cloud-url=https://lender.example\r\n--username=worker\r\n--password=sesame\r\n\
                     --taskcluster-client-id=none\r\n--taskcluster-access-token=none\r\n--device-timeout=120\r\n";
    assert!(run.log.contains(arguments) && run.log.contains("Server running"), "{run:?}");
    let line = run.log.lines().find(|line| line.contains("flame")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(line).unwrap(), phone()["devices"]["phone"]);

    // It hears of the end: with no answer to that, nobody knows whether the phone is back.
    let host = Host::with(&["LOSES=/device/release"], testdroid);
    let mut payload = host.payload("testdroidProxy", "echo ran");
    payload["capabilities"] = phone();
    let run = host.run(&payload).expect(FAILED, "no answer");
    assert!(run.log.contains("ran\r") && run.stderr.contains("may not have been given back"), "{run:?}");
}

#[test]
fn one_that_is_not_ready_in_its_time_has_its_last_words_in_the_log_without_secrets() {
    let host = Host::with(&["LISTENS=no", "SAYS=waiting for a license"], testdroid);
    let mut payload = host.payload("testdroidProxy", "echo ran");
    payload["capabilities"] = phone();
    let run = host.run(&payload).expect(FAILED, "too slow");
    let expected =
        "Failed to initialize testdroid proxy service. Failed to wait for port 80: it is not there after 5 s";
    for expected in
        [expected, "] testdroidProxy: waiting for a license", "] testdroidProxy: given --password=<hidden>"]
    {
        assert!(run.log.contains(expected), "{expected}: {run:?}");
    }
    assert!(!run.log.contains("sesame"), "{run:?}");
}

#[test]
fn one_that_ends_before_its_task_is_told_of() {
    let host = Host::with(&["ENDS=/", "SAYS=only once"], releng_api);
    let script = "ask relengapi /; while ask relengapi /; do sleep 0.1; done; echo ran";
    let run = host.run(&host.payload("relengAPIProxy", script)).expect(0, "the task's own end");
    let expected = "The container that serves the task as relengAPIProxy ended before it, with status 3.";
    assert!(run.log.contains(expected) && run.log.contains("] relengAPIProxy: only once"), "{run:?}");
}

#[test]
fn a_task_without_a_network_is_told_so() {
    let worker = Worker::new();
    let config = worker.fresh("config");
    fs::write(&config, releng_api(&worker.image(&beside(&[])).source).to_string()).unwrap();
    let image = worker.image(&busybox_image()).source;
    let options = ["--config", config.to_str().unwrap(), "--image", &image, "--feature", "relengAPIProxy"];
    let run = worker.run_with(&options, &["true"]).expect(FAILED, "loopback only");
    assert!(run.log.contains("has nothing to reach it by"), "{run:?}");
}

/// The image comes from a registry, whose name alone the tasks' logs do not have; each of two tasks has its own.
#[test]
fn two_tasks_at_once_have_each_their_own() {
    let queue = OwnQueue::new();
    let registry = WatchedRegistry::serve_on(&queue.internet, &queue.worker.image(&beside(&["PLAIN=1"])));
    let mut registries = json!({});
    for image in [&queue.image, &registry.name] {
        let (place, _) = image.split_once('/').unwrap();
        registries[place] = json!({ "plainHttp": true, "privateAddresses": true });
    }
    let mut config = releng_api(&registry.name);
    config["registries"] = registries;
    config["capacity"] = json!(2);
    let started = queue.start_with(&config, &[]);
    let script = format!(
        "{TOOLS} for _ in 1 2 3; do ask relengapi /arguments | tail -n 1; sleep 1; done; echo = $TASK_ID"
    );
    let tasks = [(); 2].map(|()| {
        let mut payload = shell_payload(&queue.image, &script);
        payload["features"] = json!({ "relengAPIProxy": true });
        queue.create(&payload)
    });
    for task in &tasks {
        queue.await_state(task, "completed");
        let log = queue.log(task);
        assert_eq!(log.lines().filter(|line| *line == task.to_string()).count(), 3, "{log}");
        // That of the task's own image at most.
        assert!(log.matches("Started downloading").count() <= 1, "{log}");
        assert!(!log.contains(&registry.name), "{log}");
    }
    started.stop();
    queue.worker.assert_nothing_left("after both");
}
