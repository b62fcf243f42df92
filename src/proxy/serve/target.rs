//! Where a request goes, by the beginning of its path. Pure.
//!
//! Nothing is cleaned: `//`, `..` and `%2F` go on as they came, for it is the service that gives them a meaning.

/// The root URL of the deployment whose services had hosts of their own.
const LEGACY_ROOT_URL: &str = "https://taskcluster.net";

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A signed URL.
    Bewit,
    /// Other credentials.
    Credentials,
    /// A way through.
    Tunnel,
    /// This URL.
    Url(String),
    /// Nothing that there is, for this reason.
    Nothing(String),
}

/// What a path, with its query, asks for.
pub(super) fn of(root_url: &str, path: &str) -> Target {
    if path.starts_with("/bewit") {
        return Target::Bewit;
    }
    if path.starts_with("/credentials") {
        return Target::Credentials;
    }
    if path.starts_with("/api") {
        return match path.strip_prefix("/api/").filter(|rest| rest.split('/').nth(2).is_some()) {
            Some(rest) => Target::Url(service(root_url, rest)),
            None => Target::Nothing("invalid /api path".to_owned()),
        };
    }
    let rest = path.strip_prefix('/').unwrap_or(path);
    let first = rest.split(['/', '?']).next().unwrap_or_default();
    if !is_host_name(first) {
        return Target::Nothing(format!(
            "Unkown taskcluster service: {first} is not a valid taskcluster service"
        ));
    }
    if first.contains('.') {
        Target::Url(format!("https://{rest}"))
    } else {
        Target::Url(service(root_url, rest))
    }
}

/// The URL of `<service>/<version>/<path>`.
fn service(root_url: &str, rest: &str) -> String {
    match rest.split_once('/') {
        Some((service, rest)) if root_url == LEGACY_ROOT_URL && is_host_name(service) => {
            format!("https://{service}.taskcluster.net/{rest}")
        }
        Some(_) | None => format!("{root_url}/api/{rest}"),
    }
}

/// Letters, digits and hyphens within, between dots: no colon, and so no port.
fn is_host_name(name: &str) -> bool {
    name.split('.').all(|label| {
        let is_plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && is_plain && !label.starts_with('-') && !label.ends_with('-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "http://tc:8239";

    #[test]
    fn a_path_leads_where_it_led_with_the_original() {
        let url = |url: &str| Target::Url(url.to_owned());
        for (path, expected) in [
            ("/api/queue/v1/task/x?a=b&c", url("http://tc:8239/api/queue/v1/task/x?a=b&c")),
            ("/api/queue/v1/", url("http://tc:8239/api/queue/v1/")),
            ("/api/queue/v1/a%2Fb//c/../d", url("http://tc:8239/api/queue/v1/a%2Fb//c/../d")),
            ("/queue/v1/task/x?y", url("http://tc:8239/api/queue/v1/task/x?y")),
            ("/hooks", url("http://tc:8239/api/hooks")),
            ("/www.example.com/a%20b?c", url("https://www.example.com/a%20b?c")),
            ("/127.0.0.1/", url("https://127.0.0.1/")),
            ("/bewit", Target::Bewit),
            ("/bewitched?x", Target::Bewit),
            ("/credentials", Target::Credentials),
        ] {
            assert_eq!(of(ROOT, path), expected, "{path}");
        }
        assert_eq!(of(LEGACY_ROOT_URL, "/api/queue/v1/ping"), url("https://queue.taskcluster.net/v1/ping"));
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in ["/api", "/api/", "/api/queue", "/api/queue/v1", "/apis/queue/v1/x"] {
            assert_eq!(of(ROOT, path), Target::Nothing("invalid /api path".to_owned()), "{path}");
        }
        for first in
            ["", "foo_bar", "host:80", "user@host.org", "-x", "x-", "a..b", ".", "..", "%61", "[::1]"]
        {
            let text = format!("Unkown taskcluster service: {first} is not a valid taskcluster service");
            assert_eq!(of(ROOT, &format!("/{first}/v1/x")), Target::Nothing(text), "{first}");
        }
    }
}
