use std::path::Path;

use images::limits::Limits;
use images::reference::Reference;
use images::registry::{Access, ClientCertificate, Credentials, Fallback, Place, Scheme};

use crate::config::ConfigFile;
use crate::yaml;

fn parse(registries: &str) -> Result<ConfigFile, yaml::Problem> {
    ConfigFile::parse(&format!("registries: {{{registries}}}\n"))
}

fn access(registries: &str) -> Access {
    parse(registries).unwrap().registry_access(Access::default())
}

#[test]
fn a_registry_is_named_as_images_name_it() {
    let plain = |name: &str| parse(&format!("\"{name}\": {{plainHttp: true}}"));
    for name in ["127.0.0.1:5000", "[::1]:5000", "registry.example.com", "LOCALHOST", "host/"] {
        assert!(plain(name).is_ok(), "{name}");
    }
    let scheme = "has a scheme: write a registry as in names of images, HOST or HOST:PORT";
    for (name, problem) in [
        ("https://127.0.0.1:5000", scheme),
        ("a b", "is no registry"),
        ("", "is no registry"),
        ("user@host", "is no registry"),
        ("host//a", "is no registry"),
        ("host/Team", "is no registry"),
        ("host/a:1", "is no registry"),
        ("host:5000/team", "is a part of a registry"),
    ] {
        let told = plain(name).unwrap_err();
        assert!(told.text.starts_with(&format!("\"{name}\" {problem}")), "{name}: {told}");
        assert_eq!(told.place.map(|(line, _)| line), Some(1), "{name}");
    }
}

#[test]
fn one_registry_is_not_spoken_of_twice() {
    for pair in [["h", "h/"], ["h", "H"], ["docker.io", "registry.hub.docker.com"], ["h/a", "h/a/"]] {
        let token = "{registrytoken: sesame}";
        let told = parse(&format!("\"{}\": {token}, \"{}\": {token}", pair[0], pair[1])).unwrap_err();
        assert_eq!(told.text, format!("\"{}\" means the same as \"{}\"", pair[1], pair[0]));
    }
}

#[test]
fn how_a_host_is_spoken_to_reaches_pulls() {
    let access = access(
        "h: {certificateAuthority: /ca, clientCertificate: /crt, clientKey: /key, tokenHosts: [\"t:1\"]}, \"p:1/\": {plainHttp: true}",
    );
    let rules = &access.hosts["h"];
    assert_eq!(rules.authorities.as_deref(), Some(Path::new("/ca")));
    let pair = ClientCertificate { chain: "/crt".into(), key: "/key".into() };
    assert_eq!(
        (rules.client_certificate.as_ref(), rules.token_hosts.as_slice()),
        (Some(&pair), &["t:1".to_owned()][..])
    );
    assert_eq!(access.hosts["p:1"].scheme, Scheme::Http);
}

#[test]
fn mirrors_reach_pulls_in_their_order() {
    let access =
        access("docker.io: {mirrors: [\"m:5000/hub\", n], mirrorFallback: false}, h: {mirrors: [n]}");
    let rules = ["docker.io", "h"].map(|host| &access.hosts[host]);
    assert_eq!(rules[0].mirrors, [Place::new("m:5000/hub"), Place::new("n")]);
    assert_eq!([rules[0].fallback, rules[1].fallback], [Fallback::Nobody, Fallback::Registry]);
}

#[tokio::test]
async fn credentials_for_a_mirror_are_credentials_for_what_it_mirrors() {
    let access = access(
        "h.io: {mirrors: [\"m:5000/hub\"]}, docker.io: {mirrors: [\"m:5000/hub\"]}, \"m:5000/hub\": {username: u, password: p}",
    );
    for (name, expected) in [("h.io/x", true), ("other.io/x", false), ("me/x", true), ("busybox", true)] {
        let found = access.has_credentials(&Reference::parse(name).unwrap(), &Limits::default()).await;
        assert_eq!(found.unwrap(), expected, "{name}");
    }
}

#[test]
fn credentials_are_read_as_docker_is_told_them() {
    let password = |username: &str, password: &str| Credentials::Password {
        username: username.to_owned(),
        password: password.to_owned(),
    };
    let cases = [
        ("username: u, password: p", password("u", "p")),
        ("username: u, password: \"\"", password("u", "")),
        ("username: 7, password: 0123", password("7", "0123")),
        ("username: u, password: p, auth: nonsense, email: e, serveraddress: s", password("u", "p")),
        ("auth: \"dTpwOnE=\"", password("u", "p:q")),
        ("username: u, password: p, identitytoken: i", Credentials::IdentityToken("i".to_owned())),
        ("identitytoken: i, registrytoken: r", Credentials::RegistryToken("r".to_owned())),
    ];
    for (keys, expected) in cases {
        let access = access(&format!("\"h:1/team\": {{{keys}}}"));
        assert_eq!(access.credentials.held, [(Place::new("h:1/team"), expected)].into(), "{keys}");
        assert!(access.hosts.is_empty(), "{keys}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_and_no_secret_repeated() {
    let cases = [
        ("username: u", "has a \"username\" and no \"password\""),
        ("password: sesame", "has a \"password\" and no \"username\""),
        ("username: \"\", password: sesame", "cannot be one"),
        ("username: \"a:b\", password: sesame", "cannot be one"),
        ("username: u, password: [sesame]", "must be"),
        ("username: u, password: {sesame: 1}", "must be"),
        ("auth: sesame", "not base64 of NAME:PASSWORD"),
        ("clientKey: /k", "needs both"),
        ("clientCertificate: /c", "needs both"),
        ("tokenHosts: [\"https://t\"]", "not written as HOST or HOST:PORT"),
        ("mirrors: [\"https://m\"]", "not written as HOST, HOST:PORT or either with /PREFIX"),
        ("mirrors: [m, \"\"]", "not written as HOST"),
        ("mirrors: [\"m/Up\"]", "not written as HOST"),
        ("mirrorFallback: false", "has a \"mirrorFallback\" and no \"mirrors\""),
    ];
    for (keys, expected) in cases {
        let told = parse(&format!("h: {{{keys}}}")).unwrap_err().to_string();
        assert!(told.contains(expected), "{keys}: {told}");
        assert!(!told.contains("sesame"), "{keys}: {told}");
    }
}

#[test]
fn no_secret_is_printed() {
    let keys = "username: u, password: sesame, auth: sesame, identitytoken: sesame, registrytoken: sesame";
    let file = parse(&format!("h: {{{keys}}}")).unwrap();
    let access = file.registry_access(Access::default());
    let printed = format!("{file:?} {access:?} {}", serde_json::to_string(&file).unwrap());
    assert!(!printed.contains("sesame"), "{printed}");
}

#[tokio::test]
async fn images_with_credentials_are_told_from_those_for_everybody() {
    let who = "{username: u, password: p}";
    let certificate = "{clientCertificate: /crt, clientKey: /key}";
    let places = format!("\"h:5000\": {who}, \"q.io/team\": {who}, registry.hub.docker.com: {who}");
    let with_certificates = format!("c.io: {certificate}, m.io: {{mirrors: [c.io]}}");
    let access = access(&format!("{places}, {with_certificates}"));
    let cases = [
        ("h:5000/x", true),
        ("H:5000/x/y/z", true),
        ("h:5001/x", false),
        ("h.io/x", false),
        ("q.io/team/x", true),
        ("q.io/teams/x", false),
        ("me/x", true),
        ("docker.io/me/x", true),
        ("registry-1.docker.io:443/me/x", true),
        ("busybox", false),
        ("docker.io/library/busybox", false),
        ("c.io/x", true),
        ("c.io:5000/x", false),
        ("m.io/x", true),
    ];
    for (name, expected) in cases {
        let found = access.has_credentials(&Reference::parse(name).unwrap(), &Limits::default()).await;
        assert_eq!(found.unwrap(), expected, "{name}");
    }
}
