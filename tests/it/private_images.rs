//! Images that are not for everybody: with what credentials they come, and for which tasks.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use docker_worker::queue::{TaskStatus, Verdict};
use serde_json::{Value, json};

use crate::support::{Registry, Run, Site, Worker, busybox_image, tool};

/// The registry's member, and what no line may have.
const NAME: &str = "member";
const PASSWORD: &str = "sesame0pen";

/// Runs a task with an image of the registry and that configuration.
fn attempt(worker: &Worker, image: &str, config: &Value) -> Run {
    let path = worker.fresh("config");
    let mut config = config.clone();
    config["dockerConfig"]["maxAttempts"] = json!(1);
    fs::write(&path, config.to_string()).unwrap();
    let run = worker.run_with(&["--config", path.to_str().unwrap(), "--image", image], &["true"]);
    assert!(!format!("{run:?}").contains(PASSWORD), "{run:?}");
    run
}

#[test]
fn a_members_image_comes_with_the_credentials_that_the_configuration_has_for_its_place() {
    let worker = Worker::new();
    let registry = Registry::for_member(worker.scratch(), NAME, PASSWORD);
    let image = registry.push(&worker.image(&busybox_image()), "team/image:1");
    let (host, auth) =
        (&registry.address, tool("sh", &["-c", &format!("printf {NAME}:{PASSWORD} | base64")]));
    let right = json!({ "username": NAME, "password": PASSWORD });
    let right_for = |place: &str| json!({ "registries": { place: right } });
    let cases = [
        ("the host's", 0, right_for(host)),
        ("a prefix's", 0, right_for(&format!("{host}/team"))),
        ("in one", 0, json!({ "registries": { host: { "auth": auth.trim() } } })),
        ("none", 121, json!({})),
        ("wrong", 121, json!({ "registries": { host: { "username": NAME, "password": "guess" } } })),
        ("another prefix's", 121, right_for(&format!("{host}/teams"))),
        ("another port's", 121, right_for("127.0.0.1:1")),
        ("a token", 121, json!({ "registries": { host: { "identitytoken": PASSWORD } } })),
    ];
    for (case, expected, config) in cases {
        // Each by itself: an image that is there is not fetched.
        let run = attempt(&Worker::new(), &image, &config).expect(expected, case);
        let words = match case {
            "wrong" => format!("not authorized with the credentials for {host}; check them"),
            _ if expected == 121 => "not authorized".to_owned(),
            _ => String::new(),
        };
        assert!(run.stderr.contains(&words), "{case}: {run:?}");
    }
    let config = worker.fresh("config");
    fs::write(&config, right_for(host).to_string()).unwrap();
    let printed = worker.command(&["start", "--config", config.to_str().unwrap(), "--print-config"]).output();
    let printed = String::from_utf8(printed.unwrap().stdout).unwrap();
    assert!(printed.contains(NAME) && !printed.contains(PASSWORD), "{printed}");
}

#[test]
fn dockers_own_file_and_the_helpers_that_it_names_are_asked() {
    let worker = Worker::new();
    let registry = Registry::for_member(worker.scratch(), NAME, PASSWORD);
    let image = registry.push(&worker.image(&busybox_image()), "team/image:1");
    let host = &registry.address;
    let home = worker.fresh("home");
    fs::create_dir_all(home.join(".docker")).unwrap();
    let file = home.join(".docker/config.json");
    let asked = home.join("asked");
    let helper = home.join("docker-credential-test");
    // What its environment holds is not for a task to see, nor a deployment's credentials for it.
    let script = format!(
        "#!/bin/sh\n(cat; echo; env) >{}\necho '{{\"Username\":\"{NAME}\",\"Secret\":\"{PASSWORD}\"}}'\n",
        asked.display()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o700)).unwrap();
    let run = |config: &Value, by_home: bool| {
        let worker = Worker::new();
        let path = worker.fresh("config");
        fs::write(&path, json!({ "dockerConfig": config }).to_string()).unwrap();
        let arguments = ["run", "--config", path.to_str().unwrap(), "--image", &image, "--", "true"];
        let mut command = worker.command(&arguments);
        let programs = format!("{}:{}", home.display(), std::env::var("PATH").unwrap());
        command.env("PATH", programs).env("TASKCLUSTER_ACCESS_TOKEN", "a secret of the deployment's");
        if by_home {
            command.env("HOME", &home);
        }
        let output = command.output().unwrap();
        assert!(!format!("{output:?}").contains(PASSWORD), "{output:?}");
        output.status.code()
    };
    fs::write(&file, json!({ "credHelpers": { host: "test" } }).to_string()).unwrap();
    let named = json!({ "maxAttempts": 1, "credentialsFile": file.to_str().unwrap() });
    assert_eq!(run(&named, false), Some(0));
    let question = fs::read_to_string(&asked).unwrap();
    assert_eq!(question.lines().next(), Some(host.as_str()));
    assert!(question.contains("\nPATH=") && !question.contains("TASKCLUSTER"), "{question}");
    // Where `docker login` writes.
    assert_eq!(run(&json!({ "maxAttempts": 1 }), true), Some(0));
    assert_eq!(run(&json!({ "maxAttempts": 1 }), false), Some(121));
    fs::write(&file, "{").unwrap();
    assert_eq!(run(&named, false), Some(125));
}

#[test]
fn an_image_that_takes_credentials_is_only_for_tasks_with_its_scope_also_where_it_is_in_the_store() {
    let site = Site::new();
    let (host, _) = site.image.split_once('/').unwrap();
    let settings =
        json!({ "plainHttp": true, "privateAddresses": true, "username": NAME, "password": PASSWORD });
    let worker = site.start(&json!({ "registries": { host: settings } }));
    let attempt = |scopes: &[&str]| {
        let mut definition = site.deployment.definition(&site.payload("echo ran"));
        definition["scopes"] = json!(scopes);
        let task = site.deployment.create_task(definition);
        let status = site.deployment.await_resolved(&task);
        (verdict(&status), site.deployment.log(&task))
    };
    let refusal = format!(
        "Not authorized to use {{\"name\":\"{}\",\"type\":\"docker-image\"}}.  Ensure that the task scopes are correctly defined in the task definition",
        site.image
    );
    let needed = format!("docker-worker:image:{}", site.image);
    let wrong = "docker-worker:image:other:latest";
    let (before, log) = attempt(&[wrong]);
    assert_eq!(before, Some(Verdict::Failed), "{log}");
    assert!(log.contains(&refusal), "{log}");
    assert_eq!(site.registry.asked().len(), 0, "nobody asks for what is refused");
    let (there, log) = attempt(&[&needed]);
    assert_eq!(there, Some(Verdict::Completed), "{log}");
    for scopes in [&[][..], &[wrong]] {
        let (after, log) = attempt(scopes);
        assert_eq!(after, Some(Verdict::Failed), "{log}");
        assert!(log.contains(&refusal) && !log.contains("ran"), "{log}");
    }
    let log = worker.stop().log;
    assert!(!log.contains(PASSWORD), "{log}");
}

fn verdict(status: &TaskStatus) -> Option<Verdict> {
    status.runs.last().and_then(|run| run.reason_resolved)
}
