//! Whether a task may have what its payload asks for: by its own scopes, and by those that roles add to them.

use images::reference::Reference;
use images::source::Source;
use images::store::{PullError, PullOptions, Store};
use tokio::sync::OnceCell;

use crate::config::ConfigFile;
use crate::document::finding::{Findings, pointer_to};
use crate::features::sidecars::{ImageScope, ROWS};
use crate::known_features::KnownFeature;
use crate::payload::{ImageField, Payload};
use crate::queue::{QueueError, RunQueue};
use crate::scopes::{self, ScopeExpression};
use crate::task::error::TaskError;
use crate::task::image;
use crate::task::outcome::End;
use crate::text::chain;
use crate::text::escaped;

/// What a task holds.
pub(super) struct Authorization<'a> {
    queue: &'a RunQueue,
    /// Where its image may be.
    store: &'a Store,
    /// As its definition has them.
    own: &'a [String],
    /// With those of roles: asked for once, and only where its own do not do.
    expanded: OnceCell<Vec<String>>,
}

impl<'a> Authorization<'a> {
    pub(super) fn new(queue: &'a RunQueue, store: &'a Store, own: &'a [String]) -> Authorization<'a> {
        Authorization { queue, store, own, expanded: OnceCell::new() }
    }

    /// Checks all that takes scopes, in the order in which it would be used. `file` is the worker's configuration, and
    /// `options` are how it would pull.
    pub(super) async fn check(
        &self,
        payload: &Payload,
        file: &ConfigFile,
        options: &PullOptions,
    ) -> Result<(), TaskError> {
        self.check_image(&payload.image, options).await?;
        for feature in payload.features.on() {
            self.check_feature(feature).await?;
            self.check_image_of(feature, file, options).await?;
        }
        let names = payload.cache.keys().map(|name| name.as_str());
        let expression = scopes::cache_expression(names, &file.worker_pool());
        match self.missing(&expression).await.map_err(|error| not_expanded(&error))? {
            None => Ok(()),
            Some(missing) => {
                Err(not_configured(End::SetupFailed, &scopes::refuse_caches(&expression, &missing)))
            }
        }
    }

    /// Whether or not the image is there already: what one task may have brought is not for all.
    async fn check_image(&self, image: &ImageField, options: &PullOptions) -> Result<(), TaskError> {
        let (needed, refusal) = match image {
            ImageField::Named { name, source: Source::Registry(reference) } => {
                match self.needed_for((name, reference), options).await? {
                    None => return Ok(()),
                    Some(needed) => (needed, scopes::refuse_image(name)),
                }
            }
            ImageField::Named { .. } => return Ok(()),
            ImageField::Artifact(image) => match image.scope() {
                None => return Ok(()),
                Some(scope) => (ScopeExpression::Scope(scope), scopes::refuse_described_image(image)),
            },
        };
        match self.missing(&needed).await.map_err(|error| not_expanded(&error))? {
            None => Ok(()),
            Some(_) => Err(image::unavailable(&refusal)),
        }
    }

    /// What an image of a registry takes of a task, unless it is anybody's, or the task's own scopes do.
    async fn needed_for(
        &self,
        (name, reference): (&str, &Reference),
        options: &PullOptions,
    ) -> Result<Option<ScopeExpression>, TaskError> {
        let needed = ScopeExpression::Scope(scopes::image_scope(name));
        // Who holds the scope in any case has nobody asked whether it takes one.
        if needed.is_satisfied_by(self.own) {
            return Ok(None);
        }
        let known = options.access.has_credentials(reference, &options.limits).await;
        let known = known.map_err(|error| image::pull_failure(&PullError::Registry(error)))?;
        // Somebody else may have brought it, or the worker as it was configured before.
        let is_private = self.store.is_private(reference, options).await;
        let is_private = is_private.map_err(|error| image::pull_failure(&error))?;
        Ok((known || is_private).then_some(needed))
    }

    async fn check_feature(&self, feature: &KnownFeature) -> Result<(), TaskError> {
        let Some(scope) = feature.scope else { return Ok(()) };
        let missing = self.missing(&ScopeExpression::Scope(scope.to_owned())).await;
        match missing.map_err(|error| not_expanded(&error))? {
            None => Ok(()),
            Some(_) => Err(not_linked(feature, &scopes::refuse_feature(feature.name, scope))),
        }
    }

    /// The image of a feature's container takes what a task's takes, unless the feature's own scope is enough.
    async fn check_image_of(
        &self,
        feature: &KnownFeature,
        file: &ConfigFile,
        options: &PullOptions,
    ) -> Result<(), TaskError> {
        let row = ROWS.iter().find(|row| row.feature == feature && row.image_scope == ImageScope::OfImage);
        let Some(image) = row.and_then(|row| (row.image)(file)) else { return Ok(()) };
        let Source::Registry(reference) = image.source() else { return Ok(()) };
        let Some(needed) = self.needed_for((image.as_str(), reference), options).await? else {
            return Ok(());
        };
        match self.missing(&needed).await.map_err(|error| not_expanded(&error))? {
            None => Ok(()),
            Some(_) => {
                let scope = scopes::image_scope(image.as_str());
                let refusal = scopes::refuse_image(image.as_str());
                Err(not_linked(feature, &format!("{refusal}. Try adding {scope} to the .scopes array.")))
            }
        }
    }

    /// What the task lacks of an expression.
    async fn missing(&self, needed: &ScopeExpression) -> Result<Option<ScopeExpression>, QueueError> {
        if needed.is_satisfied_by(self.own) {
            return Ok(None);
        }
        let expanded = self.expanded.get_or_try_init(|| self.queue.expand_scopes(self.own)).await?;
        Ok(needed.missing(expanded))
    }
}

/// What scopes, those of roles among them, do not allow of what a payload asks for: for whoever writes a task that this
/// would end. `pool` is the worker's; the payload is at `pointer`.
pub fn judge(payload: &Payload, scopes: &[String], (pool, pointer): (&str, &str), findings: &mut Findings) {
    for feature in payload.features.on() {
        if let Some(scope) = feature.scope.filter(|scope| !scopes::satisfies(scopes, scope)) {
            let pointer = pointer_to(&pointer_to(pointer, "features"), feature.name);
            findings.error(pointer, format!("needs the scope {scope}"));
        }
    }
    if let ImageField::Artifact(image) = &payload.image
        && let Some(scope) = image.scope().filter(|scope| !scopes::satisfies(scopes, scope))
    {
        let pointer = pointer_to(&pointer_to(pointer, "image"), "path");
        findings.error(pointer, format!("needs the scope {}", escaped(&scope)));
    }
    for name in payload.cache.keys() {
        let name = name.as_str();
        if !scopes::cache_expression([name], pool).is_satisfied_by(scopes) {
            let pointer = pointer_to(&pointer_to(pointer, "cache"), name);
            findings.error(pointer, format!("needs the scope docker-worker:cache:{}", escaped(name)));
        }
    }
}

/// The original looked at it in a hook.
fn not_linked(feature: &KnownFeature, why: &str) -> TaskError {
    let text = format!(
        "Task was aborted because states could not be created successfully. Error calling 'link' for {} : {why}",
        feature.handler
    );
    TaskError::new(End::SetupFailed, text)
}

/// A deployment that does not answer says nothing about the task.
fn not_expanded(error: &QueueError) -> TaskError {
    let end = match error {
        QueueError::Unreachable { .. }
        | QueueError::Internal { .. }
        | QueueError::Foreign { .. }
        | QueueError::NotFound { .. }
        | QueueError::Unauthenticated { .. } => End::WorkerFault,
        QueueError::Conflict { .. }
        | QueueError::Invalid { .. }
        | QueueError::NoContent { .. }
        | QueueError::Unauthorized { .. } => End::SetupFailed,
    };
    not_configured(end, &format!("Failed to {}", escaped(&chain(error))))
}

fn not_configured(end: End, why: &str) -> TaskError {
    let text = format!(
        "Docker configuration could not be created.  This may indicate an authentication error when validating scopes necessary for running the task. \n{why}"
    );
    TaskError::new(end, text)
}

#[cfg(test)]
mod tests {
    use images::digest::Digest;
    use images::registry::{self, Access, Place};
    use serde_json::{Value, json};

    use super::*;
    use crate::artifact::storage::Storage;
    use crate::config::{FeatureSwitch, ImageName, Secret};
    use crate::known_features;
    use crate::payload::{Origin, TaskContext};
    use crate::queue::{Credentials, WorkerIdentity, WorkerQueue};
    use crate::timestamp::Timestamp;

    /// A store without images, in a directory of its own.
    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        (directory, store)
    }

    /// A deployment whose role `builder` has the caches that begin with `level-1`, and a run of it.
    async fn deployment() -> (Storage, RunQueue) {
        let storage = Storage::start(&[]).await;
        let credentials = Credentials {
            client_id: "worker".to_owned(),
            access_token: "secret".to_owned(),
            certificate: None,
        };
        let queue = WorkerQueue::deployment(&storage.url(""), credentials).unwrap();
        let identity = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
        let claim = queue.claim_work("p/w", &identity, 1).await.unwrap().claims.remove(0);
        storage.received().clear();
        (storage, claim.queue)
    }

    /// The configuration of a worker of the pool.
    fn file() -> ConfigFile {
        let (provisioner_id, worker_type) = (Some("p".to_owned()), Some("w".to_owned()));
        ConfigFile { provisioner_id, worker_type, ..ConfigFile::default() }
    }

    fn payload(caches: &Value) -> Payload {
        of_text(&json!({"image": "i", "maxRunTime": 60, "cache": caches}))
    }

    fn of_text(text: &Value) -> Payload {
        let context = TaskContext {
            expires: Timestamp::now(),
            origin: Origin::Queue,
            disabled_features: &[],
            max_task_run_time: None,
            pointer: "",
        };
        Payload::parse(text, &context).0.unwrap()
    }

    /// For somebody who has credentials for those places.
    fn pulling(places: &[&str]) -> PullOptions {
        let mut access = Access::default();
        for place in places {
            let token = registry::Credentials::RegistryToken("sesame".to_owned());
            access.credentials.held.insert(Place::new(place), token);
        }
        PullOptions::new(access)
    }

    #[tokio::test]
    async fn roles_are_asked_for_once_and_only_where_the_tasks_own_scopes_do_not_do() {
        let (_directory, store) = store();
        let both = payload(&json!({"level-1-a": "/a", "level-3-b": "/b"}));
        let level_1 = payload(&json!({"level-1-a": "/a"}));
        let none = payload(&json!({}));
        let direct = "docker-worker:cache:level-3-b:p/w";
        let cases: [(&[&str], &Payload, usize, Option<&str>); 6] = [
            (&["*"], &both, 0, None),
            (&[], &none, 0, None),
            (&["assume:builder"], &level_1, 1, None),
            (&["assume:builder", direct], &both, 1, None),
            (&["assume:builder"], &both, 1, Some("\"docker-worker:cache:level-3-b\"")),
            (&[direct], &level_1, 1, Some("Insufficient scopes to attach cache volumes.")),
        ];
        for (own, payload, calls, refusal) in cases {
            let (storage, queue) = deployment().await;
            let own: Vec<String> = own.iter().map(|&scope| scope.to_owned()).collect();
            let authorization = Authorization::new(&queue, &store, &own);
            for _ in 0..2 {
                let checked = authorization.check(payload, &file(), &pulling(&[])).await;
                let text = checked.err().map(|error| error.lines.concat());
                match refusal {
                    None => assert_eq!(text, None, "{own:?}"),
                    Some(refusal) => assert!(text.as_ref().unwrap().contains(refusal), "{own:?}: {text:?}"),
                }
            }
            let received = storage.received();
            assert_eq!(received.len(), calls, "{own:?}");
            // A task need not be allowed to ask.
            assert!(received.iter().all(|call| call.is_signed_by("worker")), "{own:?}: {received:?}");
        }
    }

    #[tokio::test]
    async fn an_image_that_takes_credentials_takes_a_scope() {
        let (_directory, store) = store();
        let places = ["h:5000/team", "docker.io/me"];
        let refused = r#"Error: Not authorized to use {"name":"NAME","type":"docker-image"}.  Ensure that the task scopes are correctly defined in the task definition"#;
        let cases: [(&str, &[&str], bool, usize); 12] = [
            ("h:5000/other/x", &[], true, 0),
            ("h:5000/team/x", &["docker-worker:image:h:5000/team/x:latest"], true, 0),
            ("h:5000/team/x:1", &["docker-worker:image:h:5000/team/*"], true, 0),
            ("h:5000/team/x:1", &["assume:builder"], true, 1),
            ("h:5000/team/x:2", &["assume:builder"], false, 1),
            ("h:5000/team/x", &["docker-worker:image:h:5000/team/x:1"], false, 1),
            ("H:5000/team/x", &["docker-worker:image:h:5000/team/x:latest"], false, 1),
            ("h:5000/team/x", &[], false, 1),
            ("me/x", &["docker-worker:image:docker.io/me/x:latest"], false, 1),
            ("docker.io/me/x", &["docker-worker:image:docker.io/me/x:latest"], true, 0),
            ("registry-1.docker.io/me/x", &[], false, 1),
            ("busybox", &[], true, 0),
        ];
        for (name, own, may, calls) in cases {
            let (storage, queue) = deployment().await;
            let own: Vec<String> = own.iter().map(|&scope| scope.to_owned()).collect();
            let authorization = Authorization::new(&queue, &store, &own);
            let payload = of_text(&json!({"image": name, "maxRunTime": 60}));
            let checked = authorization.check(&payload, &file(), &pulling(&places)).await;
            assert_eq!(storage.received().len(), calls, "{name} {own:?}");
            match checked {
                Ok(()) => assert!(may, "{name} {own:?}"),
                Err(error) => {
                    assert!(!may, "{name} {own:?}: {error:?}");
                    assert_eq!(error.end, End::ImageUnavailable);
                    let expected = ["Pulling docker image has failed.", &refused.replace("NAME", name)];
                    assert_eq!(error.lines, expected);
                }
            }
        }
    }

    #[tokio::test]
    async fn an_image_that_came_with_credentials_takes_a_scope_also_where_there_are_none_any_more() {
        let (directory, store) = store();
        let of = |text: &str| Digest::of(text.as_bytes()).to_string();
        let digest = of("private");
        // As pulls note it, and as older programs did.
        for (image, asked) in
            [("private", json!("as-ourselves")), ("public", json!("anonymously")), ("old", Value::Null)]
        {
            let name = format!("h.io/{image}:latest");
            let mut record = json!({ "name": name, "image": of(image), "manifest": of(image), "resolved": of(image), "blobs": [] });
            if !asked.is_null() {
                record["asked"] = asked;
            }
            let file = format!("names/{}.json", Digest::of(name.as_bytes()).hex());
            std::fs::write(directory.path().join(file), record.to_string()).unwrap();
        }
        for (name, scope, may) in [
            ("h.io/private".to_owned(), "h.io/private:latest".to_owned(), true),
            ("h.io/private".to_owned(), String::new(), false),
            (format!("h.io/private@{digest}"), String::new(), false),
            (format!("h.io/private@{digest}"), format!("h.io/private:{digest}"), true),
            ("h.io/public".to_owned(), String::new(), true),
            ("h.io/old".to_owned(), String::new(), true),
            ("h.io/absent".to_owned(), String::new(), true),
        ] {
            let (_storage, queue) = deployment().await;
            let own = [format!("docker-worker:image:{scope}")];
            let payload = of_text(&json!({ "image": name, "maxRunTime": 60 }));
            let checked =
                Authorization::new(&queue, &store, &own).check(&payload, &file(), &pulling(&[])).await;
            assert_eq!(checked.is_ok(), may, "{name} {scope}: {checked:?}");
        }
    }

    #[tokio::test]
    async fn a_service_that_does_not_answer_is_no_failure_of_the_task() {
        let (_directory, store) = store();
        let (storage, queue) = deployment().await;
        let nobody = storage.url("");
        drop(storage);
        // A worker that has no connection from before.
        let credentials = queue.credentials().unwrap().borrow().clone();
        let worker = WorkerQueue::deployment(&nobody, credentials.clone()).unwrap();
        let queue = worker.resume(queue.run().clone(), credentials).unwrap();
        // Nobody waits for the attempts.
        tokio::time::pause();
        let own = ["assume:builder".to_owned()];
        let error = Authorization::new(&queue, &store, &own)
            .check(&payload(&json!({"level-1-a": "/a"})), &file(), &pulling(&[]))
            .await
            .unwrap_err();
        let line = error.lines.concat();
        assert_eq!(error.end, End::WorkerFault, "{line}");
        let begin = "Docker configuration could not be created.  This may indicate an authentication error";
        assert!(line.starts_with(begin) && line.contains("answer about a task's scopes"), "{line}");
        let (what, because) = ("its scopes".to_owned(), "no".to_owned());
        let refusal = QueueError::Unauthorized { what, because };
        assert_eq!(not_expanded(&refusal).end, End::SetupFailed);
        let (what, because) = ("its scopes".to_owned(), "stale".to_owned());
        for passing in
            [QueueError::NotFound { what: what.clone() }, QueueError::Unauthenticated { what, because }]
        {
            assert_eq!(not_expanded(&passing).end, End::WorkerFault, "{passing}");
        }
    }

    #[test]
    fn an_author_hears_of_each_scope_that_is_missing_where_it_is_needed() {
        let payload = payload(&json!({"a/b": "/a", "c": "/c"}));
        let judged = |scopes: &[&str]| {
            let scopes: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
            let mut findings = Findings::default();
            judge(&payload, &scopes, ("p/w", "/payload"), &mut findings);
            findings.into_list().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let of_first = "/payload/cache/a~1b: needs the scope docker-worker:cache:a/b";
        assert_eq!(judged(&["docker-worker:cache:c:p/w"]), [of_first]);
        assert_eq!(judged(&["docker-worker:cache:c:p/v"]).len(), 2);
        assert!(judged(&["docker-worker:cache:*"]).is_empty());
    }

    #[tokio::test]
    async fn an_image_that_is_a_private_artifact_is_for_those_who_may_get_it() {
        let (_directory, store) = store();
        let (_storage, queue) = deployment().await;
        for (path, scopes, is_allowed) in [
            ("public/x.tar", &[][..], true),
            ("publicity/x.tar", &[], false),
            ("private/x.tar", &[], false),
            ("private/x.tar", &["queue:get-artifact:private/x.tar"], true),
            ("private/x.tar", &["queue:get-artifact:private/*"], true),
            ("private/x.tar", &["queue:get-artifact:private/x"], false),
        ] {
            let own: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
            let image = json!({ "type": "indexed-image", "namespace": "a.b", "path": path });
            let payload = of_text(&json!({ "image": image, "maxRunTime": 60 }));
            let checked =
                Authorization::new(&queue, &store, &own).check(&payload, &file(), &pulling(&[])).await;
            let mut findings = Findings::default();
            judge(&payload, &own, ("p/w", "/payload"), &mut findings);
            let findings: Vec<_> = findings.into_list().iter().map(ToString::to_string).collect();
            let Err(error) = checked else {
                assert!(is_allowed && findings.is_empty(), "{path} {scopes:?} {findings:?}");
                continue;
            };
            assert!(!is_allowed, "{path} {scopes:?}");
            assert_eq!(findings, [format!("/payload/image/path: needs the scope queue:get-artifact:{path}")]);
            let text = error.lines.concat();
            assert!(error.end == End::ImageUnavailable && text.contains("Not authorized to use {"), "{text}");
        }
    }

    #[tokio::test]
    async fn the_image_of_a_feature_takes_its_scope_unless_the_feature_has_one() {
        let (_directory, store) = store();
        let (_storage, queue) = deployment().await;
        let image = || ImageName::read("h:5000/team/x");
        let token = Some(Secret::new("t".to_owned()));
        let of_releng_api = FeatureSwitch { image: image(), token, ..FeatureSwitch::default() };
        let mut file = ConfigFile { balrog_vpn_proxy_image: image(), ..file() };
        file.features.insert("relengAPIProxy".to_owned(), of_releng_api);
        let of_balrog = "docker-worker:feature:balrogVPNProxy";
        let of_image = "docker-worker:image:h:5000/team/x:latest";
        for (feature, places, scopes, is_allowed) in [
            ("balrogVPNProxy", &["h:5000/team"][..], &[of_balrog][..], true),
            ("relengAPIProxy", &["h:5000/team"], &[of_image], true),
            ("relengAPIProxy", &["h:5000/team"], &[of_balrog], false),
            ("relengAPIProxy", &[], &[], true),
        ] {
            let payload = of_text(&json!({ "image": "i", "maxRunTime": 1, "features": { feature: true } }));
            let own: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
            let authorization = Authorization::new(&queue, &store, &own);
            match authorization.check(&payload, &file, &pulling(places)).await {
                Ok(()) => assert!(is_allowed, "{feature} {scopes:?}"),
                Err(error) => {
                    let text = error.lines.concat();
                    let expected = format!("Try adding {of_image} to the .scopes array.");
                    let is_told = text.contains("'link' for relengAPIProxy") && text.ends_with(&expected);
                    assert!(!is_allowed && is_told && error.end == End::SetupFailed, "{text}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_feature_with_a_scope_is_refused_in_the_originals_words() {
        let (_directory, store) = store();
        let (_storage, queue) = deployment().await;
        let feature = known_features::find("allowPtrace").unwrap();
        let own = ["docker-worker:feature:*".to_owned()];
        assert!(Authorization::new(&queue, &store, &own).check_feature(feature).await.is_ok());
        let error = Authorization::new(&queue, &store, &[]).check_feature(feature).await.unwrap_err();
        let expected = "Task was aborted because states could not be created successfully. Error calling 'link' for allowPtrace : Insufficient scopes to use 'allowPtrace' feature.  Try adding docker-worker:feature:allowPtrace to the .scopes array.";
        assert_eq!((error.lines, error.end), (vec![expected.to_owned()], End::SetupFailed));
    }
}
