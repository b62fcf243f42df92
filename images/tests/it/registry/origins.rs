//! Credentials and connections stay where they belong.
use images::registry::{Addresses, HostRules, RegistryError, Scheme};
use images::store::{PullError, PullErrorKind, PullOptions};

use super::credentials::{BASIC, logged_in};
use super::{chain, pull, quick};
use crate::certificates::Authority;
use crate::sample::{Compression, Sample, TestStore};
use crate::scripted::{Reply, Request, ScriptedServer, honest, is_layer};

fn with_rules(server: &ScriptedServer, rules: HostRules) -> PullOptions {
    let mut options = quick();
    options.access.hosts.insert(server.address.to_string(), rules);
    options
}

/// A registry whose token server is itself: basic credentials buy the token `t0ken`.
fn with_token(request: &Request, served: impl Fn(&Request) -> Reply) -> Reply {
    if request.path.starts_with("/token") {
        return match request.header("authorization") {
            Some(BASIC) => Reply::new(200, r#"{"token":"t0ken"}"#),
            _ => Reply::new(401, ""),
        };
    }
    match request.header("authorization") {
        Some("Bearer t0ken") => served(request),
        _ => Reply::new(401, "").with(
            "WWW-Authenticate",
            r#"Bearer realm="/token",service="reg istry",scope="registry:catalog:*""#,
        ),
    }
}

#[test]
fn a_token_is_bought_once_for_this_repository_only() {
    let sample = Sample::small(Compression::Gzip);
    let server =
        ScriptedServer::start(move |request| with_token(request, |request| honest(&sample, request)));
    pull(&TestStore::new(), &server, &logged_in(&server)).unwrap();
    let requests = server.requests();
    let tokens: Vec<_> = requests.iter().filter(|request| request.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?account=user&scope=repository:x/y:pull&service=reg%20istry");
    // One challenge, then manifest, configuration and two layers with the token.
    assert_eq!(requests.len(), 6);
}

#[test]
fn basic_credentials_answer_a_basic_challenge() {
    let sample = Sample::small(Compression::Gzip);
    let server = ScriptedServer::start(move |request| match request.header("authorization") {
        Some(BASIC) => honest(&sample, request),
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
    });
    pull(&TestStore::new(), &server, &logged_in(&server)).unwrap();
    let without = pull(&TestStore::new(), &server, &quick()).unwrap_err();
    assert_eq!(without.kind(), PullErrorKind::Unauthorized);
}

#[test]
fn s18_a_redirect_to_another_origin_takes_no_credentials_along() {
    let sample = Sample::small(Compression::Gzip);
    let stored = sample.clone();
    let storage = ScriptedServer::start(move |request| honest(&stored, request));
    let elsewhere = format!("http://{}", storage.address);
    let registry = ScriptedServer::start(move |request| {
        with_token(request, |request| match is_layer(&sample, request) {
            true => Reply::new(307, "")
                .with("Location", format!("{elsewhere}{}?X-Signature=secret", request.path)),
            false => honest(&sample, request),
        })
    });
    let mut options = logged_in(&registry);
    let allowed = HostRules { scheme: Scheme::Http, addresses: Addresses::Any, ..HostRules::default() };
    options.access.hosts.insert(storage.address.to_string(), allowed);
    pull(&TestStore::new(), &registry, &options).unwrap();
    let seen = storage.requests();
    assert_eq!(seen.iter().filter(|request| request.header("authorization").is_some()).count(), 0);
    assert_eq!(seen.len(), 2);
}

#[test]
fn s18_credentials_do_not_come_back_by_way_of_another_origin() {
    let registry_address = std::sync::Arc::new(std::sync::OnceLock::new());
    let back = std::sync::Arc::clone(&registry_address);
    let stranger = ScriptedServer::start(move |_| {
        let back: &String = back.get().unwrap();
        Reply::new(307, "").with("Location", format!("http://{back}/v2/elsewhere"))
    });
    let away = format!("http://{}/x", stranger.address);
    let registry = ScriptedServer::start(move |request| {
        with_token(request, |request| match request.path.ends_with("/elsewhere") {
            true => Reply::new(200, "{}"),
            false => Reply::new(307, "").with("Location", away.clone()),
        })
    });
    registry_address.set(registry.address.to_string()).unwrap();
    let error = pull(&TestStore::new(), &registry, &logged_in(&registry)).unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unauthorized);
    let elsewhere: Vec<_> =
        registry.requests().into_iter().filter(|request| request.path.ends_with("/elsewhere")).collect();
    assert!(elsewhere.iter().all(|request| request.header("authorization").is_none()), "{elsewhere:?}");
    assert_eq!(elsewhere.len(), 1);
}

#[test]
fn s19_a_foreign_realm_is_not_told_the_password() {
    let stranger = ScriptedServer::start(|_| Reply::new(200, r#"{"token":"t0ken"}"#));
    let realm = format!("http://{}/token", stranger.address);
    let registry = ScriptedServer::start(move |_| {
        Reply::new(401, "").with("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#))
    });
    let mut options = logged_in(&registry);
    let allowed = HostRules { scheme: Scheme::Http, addresses: Addresses::Any, ..HostRules::default() };
    options.access.hosts.insert(stranger.address.to_string(), allowed);
    let error = pull(&TestStore::new(), &registry, &options).unwrap_err();
    assert!(matches!(error, PullError::Registry(RegistryError::ForeignRealm { .. })), "{error}");
    assert_eq!(stranger.requests(), []);
}

/// What a claimed task gets; the registry that it names is one that the operator has allowed.
fn claimed(server: &ScriptedServer) -> PullOptions {
    let mut options = with_rules(server, HostRules { scheme: Scheme::Http, ..HostRules::default() });
    options.access.loopback = images::registry::Loopback::Refused;
    options
}

#[test]
fn a_registry_that_may_speak_plain_http_may_lie_on_loopback() {
    let sample = Sample::small(Compression::Gzip);
    let server = ScriptedServer::start(move |request| honest(&sample, request));
    pull(&TestStore::new(), &server, &claimed(&server)).unwrap();
}

#[test]
fn the_operators_registry_on_loopback_may_lead_to_others_there_only() {
    let sample = Sample::small(Compression::Gzip);
    let stored = sample.clone();
    let storage = ScriptedServer::start(move |request| honest(&stored, request));
    let tokens = ScriptedServer::start(|_| Reply::new(200, r#"{"token":"","access_token":"t0ken"}"#));
    let elsewhere = format!("http://{}", storage.address);
    let realm = format!(r#"Basic realm="x", Bearer realm="http://{}/token",service=s"#, tokens.address);
    let registry = ScriptedServer::start(move |request| match request.header("authorization") {
        Some("Bearer t0ken") if is_layer(&sample, request) => {
            Reply::new(307, "").with("Location", format!("{elsewhere}{}", request.path))
        }
        Some("Bearer t0ken") => honest(&sample, request),
        _ => Reply::new(401, "").with("WWW-Authenticate", realm.clone()),
    });
    pull(&TestStore::new(), &registry, &quick()).unwrap();
    assert_eq!((tokens.requests().len(), storage.requests().len()), (1, 2));
    for target in ["http://169.254.169.254/x", "http://192.0.2.1/x"] {
        let leading = ScriptedServer::start(move |_| Reply::new(307, "").with("Location", target));
        let error = pull(&TestStore::new(), &leading, &quick()).unwrap_err();
        assert!(matches!(error, PullError::Registry(RegistryError::PlainHttp { .. })), "{error}");
    }
}

#[test]
fn a_token_that_is_refused_is_not_bought_again() {
    let refusing = ScriptedServer::start(move |request| match request.path.starts_with("/token") {
        true => Reply::new(200, r#"{"token":"t0ken"}"#),
        false => Reply::new(401, "").with("WWW-Authenticate", r#"Bearer realm="/token",service="x""#),
    });
    let error = pull(&TestStore::new(), &refusing, &logged_in(&refusing)).unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unauthorized);
    let bought = refusing.requests().iter().filter(|request| request.path.starts_with("/token")).count();
    assert_eq!((bought, refusing.requests().len()), (1, 3));
}

#[test]
fn s20_nothing_leads_to_this_machine_or_a_metadata_service() {
    let canary = ScriptedServer::start(|_| Reply::new(200, "{}"));
    let port = canary.address.port();
    let targets = [
        "http://169.254.169.254/latest".to_owned(),
        "https://169.254.169.254/latest".to_owned(),
        format!("http://127.0.0.1:{port}/x"),
        format!("https://127.0.0.1:{port}/x"),
        format!("https://localhost:{port}/x"),
        format!("https://[::ffff:127.0.0.1]:{port}/x"),
        format!("https://2130706433:{port}/x"),
        format!("https://0x7f.1:{port}/x"),
        format!("https://0:{port}/x"),
    ];
    for target in targets {
        let location = target.clone();
        let redirecting =
            ScriptedServer::start(move |_| Reply::new(307, "").with("Location", location.clone()));
        let realm = format!(r#"Bearer realm="{target}""#);
        let challenging =
            ScriptedServer::start(move |_| Reply::new(401, "").with("WWW-Authenticate", realm.clone()));
        for server in [redirecting, challenging] {
            let error = pull(&TestStore::new(), &server, &claimed(&server)).unwrap_err();
            let refused = matches!(
                error,
                PullError::Registry(RegistryError::Address { .. } | RegistryError::PlainHttp { .. })
            );
            assert!(refused, "{target}: {}", chain(&error));
        }
    }
    assert_eq!(canary.requests(), []);
}

#[test]
fn s20_a_claimed_task_does_not_reach_loopback_at_all() {
    let canary = ScriptedServer::start(|_| Reply::new(200, "{}"));
    let options = PullOptions::new(images::registry::Access::default());
    let error = pull(&TestStore::new(), &canary, &options).unwrap_err();
    assert!(matches!(error, PullError::Registry(RegistryError::Address { .. })), "{error}");
    assert_eq!(canary.requests(), []);
}

#[test]
fn redirects_have_an_end_and_proper_targets() {
    let circle = ScriptedServer::start(|request| Reply::new(302, "").with("Location", request.path.clone()));
    let error = pull(&TestStore::new(), &circle, &quick()).unwrap_err();
    assert!(matches!(error, PullError::Registry(RegistryError::Redirects { limit: 5, .. })), "{error}");
    assert_eq!(circle.requests().len(), 6);
    for location in ["", "//host/x", "ftp://host/x", "https://user@host/x"] {
        let server = ScriptedServer::start(move |_| Reply::new(302, "").with("Location", location));
        let error = pull(&TestStore::new(), &server, &quick()).unwrap_err();
        assert!(matches!(error, PullError::Registry(RegistryError::Url { .. })), "{location}: {error}");
    }
}

#[test]
fn s21_tls_is_verified_and_does_not_lead_to_plain_http() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "authority");
    let (certificate, key) = authority.server();
    let sample = Sample::small(Compression::Gzip);
    let plain = ScriptedServer::start({
        let sample = sample.clone();
        move |request| honest(&sample, request)
    });
    let elsewhere = format!("http://{}", plain.address);
    let (served, id) = (sample.clone(), sample.id());
    let honest_tls = ScriptedServer::start_tls(&certificate, &key, move |request| honest(&served, request));
    let leading_away = ScriptedServer::start_tls(&certificate, &key, move |request| {
        Reply::new(307, "").with("Location", format!("{elsewhere}{}", request.path))
    });
    let trusting = |server: &ScriptedServer| {
        let authorities = Some(authority.certificate());
        let rules = HostRules { addresses: Addresses::Any, authorities, ..HostRules::default() };
        let mut options = with_rules(server, rules);
        let allowed = HostRules { scheme: Scheme::Http, addresses: Addresses::Any, ..HostRules::default() };
        options.access.hosts.insert(plain.address.to_string(), allowed);
        options
    };
    let image = pull(&TestStore::new(), &honest_tls, &trusting(&honest_tls)).unwrap();
    assert_eq!(image.id.to_string(), id);
    let untrusted = HostRules { addresses: Addresses::Any, ..HostRules::default() };
    let error = pull(&TestStore::new(), &honest_tls, &with_rules(&honest_tls, untrusted)).unwrap_err();
    assert!(matches!(error, PullError::Registry(RegistryError::Tls { .. })), "{error}");
    let error = pull(&TestStore::new(), &leading_away, &trusting(&leading_away)).unwrap_err();
    assert!(matches!(error, PullError::Registry(RegistryError::Downgrade { .. })), "{error}");
    assert_eq!(plain.requests(), []);
}
