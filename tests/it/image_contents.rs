//! What an image author can write into layers, and what becomes of it: assertions S1 to S13, each with an image made
//! for it, a real run, and a look at the host's canary, the store and the container.

use std::fs;
use std::path::Path;

use crate::support::{
    Canary, Compression, Entry, Image, Layer, Worker, block, busybox_image, character, dir, file, hardlink,
    symlink, tar, tool,
};

/// A worker whose store holds busybox already, and a file of the host that no image may reach.
struct Host {
    worker: Worker,
    canary: Canary,
}

impl Host {
    fn new() -> Host {
        let worker = Worker::new();
        let canary = Canary::place(&worker.scratch().join("outside"));
        let busybox = worker.image(&busybox_image());
        worker.run(&busybox.source, &["true"]).expect(0, "the image without hostile layers");
        Host { worker, canary }
    }

    fn outside(&self) -> &str {
        self.canary.directory.to_str().unwrap()
    }

    /// The image is refused by its layer's name, and neither host nor store has changed.
    fn refuses(&self, layer: Layer, case: &str) {
        let before = store(&self.worker);
        let image = self.worker.image(&busybox_image().with(layer));
        let run = self.worker.run(&image.source, &["true"]).expect(121, case);
        let named = [image.layers.last().unwrap().as_str(), "layer 2 of the image"];
        assert!(
            named.iter().any(|name| run.words().contains(name)),
            "{case}: the layer is not named: {run:?}"
        );
        assert_eq!(store(&self.worker), before, "{case}");
        self.canary.assert_intact(case);
    }

    /// The image runs, prints `expected`, and the host has not changed.
    fn prints(&self, image: &Image, command: &[&str], expected: &str) {
        let case = format!("{command:?}");
        let image = self.worker.image(image);
        let run = self.worker.run(&image.source, command).expect(0, &case);
        assert_eq!(run.output(), expected, "{case}");
        self.canary.assert_intact(&case);
    }
}

/// Every path in the image store.
fn store(worker: &Worker) -> String {
    tool("find", &[worker.data().join("images").to_str().unwrap(), "-printf", "%P %y %m\n"])
        .lines()
        .filter(|line| !line.starts_with("leases/"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn s1_an_entry_that_leaves_the_layer_is_refused() {
    let host = Host::new();
    let up = "../".repeat(20);
    for name in ["../../canary", "a/../../../canary", "..", "a/..", &format!("{up}{}/canary", host.outside())]
    {
        host.refuses(Layer::of(&[dir("a"), file(name, "hostile")]), name);
    }
}

#[test]
fn s2_an_absolute_name_lands_inside_only() {
    let host = Host::new();
    let path = format!("{}/canary", host.outside());
    host.prints(&busybox_image().layer(&[file(&path, "inside\n")]), &["cat", &path], "inside\n");
}

#[test]
fn s3_a_link_to_the_host_leads_into_the_image() {
    let host = Host::new();
    let entries = [symlink("l", host.outside()), file("l/canary", "inside\n")];
    let path = format!("{}/canary", host.outside());
    host.prints(&busybox_image().layer(&entries), &["cat", &path, "/l/canary"], "inside\ninside\n");
}

#[test]
fn s4_a_hard_link_reaches_nothing_outside_the_image() {
    let host = Host::new();
    let up = "../".repeat(20);
    let through_link = symlink("l", &format!("{up}{}", host.outside()));
    host.refuses(Layer::of(&[through_link, hardlink("h", "l/canary")]), "through a symbolic link");
    host.refuses(Layer::of(&[hardlink("h", &format!("{up}{}/canary", host.outside()))]), "by ..");
    host.refuses(Layer::of(&[hardlink("h", &format!("{}/canary", host.outside()))]), "by absolute name");
    host.refuses(Layer::of(&[dir("d"), hardlink("h", "d")]), "to a directory");
}

#[test]
fn s5_the_last_entry_of_a_name_wins_and_is_not_written_through_a_link() {
    let host = Host::new();
    let target = format!("{}/canary", host.outside());
    let entries = [file("f", "first\n"), symlink("f", &target), file("f", "last\n")];
    host.prints(&busybox_image().layer(&entries), &["cat", "/f"], "last\n");
}

#[test]
fn s6_a_directory_that_was_a_file_holds_nothing_of_below() {
    let host = Host::new();
    let three = busybox_image()
        .layer(&[dir("x"), file("x/old", "")])
        .layer(&[file("x", "a file\n")])
        .layer(&[dir("x"), file("x/new", "")]);
    host.prints(&three, &["ls", "-A", "/x"], "new\n");
    let top_is_a_file = busybox_image().layer(&[dir("x"), file("x/old", "")]).layer(&[file("x", "a file\n")]);
    host.prints(&top_is_a_file, &["cat", "/x"], "a file\n");
    let within = busybox_image().layer(&[dir("x"), file("x/old", ""), file("x", "a file\n")]);
    host.prints(&within, &["cat", "/x"], "a file\n");
}

#[test]
fn s7_a_whiteout_without_a_proper_name_is_refused() {
    let host = Host::new();
    for name in [".wh...", ".wh..", ".wh.", "x/.wh.../y"] {
        host.refuses(Layer::of(&[dir("x"), file(name, "")]), name);
    }
}

#[test]
fn s8_an_opaque_directory_shows_its_own_layer_only() {
    let host = Host::new();
    let lower = busybox_image().layer(&[dir("d"), file("d/a", "")]);
    let mark = file("d/.wh..wh..opq", "");
    for entries in [[dir("d"), file("d/b", ""), mark.clone()], [dir("d"), mark, file("d/b", "")]] {
        host.prints(&lower.clone().layer(&entries), &["ls", "-A", "/d"], "b\n");
    }
}

#[test]
fn s9_a_device_of_the_image_cannot_be_opened() {
    let host = Host::new();
    host.refuses(Layer::of(&[character("c", 0, 0)]), "character device 0:0 is overlayfs' whiteout");
    let image = host.worker.image(&busybox_image().layer(&[block("sda", 8, 0).mode(0o666)]));
    let script = "stat -c '%F %t:%T' /sda; cat /sda; dd if=/dev/zero of=/sda count=1";
    let run = host.worker.run(&image.source, &["sh", "-c", script]);
    assert!(run.output().starts_with("block special file 8:0\n"), "{run:?}");
    assert_eq!(run.output().matches("Operation not permitted").count(), 2, "{run:?}");
    let nodes = tool("find", &[host.worker.data().to_str().unwrap(), "-type", "b", "-o", "-type", "c"]);
    assert_eq!(nodes, "", "the store holds device nodes");
}

#[test]
fn s10_attributes_of_overlayfs_do_not_get_into_the_store() {
    let host = Host::new();
    let below = busybox_image().layer(&[dir("x"), file("x/secret", ""), dir("e"), file("e/a", "")]);
    let redirected = dir("d").xattr("trusted.overlay.redirect", "/x").xattr("user.overlay.redirect", "/x");
    let opaque = dir("e").xattr("trusted.overlay.opaque", "y").xattr("user.overlay.opaque", "y");
    let metacopy = file("m", "own\n").xattr("trusted.overlay.metacopy", "");
    let image = below.layer(&[redirected, opaque, metacopy]);
    host.prints(&image, &["sh", "-c", "ls -A /d /e; cat /m"], "/d:\n\n/e:\na\nown\n");
    for path in tool("find", &[host.worker.data().to_str().unwrap(), "-type", "f"]).lines() {
        let bytes = fs::read(path).unwrap();
        for name in [&b"overlay.redirect"[..], b"overlay.opaque", b"overlay.metacopy"] {
            assert!(!bytes.windows(name.len()).any(|window| window == name), "{path}");
        }
    }
}

#[test]
fn s11_set_uid_and_file_capabilities_work_inside_and_are_out_of_reach_outside() {
    let host = Host::new();
    let program = fs::read(crate::support::compiled("identity", IDENTITY)).unwrap();
    // VFS_CAP_REVISION_2, effective; permitted: CAP_NET_RAW (13).
    let capability = [0x0200_0001_u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
    let image = busybox_image()
        .layer(&[
            file("set-uid", &program).mode(0o4755),
            file("raw", &program).mode(0o755).xattr("security.capability", capability),
            file("plain", &program).mode(0o755),
        ])
        .set("User", serde_json::json!("worker"));
    let expected = "0 00000000a80425fb\n1000 0000000000002000\n1000 0000000000000000\n";
    host.prints(&image, &["sh", "-c", "/set-uid; /raw; /plain"], expected);
    for directory in [host.worker.data(), host.worker.run_directory()] {
        let child = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls"])
            .arg(&directory)
            .output()
            .unwrap();
        assert!(!child.status.success(), "another user lists {}", directory.display());
    }
}

/// Prints the effective user and the effective capabilities.
const IDENTITY: &str = r#"
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "CapEff:\t", 8))
            printf("%d %s", (int)geteuid(), line + 8);
    return 0;
}
"#;

#[test]
fn s12_a_sparse_entry_that_claims_exbibytes_is_refused_before_it_takes_room() {
    let host = Host::new();
    let size = (8_u64 << 60).to_string();
    let sparse = |name: &str| file(name, "").record("GNU.sparse.major", "1").record("GNU.sparse.minor", "0");
    let claimed = sparse("huge").record("GNU.sparse.realsize", &size).record("GNU.sparse.name", "huge");
    host.refuses(Layer::of(&[claimed]), "PAX sparse file of 8 EiB");
    host.refuses(Layer::of(&[file("huge", "").record("size", &size)]), "PAX size of 8 EiB");
    let used: u64 = disk_use(&host.worker.data());
    assert!(used < 64 << 20, "{used} bytes in the data directory");
}

fn disk_use(directory: &Path) -> u64 {
    let kilobytes = tool("du", &["-sk", directory.to_str().unwrap()]);
    1024 * kilobytes.split_whitespace().next().unwrap().parse::<u64>().unwrap()
}

#[test]
fn s13_a_broken_stream_is_a_failed_task_that_names_the_layer() {
    let host = Host::new();
    let whole = tar(&[file("a", [1; 3000]), file("b", [2; 3000])]);
    let mut bad_sum = whole.clone();
    bad_sum[150] ^= 1;
    let mut negative = whole.clone();
    negative[124..136].copy_from_slice(&[0xff; 12]);
    for (case, stream) in [
        ("cut within an entry", &whole[..2000]),
        ("cut within a header", &whole[..4096 + 100]),
        ("bad checksum", &bad_sum),
        ("negative size", &negative),
        ("not a tar at all", &[0x55; 2048]),
    ] {
        host.refuses(Layer::from_tar(stream, Compression::Gzip), case);
    }
    let mut cut = Layer::of(&[file("a", [1; 3000])]);
    cut.blob.truncate(cut.blob.len() - 9);
    host.refuses(cut, "gzip stream without its end");
    let entries: &[Entry] = &[file("fine", "fine\n")];
    host.prints(&busybox_image().layer(entries), &["cat", "/fine"], "fine\n");
}

#[test]
fn a_hard_link_that_a_task_makes_is_the_same_file() {
    let worker = Worker::new();
    let group = "root:x:0:\nworker:x:1000:\n";
    let image = worker.image(&busybox_image().layer(&[file("etc/group", group)])).source;
    let script = "ln /etc/group /etc/g2; [ /etc/group -ef /etc/g2 ] && echo same; cp /etc/group /etc/g2; \
                  wc -c </etc/group; [ $(du -sxk /bin | cut -f1) -gt 100 ] && echo counted";
    let run = worker.run(&image, &["sh", "-c", script]).expect(0, "a hard link");
    let output = run.output();
    assert!(output.starts_with("same\n"), "{output}");
    assert!(output.contains("are the same file"), "{output}");
    assert!(output.contains(&format!("{}", group.len())) && output.contains("counted"), "{output}");
}

#[test]
fn a_32_bit_program_with_large_file_support_sees_the_inode_numbers_of_the_image() {
    let directory = tempfile::tempdir().unwrap();
    let [source, program] = ["stat64.c", "stat64"].map(|name| directory.path().join(name));
    fs::write(&source, STAT64).unwrap();
    let arguments =
        ["-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-fno-stack-protector"];
    let files = ["-o", program.to_str().unwrap(), source.to_str().unwrap()];
    tool("cc", &[&arguments[..], &files].concat());
    let worker = Worker::new();
    let program = file("stat64", fs::read(&program).unwrap()).mode(0o755);
    let image = worker.image(&busybox_image().layer(&[program])).source;
    let script = "/stat64 /etc/group; printf '%016x\n' $(stat -c %i /etc/group)";
    let run = worker.run(&image, &["sh", "-c", script]).expect(0, "a 32-bit program");
    let output = run.output();
    let numbers: Vec<&str> = output.lines().collect();
    assert!(numbers[0] == numbers[1] && numbers[0].starts_with('8'), "{output}");
}

/// stat64(2) by its number, as a libc calls it for `_FILE_OFFSET_BITS=64`: there is none for 32 bits here.
const STAT64: &str = r#"
struct stat64 { char before[88]; unsigned low, high; };
static int call(int number, int one, int two, int three) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(one), "c"(two), "d"(three) : "memory");
    return result;
}
__attribute__((used)) static void probe(int *stack) {
    struct stat64 found;
    char digits[17];
    int failed = call(195, stack[2], (int)&found, 0); /* argv[1] */
    for (int at = 0; at < 16; at++)
        digits[at] = "0123456789abcdef"[(at < 8 ? found.high >> (28 - 4 * at) : found.low >> (60 - 4 * at)) & 15];
    digits[16] = '\n';
    call(4, 1, (int)digits, 17);
    call(1, failed != 0, 0, 0);
}
__asm__(".globl _start\n_start: mov %esp, %eax\n push %eax\n call probe\n");
"#;
