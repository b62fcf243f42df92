//! The text of the profile that a container's processes run under, and what the parser may take for granted.
//!
//! The profile is Docker's in its intent: nearly everything is allowed, for the container's own namespaces, capabilities
//! and filter limit that already. It denies once more, independently of them, what would reach the host: mounts, and
//! writing where the kernel is steered. Between profiles there are walls: signals and tracing stay inside one.
//!
//! The text includes nothing and is compiled against [`FEATURES`], so neither `/etc/apparmor.d` nor `parser.conf` have a
//! say in it, and AppArmor 3.0 understands it as well as later ones do.
//!
//! Sources: apparmor.d(5); Docker's `profiles/apparmor/template.go`, whose patterns let some names through.

use std::fmt;

/// The longest name of a profile of ours, in bytes.
const MAX_OWN_NAME: usize = 64;

/// The name of a profile of ours: `docker-worker-…`, of letters that mean nothing to anybody who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnName(String);

/// The name cannot be a profile's of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "name an AppArmor profile {0:?}: it takes a-z, 0-9 and \"-\", after \"docker-worker-\", {MAX_OWN_NAME} bytes in all"
)]
pub struct OwnNameError(String);

impl OwnName {
    /// How all of them begin.
    pub const PREFIX: &str = "docker-worker-";

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`OwnNameError`]
    pub fn new(name: &str) -> Result<OwnName, OwnNameError> {
        let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let rest = name.strip_prefix(Self::PREFIX).unwrap_or_default();
        if rest.is_empty() || name.len() > MAX_OWN_NAME || !rest.bytes().all(is_plain) {
            return Err(OwnNameError(name.chars().take(MAX_OWN_NAME).collect()));
        }
        Ok(OwnName(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OwnName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What the profile speaks of, as the kernel's `features` directory says it. What is not in here is not mediated: a kernel
/// that knows more classes (user namespaces, message queues) does not take a profile that is silent about them for a refusal.
pub const FEATURES: &str = "\
caps {mask {chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore
}
}
capability {0xffffff
}
mount {mask {mount umount pivot_root
}
}
network_v8 {af_mask {unspec unix inet ax25 ipx appletalk netrom bridge atmpvc x25 inet6 rose netbeui security key netlink packet ash econet atmsvc rds sna irda pppox wanpipe llc ib mpls can tipc bluetooth iucv rxrpc isdn phonet ieee802154 caif alg nfc vsock kcm qipcrtr smc xdp mctp
}
}
signal {mask {hup int quit ill trap abrt bus fpe kill usr1 segv usr2 pipe alrm term stkflt chld cont stop stp ttin ttou urg xcpu xfsz vtalrm prof winch io pwr sys emt lost
}
}
ptrace {mask {read trace
}
}
file {mask {create read write exec append mmap_exec link lock
}
}
domain {version {1.2
}
stack {yes
}
change_profile {yes
}
change_onexec {yes
}
}
policy {set_load {yes
}
versions {v8 {yes
}
v7 {yes
}
v6 {yes
}
v5 {yes
}
}
}
";

/// The classes of [`FEATURES`] that a kernel has to mediate, as files below its `features` directory.
pub const REQUIRED: [&str; 5] =
    ["mount/mask", "network_v8/af_mask", "signal/mask", "ptrace/mask", "file/mask"];

/// The profile of this name. `outer` is what the processes that start containers are confined by, if they are: the
/// containers' are then under both, and may be signalled from there.
///
/// # Errors
///
/// [`OuterError`]
pub fn text(name: &OwnName, outer: Option<&str>) -> Result<String, OuterError> {
    let peers = peers(name, outer)?;
    let mut text = format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{\n{RULES}");
    for sender in outer.into_iter().chain(["unconfined"]) {
        text += &format!("  signal (receive) peer=\"{sender}\",\n");
    }
    for peer in peers {
        text += &format!("  signal (send,receive) peer=\"{peer}\",\n");
        text += &format!("  ptrace (trace,read,tracedby,readby) peer=\"{peer}\",\n");
    }
    Ok(text + "}\n")
}

/// The label of the process that asks cannot be named in a profile.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("write a profile for processes inside of {0:?}: a rule cannot name that profile")]
pub struct OuterError(String);

/// Between the names of a stack.
const STACKED: &str = "//&";

/// Who counts as the same container. A stack of profiles is one label, whose parts the kernel has put in an order of its own.
fn peers(name: &OwnName, outer: Option<&str>) -> Result<Vec<String>, OuterError> {
    let Some(outer) = outer else { return Ok(vec![name.to_string()]) };
    // Nothing that the parser takes for a pattern, a variable or the end of the name.
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/_.-:&<>+~=@".contains(letter);
    let is_safe = outer.chars().all(is_plain) && !outer.contains("@{");
    if outer.is_empty() || outer.len() > crate::MAX_NAME || !is_safe {
        return Err(OuterError(outer.chars().take(crate::MAX_NAME).collect()));
    }
    let parts: Vec<&str> = outer.split(STACKED).collect();
    let with_name_at = |place: usize| {
        let (before, after) = parts.split_at(place);
        [before, &[name.as_str()], after].concat().join(STACKED)
    };
    Ok((0..=parts.len()).map(with_name_at).collect())
}

/// What is the same for all. `deny` keeps the kernel's log quiet about what tasks try in good faith.
const RULES: &str = "  \
  network,
  deny network alg,
  deny network vsock,
  capability,
  file,
  umount,
  deny mount,
  deny pivot_root,

  # The kernel's switches. Numbers are processes, and open to themselves.
  deny /proc/* wl,
  deny /proc/{s,sy}/** wl,
  deny /proc/[^1-9s]** wl,
  deny /proc/s[^y]** wl,
  deny /proc/sy[^s]** wl,
  deny /proc/sys[^/]** wl,
  deny /proc/sys/[^k]** wl,
  deny /proc/sys/k[^e]** wl,
  deny /proc/sys/kernel/{s,sh} wl,
  deny /proc/sys/kernel/[^s]** wl,
  deny /proc/sys/kernel/s[^h]** wl,
  deny /proc/sys/kernel/sh[^m]** wl,
  deny /proc/{sysrq-trigger,kcore,kmem,mem} rwklx,

  deny /sys/[^f]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/fs/c[^g]** wklx,
  deny /sys/fs/cg[^r]** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_ours_has_nothing_in_it_that_a_profile_could_misread() {
        let long = format!("docker-worker-{}", "a".repeat(MAX_OWN_NAME));
        let refused = [
            "",
            "docker-worker-",
            "docker-default",
            "docker-worker-a b",
            "docker-worker-a\nb",
            "docker-worker-\"",
            "docker-worker-{a,b}",
            "docker-worker-*",
            "docker-worker-a//&b",
            "docker-worker-../x",
            "docker-worker-é",
            "docker-worker-A",
            "docker-worker-a\0",
            &long,
        ];
        for name in refused {
            assert!(OwnName::new(name).is_err(), "{name:?}");
        }
        assert_eq!(
            OwnName::new("docker-worker-default-0af3").unwrap().as_str(),
            "docker-worker-default-0af3"
        );
    }

    #[test]
    fn the_walls_are_around_one_name() {
        let name = OwnName::new("docker-worker-t-1").unwrap();
        let written = text(&name, None).unwrap();
        assert!(
            written.starts_with("profile docker-worker-t-1 flags=(attach_disconnected,mediate_deleted) {\n")
        );
        let peers: Vec<&str> = written.lines().filter(|line| line.contains("peer=")).map(str::trim).collect();
        assert_eq!(
            peers,
            [
                "signal (receive) peer=\"unconfined\",",
                "signal (send,receive) peer=\"docker-worker-t-1\",",
                "ptrace (trace,read,tracedby,readby) peer=\"docker-worker-t-1\",",
            ]
        );
    }

    #[test]
    fn an_outer_profile_that_a_rule_would_misread_is_refused() {
        let name = OwnName::new("docker-worker-t-1").unwrap();
        for outer in ["lxc-container-default-cgns", "/usr/bin/x", "a//&b", "lxd-x_</var/lib/lxd>"] {
            let written = text(&name, Some(outer)).unwrap();
            assert!(written.contains(&format!("signal (receive) peer=\"{outer}\",")), "{written}");
            for peer in [format!("{outer}//&{name}"), format!("{name}//&{outer}")] {
                assert!(written.contains(&format!("ptrace (trace,read,tracedby,readby) peer=\"{peer}\",")));
            }
        }
        let between = text(&name, Some("a//&z")).unwrap();
        assert!(between.contains("signal (send,receive) peer=\"a//&docker-worker-t-1//&z\","), "{between}");
        for outer in ["", "a\" , mount, #", "a*", "{a,b}", "a b", "@{x}", "a\n", "a\\", "[ab]", "a?", "^a"] {
            assert_eq!(text(&name, Some(outer)), Err(OuterError(outer.to_owned())));
        }
    }
}
