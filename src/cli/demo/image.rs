//! The demo's image: the host's own shell and core tools in a `docker save` archive.
//!
//! A static busybox alone is enough; else the host's programs come with the libraries that they
//! name. The archive then goes the way of every other image.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::elf;

/// What the demo's tasks call.
const TOOLS: &[&str] = &[
    "sh", "cat", "date", "dd", "echo", "head", "hostname", "id", "ls", "mkdir", "mknod", "mount", "sleep",
    "tail", "wc",
];

/// Where the host's programs are looked for.
const PROGRAM_DIRECTORIES: &[&str] = &["/bin", "/usr/bin", "/sbin", "/usr/sbin"];

/// Where libraries are looked for that name no directory.
const LIBRARY_DIRECTORIES: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// Accounts of the image.
const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nguest:x:1000:1000::/tmp:/bin/sh\n";
const GROUP: &str = "root:x:0:\nguest:x:1000:\n";

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The host has no shell that could be taken.
    #[error(
        "make an image of this host's tools: there is no {0} in /bin or /usr/bin; install busybox-static"
    )]
    NoTool(&'static str),
    /// A program needs a library that is not found.
    #[error(
        "make an image of this host's tools: {program} needs {library}, which is not found; install busybox-static"
    )]
    NoLibrary {
        /// Which program.
        program: String,
        /// Which library.
        library: String,
    },
    /// A file could not be read or written.
    #[error("make an image of this host's tools: {}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Files of the image by their path without the leading slash.
type Files = BTreeMap<String, Content>;

enum Content {
    /// A copy of a file of the host's.
    Program(PathBuf),
    /// Another name of a file in the image.
    HardLink(String),
    /// A text.
    Text(&'static str),
}

/// Writes the image as a `docker save` archive.
///
/// # Errors
///
/// [`ImageError`]
pub fn write(archive: &Path) -> Result<(), ImageError> {
    let mut files = match static_busybox() {
        Some(busybox) => applets(busybox),
        None => host_tools()?,
    };
    files.insert("etc/passwd".to_owned(), Content::Text(PASSWD));
    files.insert("etc/group".to_owned(), Content::Text(GROUP));
    let failed = |source| ImageError::Io { path: archive.to_owned(), source };
    let layer = layer(&files)?;
    let out = File::create(archive).map_err(failed)?;
    save(&layer, out).map_err(failed)
}

fn static_busybox() -> Option<PathBuf> {
    let path = find_program("busybox")?;
    let needs = elf::read(&fs::read(&path).ok()?)?;
    needs.interpreter.is_none().then_some(path)
}

fn applets(busybox: PathBuf) -> Files {
    let mut files = Files::from([("bin/busybox".to_owned(), Content::Program(busybox))]);
    for tool in TOOLS {
        files.insert(format!("bin/{tool}"), Content::HardLink("bin/busybox".to_owned()));
    }
    files
}

fn host_tools() -> Result<Files, ImageError> {
    let mut files = Files::new();
    for tool in TOOLS {
        let program = find_program(tool).ok_or(ImageError::NoTool(tool))?;
        add_libraries(&program, &mut files)?;
        files.insert(format!("bin/{tool}"), Content::Program(program));
    }
    Ok(files)
}

fn find_program(name: &str) -> Option<PathBuf> {
    PROGRAM_DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
}

/// Adds what a program or library needs, and what that needs.
fn add_libraries(program: &Path, files: &mut Files) -> Result<(), ImageError> {
    let bytes = fs::read(program).map_err(|source| ImageError::Io { path: program.to_owned(), source })?;
    let Some(needs) = elf::read(&bytes) else { return Ok(()) };
    let mut found: Vec<PathBuf> = needs.interpreter.iter().map(PathBuf::from).collect();
    for library in &needs.libraries {
        let path = find_library(library, program, &needs.search).ok_or_else(|| ImageError::NoLibrary {
            program: program.display().to_string(),
            library: library.clone(),
        })?;
        found.push(path);
    }
    for path in found {
        let name = path.display().to_string().trim_start_matches('/').to_owned();
        if let Entry::Vacant(entry) = files.entry(name) {
            entry.insert(Content::Program(path.clone()));
            add_libraries(&path, files)?;
        }
    }
    Ok(())
}

fn find_library(name: &str, program: &Path, search: &[String]) -> Option<PathBuf> {
    let origin = program.parent().map(|parent| parent.display().to_string()).unwrap_or_default();
    let named = search.iter().map(|directory| directory.replace("$ORIGIN", &origin));
    let usual = LIBRARY_DIRECTORIES.iter().map(|&directory| directory.to_owned());
    named.chain(usual).map(|directory| Path::new(&directory).join(name)).find(|path| path.is_file())
}

/// The image's one layer: a tar stream.
fn layer(files: &Files) -> Result<Vec<u8>, ImageError> {
    let mut tar = Builder::new(Vec::new());
    let failed = |path: &str, source| ImageError::Io { path: PathBuf::from(path), source };
    // What the runtime mounts on, and where anybody may write.
    for (directory, mode) in [("dev", 0o755), ("proc", 0o755), ("sys", 0o755), ("tmp", 0o1777)] {
        let mut header = header(EntryType::Directory, mode, 0);
        tar.append_data(&mut header, directory, io::empty()).map_err(|error| failed(directory, error))?;
    }
    for (name, content) in files {
        let appended = match content {
            Content::Program(path) => {
                let bytes = fs::read(path).map_err(|error| failed(name, error))?;
                let mut header = header(EntryType::Regular, 0o755, bytes.len());
                tar.append_data(&mut header, name, bytes.as_slice())
            }
            Content::Text(text) => {
                let mut header = header(EntryType::Regular, 0o644, text.len());
                tar.append_data(&mut header, name, text.as_bytes())
            }
            Content::HardLink(target) => {
                let mut header = header(EntryType::Link, 0o755, 0);
                tar.append_link(&mut header, name, target)
            }
        };
        appended.map_err(|error| failed(name, error))?;
    }
    tar.into_inner().map_err(|error| failed("layer.tar", error))
}

fn header(kind: EntryType, mode: u32, length: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(length as u64);
    header
}

fn save(layer: &[u8], out: File) -> io::Result<()> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "WorkingDir": "/tmp" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex(layer))] },
    });
    let config = serde_json::to_vec(&config)?;
    let config_name = format!("{}.json", hex(&config));
    let manifest = json!([{
        "Config": config_name, "RepoTags": ["docker-worker-demo:latest"], "Layers": ["layer.tar"]
    }]);
    let manifest = serde_json::to_vec(&manifest)?;
    let mut tar = Builder::new(out);
    let members: [(&str, &[u8]); 3] =
        [("layer.tar", layer), (&config_name, &config), ("manifest.json", &manifest)];
    for (name, bytes) in members {
        tar.append_data(&mut header(EntryType::Regular, 0o644, bytes.len()), name, bytes)?;
    }
    tar.finish()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_busybox_gives_its_shell_with_what_it_needs() {
        let files = host_tools().unwrap();
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert!(names.contains(&"bin/sh") && names.iter().any(|name| name.contains("libc.so")), "{names:?}");
    }

    #[test]
    fn the_archive_names_its_layer_by_the_hash_of_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        write(&path).unwrap();
        let mut archive = tar::Archive::new(File::open(path).unwrap());
        let mut layer = String::new();
        let mut config = serde_json::Value::Null;
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            match name.as_str() {
                "layer.tar" => layer = format!("sha256:{}", hex(&bytes)),
                "manifest.json" => {}
                _ => config = serde_json::from_slice(&bytes).unwrap(),
            }
        }
        assert_eq!(config["rootfs"]["diff_ids"], json!([layer]));
    }
}
