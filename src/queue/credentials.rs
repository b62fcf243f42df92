//! What a call to a deployment is signed with.

use std::fmt;

use serde::Deserialize;

/// Taskcluster credentials, permanent or temporary. They are never shown: `Debug` names the client only.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Who calls.
    pub client_id: String,
    /// The secret.
    pub access_token: String,
    /// Of temporary ones: what they may do and until when, as JSON.
    pub certificate: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let text = r#"{"clientId": "worker", "accessToken": "hush", "certificate": "{\"hush\": 1}"}"#;
        let credentials: Credentials = serde_json::from_str(text).unwrap();
        let shown = format!("{credentials:?}");
        assert!(shown.contains("worker") && !shown.contains("hush"), "{shown}");
    }
}
