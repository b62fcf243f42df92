//! The configuration of an image that gets one layer more.

use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::json::parse_json;

use super::SaveError;

/// What an image's history says of a layer.
#[derive(Clone, Debug)]
pub struct History {
    /// When it was made, as RFC 3339 writes it. The image has it as well.
    pub created: String,
    /// By which command.
    pub created_by: String,
    /// Anything else.
    pub comment: String,
}

/// The configuration `config` of an image with `present` layers, with one more.
pub(super) fn with_layer(
    config: &[u8],
    present: usize,
    diff_id: &Digest,
    (history, change): (&History, impl FnOnce(&mut Map<String, Value>)),
) -> Result<Vec<u8>, SaveError> {
    let refused = || SaveError::Configuration { id: Digest::of(config) };
    let mut document: Map<String, Value> = parse_json(config).map_err(|_problem| refused())?;
    let ids = document.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids"));
    ids.and_then(Value::as_array_mut).ok_or_else(refused)?.push(json!(diff_id));
    let mut entries = match document.remove("history") {
        Some(Value::Array(entries)) => entries,
        // Docker takes none for none.
        _ => Vec::new(),
    };
    let is_of_layer = |entry: &&Value| !entry.get("empty_layer").and_then(Value::as_bool).unwrap_or_default();
    // Readers that count want an entry for each layer; one of nothing says as much as none does.
    let counted = entries.iter().filter(is_of_layer).count();
    entries.extend((counted..present).map(|_| json!({})));
    let History { created, created_by, comment } = history;
    entries.push(json!({ "created": created, "created_by": created_by, "comment": comment }));
    document.insert("history".to_owned(), Value::Array(entries));
    document.insert("created".to_owned(), json!(created));
    // It is about the build of the image below, not of this one.
    for stale in ["container", "container_config", "id", "parent", "parent_id"] {
        document.remove(stale);
    }
    let mut settings = match document.remove("config") {
        Some(Value::Object(settings)) => settings,
        _ => Map::new(),
    };
    change(&mut settings);
    document.insert("config".to_owned(), Value::Object(settings));
    Ok(Value::Object(document).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_layer_is_listed_and_the_rest_is_kept() {
        let history =
            History { created: "2026-01-01T00:00:00Z".into(), created_by: "c".into(), comment: "d".into() };
        let entry = json!({ "created": "2026-01-01T00:00:00Z", "created_by": "c", "comment": "d" });
        let added = Digest::of(b"added");
        let base =
            json!({ "rootfs": { "type": "layers", "diff_ids": ["sha256:1"] }, "os": "linux", "own": [1] });
        let cases = [
            (json!(null), vec![json!({}), entry.clone()]),
            (json!([{ "created_by": "x" }]), vec![json!({ "created_by": "x" }), entry.clone()]),
            (
                json!([{ "created_by": "x" }, { "empty_layer": true }]),
                vec![json!({ "created_by": "x" }), json!({ "empty_layer": true }), entry.clone()],
            ),
        ];
        for (before, after) in cases {
            let mut config = base.clone();
            config["history"] = before;
            let config = config.to_string();
            let set = |settings: &mut Map<String, Value>| drop(settings.insert("Cmd".into(), json!(["x"])));
            let made = with_layer(config.as_bytes(), 1, &added, (&history, set)).unwrap();
            let made: Value = serde_json::from_slice(&made).unwrap();
            assert_eq!(made["rootfs"]["diff_ids"], json!(["sha256:1", added]));
            assert_eq!(made["history"], Value::Array(after));
            assert_eq!((&made["own"], &made["config"]["Cmd"]), (&json!([1]), &json!(["x"])));
        }
        let refused = with_layer(b"{}", 0, &added, (&history, |_: &mut Map<String, Value>| {}));
        assert!(matches!(refused, Err(SaveError::Configuration { .. })), "{refused:?}");
    }
}
