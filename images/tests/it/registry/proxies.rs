//! Registries by way of a proxy, and what becomes of it.
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use images::registry::{Addresses, HostRules, Loopback, Proxies, RegistryError, Scheme};
use images::store::{PullError, PullErrorKind, PullOptions};

use super::credentials::{BASIC, holding, password};
use super::{chain, quick};
use crate::certificates::Authority;
use crate::namespace::in_own_network;
use crate::registry_server::{Protection, RegistryServer};
use crate::sample::{Compression, Sample, TestStore, skopeo_copy};
use crate::scripted::{Reply, Request, ScriptedServer, honest};
use crate::store::{block_on, source};
use crate::tinyproxy::TinyProxy;

/// An address that is not loopback's: [`in_own_network`] has it.
const HERE: &str = "203.0.113.5";

fn attempt(image: &str, options: &PullOptions) -> Result<String, PullError> {
    let test = TestStore::new();
    let pulled = block_on(test.store.pull(&source(image), options, &|_| {}));
    pulled.map(|lease| lease.image().id.to_string()).inspect_err(|error| {
        let text = chain(error);
        assert!(!text.contains("sesame") && !text.contains("pa55word") && !text.contains("Basic"), "{text}");
    })
}

/// A host that need not exist, by way of a proxy for everything but the exceptions.
fn by(proxy: &str, host: &str, exceptions: &str) -> PullOptions {
    let mut options = quick();
    options.access.loopback = Loopback::Refused;
    options.access.proxies = Proxies::new(proxy, proxy, exceptions).unwrap();
    options.access.hosts.insert(host.to_owned(), HostRules { scheme: Scheme::Http, ..HostRules::default() });
    options
}

/// A proxy that has what is asked of it, whatever the host.
fn scripted_proxy(sample: &Sample) -> ScriptedServer {
    let sample = sample.clone();
    ScriptedServer::start(move |request| proxied(&sample, request))
}

fn proxied(sample: &Sample, request: &Request) -> Reply {
    match request.path.strip_prefix("http://").and_then(|rest| rest.split_once('/')) {
        Some((_, path)) => honest(sample, &Request { path: format!("/{path}"), ..request.clone() }),
        None => Reply::new(400, ""),
    }
}

#[test]
fn a_real_proxy_is_gone_through_with_tls_and_in_the_clear() {
    in_own_network(HERE, || {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(directory.path(), "authority");
        let sample = Sample::small(Compression::Gzip);
        let layout = sample.write_layout(&directory.path().join("layout"));
        let plain = RegistryServer::start_at(HERE);
        let mut secure = RegistryServer::start_at(HERE);
        for server in [&plain, &secure] {
            skopeo_copy(&[], &layout, &server.skopeo("team/image:1"));
        }
        secure.protect(&Protection { certificate: Some(authority.server()), ..Protection::default() });
        let proxy = TinyProxy::start("me", "sesame");
        let mut options = quick();
        let rules = HostRules { addresses: Addresses::Any, ..HostRules::default() };
        let in_clear = HostRules { scheme: Scheme::Http, ..rules.clone() };
        let with_tls = HostRules { authorities: Some(authority.certificate()), ..rules };
        options.access.hosts.insert(plain.host(), in_clear);
        options.access.hosts.insert(secure.host(), with_tls);
        let url = format!("http://me:sesame@{}", proxy.address);
        options.access.proxies = Proxies::new(&url, &url, "").unwrap();
        for server in [&plain, &secure] {
            assert_eq!(attempt(&server.name("team/image:1"), &options).unwrap(), sample.id());
        }
        let seen = proxy.requests();
        let to = |start: &str| seen.iter().filter(|line| line.starts_with(start)).count();
        assert!(to(&format!("CONNECT {} ", secure.host())) > 0, "{seen:?}");
        assert!(to(&format!("GET http://{}/v2/team/image/", plain.host())) > 0, "{seen:?}");
        options.access.proxies = Proxies::new(&url, &url, &format!("{HERE}:1,{HERE}")).unwrap();
        attempt(&secure.name("team/image:1"), &options).unwrap();
        assert_eq!(proxy.requests().len(), seen.len(), "an exception goes by no proxy");
        for user in ["", "me:guess@"] {
            let url = format!("http://{user}{}", proxy.address);
            options.access.proxies = Proxies::new(&url, &url, "").unwrap();
            for server in [&plain, &secure] {
                let error = attempt(&server.name("team/image:1"), &options).unwrap_err();
                // tinyproxy calls a wrong password 401, of a request in the clear as if it were the registry.
                let kinds = [PullErrorKind::Unreachable, PullErrorKind::Unauthorized];
                assert!(kinds.contains(&error.kind()), "{}", chain(&error));
            }
        }
    });
}

#[test]
fn a_registrys_password_and_a_proxys_go_to_their_own() {
    in_own_network(HERE, || {
        let sample = Sample::small(Compression::Gzip);
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(directory.path(), "authority");
        let (certificate, key) = authority.server();
        let served = sample.clone();
        let registry = ScriptedServer::start_tls_at(HERE, &certificate, &key, move |request| {
            match request.header("authorization") {
                Some(BASIC) => honest(&served, request),
                _ => Reply::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
            }
        });
        let proxy = TinyProxy::start("me", "sesame");
        let host = registry.address.to_string();
        let mut options = holding(&host, password("user", "pa55word"));
        let rules = HostRules {
            addresses: Addresses::Any,
            authorities: Some(authority.certificate()),
            ..HostRules::default()
        };
        options.access.hosts.insert(host, rules);
        let url = format!("http://me:sesame@{}", proxy.address);
        options.access.proxies = Proxies::new(&url, "", "").unwrap();
        assert_eq!(attempt(&registry.name(), &options).unwrap(), sample.id());
        let told = registry.requests();
        assert!(
            !told.is_empty() && told.iter().all(|request| request.header("proxy-authorization").is_none())
        );
        assert!(proxy.requests().iter().all(|line| line.starts_with("CONNECT ")));
    });
}

#[test]
fn exceptions_are_reached_without_the_proxy() {
    let sample = Sample::small(Compression::Gzip);
    let proxy = scripted_proxy(&sample);
    let url = proxy.address.to_string();
    let host = "registry.invalid:5000";
    let cases = [
        ("", true),
        ("other.invalid", true),
        ("registry.invalid:443", true),
        (".registry.invalid", true),
        ("gistry.invalid", true),
        ("10.0.0.0/8", true),
        ("*", false),
        ("registry.invalid", false),
        ("REGISTRY.invalid:5000", false),
        (".invalid", false),
        ("*.invalid", false),
        ("other.invalid, registry.invalid", false),
    ];
    for (exceptions, is_asked) in cases {
        let before = proxy.requests().len();
        let pulled = attempt(&format!("{host}/x/y:1"), &by(&url, host, exceptions));
        assert_eq!(proxy.requests().len() > before, is_asked, "{exceptions:?}");
        match pulled {
            Ok(id) => assert!(is_asked && id == sample.id(), "{exceptions:?}"),
            // Nobody has that name.
            Err(PullError::Registry(RegistryError::Resolve { .. })) => assert!(!is_asked, "{exceptions:?}"),
            Err(error) => panic!("{exceptions:?}: {error}"),
        }
    }
}

#[test]
fn a_proxy_may_have_tls_itself_and_is_trusted_as_its_host_is() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "authority");
    let (certificate, key) = authority.server();
    let sample = Sample::small(Compression::Gzip);
    let served = sample.clone();
    let proxy = ScriptedServer::start_tls(&certificate, &key, move |request| proxied(&served, request));
    let host = "registry.invalid:5000";
    let mut options = by(&format!("https://me:sesame@{}", proxy.address), host, "");
    let error = attempt(&format!("{host}/x/y:1"), &options).unwrap_err();
    assert!(matches!(error, PullError::Registry(RegistryError::Tls { .. })), "{}", chain(&error));
    assert_eq!(proxy.requests(), []);
    let rules = HostRules { authorities: Some(authority.certificate()), ..HostRules::default() };
    options.access.hosts.insert(proxy.address.to_string(), rules);
    assert_eq!(attempt(&format!("{host}/x/y:1"), &options).unwrap(), sample.id());
    let told = proxy.requests();
    let basic = Some("Basic bWU6c2VzYW1l");
    assert!(told.iter().all(|request| request.header("proxy-authorization") == basic), "{told:?}");
}

#[test]
fn s20_a_proxy_is_not_asked_for_this_machine_or_a_metadata_service() {
    let sample = Sample::small(Compression::Gzip);
    let proxy = scripted_proxy(&sample);
    let url = proxy.address.to_string();
    let hosts = [
        "169.254.169.254",
        "127.0.0.1:5000",
        "0x7f.1:5000",
        "2130706433:5000",
        "127.1:5000",
        "[::1]:5000",
        "[::ffff:127.0.0.1]:5000",
        "localhost:5000",
        "registry.localhost:5000",
        "0.0.0.0:5000",
    ];
    for host in hosts {
        for scheme in [Scheme::Http, Scheme::Https] {
            let mut options = by(&url, host, "");
            options.access.hosts.clear();
            if scheme == Scheme::Http {
                // One that may speak HTTP, and leads there.
                let sample = sample.clone();
                let target = format!("https://{host}/x");
                let leading =
                    ScriptedServer::start(move |request| match request.path.contains("/manifests/") {
                        true => Reply::new(307, "").with("Location", target.clone()),
                        false => honest(&sample, request),
                    });
                let rules = HostRules { scheme: Scheme::Http, ..HostRules::default() };
                options.access.hosts.insert(leading.address.to_string(), rules);
                attempt(&leading.name(), &options).unwrap_err();
            } else {
                attempt(&format!("{host}/x/y:1"), &options).unwrap_err();
            }
        }
    }
    assert_eq!(proxy.requests(), []);
}

/// A proxy that says the same to everybody, and how often it was asked.
fn saying(words: &'static [u8], then: fn()) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&asked);
    // Ends with the test's process: an accept that waits harms nobody.
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                let mut head = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while head.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                // Whoever asks may have gone.
                drop(stream.write_all(words));
                then();
            });
        }
    });
    (address, asked)
}

#[test]
fn a_proxy_that_answers_nonsense_is_named_and_does_not_hold_up() {
    let wait: fn() = || thread::park_timeout(Duration::from_secs(30));
    let at_once: fn() = || {};
    type Case = (&'static str, &'static [u8], fn(), usize);
    let cases: [Case; 12] = [
        ("nothing", b"", at_once, 3),
        ("silence", b"", wait, 3),
        ("junk", b"\x00\xff\x01junk\r\n\r\n", at_once, 3),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2p1\r\n", wait, 3),
        ("half a head", b"HTTP/1.1 200 Connection established\r\n", wait, 3),
        ("refused", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", at_once, 1),
        (
            "wants a password",
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            at_once,
            1,
        ),
        ("leads on", b"HTTP/1.1 302 Found\r\nLocation: http://sesame\r\n\r\n", at_once, 1),
        ("busy", b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", at_once, 3),
        ("no tunnel", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", at_once, 3),
        ("a page for a tunnel", b"HTTP/1.1 200 OK\r\n\r\n<html>sesame</html>", wait, 1),
        ("no HTTP it knows", b"HTTP/9.9 200 OK\r\n\r\n", at_once, 3),
    ];
    for (name, words, then, attempts) in cases {
        let (address, asked) = saying(words, then);
        let mut options = quick();
        options.access.proxies = Proxies::new(&format!("me:sesame@{address}"), "", "").unwrap();
        options.limits.attempts = 3;
        options.limits.connect = Duration::from_millis(500);
        let began = Instant::now();
        let error = attempt("registry.invalid/x/y:1", &options).unwrap_err();
        let text = chain(&error);
        assert_eq!(error.kind(), PullErrorKind::Unreachable, "{name}: {text}");
        assert!(text.len() < 500 && !text.contains('\u{0}'), "{name}: {text}");
        assert!(asked.load(Ordering::SeqCst) <= attempts, "{name}: {}", asked.load(Ordering::SeqCst));
        assert!(began.elapsed() < Duration::from_secs(15), "{name}: {:?}", began.elapsed());
        if !["no tunnel", "a page for a tunnel"].contains(&name) {
            assert!(text.contains(&format!("the proxy http://{address}")), "{name}: {text}");
        }
    }
}

#[test]
fn a_proxy_whose_answer_never_ends_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let line = format!("X-Filler: {}\r\n", "x".repeat(1000));
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\n"));
                while stream.write_all(line.as_bytes()).is_ok() {}
            });
        }
    });
    let mut options = quick();
    options.access.proxies = Proxies::new(&address, "", "").unwrap();
    options.limits.attempts = 2;
    let error = attempt("registry.invalid/x/y:1", &options).unwrap_err();
    assert!(matches!(error, PullError::Registry(RegistryError::Proxy { .. })), "{}", chain(&error));
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (proxy, expected) in [
        (free.to_string(), format!("connect to the proxy http://{free}")),
        (
            "proxy.invalid:3128".to_owned(),
            "find the address of the proxy http://proxy.invalid:3128".to_owned(),
        ),
    ] {
        let error =
            attempt("registry.invalid:5000/x/y:1", &by(&proxy, "registry.invalid:5000", "")).unwrap_err();
        assert!(chain(&error).contains(&expected), "{}", chain(&error));
    }
}
