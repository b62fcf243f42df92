//! Which images a payload may name.

use serde_json::json;

use super::*;

#[test]
fn an_image_is_a_name_or_an_object_with_its_kind() {
    let cases = [
        (json!({ "name": "x" }), "/image: must have the field \"type\""),
        (json!({ "type": "docker-image" }), "/image: must have the field \"name\""),
        (json!({ "type": "docker-image", "name": 1 }), "/image/name: must be a string, not a number"),
        (
            json!({ "type": "docker-image", "name": "x", "tag": "1" }),
            "/image/tag: \"tag\" is not a field that exists here",
        ),
        (json!({ "type": "rpm" }), "/image/type: Unrecognized image type. Image Type: rpm"),
        (
            json!({ "type": "task-image", "taskId": "x", "path": "public/image.tar.zst" }),
            "/image/taskId: read \"x\" as a task id: an id is a version 4 UUID in base64url, 22 characters",
        ),
        (
            json!({ "type": "task-image", "taskId": "fN1SbArXTPSVFNUvaOlinQ", "path": "/public/image.tar" }),
            "/image/path: must not begin with a slash",
        ),
        (json!({ "type": "task-image", "path": "x" }), "/image: must have the field \"taskId\""),
        (json!({ "type": "indexed-image", "namespace": "x" }), "/image: must have the field \"path\""),
        (
            json!({ "type": "indexed-image", "namespace": "x", "path": "y", "taskId": "z" }),
            "/image/taskId: \"taskId\" is not a field that exists here",
        ),
        (
            json!({ "type": "indexed-image", "namespace": "a..b", "path": "public/image.tar.zst" }),
            "/image/namespace: must be words with dots between them, as no task has another name in the index",
        ),
    ];
    for (image, expected) in cases {
        refused(&json!({ "image": image }), &[expected]);
    }
}

#[test]
fn an_image_may_be_an_artifact_of_a_task_or_of_what_the_index_has() {
    for image in [
        json!({ "type": "task-image", "taskId": "fN1SbArXTPSVFNUvaOlinQ", "path": "public/image.tar.zst" }),
        json!({ "type": "indexed-image", "namespace": "a.b-c.latest", "path": "private/image.tar" }),
    ] {
        let ImageField::Artifact(found) = accepted(&json!({ "image": image })).image else {
            panic!("{image}")
        };
        let is_private = image["path"] == "private/image.tar";
        assert_eq!(found.scope(), is_private.then(|| "queue:get-artifact:private/image.tar".to_owned()));
        assert_eq!(serde_json::from_str::<Value>(&found.to_string()).unwrap(), image);
    }
}

#[test]
fn s27_a_claimed_task_can_name_registries_only() {
    let names =
        ["docker-archive:/etc/passwd", "oci-archive:/x", "oci:/x", "dir:/x", "../x", "-o x", "host/a b", ""];
    for name in names {
        for image in [json!(name), json!({ "type": "docker-image", "name": name })] {
            let (found, findings) =
                Payload::parse(&payload(&json!({ "image": image })), &context(Origin::Queue));
            assert!(found.is_none(), "{name}");
            assert_eq!(lines(&findings, Severity::Error).len(), 1, "{name}: {findings:?}");
        }
    }
    for name in ["busybox", "example.com:5000/a/b:1@sha256:", "docker:24", "oci/x"] {
        let (found, _) = Payload::parse(&payload(&json!({ "image": name })), &context(Origin::Queue));
        assert_eq!(found.is_some(), !name.ends_with(':'), "{name}");
    }
    assert_eq!(accepted(&json!({ "image": "docker-archive:/x.tar" })).image, named("docker-archive:/x.tar"));
}
