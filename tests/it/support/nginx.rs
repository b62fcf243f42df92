//! Debian's nginx as a reverse proxy with TLS.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::certificate::certify;
use super::internet::Internet;
use super::process::await_that;
use super::scratch::Scratch;

/// Where it listens.
const ADDRESS: &str = "127.0.0.1:8443";

/// What it tells a server beyond what the client has said; the rest it does unless it is told otherwise.
const HEADERS: &str =
    "proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Proto https;
    proxy_set_header X-Forwarded-For $remote_addr;";

/// One that runs; it ends with the value.
pub struct Nginx {
    /// Where clients find it.
    pub url: String,
    /// The certificate that they have to trust.
    pub certificate: PathBuf,
    process: Child,
}

impl Nginx {
    /// Starts one on a host of the test's own, before a server there. It calls the server by its address, and the client
    /// by nothing: as nginx does where its configuration is one line.
    pub fn before(internet: &Internet, scratch: &Scratch, server: &str) -> Nginx {
        let ssl = certify(scratch);
        let (certificate, key) = (ssl.certificate.unwrap(), ssl.key.unwrap());
        let directory = scratch.join("nginx");
        fs::create_dir(&directory).unwrap();
        let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", directory.display()))
            .concat();
        let text = format!(
            "daemon off; master_process off; pid {}/pid; error_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\n{places}server {{\nlisten {ADDRESS} ssl;\n\
             ssl_certificate {}; ssl_certificate_key {};\n\
             location / {{ proxy_pass {server}; {HEADERS} }}\n}}\n}}\n",
            directory.display(),
            certificate.display(),
            key.display()
        );
        let file = directory.join("nginx.conf");
        fs::write(&file, text).unwrap();
        let mut command = internet.host.command("nginx");
        command.arg("-c").arg(&file).args(["-e", "stderr"]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = command.spawn().expect("tests/setup test installs nginx");
        await_that("nginx to listen", || {
            assert!(process.try_wait().unwrap().is_none(), "nginx has ended: see above");
            internet.host.within(|| TcpStream::connect(ADDRESS).is_ok())
        });
        let url = format!("https://{}", ADDRESS.replace("127.0.0.1", "localhost"));
        Nginx { url, certificate, process }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
