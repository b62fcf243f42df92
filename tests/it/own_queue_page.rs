//! The page of `docker-worker standalone`: what is served of it, and what it does in a browser.

use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use serde_json::{Value, json};

use crate::support::{OwnQueue, await_that, finish, shell_payload};

const LIMIT: Duration = Duration::from_secs(150);

/// Head and body of a reply as curl shows them.
fn reply(own: &OwnQueue, path: &str, options: &[&str]) -> (String, String) {
    let url = format!("{}{path}", own.root_url);
    let child = own.curl(&[&["--include"][..], options, &[&url]].concat()).spawn().unwrap();
    let text = String::from_utf8_lossy(&finish(child, LIMIT).stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

/// What is asked below `/page/` as the queue's own client.
fn call(own: &OwnQueue, method: &str, path: &str, payload: &Value) -> Value {
    let text = if payload.is_null() { String::new() } else { payload.to_string() };
    let signature = own.root().sign(method, &format!("{}{path}", own.root_url).parse().unwrap(), &text);
    let signature = format!("Authorization: {signature}");
    let options = ["--request", method, "--header", "Content-Type: application/json", "--header", &signature];
    let (head, body) = reply(own, path, &[&options[..], &["--data", &text]].concat());
    assert!(head.starts_with("http/1.1 200 "), "{path}: {head} {body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn the_page_loads_nothing_but_its_own_files_and_nobody_frames_it() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let (head, body) = reply(&own, "/", &[]);
    for line in [
        "http/1.1 200 ok",
        "content-type: text/html; charset=utf-8",
        "cache-control: no-cache",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cross-origin-opener-policy: same-origin",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ",
        "frame-ancestors 'none'",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    for inline in ["<style", " style=", "<script>", " onload="] {
        assert!(!body.contains(inline), "{inline}: {body}");
    }
    let tag = own.worker.fresh("tag");
    let tag = tag.to_str().unwrap();
    reply(&own, "/", &["--etag-save", tag]);
    let (head, rest) = reply(&own, "/", &["--etag-compare", tag]);
    assert!(head.starts_with("http/1.1 304 ") && rest.is_empty(), "{head} {rest}");
    let files: Vec<&str> = body.split('"').filter(|text| text.starts_with("/page/")).collect();
    assert_eq!(files.len(), if cfg!(page_is_bundled) { 2 } else { 0 }, "{body}");
    for file in files {
        let (head, _) = reply(&own, file, &["--compressed"]);
        let kind = if file.ends_with(".css") { "text/css" } else { "text/javascript" };
        for line in [
            "http/1.1 200 ok",
            &format!("content-type: {kind}; charset=utf-8"),
            "cache-control: public, max-age=31536000, immutable",
            "x-content-type-options: nosniff",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(line), "{file}: {line}: {head}");
        }
    }
    for (path, options, code) in [
        ("/page/assets/none.js", &[][..], "404"),
        ("/", &["--request", "POST"], "405"),
        ("/page/tasks", &[], "403"),
        ("/page/tasks", &["--header", "Origin: https://other.example.com"], "403"),
        ("/page/tasks", &["--request", "OPTIONS", "--header", "Origin: https://other.example.com"], "403"),
    ] {
        let (head, _) = reply(&own, path, options);
        assert!(head.starts_with(&format!("http/1.1 {code} ")), "{path} {options:?}: {head}");
        assert!(!head.contains("access-control-allow-origin"), "{path} {options:?}: {head}");
    }
    standalone.stop();
}

#[test]
fn the_latest_tasks_come_first_and_in_pages() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let made: Vec<String> = (0..3).map(|_| own.create_script("true").to_string()).collect();
    let ids = |page: &Value| -> Vec<String> {
        let tasks = page["tasks"].as_array().unwrap().iter();
        tasks.map(|task| task["status"]["taskId"].as_str().unwrap().to_owned()).collect()
    };
    let first = call(&own, "GET", "/page/tasks?limit=2", &Value::Null);
    assert_eq!(ids(&first), [made[2].clone(), made[1].clone()]);
    assert_eq!(first["tasks"][0]["name"], "a test");
    let token = first["continuationToken"].as_str().unwrap();
    let path = format!("/page/tasks?limit=2&continuationToken={token}");
    let last = call(&own, "GET", &path, &Value::Null);
    assert_eq!((ids(&last), last.get("continuationToken")), (vec![made[0].clone()], None));
    standalone.stop();
}

#[test]
fn a_definition_is_judged_before_it_is_made() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let judged = |definition: &Value| -> Vec<(String, String)> {
        let reply = call(&own, "POST", "/page/validate", definition);
        let findings = reply["findings"].as_array().unwrap().iter();
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        findings.map(|finding| (text(finding, "severity"), text(finding, "pointer"))).collect()
    };
    let payload = json!({ "image": own.image, "command": ["true"], "maxRunTime": 60 });
    let good = own.definition(&payload);
    let with = |pointer: &str, value: Value| {
        let mut definition = good.clone();
        *definition.pointer_mut(pointer).unwrap() = value;
        definition
    };
    let error = |pointer: &str| vec![("error".to_owned(), pointer.to_owned())];
    for (definition, expected) in [
        (good.clone(), vec![]),
        (with("/payload/maxRunTime", json!("long")), error("/payload/maxRunTime")),
        (with("/metadata/name", json!(1)), error("/metadata/name")),
        // What only a queue can say of a whole definition.
        (with("/created", json!("2020-01-01T00:00:00.000Z")), error("")),
    ] {
        assert_eq!(judged(&definition), expected, "{definition}");
    }
    let mut both = with("/payload/image", json!(5));
    both["metadata"].as_object_mut().unwrap().remove("owner");
    assert_eq!(judged(&both).len(), 2, "{both}");
    standalone.stop();
}

#[test]
fn a_payload_is_judged_by_the_settings_of_the_worker_that_would_have_it() {
    let own = OwnQueue::new();
    let config = json!({ "maxTaskRunTime": 100, "features": { "chainOfTrust": { "enabled": false } } });
    let standalone = own.start_with(&config, &[]);
    let payload = json!({
        "image": own.image, "command": ["true"], "maxRunTime": 200,
        "features": { "chainOfTrust": true }, "cache": { "a/b": "/x" },
    });
    let judged = |change: &dyn Fn(&mut Value)| -> Vec<String> {
        let mut definition = own.definition(&payload);
        change(&mut definition);
        let reply = call(&own, "POST", "/page/validate", &definition);
        let findings = reply["findings"].as_array().unwrap().iter();
        findings.map(|it| format!("{}: {}", it["pointer"].as_str().unwrap(), it["message"])).collect()
    };
    let of_settings = judged(&|_| {});
    assert_eq!(of_settings.len(), 2, "{of_settings:?}");
    assert!(of_settings.iter().any(|it| it.starts_with("/payload/maxRunTime: \"must be at most 100 ")));
    assert!(
        of_settings.iter().any(|it| it.starts_with("/payload/features/chainOfTrust: ")),
        "{of_settings:?}"
    );
    let fit = |it: &mut Value| {
        it["payload"]["maxRunTime"] = json!(100);
        it["payload"]["features"] = json!({});
    };
    assert_eq!(judged(&fit), ["/payload/cache/a~1b: \"needs the scope docker-worker:cache:a/b\""]);
    let with_scope = judged(&|it| {
        fit(it);
        it["scopes"] = json!(["docker-worker:cache:a/b"]);
    });
    assert_eq!(with_scope, [""; 0]);
    let elsewhere = judged(&|it| {
        fit(it);
        it["taskQueueId"] = json!("other/pool");
    });
    let expected = "/taskQueueId: \"is not the pool of the worker here, which is local/docker-worker\"";
    assert_eq!(elsewhere, [expected]);
    standalone.stop();
}

#[test]
fn what_takes_room_on_the_disk_is_told_by_cache_and_by_image() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let mut payload = shell_payload(&own.image, "dd if=/dev/zero of=/x/zeros bs=1024 count=2048");
    payload["cache"] = json!({ "x": "/x" });
    let mut definition = own.definition(&payload);
    definition["scopes"] = json!(["docker-worker:cache:x"]);
    let task_id = TaskId::random().unwrap();
    own.call(&format!("PUT queue/task/{task_id}"), &definition);
    own.await_state(&task_id, "completed");
    // The report comes before the worker has given all back.
    let mut seen = Value::Null;
    await_that("nothing to be in use", || {
        seen = call(&own, "GET", "/page/disk-use", &Value::Null);
        seen["caches"][0]["isUsed"] == false && seen["images"][0]["isUsed"] == false
    });
    let bytes = |value: &Value| value.as_u64().unwrap();
    let cache = &seen["caches"][0];
    assert_eq!((&cache["name"], &cache["isPartial"]), (&json!("x"), &json!(false)), "{seen}");
    assert!((2 << 20..3 << 20).contains(&bytes(&cache["bytes"])), "{seen}");
    let image = &seen["images"][0];
    assert_eq!(image["names"], json!([own.image]), "{seen}");
    assert!(bytes(&image["ownBytes"]) > 0 && bytes(&seen["sharedBytes"]) == 0, "{seen}");
    for nobody in [None, Some("Authorization: Hawk id=\"x\"")] {
        let header = nobody.map_or(vec![], |header| vec!["--header", header]);
        let (head, _) = reply(&own, "/page/disk-use", &header);
        assert!(head.starts_with("http/1.1 40"), "{head}");
    }
    standalone.stop();
}

/// With the page in it that `make build` or `make test` have bundled: `PICTURES` is a directory for what is seen.
#[cfg(page_is_bundled)]
#[test]
fn a_task_is_made_watched_cancelled_and_run_again_in_a_browser() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let home = own.worker.fresh("home");
    std::fs::create_dir(&home).unwrap();
    let mut browser = own.internet.host.command("node");
    browser.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/standalone/page/test/browser.mjs"));
    browser.args([&own.root_url, own.credentials_file().to_str().unwrap(), &own.image]);
    browser.args(std::env::var_os("PICTURES"));
    browser.env("HOME", &home).env("TMPDIR", &home);
    browser.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let finished = finish(browser.spawn().unwrap(), LIMIT);
    let told = String::from_utf8_lossy(&finished.stderr);
    assert!(finished.status.success(), "{told}");
    standalone.stop();
}
