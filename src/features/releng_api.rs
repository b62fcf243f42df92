//! `relengAPIProxy`: services of Mozilla's release engineering as `http://relengapi`.
//!
//! The container reads from the task's definition what the task may do there; what nobody can have is refused before it is
//! started, as it would end then without a word to the task. It has its token in its own arguments, which is where it looks for
//! it: whoever is in the task cannot see them, root on this host can.

use super::sidecars::{self, Particulars, nothing_to_prove};
use super::{Feature, FeatureRow, Hook, Link, RunContext};
use crate::config::Secret;
use crate::known_features::RELENG_API_PROXY;
use crate::text::excerpt;

/// Its row of the table.
pub(super) const ROW: FeatureRow =
    FeatureRow { feature: &RELENG_API_PROXY, start: |_| Box::new(RelengApiProxy) };

/// What stands in a scope before a permission.
const PREFIX: &str = "docker-worker:relengapi-proxy:";

/// The permissions that the token can give away. The first one every task has.
const PERMISSIONS: [&str; 2] = ["tooltool.download.public", "tooltool.download.internal"];

/// A scope asks for what is not to be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "The scope {} does not name a permission that there is (a * at its end stands for nothing here): {}.",
    excerpt(.0),
    PERMISSIONS.map(|permission| format!("{PREFIX}{permission}")).join(", ")
)]
struct NoPermission(String);

struct RelengApiProxy;

impl Feature for RelengApiProxy {
    fn link<'a>(&'a mut self, run: &'a RunContext, link: &'a mut Link<'_>) -> Hook<'a> {
        Box::pin(async {
            check(&run.scopes)?;
            let token = run.config.releng_api_token();
            let arguments = vec![
                format!("--relengapi-token={}", token.map_or("", Secret::reveal)),
                // A task's id may begin with a hyphen.
                "--".to_owned(),
                run.run.task_id.as_str().to_owned(),
            ];
            let arguments = arguments.into_iter().map(Secret::new).collect();
            let particulars = Particulars { arguments, secrets: token.into_iter().cloned().collect() };
            sidecars::serve(&sidecars::RELENG_API, run, link, particulars, nothing_to_prove).await?;
            Ok(())
        })
    }
}

/// Looks at the permissions that the task's own scopes name.
fn check(scopes: &[String]) -> Result<(), NoPermission> {
    let named = scopes.iter().filter_map(|scope| Some((scope, scope.strip_prefix(PREFIX)?)));
    let mut unknown = named.filter(|(_, named)| !named.is_empty() && !PERMISSIONS.contains(named));
    unknown.next().map_or(Ok(()), |(scope, _)| Err(NoPermission(scope.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_one_of_two_permissions_and_a_star_none() {
        for (scope, is_fine) in [
            ("docker-worker:relengapi-proxy:tooltool.download.public", true),
            ("docker-worker:relengapi-proxy:tooltool.download.internal", true),
            ("docker-worker:relengapi-proxy:", true),
            ("docker-worker:*", true),
            ("docker-worker:relengapi-proxy:*", false),
            ("docker-worker:relengapi-proxy:tooltool.download.*", false),
            ("docker-worker:relengapi-proxy:tooltool.upload.public", false),
        ] {
            let checked = check(&["queue:x".to_owned(), scope.to_owned()]);
            assert_eq!(checked.is_ok(), is_fine, "{scope}");
            assert!(is_fine || checked.unwrap_err().to_string().contains(scope));
        }
    }
}
