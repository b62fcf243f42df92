//! Images that many tests start from. They are made once and kept in cargo's directory for tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::image::{Image, WrittenImage};
use super::layer::{dir, file, sha256, symlink};
use super::process::tool;

/// Debian's static busybox with a link for each applet, a passwd with root and nobody, and an empty /tmp.
pub fn busybox_image() -> Image {
    let mut entries = vec![
        dir("bin"),
        dir("etc"),
        dir("root").mode(0o700),
        dir("tmp").mode(0o1777),
        file("bin/busybox", fs::read("/bin/busybox").expect("tests/setup test installs busybox-static"))
            .mode(0o755),
        file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/home/worker:/bin/sh\n"),
        file("etc/group", "root:x:0:\nworker:x:1000:\nextra:x:2000:worker\n"),
        dir("home"),
        dir("home/worker").owner(1000, 1000),
    ];
    let applets = tool("/bin/busybox", &["--list"]);
    entries.extend(
        applets
            .lines()
            .filter(|name| *name != "busybox")
            .map(|name| symlink(&format!("bin/{name}"), "busybox")),
    );
    Image::new().layer(&entries).set("Cmd", serde_json::json!(["/bin/sh"]))
}

/// [`busybox_image`] with `/probe`, the static program of `tests/probe.c` that tries one thing at a time from inside.
pub fn probe_image() -> Image {
    let probe = fs::read(compiled_probe()).unwrap();
    busybox_image().layer(&[file("probe", probe).mode(0o755)])
}

/// That program alone.
pub fn compiled_probe() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probe.c");
    compiled("probe", &fs::read_to_string(source).unwrap())
}

/// A static program of this C source.
pub fn compiled(name: &str, source: &str) -> PathBuf {
    let version = sha256(source.as_bytes()).replace(':', "-");
    once(&format!("{name}-{version}"), |out| {
        let file = out.with_extension("c");
        fs::write(&file, source).unwrap();
        tool("cc", &["-O1", "-static", "-Wall", "-Wextra", "-o", text(out), text(&file)]);
    })
}

/// A Debian system with Python in a second layer, as `tests/debian-image` makes it: a minute the first time. Returns the
/// `oci:` source.
pub fn debian_image() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debian-image");
    let directory = once("debian", |out| {
        tool(text(&script), &[text(out)]);
    });
    format!("oci:{}:latest", directory.display())
}

/// Taskcluster's official clients, as `tests/clients/install` puts them into a directory.
pub fn clients() -> PathBuf {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let parts = ["install", "package-lock.json", "requirements.txt"];
    let parts = parts.map(|name| fs::read(place.join(name)).unwrap()).concat();
    let version = sha256(&parts).replace(':', "-");
    once(&format!("clients-{version}"), |out| {
        tool(text(&place.join("install")), &[text(out)]);
    })
}

/// [`debian_image`] with the client for Python in one more layer.
pub fn clients_image() -> WrittenImage {
    let base = debian_image();
    let base = base.strip_prefix("oci:").unwrap().strip_suffix(":latest").unwrap();
    let clients = clients();
    let name = clients.file_name().unwrap().to_str().unwrap();
    let directory = once(&format!("debian-{name}"), |out| {
        let (layer, image) = (out.with_extension("tar"), format!("{}:latest", out.display()));
        tool("cp", &["--archive", base, text(out)]);
        tool("tar", &["--create", "--directory", text(&clients), "--file", text(&layer), "python"]);
        tool("umoci", &["raw", "add-layer", "--image", &image, text(&layer)]);
        tool("umoci", &["config", "--image", &image, "--config.env", "PYTHONPATH=/python"]);
        fs::remove_file(layer).unwrap();
    });
    WrittenImage::read(&directory)
}

/// Makes `name` in cargo's test directory unless a test process has made it before: the others wait.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let mut directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    if directory.join(name).exists() {
        return directory.join(name);
    }
    let lock_in = |directory: &Path| File::create(directory.join(format!("{name}.lock")));
    let lock = lock_in(&directory).unwrap_or_else(|_| {
        // The virtual machine sees the target directory read-only, and its own /tmp vanishes with it.
        directory = std::env::temp_dir();
        lock_in(&directory).unwrap()
    });
    let done = directory.join(name);
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    if !done.exists() {
        let partial = directory.join(format!("{name}.partial"));
        make(&partial);
        fs::rename(&partial, &done).unwrap();
    }
    done
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
