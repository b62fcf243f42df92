//! podman and dockerd load what we save, and have the same image, path by path.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use images::save::Layers;

use crate::layer_tar::{Entry, block_device, char_device, dir, fifo, file, hardlink, symlink, tar};
use crate::namespace::in_own_mount_namespace;
use crate::round_trip::CAPABILITY;
use crate::sample::{Compression, Sample, TestStore};
use crate::snapshot::{Seen, assert_same, snapshot};
use crate::store::pull_leased;
use crate::stream::load;

use super::{FORMS, name, saved};

/// Two layers with every kind of entry; the upper one hides some of the lower.
fn layers() -> Vec<Vec<u8>> {
    let lower = [
        dir(".").mode(0o755).modified(1_500_000_000),
        dir("etc"),
        file("etc/passwd", "root:x:0:0::/root:/bin/sh\n").owner(1, 2).mode(0o600),
        // Engines believe what a hard link says of owner and mode.
        hardlink("etc/passwd-2", "etc/passwd").owner(1, 2).mode(0o600),
        symlink("link", "etc/passwd"),
        dir("bin"),
        file("bin/su", "x").mode(0o4755),
        file("bin/ping", "x").mode(0o755).xattr("security.capability", CAPABILITY),
        dir("dev"),
        char_device("dev/null", 1, 3).mode(0o666),
        block_device("dev/sda", 8, 0).mode(0o660).owner(0, 6),
        dir("run"),
        fifo("run/pipe").mode(0o620),
        file("nanoseconds", "x").pax("mtime", "1350244992.023960108"),
        dir("opaque"),
        file("opaque/old", "old"),
        file("gone", "x"),
        file("blocks", (0..50_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>()),
    ];
    let upper: [Entry; 6] = [
        // Without it a directory in which something is made has the present time there.
        dir("etc").modified(1_600_000_000),
        file(".wh.gone", ""),
        dir("opaque").modified(1_600_000_000),
        file("opaque/.wh..wh..opq", ""),
        file("opaque/new", "new"),
        file("etc/added", "added"),
    ];
    vec![tar(&lower), tar(&upper)]
}

type Tree = std::collections::BTreeMap<PathBuf, Seen>;

/// Both archives of the image with their files, one of the image as it came in the other as a stream, and what we mount of it.
fn archives(directory: &Path) -> (Sample, Vec<(String, PathBuf)>, Tree) {
    let sample = Sample::of(&layers(), Compression::Gzip);
    let test = TestStore::new();
    let lease = pull_leased(&test.store, &sample.write_layout(&directory.join("layout"))).unwrap();
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    let mut add = |form: String, archive: &[u8]| {
        let path = directory.join(format!("{form}.tar"));
        fs::write(&path, archive).unwrap();
        files.push((form, path));
    };
    let [plain, as_they_came, _] = FORMS.map(|form| saved(&test.store, &lease, form));
    let other = TestStore::new();
    let streamed = load(&other.store, "a", &as_they_came).unwrap();
    add("Plain".to_owned(), &plain);
    add("AsTheyCame".to_owned(), &as_they_came);
    add("Streamed".to_owned(), &saved(&other.store, &streamed, Layers::AsTheyCame));
    let at = tempfile::tempdir().unwrap();
    let ours = in_own_mount_namespace(|| {
        let _mount = test.store.mount(&lease, at.path(), &|| true).unwrap();
        let seen = snapshot(at.path());
        rustix::mount::unmount(at.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        seen
    });
    (sample, files, ours)
}

/// Engines give the root directory a time and a mode of their own.
fn without_root(mut tree: Tree) -> Tree {
    tree.remove(Path::new(""));
    tree
}

/// What a command printed that ended well.
fn told(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("podman and docker.io are installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn podman_has_the_same_image() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let (sample, files, ours) = archives(directory.path());
    // Its locks would be everybody's otherwise.
    let settings = directory.path().join("containers.conf");
    fs::write(&settings, "[engine]\nlock_type = \"file\"\n").unwrap();
    for (form, path) in files {
        let place = |name: &str| directory.path().join(format!("{form}-{name}")).display().to_string();
        let podman = |arguments: &[&str]| {
            let mut podman = Command::new("podman");
            podman.args(["--root", &place("root"), "--runroot", &place("run"), "--tmpdir", &place("tmp")]);
            podman.args(["--storage-driver", "vfs", "--events-backend", "none"]).args(arguments);
            told(podman.env("CONTAINERS_CONF", &settings))
        };
        let loaded = podman(&["load", "--quiet", "--input", path.to_str().unwrap()]);
        assert_eq!(loaded, "Loaded image: example.com/a/b:1", "{form}");
        let inspected =
            podman(&["image", "inspect", "--format", "{{.Id}} {{.RootFS.Layers}}", "example.com/a/b:1"]);
        let id = sample.id().replace("sha256:", "");
        assert_eq!(inspected, format!("{id} [{}]", sample.diff_ids().join(" ")), "{form}");
        let at = podman(&["image", "mount", "example.com/a/b:1"]);
        assert_same(&without_root(ours.clone()), &without_root(snapshot(Path::new(&at))));
        podman(&["image", "unmount", "--all"]);
    }
}

/// A dockerd with everything of its own, its network too.
struct Dockerd {
    directory: tempfile::TempDir,
    child: Child,
}

impl Dockerd {
    fn start() -> Dockerd {
        let directory = tempfile::tempdir_in(crate::DISK).unwrap();
        let place = |name: &str| directory.path().join(name).display().to_string();
        fs::write(directory.path().join("daemon.json"), "{}").unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut daemon = Command::new("unshare");
        daemon.args(["--net", "--mount", "dockerd", "--config-file", &place("daemon.json")]);
        daemon.args([
            "--data-root",
            &place("data"),
            "--exec-root",
            &place("exec"),
            "--pidfile",
            &place("pid"),
        ]);
        daemon.args(["--host", &format!("unix://{}", place("sock")), "--storage-driver", "vfs"]);
        daemon.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        // Where containerd writes what it was at, if it takes too long to end.
        daemon.env("TMPDIR", directory.path());
        daemon.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        let child = daemon.spawn().expect("docker.io is installed");
        let mut dockerd = Dockerd { directory, child };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !dockerd.docker(&["version"]).output().unwrap().status.success() {
            let ended = dockerd.child.try_wait().unwrap();
            let log = || fs::read_to_string(dockerd.directory.path().join("log")).unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{}", log());
            std::thread::park_timeout(Duration::from_millis(100));
        }
        dockerd
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut docker = Command::new("docker");
        docker.arg("--host").arg(format!("unix://{}", self.directory.path().join("sock").display()));
        docker.args(arguments).stdin(Stdio::null());
        docker
    }

    /// Where the file system of an image lies whose topmost layer is that one.
    fn tree(&self, diff_id: &str) -> PathBuf {
        let data = self.directory.path().join("data");
        let layers = fs::read_dir(data.join("image/vfs/layerdb/sha256")).unwrap();
        let is_it = |layer: &PathBuf| fs::read_to_string(layer.join("diff")).unwrap() == diff_id;
        let layer = layers.map(|layer| layer.unwrap().path()).find(is_it).unwrap();
        data.join("vfs/dir").join(fs::read_to_string(layer.join("cache-id")).unwrap())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn dockerd_has_the_same_image() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let (sample, files, ours) = archives(directory.path());
    let dockerd = Dockerd::start();
    for (form, path) in files {
        let loaded = told(&mut dockerd.docker(&["load", "--quiet", "--input", path.to_str().unwrap()]));
        assert_eq!(loaded, format!("Loaded image: {}", name().familiar()), "{form}");
        let format = "{{.Id}} {{json .RootFS.Layers}}";
        let inspected =
            told(&mut dockerd.docker(&["image", "inspect", "--format", format, "example.com/a/b:1"]));
        let layers = serde_json::to_string(&sample.diff_ids()).unwrap();
        assert_eq!(inspected, format!("{} {layers}", sample.id()), "{form}");
        let theirs = snapshot(&dockerd.tree(&sample.diff_ids()[1]));
        assert_same(&without_root(ours.clone()), &without_root(theirs));
        // What it saves of it has the same layers, byte for byte.
        let again = directory.path().join("again.tar");
        told(&mut dockerd.docker(&["save", "--output", again.to_str().unwrap(), "example.com/a/b:1"]));
        let test = TestStore::new();
        let image = pull_leased(&test.store, &format!("docker-archive:{}", again.display())).unwrap();
        assert_eq!(image.image().id.to_string(), sample.id());
        told(&mut dockerd.docker(&["image", "rm", "example.com/a/b:1"]));
    }
}
