//! A real registry that is not for everybody.
use std::path::PathBuf;
use std::process::Command;

use images::registry::{Addresses, ClientCertificate, Credentials, HostRules, RegistryError, Scheme};
use images::store::{PullError, PullErrorKind};

use super::credentials::{holding, password};
use super::{chain, quick};
use crate::certificates::Authority;
use crate::registry_server::{Protection, RegistryServer};
use crate::sample::{Compression, Sample, TestStore, skopeo_copy};
use crate::scripted::{Reply, ScriptedServer};
use crate::store::{block_on, source};

/// Debian's registry with one image: TLS by an authority of the test's, names and passwords, and certificates of those who
/// come.
struct Members {
    directory: tempfile::TempDir,
    server: RegistryServer,
    sample: Sample,
    ours: Authority,
    other: Authority,
}

impl Members {
    fn new() -> Members {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let sample = Sample::small(Compression::Gzip);
        let server = RegistryServer::start();
        skopeo_copy(&[], &sample.write_layout(&path("layout")), &server.skopeo("team/image:1"));
        let [ours, other] = ["ours", "other"].map(|name| Authority::new(directory.path(), name));
        let made = Command::new("htpasswd").args(["-Bbn", "user", "pa55word"]).output().unwrap();
        assert!(made.status.success(), "htpasswd: {made:?}");
        let path_of_passwords = path("passwords");
        std::fs::write(&path_of_passwords, made.stdout).unwrap();
        let mut members = Members { directory, server, sample, ours, other };
        members.ask_for_passwords(Some(path_of_passwords));
        members
    }

    /// Or for certificates only.
    fn ask_for_passwords(&mut self, passwords: Option<PathBuf>) {
        self.server.protect(&Protection {
            passwords,
            certificate: Some(self.ours.server()),
            clients_of: Some(self.ours.certificate()),
        });
    }

    /// What a member has to know of the registry beside their password.
    fn rules(&self) -> HostRules {
        HostRules {
            scheme: Scheme::Https,
            addresses: Addresses::Any,
            authorities: Some(self.ours.certificate()),
            client_certificate: certificate(self.ours.client()),
            ..HostRules::default()
        }
    }

    fn attempt(&self, place: &str, who: Credentials, rules: &HostRules) -> Result<String, PullError> {
        let mut options = holding(place, who);
        options.access.hosts.insert(self.server.host(), rules.clone());
        let (test, image) = (TestStore::new(), source(&self.server.name("team/image:1")));
        let pulled = block_on(test.store.pull(&image, &options, &|_| {}));
        pulled.map(|lease| lease.image().id.to_string())
    }

    /// With the right password.
    fn refusal(&self, rules: &HostRules) -> PullError {
        self.attempt(&self.server.host(), password("user", "pa55word"), rules).unwrap_err()
    }
}

fn certificate((chain, key): (PathBuf, PathBuf)) -> Option<ClientCertificate> {
    Some(ClientCertificate { chain, key })
}

#[test]
fn a_real_registry_admits_whom_it_should() {
    let members = Members::new();
    let (host, rules) = (members.server.host(), members.rules());
    let right = || password("user", "pa55word");
    for place in [host.clone(), format!("{host}/team"), format!("{host}/team/image/")] {
        assert_eq!(members.attempt(&place, right(), &rules).unwrap(), members.sample.id(), "{place}");
    }
    for (place, who) in [
        (host.clone(), password("user", "sesame")),
        (host.clone(), Credentials::IdentityToken("sesame".into())),
        (format!("{host}/other"), right()),
        ("127.0.0.1".to_owned(), right()),
    ] {
        let error = members.attempt(&place, who, &rules).unwrap_err();
        assert_eq!(error.kind(), PullErrorKind::Unauthorized, "{place}: {}", chain(&error));
    }
    let strangers = certificate(members.other.client());
    for client_certificate in [strangers, None] {
        let error = members.refusal(&HostRules { client_certificate, ..rules.clone() });
        let refused = matches!(error, PullError::Registry(RegistryError::ClientCertificate { .. }));
        assert!(refused, "{}", chain(&error));
    }
    let error = members.refusal(&HostRules { authorities: Some(members.other.certificate()), ..rules });
    assert!(matches!(error, PullError::Registry(RegistryError::Tls { .. })), "{}", chain(&error));
}

#[test]
fn a_certificate_or_key_that_cannot_be_used_is_named_and_the_hosts_fault() {
    let members = Members::new();
    let path = |name: &str| members.directory.path().join(name);
    let ((ours, key), (_, others_key)) = (members.ours.client(), members.other.client());
    let unfit = [
        (ours.clone(), others_key),
        (ours.clone(), path("none")),
        (path("passwords"), key),
        (ours.clone(), ours.clone()),
    ];
    let rules = members.rules();
    for pair in unfit {
        let error =
            members.refusal(&HostRules { client_certificate: certificate(pair.clone()), ..rules.clone() });
        let is_told = matches!(error, PullError::Registry(RegistryError::Pem { .. }));
        assert!(is_told && error.kind() == PullErrorKind::Host, "{pair:?}: {}", chain(&error));
    }
    let error = members.refusal(&HostRules { authorities: Some(path("passwords")), ..rules });
    assert!(matches!(error, PullError::Registry(RegistryError::Pem { .. })), "{}", chain(&error));
}

#[test]
fn a_certificate_is_shown_to_nobody_whom_a_stranger_leads_to() {
    let mut members = Members::new();
    members.ask_for_passwords(None);
    let (host, rules) = (members.server.host(), members.rules());
    let pull = |name: &str| {
        let mut options = quick();
        options.access.hosts.insert(host.clone(), rules.clone());
        let pulled = block_on(TestStore::new().store.pull(&source(name), &options, &|_| {}));
        pulled.map(|lease| lease.image().id.to_string())
    };
    assert_eq!(pull(&members.server.name("team/image:1")).unwrap(), members.sample.id());
    let (away, realm) = (format!("https://{host}"), format!("Bearer realm=\"https://{host}/v2/\""));
    // On the registry's own host there could be a token server of its own.
    let leading = ScriptedServer::start_at("127.0.0.2", move |request| {
        Reply::new(307, "").with("Location", format!("{away}{}", request.path))
    });
    let asking = ScriptedServer::start_at("127.0.0.2", move |_| {
        Reply::new(401, "").with("WWW-Authenticate", realm.clone())
    });
    let realm = format!("Bearer realm=\"https://{host}/v2/\"");
    let beside = ScriptedServer::start_at("127.0.0.1", move |_| {
        Reply::new(401, "").with("WWW-Authenticate", realm.clone())
    });
    for stranger in [leading, asking, beside] {
        let error = pull(&format!("{}/team/image:1", stranger.address)).unwrap_err();
        let refused = matches!(error, PullError::Registry(RegistryError::ClientCertificate { .. }));
        assert!(refused, "{}", chain(&error));
    }
}
