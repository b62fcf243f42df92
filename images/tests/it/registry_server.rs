//! Debian's docker-registry, plain HTTP on a loopback port of its own, storage that goes with it.
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct RegistryServer {
    address: SocketAddr,
    child: Child,
    _directory: tempfile::TempDir,
}

impl RegistryServer {
    pub fn start() -> RegistryServer {
        let directory = tempfile::tempdir_in(crate::DISK).unwrap();
        // The port is free again once the listener is dropped; nobody else asks for it so soon.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: {address}}}\n",
            directory.path().join("storage").display()
        );
        let path = directory.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let server = RegistryServer { address, child, _directory: directory };
        server.wait_until_it_listens();
        server
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
