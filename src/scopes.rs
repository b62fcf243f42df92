//! Scopes: what a task may ask for, as strings; a held scope that ends in `*` stands for all that begin so.

use std::fmt::Display;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// What must be held, in Taskcluster's form: a scope, or all of several expressions, or any of them.
///
/// Serialises as the services write it: `"scope"`, `{"AllOf": [..]}`, `{"AnyOf": [..]}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeExpression {
    /// One scope.
    Scope(String),
    /// Every one of them.
    AllOf(Vec<ScopeExpression>),
    /// At least one of them.
    AnyOf(Vec<ScopeExpression>),
}

/// Whether the scopes held satisfy the scope that is required.
#[must_use]
pub fn satisfies(held: &[String], required: &str) -> bool {
    held.iter().any(|scope| match scope.strip_suffix('*') {
        Some(prefix) => required.starts_with(prefix),
        None => scope == required,
    })
}

/// The fewest scopes that satisfy all that these do, in order.
#[must_use]
pub fn minimal(mut scopes: Vec<String>) -> Vec<String> {
    fn prefix(scope: &str) -> (&str, bool) {
        scope.strip_suffix('*').map_or((scope, true), |prefix| (prefix, false))
    }
    // So that whatever begins as a pattern does comes behind it, and nothing else in between.
    scopes.sort_by(|one, other| prefix(one).cmp(&prefix(other)));
    let mut fewest: Vec<String> = Vec::new();
    for scope in scopes {
        if !fewest.last().is_some_and(|last| satisfies(std::slice::from_ref(last), &scope)) {
            fewest.push(scope);
        }
    }
    fewest.sort();
    fewest
}

impl ScopeExpression {
    /// Whether the scopes held satisfy this expression.
    #[must_use]
    pub fn is_satisfied_by(&self, held: &[String]) -> bool {
        match self {
            ScopeExpression::Scope(scope) => satisfies(held, scope),
            ScopeExpression::AllOf(parts) => parts.iter().all(|part| part.is_satisfied_by(held)),
            ScopeExpression::AnyOf(parts) => parts.iter().any(|part| part.is_satisfied_by(held)),
        }
    }

    /// What is missing of this expression; `None` when nothing is.
    ///
    /// An `AllOf` loses the parts that are satisfied, an `AnyOf` keeps every way there is to satisfy it. Lists of one
    /// part become that part.
    #[must_use]
    pub fn missing(&self, held: &[String]) -> Option<ScopeExpression> {
        if self.is_satisfied_by(held) {
            return None;
        }
        let missing =
            |parts: &[ScopeExpression]| parts.iter().filter_map(|part| part.missing(held)).collect();
        Some(match self {
            ScopeExpression::Scope(scope) => ScopeExpression::Scope(scope.clone()),
            ScopeExpression::AllOf(parts) => unwrap_single(missing(parts), ScopeExpression::AllOf),
            ScopeExpression::AnyOf(parts) => unwrap_single(missing(parts), ScopeExpression::AnyOf),
        })
    }
}

fn unwrap_single(
    mut parts: Vec<ScopeExpression>,
    list: fn(Vec<ScopeExpression>) -> ScopeExpression,
) -> ScopeExpression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            list(parts)
        }
        None => list(parts),
    }
}

impl Serialize for ScopeExpression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (operator, parts) = match self {
            ScopeExpression::Scope(scope) => return serializer.serialize_str(scope),
            ScopeExpression::AllOf(parts) => ("AllOf", parts),
            ScopeExpression::AnyOf(parts) => ("AnyOf", parts),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(operator, parts)?;
        map.end()
    }
}

/// What a task must hold to attach these caches on a worker of this pool.
///
/// Per cache either form will do: `docker-worker:cache:NAME` or `docker-worker:cache:NAME:POOL`.
pub fn cache_expression<'a>(names: impl IntoIterator<Item = &'a str>, worker_pool: &str) -> ScopeExpression {
    let either = |name: &str| {
        let scope = format!("docker-worker:cache:{name}");
        let of_pool = format!("{scope}:{worker_pool}");
        ScopeExpression::AnyOf(vec![ScopeExpression::Scope(scope), ScopeExpression::Scope(of_pool)])
    };
    ScopeExpression::AllOf(names.into_iter().map(either).collect())
}

/// What a task must hold to use an image for which the worker has credentials, by the image's name as the task has it:
/// `docker-worker:image:NAME:TAG`. A digest stands where the tag would.
#[must_use]
pub fn image_scope(name: &str) -> String {
    let at_digest = name.split_once('@');
    // A colon before the last slash is a port's.
    let at_tag = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    let (name, version) = at_digest.or(at_tag).unwrap_or((name, "latest"));
    format!("docker-worker:image:{name}:{version}")
}

/// The log's text for an image that a task may not use.
#[must_use]
pub fn refuse_image(name: &str) -> String {
    refuse_described_image(&serde_json::json!({ "name": name, "type": "docker-image" }))
}

/// The same for one that the payload describes so, in JSON.
#[must_use]
pub fn refuse_described_image(image: &dyn Display) -> String {
    format!(
        "Not authorized to use {image}.  Ensure that the task scopes are correctly defined in the task definition"
    )
}

/// The log's text for caches that a task may not attach: several lines, in which every word that the task chose stands in
/// JSON quotes.
#[must_use]
pub fn refuse_caches(expression: &ScopeExpression, missing: &ScopeExpression) -> String {
    format!(
        "Insufficient scopes to attach cache volumes.\nThe task is missing the following scopes:\n\n```\n{}\n```\n\
         The requested caches require the task scopes to satisfy the following scope expression:\n\n```\n{}\n```",
        as_json(missing),
        as_json(expression),
    )
}

/// The log's text for a feature that a task may not use.
#[must_use]
pub fn refuse_feature(name: &str, scope: &str) -> String {
    format!("Insufficient scopes to use '{name}' feature.  Try adding {scope} to the .scopes array.")
}

fn as_json(expression: &ScopeExpression) -> String {
    let text = serde_json::to_string_pretty(expression).unwrap_or_default();
    crate::text::escape_lines(&text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scopes(list: &[&str]) -> Vec<String> {
        list.iter().map(|&scope| scope.to_owned()).collect()
    }

    #[test]
    fn an_images_scope_has_its_name_as_it_is_written_and_a_tag() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (name, expected) in [
            ("busybox".to_owned(), "busybox:latest".to_owned()),
            ("me/image:1".to_owned(), "me/image:1".to_owned()),
            ("h:5000/me/image".to_owned(), "h:5000/me/image:latest".to_owned()),
            ("docker.io/me/image:a.b".to_owned(), "docker.io/me/image:a.b".to_owned()),
            (format!("h:5000/image@{digest}"), format!("h:5000/image:{digest}")),
            (format!("image:1@{digest}"), format!("image:1:{digest}")),
        ] {
            assert_eq!(image_scope(&name), format!("docker-worker:image:{expected}"));
        }
        let refusal = r#"Not authorized to use {"name":"a/\"b","type":"docker-image"}.  Ensure that the task scopes are correctly defined in the task definition"#;
        assert_eq!(refuse_image("a/\"b"), refusal);
    }

    #[test]
    fn a_star_at_the_end_of_a_held_scope_matches_by_prefix_and_nowhere_else() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["a:b"], "a:b", true),
            (&["a:b"], "a:b:c", false),
            (&["a:*"], "a:b:c", true),
            (&["a:*"], "a:", true),
            (&["a:*"], "a", false),
            (&["*"], "anything", true),
            (&["*:b"], "a:b", false),
            (&["a:b"], "a:*", false),
            (&["a:*"], "a:*", true),
            (&[], "a", false),
            (&["x", "a*"], "abc", true),
        ];
        for (held, required, expected) in cases {
            assert_eq!(satisfies(&scopes(held), required), *expected, "{held:?} {required}");
        }
    }

    #[test]
    fn what_another_scope_stands_for_is_left_out() {
        let cases: &[(&[&str], &[&str])] = &[
            (&[], &[]),
            (&["b", "a", "b"], &["a", "b"]),
            (&["a:b", "a:*", "a"], &["a", "a:*"]),
            (&["a", "a*", "a**", "a b", "b"], &["a*", "b"]),
            (&["x", "*"], &["*"]),
        ];
        for (all, fewest) in cases {
            assert_eq!(minimal(scopes(all)), scopes(fewest), "{all:?}");
        }
        // Were each compared with each, this would take hours.
        let many: Vec<String> = (0..300_000).map(|number| format!("{number:06}")).collect();
        assert_eq!(minimal(many.clone()), many);
    }

    #[test]
    fn a_cache_is_granted_by_its_name_with_or_without_the_pool() {
        let expression = cache_expression(["level-1"], "proj/ci");
        for held in [
            "docker-worker:cache:level-1",
            "docker-worker:cache:level-1:proj/ci",
            "docker-worker:cache:*",
            "*",
        ] {
            assert_eq!(expression.missing(&scopes(&[held])), None, "{held}");
        }
        for held in [
            "docker-worker:cache:level",
            "docker-worker:cache:level-1:other/pool",
            "docker-worker:cache:level-3",
        ] {
            assert!(expression.missing(&scopes(&[held])).is_some(), "{held}");
        }
    }

    #[test]
    fn the_text_shows_what_is_missing_and_then_the_whole_expression() {
        let expression = cache_expression(["a", "b"], "p/w");
        let missing = expression.missing(&scopes(&["docker-worker:cache:a"])).unwrap();
        let text = refuse_caches(&expression, &missing);
        let expected = r#"Insufficient scopes to attach cache volumes.
The task is missing the following scopes:

```
{
  "AnyOf": [
    "docker-worker:cache:b",
    "docker-worker:cache:b:p/w"
  ]
}
```
The requested caches require the task scopes to satisfy the following scope expression:

```
{
  "AllOf": [
    {
      "AnyOf": [
        "docker-worker:cache:a",
        "docker-worker:cache:a:p/w"
      ]
    },
    {
      "AnyOf": [
        "docker-worker:cache:b",
        "docker-worker:cache:b:p/w"
      ]
    }
  ]
}
```"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn no_cache_needs_no_scope() {
        assert_eq!(cache_expression([], "p/w").missing(&[]), None);
    }

    #[test]
    fn s60_a_cache_name_cannot_colour_or_break_the_text() {
        let expression = cache_expression(["\u{1b}[31m\u{202e}\n[taskcluster:error] x"], "p/w");
        let text = refuse_caches(&expression, &expression.missing(&[]).unwrap());
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("[taskcluster")), "{text}");
    }

    proptest! {
        #[test]
        fn a_scope_satisfies_itself_and_a_star_all_that_begin_so(scope in "[a-c:*]{0,8}", rest in "[a-c:]{0,8}") {
            prop_assert!(satisfies(std::slice::from_ref(&scope), &scope));
            let (held, required) = (format!("{scope}*"), format!("{scope}{rest}"));
            prop_assert!(satisfies(&[held], &required));
        }

        #[test]
        fn the_fewest_scopes_satisfy_all_and_none_of_them_another(all in proptest::collection::vec("[ab *]{0,3}", 0..8)) {
            let fewest = minimal(all.clone());
            for scope in &all {
                prop_assert!(satisfies(&fewest, scope), "{all:?} {fewest:?}");
            }
            for (index, scope) in fewest.iter().enumerate() {
                let mut others = fewest.clone();
                others.remove(index);
                prop_assert!(all.contains(scope) && !satisfies(&others, scope), "{all:?} {fewest:?}");
            }
        }

        #[test]
        fn something_is_missing_exactly_when_the_expression_is_not_satisfied(
            names in proptest::collection::vec("[ab]{1,2}", 0..4),
            held in proptest::collection::vec("docker-worker:cache:[ab]{0,2}\\*?", 0..4),
        ) {
            let expression = cache_expression(names.iter().map(String::as_str), "p/w");
            let missing = expression.missing(&held);
            prop_assert_eq!(missing.is_none(), expression.is_satisfied_by(&held));
            if let Some(missing) = missing {
                prop_assert!(!missing.is_satisfied_by(&held));
            }
        }
    }
}
