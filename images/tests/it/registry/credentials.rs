//! Who we are to registries, and who hears of it.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use images::reference::Reference;
use images::registry::{Addresses, Credentials, HostRules, Place, RegistryError};
use images::store::{PullError, PullErrorKind, PullOptions};

use super::{chain, pull, quick};
use crate::certificates::Authority;
use crate::sample::{Compression, Sample, TestStore, open_store};
use crate::scripted::{Reply, Request, ScriptedServer, honest, is_layer};
use crate::store::{block_on, source};
use crate::token_server::TokenServer;

/// `user:pa55word` in base64.
pub const BASIC: &str = "Basic dXNlcjpwYTU1d29yZA==";

pub fn password(username: &str, password: &str) -> Credentials {
    Credentials::Password { username: username.to_owned(), password: password.to_owned() }
}

/// For somebody who has those credentials for a place.
pub fn holding(place: &str, credentials: Credentials) -> PullOptions {
    let mut options = quick();
    options.access.credentials.held.insert(Place::new(place), credentials);
    options
}

/// For somebody whom the server knows.
pub fn logged_in(server: &ScriptedServer) -> PullOptions {
    holding(&server.address.to_string(), password("user", "pa55word"))
}

/// A registry with a token server, both at one address, that has `sample`.
fn with_tokens(
    sample: &Sample,
    change: impl FnOnce(&mut TokenServer),
    served: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
) -> ScriptedServer {
    let (sample, mut tokens) = (sample.clone(), TokenServer::new("/token"));
    change(&mut tokens);
    ScriptedServer::start(move |request| {
        served(request).unwrap_or_else(|| tokens.answer(request, |request| honest(&sample, request)))
    })
}

fn bought(server: &ScriptedServer) -> Vec<Request> {
    server.requests().into_iter().filter(|request| request.path.starts_with("/token")).collect()
}

fn refused(server: &ScriptedServer, options: &PullOptions) -> PullError {
    let error = pull(&TestStore::new(), server, options).unwrap_err();
    let text = chain(&error);
    for secret in ["pa55word", "sesame", "identity&token=", "t0ken"] {
        assert!(!text.contains(secret), "{text}");
    }
    error
}

#[test]
fn a_name_and_a_password_buy_a_token() {
    let sample = Sample::small(Compression::Gzip);
    let server = with_tokens(&sample, |_| {}, |_| None);
    pull(&TestStore::new(), &server, &logged_in(&server)).unwrap();
    assert_eq!(bought(&server).len(), 1);
    let error = refused(&server, &quick());
    assert_eq!(error.kind(), PullErrorKind::Unauthorized);
    assert!(error.to_string().contains("or not be for everybody"), "{error}");
}

#[test]
fn an_identity_token_buys_tokens_and_is_no_password() {
    let sample = Sample::small(Compression::Gzip);
    let identity = |server: &ScriptedServer| {
        holding(&server.address.to_string(), Credentials::IdentityToken("identity&token=".to_owned()))
    };
    let server = with_tokens(&sample, |_| {}, |_| None);
    pull(&TestStore::new(), &server, &identity(&server)).unwrap();
    let requests = server.requests();
    assert_eq!(requests.iter().filter(|request| request.method == "POST").count(), 1);
    let is_told = |request: &Request| {
        let header = request.header("authorization").unwrap_or_default();
        request.path.contains("identity") || header.starts_with("Basic") || header.contains("identity")
    };
    assert!(!requests.iter().any(is_told), "{requests:?}");
    // Where only a password would do it is not told.
    let basic = ScriptedServer::start(|_| Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"));
    assert_eq!(refused(&basic, &identity(&basic)).kind(), PullErrorKind::Unauthorized);
    assert!(basic.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_token_for_the_registry_is_shown_as_it_is() {
    let sample = Sample::small(Compression::Gzip);
    let server = ScriptedServer::start(move |request| match request.header("authorization") {
        Some("Bearer own") => honest(&sample, request),
        _ => Reply::new(401, "").with("WWW-Authenticate", r#"Bearer realm="/token",service="s""#),
    });
    let held =
        |token: &str| holding(&server.address.to_string(), Credentials::RegistryToken(token.to_owned()));
    pull(&TestStore::new(), &server, &held("own")).unwrap();
    for wrong in ["other", "a\r\nb: c", ""] {
        assert_eq!(refused(&server, &held(wrong)).kind(), PullErrorKind::Unauthorized, "{wrong:?}");
    }
    assert_eq!(bought(&server).len(), 0);
}

#[test]
fn credentials_that_are_wrong_or_have_expired_are_named_by_their_place_and_tried_once() {
    let sample = Sample::small(Compression::Gzip);
    for credentials in [
        password("user", "sesame"),
        password("other", "pa55word"),
        Credentials::IdentityToken("sesame".into()),
    ] {
        let server = with_tokens(&sample, |_| {}, |_| None);
        let place = server.address.to_string();
        let error = refused(&server, &holding(&place, credentials));
        assert_eq!(error.kind(), PullErrorKind::Unauthorized, "{error}");
        let expected = format!("with the credentials for {place}; check them");
        assert!(error.to_string().contains(&expected), "{error}");
        assert_eq!(bought(&server).len(), 1, "{error}");
    }
}

#[test]
fn a_token_that_expires_on_the_way_is_bought_again() {
    let sample = Sample::small(Compression::Gzip);
    let server = with_tokens(&sample, |tokens| tokens.lifetime = Duration::ZERO, |_| None);
    // One that is over at once never admits.
    assert_eq!(refused(&server, &logged_in(&server)).kind(), PullErrorKind::Unauthorized);
    let (slow, waited) = (sample.clone(), AtomicBool::new(false));
    let server = with_tokens(
        &sample,
        |tokens| tokens.lifetime = Duration::from_secs(1),
        move |request| {
            if is_layer(&slow, request) && !waited.swap(true, Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_millis(1100));
            }
            None
        },
    );
    let mut options = logged_in(&server);
    options.limits.first_byte = Duration::from_secs(5);
    pull(&TestStore::new(), &server, &options).unwrap();
    assert!(bought(&server).len() > 1);
}

#[test]
fn credentials_for_another_port_or_prefix_stay_at_home() {
    let sample = Sample::small(Compression::Gzip);
    let server = with_tokens(&sample, |tokens| tokens.is_public = true, |_| None);
    let host = server.address.to_string();
    let elsewhere = ["127.0.0.1", "127.0.0.1:1", &format!("{host}/y"), &format!("{host}/x/y/z"), "localhost"];
    for place in elsewhere {
        let options = holding(place, password("user", "sesame"));
        pull(&TestStore::new(), &server, &options).unwrap();
    }
    let is_told = |request: &Request| {
        request.header("authorization").is_some_and(|header| header.starts_with("Basic"))
            || request.path.contains("account=")
    };
    assert!(!server.requests().iter().any(is_told));
    // The longest prefix counts, whether or not its credentials are right.
    let mut options = holding(&format!("{host}/x"), password("user", "pa55word"));
    options.access.credentials.held.insert(Place::new(&host), password("user", "sesame"));
    pull(&TestStore::new(), &server, &options).unwrap();
    options.access.credentials.held.insert(Place::new(&format!("{host}/x/y")), password("user", "sesame"));
    let error = refused(&server, &options);
    assert!(error.to_string().contains(&format!("{host}/x/y")), "{error}");
}

#[test]
fn a_redirect_out_of_the_prefix_takes_no_credentials_along() {
    let sample = Sample::small(Compression::Gzip);
    let stored = sample.clone();
    let server = ScriptedServer::start(move |request| {
        if let Some(rest) = request.path.strip_prefix("/v2/other/") {
            return honest(&stored, &Request { path: format!("/v2/{rest}"), ..request.clone() });
        }
        match request.header("authorization") {
            Some(BASIC) if is_layer(&sample, request) => {
                Reply::new(307, "").with("Location", request.path.replace("/v2/", "/v2/other/"))
            }
            Some(BASIC) => honest(&sample, request),
            _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
        }
    });
    let host = server.address.to_string();
    for (place, is_told) in [(format!("{host}/x"), false), (host.clone(), true)] {
        pull(&TestStore::new(), &server, &holding(&place, password("user", "pa55word"))).unwrap();
        let requests = server.requests();
        let other: Vec<_> =
            requests.iter().filter(|request| request.path.starts_with("/v2/other/")).rev().take(2).collect();
        assert_eq!(other.len(), 2);
        let told = other.iter().all(|request| request.header("authorization").is_some());
        assert_eq!(told, is_told, "{place}: {other:?}");
    }
}

#[test]
fn a_token_server_may_lead_elsewhere_but_not_with_what_it_was_told() {
    let sample = Sample::small(Compression::Gzip);
    let mut stranger = TokenServer::new("/token");
    stranger.is_public = true;
    let elsewhere = ScriptedServer::start(move |request| stranger.answer(request, |_| Reply::new(404, "")));
    let leading = |status: u16, to: String| {
        let sample = sample.clone();
        ScriptedServer::start(move |request| {
            let at = |path: &str| request.path.split('?').next() == Some(path);
            let query =
                request.path.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
            match request.header("authorization") {
                _ if at("/token") => Reply::new(status, "").with("Location", format!("{to}{query}")),
                Some(BASIC) if at("/here") => Reply::new(200, r#"{"token":"t"}"#),
                None if at("/here") && request.body.contains("refresh_token=identity") => {
                    Reply::new(200, r#"{"access_token":"t"}"#)
                }
                Some("Bearer t") => honest(&sample, request),
                _ => Reply::new(401, "")
                    .with("WWW-Authenticate", r#"Bearer realm="/token",service="registry.example.com""#),
            }
        })
    };
    let away = format!("http://{}/token", elsewhere.address);
    let identity = |server: &ScriptedServer| {
        holding(&server.address.to_string(), Credentials::IdentityToken("identity".to_owned()))
    };
    for status in [301, 302, 303, 307, 308] {
        let here = leading(status, "/here".to_owned());
        pull(&TestStore::new(), &here, &logged_in(&here)).unwrap();
        let pulled = pull(&TestStore::new(), &here, &identity(&here));
        assert_eq!(pulled.is_ok(), status >= 307, "{status}");
        let there = leading(status, away.clone());
        assert_eq!(refused(&there, &logged_in(&there)).kind(), PullErrorKind::Unauthorized, "{status}");
        let error = refused(&there, &identity(&there));
        assert!(matches!(error, PullError::Registry(RegistryError::TokenRedirect { .. })), "{error}");
    }
    let seen = elsewhere.requests();
    assert_eq!(seen.len(), 5, "those with a password");
    assert!(seen.iter().all(|request| request.header("authorization").is_none() && request.body.is_empty()));
    let circle = leading(302, "/token".to_owned());
    let error = refused(&circle, &logged_in(&circle));
    assert!(matches!(error, PullError::Registry(RegistryError::Redirects { .. })), "{error}");
}

#[test]
fn what_a_redirect_leads_to_is_asked_as_by_a_stranger() {
    let sample = Sample::small(Compression::Gzip);
    let mut behind = TokenServer::new("/token");
    behind.is_public = true;
    let served = sample.clone();
    let other = ScriptedServer::start(move |request| behind.answer(request, |it| honest(&served, it)));
    let away = format!("http://{}", other.address);
    let front = with_tokens(
        &sample,
        |_| {},
        move |request| {
            let path = request.path.replace("/v2/x/y/", "/v2/behind/z/");
            let is_in = request.header("authorization").is_some_and(|it| it.starts_with("Bearer t0ken"));
            is_in.then(|| Reply::new(307, "").with("Location", format!("{away}{path}")))
        },
    );
    let mut options = logged_in(&front);
    // As whom the worker may come there is nothing that a redirect may use.
    let known = password("user", "pa55word");
    options.access.credentials.held.insert(Place::new(&other.address.to_string()), known);
    pull(&TestStore::new(), &front, &options).unwrap();
    let asked = bought(&other);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].parameter("scope"), Some("repository:behind/z:pull"));
    let headers: Vec<_> =
        other.requests().into_iter().filter_map(|it| it.header("authorization").map(str::to_owned)).collect();
    assert!(headers.iter().all(|header| header == "Bearer t0ken-0"), "{headers:?}");
}

#[test]
fn a_token_server_of_another_host_is_told_the_password_only_if_it_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "authority");
    let (certificate, key) = authority.server();
    let sample = Sample::small(Compression::Gzip);
    let tokens = Arc::new(TokenServer::new(""));
    let selling = Arc::clone(&tokens);
    let shop = ScriptedServer::start_tls(&certificate, &key, move |request| {
        selling.answer(request, |_| Reply::new(404, ""))
    });
    let realm = format!("https://localhost:{}/token", shop.address.port());
    let registry = ScriptedServer::start_tls(&certificate, &key, move |request| {
        let mut reply = tokens.answer(request, |request| honest(&sample, request));
        for (_, value) in &mut reply.headers {
            *value = value.replace(r#"realm="""#, &format!(r#"realm="{realm}""#));
        }
        reply
    });
    let mut options = logged_in(&registry);
    let rules = HostRules {
        addresses: Addresses::Any,
        authorities: Some(authority.certificate()),
        ..HostRules::default()
    };
    let shop_name = format!("localhost:{}", shop.address.port());
    options.access.hosts.insert(shop_name.clone(), rules.clone());
    options.access.hosts.insert(registry.address.to_string(), rules.clone());
    let error = refused(&registry, &options);
    assert!(matches!(error, PullError::Registry(RegistryError::ForeignRealm { .. })), "{error}");
    assert_eq!(shop.requests(), []);
    let rules = HostRules { token_hosts: vec![shop_name], ..rules };
    options.access.hosts.insert(registry.address.to_string(), rules);
    pull(&TestStore::new(), &registry, &options).unwrap();
    assert_eq!(shop.requests().len(), 1);
}

#[test]
fn the_store_remembers_who_asked_when_nobody_is_known_any_more() {
    let sample = Sample::small(Compression::Gzip);
    let server = ScriptedServer::start(move |request| match request.header("authorization") {
        Some(BASIC) => honest(&sample, request),
        None if request.path.starts_with("/v2/open/") => honest(&sample, request),
        _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=r"),
    });
    let test = TestStore::new();
    let digest = images::digest::Digest::of(&Sample::small(Compression::Gzip).manifest_bytes());
    let name = |image: &str| format!("{}/{image}", server.address);
    let cases = [
        (name("open/x:1"), false),
        (name("x/y:1"), true),
        (format!("{}@{digest}", name("x/y")), true),
        (format!("{}@{digest}", name("open/x")), false),
    ];
    for name in [&cases[0].0, &cases[1].0] {
        block_on(test.store.pull(&source(name), &logged_in(&server), &|_| {})).unwrap();
    }
    let store = open_store(&test.root());
    for (name, is_private) in cases {
        let reference = Reference::parse(&name).unwrap();
        assert_eq!(block_on(store.is_private(&reference, &quick())).unwrap(), is_private, "{name}");
    }
}
