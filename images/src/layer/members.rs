//! What each kind of member does to the layer's tree: the table of what is kept, refused and left out.
use super::builder::{Builder, LinkTarget};
use super::data::DataWriter;
use super::error::{EntryProblem, IndexLayerError};
use super::names::{Role, check_length, components, role};
use super::reader::{Member, MemberKind, TarReader};
use super::{Content, Device, FileBlocks, FileData, Metadata, Node, Xattr};
use crate::layer::budget::{SHARED_XATTR_BYTES, Share};
use crate::limits::Limits;

/// The kernel's limits on device numbers: 12 bits and 20 bits.
const LARGEST_MAJOR: u32 = (1 << 12) - 1;
const LARGEST_MINOR: u32 = (1 << 20) - 1;

/// Longer attributes may be shared between inodes, and are then remembered for as long as an image is made.
const LONGEST_OWN_XATTR: usize = 512;

/// Adds one member to the tree, its contents to the data file.
pub fn add(
    member: Member,
    reader: &mut TarReader<'_>,
    data: &mut DataWriter<'_>,
    builder: &mut Builder<'_>,
) -> Result<(), IndexLayerError> {
    let entry = member.name.clone();
    let refuse = |problem| IndexLayerError::entry(&entry, problem);
    let limits = builder.limits();
    let components = components(&entry, limits).map_err(refuse)?;
    builder.admit(&entry, share(&member, components.last().map_or(0, |name| name.len())))?;
    match role(&components).map_err(refuse)? {
        Role::Ignored => Ok(()),
        Role::Root if member.kind == MemberKind::Directory => {
            let metadata = metadata(&member, limits, builder).map_err(refuse)?;
            builder.describe_root(&Node { metadata, content: Content::Directory })
        }
        Role::Root => Err(refuse(EntryProblem::RootNotDirectory)),
        Role::OpaqueMark { directory } => {
            let directory = builder.directory(&entry, directory)?;
            builder.hide_below(directory);
            Ok(())
        }
        Role::Whiteout { parents, name } => {
            let place = builder.place(&entry, parents, name)?;
            builder.put_whiteout(&place);
            Ok(())
        }
        // Docker keeps files only; nothing else could be a hard link's target.
        Role::Aside { .. } if member.kind != MemberKind::File => Ok(()),
        Role::Aside { name } => {
            let metadata = metadata(&member, limits, builder).map_err(refuse)?;
            let content = Content::File(store(&member, reader, data)?);
            builder.put_node(&Builder::place_aside(name), &Node { metadata, content })
        }
        Role::Entry { parents, name } => {
            let metadata = metadata(&member, limits, builder).map_err(refuse)?;
            let place = builder.place(&entry, parents, name)?;
            let content = match member.kind {
                MemberKind::Directory => return builder.put_directory(&place, metadata),
                MemberKind::HardLink => {
                    let target = link_target(&member, builder)?;
                    return builder.put_link(&place, target);
                }
                MemberKind::File => Content::File(store(&member, reader, data)?),
                MemberKind::Symlink => Content::Symlink(symlink(member.link, limits).map_err(refuse)?),
                MemberKind::CharDevice => Content::CharDevice(char_device(member.device).map_err(refuse)?),
                MemberKind::BlockDevice => Content::BlockDevice(device(member.device).map_err(refuse)?),
                MemberKind::Fifo => Content::Fifo,
            };
            builder.put_node(&place, &Node { metadata, content })
        }
    }
}

/// What the entry takes of the image's budget; directories that its path implies count by themselves.
fn share(member: &Member, name_bytes: usize) -> Share {
    let long = |xattr: &&Xattr| xattr.value.len() > LONGEST_OWN_XATTR;
    let shared = member.xattrs.iter().filter(long).count() as u64;
    let unpacked_bytes = member.sparse.as_ref().map_or(member.body_bytes, |map| map.size);
    Share::of_entry(name_bytes).and(Share {
        entries: 0,
        memory_bytes: shared * SHARED_XATTR_BYTES,
        unpacked_bytes,
    })
}

fn link_target(member: &Member, builder: &mut Builder<'_>) -> Result<LinkTarget, IndexLayerError> {
    let refuse = |problem| IndexLayerError::entry(&member.name, problem);
    if member.link.is_empty() {
        return Err(refuse(EntryProblem::EmptyTarget));
    }
    let path = components(&member.link, builder.limits()).map_err(refuse)?;
    match role(&path) {
        Ok(Role::Aside { name }) => builder.aside(name).ok_or_else(|| refuse(EntryProblem::NothingAside)),
        _ => builder.link_target(&member.name, &path),
    }
}

fn symlink(target: Vec<u8>, limits: &Limits) -> Result<Box<[u8]>, EntryProblem> {
    check_length("link target", target.len(), limits.link_target_bytes)?;
    match () {
        () if target.is_empty() => Err(EntryProblem::EmptyTarget),
        () if target.contains(&0) => Err(EntryProblem::ZeroByte),
        () => Ok(target.into()),
    }
}

fn device(device: Device) -> Result<Device, EntryProblem> {
    if device.major > LARGEST_MAJOR || device.minor > LARGEST_MINOR {
        return Err(EntryProblem::DeviceNumber);
    }
    Ok(device)
}

/// Character device 0:0 is how overlayfs marks a removed file: an image may not do that.
fn char_device(numbers: Device) -> Result<Device, EntryProblem> {
    if (numbers.major, numbers.minor) == (0, 0) {
        return Err(EntryProblem::WhiteoutDevice);
    }
    device(numbers)
}

fn store(
    member: &Member,
    reader: &mut TarReader<'_>,
    data: &mut DataWriter<'_>,
) -> Result<FileData, IndexLayerError> {
    match &member.sparse {
        Some(map) => Ok(FileData { size: map.size, blocks: data.append_sparse(reader, map)? }),
        None if member.body_bytes == 0 => Ok(FileData { size: 0, blocks: FileBlocks::Run(0) }),
        None => {
            let blocks = data.append_file(reader, member.body_bytes)?;
            Ok(FileData { size: member.body_bytes, blocks })
        }
    }
}

fn metadata(member: &Member, limits: &Limits, builder: &mut Builder<'_>) -> Result<Metadata, EntryProblem> {
    // 2^32-1 means "leave as it is" to chown(2) and is nobody's number.
    let owner = |number| match u32::try_from(number) {
        Ok(number) if number < u32::MAX => Ok(number),
        _ => Err(EntryProblem::Owner),
    };
    let too_long = |xattr: &Xattr| {
        xattr.value.len() > limits.xattr_value_bytes || xattr.name.len() > limits.component_bytes
    };
    if member.xattrs.len() > limits.xattrs_per_entry || member.xattrs.iter().any(too_long) {
        return Err(EntryProblem::Xattrs);
    }
    let kept: Vec<Xattr> = member.xattrs.iter().filter(|xattr| may_be_set(&xattr.name)).cloned().collect();
    builder.count_dropped_xattrs((member.xattrs.len() - kept.len()) as u64);
    Ok(Metadata {
        mode: member.mode,
        uid: owner(member.uid)?,
        gid: owner(member.gid)?,
        modified: member.modified,
        xattrs: kept.into(),
    })
}

/// `trusted.*` and `user.overlay.*` steer overlayfs, most of `security.*` and `system.*` the kernel.
pub fn may_be_set(name: &[u8]) -> bool {
    const KEPT: [&[u8]; 3] =
        [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
    let is_overlays = name.starts_with(b"user.overlay.");
    let is_users = name.strip_prefix(b"user.").is_some_and(|rest| !rest.is_empty());
    KEPT.contains(&name) || (is_users && !is_overlays)
}
