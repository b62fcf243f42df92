//! What the process sees of the host: this program, what it is linked with, and what it has to know of names and of
//! whom to trust. Nothing of it can be written to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::elf;
use crate::run_directory::ContainerDirectory;
use crate::spec::{Bind, BindSource};

/// This program, in there.
pub(super) const PROGRAM: &str = "/docker-worker";

/// The variable that says where the certificates are, for whoever reads them.
pub(super) const CERTIFICATES: &str = "SSL_CERT_FILE=/etc/certificates.pem";

/// Where that is.
const CERTIFICATES_FILE: &str = "certificates.pem";

/// What a program is resolved by: files of the host's that change while the process runs, and so are copied.
const NAMES: [&str; 3] = ["hosts", "nsswitch.conf", "resolv.conf"];

/// Bytes of each of these.
const NAMES_BYTES: u64 = 1 << 20;

/// What C libraries before glibc 2.34 load when a name is looked up.
const LOADED_LATER: [&str; 3] = ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"];

/// Where the loader looks for libraries that lie elsewhere than usual.
const LOADER_CACHE: &str = "/etc/ld.so.cache";

/// Bytes of a library that are read for its name.
const LIBRARY_BYTES: u64 = 64 << 20;

/// Bytes of a program that its loader's name is in.
const HEAD_BYTES: u64 = 4096;

/// Characters of a certificate's line (RFC 7468).
const LINE: usize = 64;

/// The process cannot be given what it needs.
#[derive(Debug, thiserror::Error)]
#[error("give the proxy {}", path.display())]
pub(super) struct RootError {
    path: PathBuf,
    source: io::Error,
}

/// The worker's copies of what names are resolved by.
#[derive(Clone, Debug)]
pub(super) struct Names {
    directory: ContainerDirectory,
}

/// Makes the root's directory, and what is bound in it. Blocks.
pub(super) fn make(directory: &ContainerDirectory) -> Result<(Vec<Bind>, Names), RootError> {
    let root = directory.bundle().join("rootfs");
    // Nobody in particular is at home there; on the host the directory above keeps it private.
    fs::create_dir(&root)
        .and_then(|()| fs::set_permissions(&root, fs::Permissions::from_mode(0o755)))
        .map_err(at(&root))?;
    let mut files = own_files()?;
    let names = Names { directory: directory.clone() };
    for name in NAMES {
        write(&directory.file(name), &of_host(name))?;
    }
    write(&directory.file(CERTIFICATES_FILE), pem().as_bytes())?;
    for name in NAMES.into_iter().chain([CERTIFICATES_FILE]) {
        files.insert(Path::new("/etc").join(name), directory.file(name));
    }
    let bind = |(destination, source): (PathBuf, PathBuf)| Bind {
        source,
        destination: destination.to_string_lossy().into_owned(),
        kind: BindSource::ReadOnlyFile,
    };
    Ok((files.into_iter().map(bind).collect(), names))
}

impl Names {
    /// Has the process see what the host's files say now. What cannot be written stays as it was. Blocks.
    pub(super) fn refresh(&self) {
        for name in NAMES {
            let (path, content) = (self.directory.file(name), of_host(name));
            let is_old = fs::read(&path).is_ok_and(|there| there != content);
            // In place: another file of that name would not be the one that is bound.
            if is_old && let Ok(file) = File::options().write(true).open(&path) {
                let written = file.write_all_at(&content, 0);
                written.and_then(|()| file.set_len(content.len() as u64)).unwrap_or_default();
            }
        }
    }
}

/// A file of the host's; empty if there is none.
fn of_host(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let opened = File::open(Path::new("/etc").join(name));
    match opened.and_then(|file| file.take(NAMES_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => bytes,
        Err(_) => Vec::new(),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), RootError> {
    let written = File::create_new(path).and_then(|mut file| {
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(content)
    });
    written.map_err(at(path))
}

/// The program, its loader and its libraries, by where they are looked for.
fn own_files() -> Result<BTreeMap<PathBuf, PathBuf>, RootError> {
    let program = std::env::current_exe().map_err(at(Path::new("/proc/self/exe")))?;
    let head = read(&program, HEAD_BYTES)?;
    let mut files = BTreeMap::from([(PathBuf::from(PROGRAM), program.clone())]);
    if let Some(loader) = elf::interpreter(&head).map(PathBuf::from) {
        files.insert(loader.clone(), loader);
        let cache = PathBuf::from(LOADER_CACHE);
        files.extend(cache.is_file().then(|| (cache.clone(), cache)));
    }
    let maps = Path::new("/proc/self/maps");
    let mapped = fs::read_to_string(maps).map_err(at(maps))?;
    for library in executable(&mapped).filter(|path| *path != program) {
        let wanted = elf::read(&read(&library, LIBRARY_BYTES)?).and_then(|needs| needs.name);
        let place = wanted.map_or_else(|| library.clone(), |name| library.with_file_name(name));
        let beside = LOADED_LATER.iter().map(|name| library.with_file_name(name));
        files.extend(beside.filter(|path| path.is_file()).map(|path| (path.clone(), path)));
        files.insert(place, library);
    }
    Ok(files)
}

/// The files that code of this process is in.
fn executable(maps: &str) -> impl Iterator<Item = PathBuf> {
    maps.lines().filter_map(|line| {
        // Address, permissions, offset, device, inode, and a path that may have blanks.
        let mut fields = line.splitn(6, ' ');
        let permissions = fields.nth(1)?;
        let path = fields.nth(3)?.trim_start();
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        (permissions.contains('x') && path.starts_with('/')).then(|| PathBuf::from(path))
    })
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, RootError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(at(path))
}

/// The certificates that this host trusts, wherever it has them. Those that cannot be read are as if they were not there.
fn pem() -> String {
    let mut text = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs {
        text += "-----BEGIN CERTIFICATE-----\n";
        let encoded = STANDARD.encode(&certificate);
        for line in encoded.as_bytes().chunks(LINE) {
            text += &String::from_utf8_lossy(line);
            text += "\n";
        }
        text += "-----END CERTIFICATE-----\n";
    }
    text
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RootError + use<> {
    let path = path.to_owned();
    move |source| RootError { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_found_and_data_that_is_mapped_is_not() {
        let maps = "55d0-55d1 r-xp 00002000 08:01 123                        /usr/bin/a program\n\
            7f00-7f01 rw-s 00000000 08:01 124                        /data/queue.sqlite-shm\n\
            7f02-7f03 r-xp 00000000 08:01 125                        /lib/libold.so.1 (deleted)\n\
            7f04-7f05 r-xp 00000000 00:00 0                          [vdso]\n\
            7f06-7f07 rwxp 00000000 00:00 0 \n";
        let found: Vec<PathBuf> = executable(maps).collect();
        assert_eq!(found, [Path::new("/usr/bin/a program"), Path::new("/lib/libold.so.1")]);
    }

    #[test]
    fn this_program_is_given_its_loader_and_its_c_library_by_the_names_that_it_looks_for() {
        let files = own_files().unwrap();
        let named = |part: &str| files.keys().filter(|path| path.to_string_lossy().contains(part)).count();
        assert!(named("/libc.so") == 1 && named("/ld-") >= 1 && files.contains_key(Path::new(PROGRAM)));
        assert!(files.values().all(|source| source.is_file()), "{files:?}");
    }

    #[test]
    fn certificates_are_written_as_they_are_read() {
        let own = rustls_native_certs::load_native_certs().certs;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, pem()).unwrap();
        let again = rustls_native_certs::load_certs_from_paths(Some(file.path()), None);
        assert_eq!(again.certs.len(), own.len());
        assert!(own.iter().all(|certificate| again.certs.contains(certificate)));
    }
}
