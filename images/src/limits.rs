//! Bounds on everything that comes from outside: registries, archives, layers.
//!
//! Every value can be configured; [`Limits::default`] holds the ones that the worker ships with.
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// How much of what an image may bring, and how long its pull may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a manifest or of an index of manifests.
    pub manifest_bytes: u64,
    /// How deep an index may name further indexes.
    pub index_nesting: u32,
    /// Bytes of an image's config.
    pub config_bytes: u64,
    /// Nesting of arrays and objects in a config.
    pub json_depth: u32,
    /// Bytes of a token server's reply.
    pub token_bytes: u64,
    /// Bytes of Docker's file of credentials.
    pub credentials_file_bytes: u64,
    /// Time for a credential helper.
    pub helper: Duration,
    /// Bytes of its answer.
    pub helper_bytes: u64,
    /// Bytes of an error's body that are read and kept for the message.
    pub error_body_bytes: u64,
    /// Bytes of a response's header block.
    pub header_bytes: u64,
    /// Fields of a response's header block.
    pub header_fields: usize,
    /// Redirects followed for one request.
    pub redirects: u32,
    /// Authentication challenges answered for one request.
    pub challenges: u32,
    /// Attempts to fetch one document, or one blob without getting on with it.
    pub attempts: u32,
    /// The longest `Retry-After` that is honoured.
    pub retry_after: Duration,
    /// Time to connect, and again for the TLS handshake.
    pub connect: Duration,
    /// Time until the first byte of a response.
    pub first_byte: Duration,
    /// Time between two reads of a body.
    pub read_idle: Duration,
    /// Bytes a second that a body must reach over [`Limits::rate_window`].
    pub minimal_rate_bytes: u64,
    /// The span over which the rate is measured.
    pub rate_window: Duration,
    /// Time for one whole pull.
    pub pull: Duration,
    /// Blobs fetched at once.
    pub parallel_blobs: usize,

    /// The first pause between two attempts, and the longest; it doubles in between.
    pub backoff: (Duration, Duration),
    /// By how many percent a pause is longer or shorter than that, at random: many workers do not come back at once. At
    /// most 100.
    pub backoff_spread_percent: u32,
    /// Members of an image archive.
    pub archive_members: usize,

    /// Layers of an image. EROFS would take 65,535 devices; overlay stops images at 127.
    pub layers: usize,
    /// Bytes of one compressed layer, as its descriptor declares them.
    pub layer_compressed_bytes: u64,
    /// Bytes of all files of an image, holes included, and of what stands between them in its layers' tar streams; also of
    /// any one such stream.
    pub unpacked_bytes: u64,
    /// Entries of all layers of an image, directories that only a path implies included.
    pub entries: u64,
    /// Bytes of memory that an image may take while its layers are indexed and merged: 80 for an entry, and its
    /// name. Below 4 GiB.
    pub index_bytes: u64,
    /// Window of a zstd stream and dictionary of an xz stream. Of more than 8 MiB an image has one at a time, and a process
    /// four.
    pub window_bytes: u64,

    /// Bytes of one PAX header block, and of one map of a sparse file.
    pub pax_bytes: u64,
    /// Bytes of one GNU long name or long link name.
    pub long_name_bytes: u64,
    /// Bytes of a path.
    pub path_bytes: usize,
    /// Bytes of one component of a path.
    pub component_bytes: usize,
    /// Bytes of a symbolic link's target.
    pub link_target_bytes: usize,
    /// Links followed while one path is resolved.
    pub links_followed: u32,
    /// Bytes of a path and of the targets of all links followed in it.
    pub followed_bytes: usize,
    /// Components of all paths of a layer, those of links followed in them included.
    pub components_walked: u64,
    /// Extended attributes of one entry.
    pub xattrs_per_entry: usize,
    /// Bytes of one extended attribute's value. EROFS stores the length in 16 bits.
    pub xattr_value_bytes: usize,

    /// Bytes of `/etc/passwd` and of `/etc/group`.
    pub account_file_bytes: u64,
    /// Disk space that stays free while an image is stored.
    pub free_disk_bytes: u64,
    /// The same as a share of the file system, in percent; the larger of the two counts.
    pub free_disk_percent: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            manifest_bytes: 4 * MIB,
            index_nesting: 2,
            config_bytes: 8 * MIB,
            json_depth: 64,
            token_bytes: MIB,
            credentials_file_bytes: MIB,
            helper: Duration::from_secs(30),
            helper_bytes: 64 * KIB,
            error_body_bytes: 8 * KIB,
            header_bytes: 64 * KIB,
            header_fields: 200,
            redirects: 5,
            challenges: 2,
            attempts: 5,
            retry_after: Duration::from_secs(120),
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(30),
            read_idle: Duration::from_secs(60),
            minimal_rate_bytes: 10 * KIB,
            rate_window: Duration::from_secs(120),
            pull: Duration::from_secs(3600),
            parallel_blobs: 3,
            backoff: (Duration::from_secs(1), Duration::from_secs(30)),
            backoff_spread_percent: 25,
            archive_members: 65_536,
            layers: 127,
            layer_compressed_bytes: 20 * GIB,
            unpacked_bytes: 100 * GIB,
            entries: 4_000_000,
            index_bytes: 440 * MIB,
            window_bytes: 128 * MIB,
            pax_bytes: MIB,
            long_name_bytes: 64 * KIB,
            path_bytes: 4095,
            component_bytes: 255,
            link_target_bytes: 4095,
            links_followed: 40,
            followed_bytes: 16_384,
            components_walked: 256_000_000,
            xattrs_per_entry: 64,
            xattr_value_bytes: 65_535,
            account_file_bytes: 4 * MIB,
            free_disk_bytes: 5 * GIB,
            free_disk_percent: 5,
        }
    }
}
