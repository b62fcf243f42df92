//! Debian's docker-registry on a loopback port of its own, storage that goes with it.
use std::fmt::Write;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct RegistryServer {
    address: SocketAddr,
    child: Child,
    directory: tempfile::TempDir,
}

/// What keeps strangers out. By itself nothing does, and there is no TLS.
#[derive(Default)]
pub struct Protection {
    /// A file of names and passwords, as htpasswd writes it.
    pub passwords: Option<PathBuf>,
    /// The certificate that it shows, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Who has signed the certificates of those that may come.
    pub clients_of: Option<PathBuf>,
}

impl Protection {
    fn config(&self) -> (String, String) {
        let (mut auth, mut tls) = (String::new(), String::new());
        if let Some(path) = &self.passwords {
            writeln!(auth, "auth: {{htpasswd: {{realm: r, path: {}}}}}", path.display()).unwrap();
        }
        if let Some((certificate, key)) = &self.certificate {
            write!(tls, ", tls: {{certificate: {}, key: {}", certificate.display(), key.display()).unwrap();
            if let Some(path) = &self.clients_of {
                write!(tls, ", clientcas: [{}]", path.display()).unwrap();
            }
            tls.push('}');
        }
        (auth, tls)
    }
}

impl RegistryServer {
    pub fn start() -> RegistryServer {
        RegistryServer::start_at("127.0.0.1")
    }

    /// At another address of this host.
    pub fn start_at(address: &str) -> RegistryServer {
        let directory = tempfile::tempdir_in(crate::DISK).unwrap();
        // The port is free again once the listener is dropped; nobody else asks for it so soon.
        let address = TcpListener::bind((address, 0)).unwrap().local_addr().unwrap();
        let child = serve(directory.path(), address, &Protection::default());
        let server = RegistryServer { address, child, directory };
        server.wait_until_it_listens();
        server
    }

    /// The same with what it holds, from now on not for everybody.
    pub fn protect(&mut self, protection: &Protection) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = serve(self.directory.path(), self.address, protection);
        self.wait_until_it_listens();
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `127.0.0.1:PORT/NAME`.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The same as skopeo writes it.
    pub fn skopeo(&self, name: &str) -> String {
        format!("docker://{}", self.name(name))
    }

    fn wait_until_it_listens(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen at {}", self.address);
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn serve(directory: &Path, address: SocketAddr, protection: &Protection) -> Child {
    let (auth, tls) = protection.config();
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: {address}{tls}}}\n{auth}",
        directory.join("storage").display()
    );
    let path = directory.join("config.yml");
    fs::write(&path, config).unwrap();
    Command::new("docker-registry")
        .arg("serve")
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker-registry is installed")
}
