//! bpf(2): the device rules of a cgroup v2 group are a program.
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

// Commands, types and flags of linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// More programs on one group than anybody attaches.
const MAX_ATTACHED: u32 = 64;

/// Head of `union bpf_attr` for PROG_LOAD. The kernel takes what is missing at the end for zeros.
#[repr(C)]
#[derive(Default)]
struct LoadArguments {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The same for PROG_ATTACH.
#[repr(C)]
#[derive(Default)]
struct AttachArguments {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The same for PROG_QUERY.
#[repr(C)]
#[derive(Default)]
struct QueryArguments {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// The same for PROG_GET_FD_BY_ID.
#[repr(C)]
#[derive(Default)]
struct ByIdArguments {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Makes `program` the device rules of a group: in place of the one that is there, if there is one.
///
/// The kernel lets it run together with those of the groups above, and all must allow a request.
///
/// # Errors
///
/// `EPERM` without CAP_SYS_ADMIN (or CAP_BPF and CAP_NET_ADMIN), `EINVAL` for a program that the
/// verifier refuses or a kernel without CONFIG_CGROUP_BPF.
pub fn set_device_program(group: BorrowedFd<'_>, program: &[u64]) -> io::Result<()> {
    let loaded = load(program)?;
    let replaced = match attached(group)?.as_slice() {
        [only] => Some(by_id(*only)?),
        _ => None,
    };
    let mut arguments = AttachArguments {
        target_fd: number(group.as_raw_fd()),
        attach_bpf_fd: number(loaded.as_raw_fd()),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
        ..AttachArguments::default()
    };
    if let Some(old) = &replaced {
        arguments.attach_flags |= REPLACE;
        arguments.replace_bpf_fd = number(old.as_raw_fd());
    }
    // SAFETY: the arguments hold descriptors and flags, no pointers.
    unsafe { bpf(PROG_ATTACH, &mut arguments) }.map(drop)
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    let license = c"MPL-2.0"; // The program calls no helper that wants a GPL one.
    let count = u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let mut arguments = LoadArguments {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: count,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..LoadArguments::default()
    };
    // SAFETY: `insns` points to `insn_cnt` instructions of eight bytes and `license` to a string with
    // its NUL; both live past the call, which only reads them.
    let descriptor = unsafe { bpf(PROG_LOAD, &mut arguments) }?;
    // SAFETY: PROG_LOAD returned a new descriptor (close-on-exec, as all of bpf(2)'s); nothing owns it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn attached(group: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; MAX_ATTACHED as usize];
    let mut arguments = QueryArguments {
        target_fd: number(group.as_raw_fd()),
        attach_type: ATTACH_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_ATTACHED,
        ..QueryArguments::default()
    };
    // SAFETY: `prog_ids` points to room for `prog_cnt` ids, which lives past the call.
    unsafe { bpf(PROG_QUERY, &mut arguments) }?;
    ids.truncate(arguments.prog_cnt as usize);
    Ok(ids)
}

fn by_id(id: u32) -> io::Result<OwnedFd> {
    let mut arguments = ByIdArguments { prog_id: id, ..ByIdArguments::default() };
    // SAFETY: the arguments hold numbers, no pointers.
    let descriptor = unsafe { bpf(PROG_GET_FD_BY_ID, &mut arguments) }?;
    // SAFETY: PROG_GET_FD_BY_ID returned a new descriptor; nothing owns it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// # Safety
///
/// Every pointer in `arguments` must be valid for what `command` does with it.
unsafe fn bpf<T>(command: libc::c_int, arguments: &mut T) -> io::Result<RawFd> {
    let size = size_of::<T>();
    // SAFETY: `arguments` is a head of `union bpf_attr` of `size` bytes; the caller vouches for the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(arguments), size) };
    match RawFd::try_from(result) {
        Ok(descriptor) if descriptor >= 0 => Ok(descriptor),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Open descriptors are not negative.
fn number(descriptor: RawFd) -> u32 {
    descriptor.cast_unsigned()
}
