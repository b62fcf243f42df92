//! The secrets service. Whoever may set a secret does so by its API; nothing of one is shown in refusals.

use serde::Serialize;
use serde_json::{Value, json};

use super::exchange::{Exchange, ok};
use super::paging;
use super::reply::{Code, Refusal, Reply};

/// `set`
pub(super) async fn set(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let secret = it.read(|payload, findings| {
        payload.refuse_unknown(&["secret", "expires"], findings);
        let expires = payload.required("expires", findings).and_then(|place| place.time(findings));
        let place = payload.required("secret", findings)?;
        let Value::Object(secret) = place.value else {
            place.expected("an object", findings);
            return None;
        };
        Some((secret.clone(), expires?))
    })?;
    it.services.queue.set_secret(it.params.text("name"), secret).await?;
    ok(&json!({}))
}

/// `remove`
pub(super) async fn remove(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    it.services.queue.remove_secret(it.params.text("name")).await?;
    ok(&json!({}))
}

/// `get`
pub(super) async fn get(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    let found = it.services.queue.secret(it.params.text("name")).await?;
    let missing = || Refusal::new(Code::ResourceNotFound, "Secret not found");
    let (secret, expires) = found.ok_or_else(missing)?;
    ok(&json!({ "secret": secret, "expires": expires }))
}

/// `list`
pub(super) async fn list(it: &Exchange<'_>) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Listed {
        secrets: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        continuation_token: Option<String>,
    }
    let page = it.services.queue.list_secrets(paging::part(it)?).await?;
    ok(&Listed { secrets: page.items, continuation_token: paging::token(page.next) })
}
