//! The fields of OCI runtime specification 1.3, as a table, with what this runtime makes of each.

use serde_json::{Map, Value};

use super::Finding;

/// What may stand in one place.
enum Shape {
    /// Any value; `oci-spec` checks its type, the plan its meaning.
    Any,
    /// An object with these fields and no others.
    Object(&'static [(&'static str, Shape)]),
    /// A list of such values.
    List(&'static Shape),
    /// Known to the specification, not honoured here: refused unless empty. Says what to do instead.
    NotYet(&'static str),
    /// Meant for another platform: left alone, as the specification wants.
    OtherPlatform,
}

use Shape::{Any, List, NotYet, Object, OtherPlatform};

const SPEC: &[(&str, Shape)] = &[
    ("ociVersion", Any),
    ("root", Object(&[("path", Any), ("readonly", Any)])),
    ("mounts", List(&Object(MOUNT))),
    ("process", Object(PROCESS)),
    ("hostname", Any),
    ("domainname", Any),
    ("hooks", Object(HOOKS)),
    ("annotations", Any),
    ("linux", Object(LINUX)),
    ("solaris", OtherPlatform),
    ("windows", OtherPlatform),
    ("freebsd", OtherPlatform),
    ("vm", OtherPlatform),
    ("zos", OtherPlatform),
];

const MOUNT: &[(&str, Shape)] = &[
    ("destination", Any),
    ("type", Any),
    ("source", Any),
    ("options", Any),
    ("uidMappings", NotYet("id-mapped mounts are not there yet: chown the source instead")),
    ("gidMappings", NotYet("id-mapped mounts are not there yet: chown the source instead")),
];

const PROCESS: &[(&str, Shape)] = &[
    ("terminal", Any),
    ("consoleSize", Object(&[("height", Any), ("width", Any)])),
    (
        "user",
        Object(&[
            ("uid", Any),
            ("gid", Any),
            ("umask", Any),
            ("additionalGids", Any),
            ("username", OtherPlatform),
        ]),
    ),
    ("args", Any),
    ("commandLine", OtherPlatform),
    ("env", Any),
    ("cwd", Any),
    (
        "capabilities",
        Object(&[
            ("bounding", Any),
            ("effective", Any),
            ("inheritable", Any),
            ("permitted", Any),
            ("ambient", Any),
        ]),
    ),
    ("rlimits", List(&Object(&[("type", Any), ("hard", Any), ("soft", Any)]))),
    ("noNewPrivileges", Any),
    ("apparmorProfile", Any),
    ("oomScoreAdj", Any),
    ("selinuxLabel", NotYet("SELinux labels are not there yet: leave it out")),
    ("ioPriority", NotYet("I/O priorities are not there yet: leave it out")),
    ("scheduler", NotYet("scheduling policies are not there yet: leave it out")),
    ("execCPUAffinity", NotYet("`exec` is not there yet: leave it out")),
];

const HOOK: Shape = Object(&[("path", Any), ("args", Any), ("env", Any), ("timeout", Any)]);

const HOOKS: &[(&str, Shape)] = &[
    ("prestart", List(&HOOK)),
    ("createRuntime", List(&HOOK)),
    ("createContainer", List(&HOOK)),
    ("startContainer", List(&HOOK)),
    ("poststart", List(&HOOK)),
    ("poststop", List(&HOOK)),
];

const LINUX: &[(&str, Shape)] = &[
    ("uidMappings", List(&ID_MAPPING)),
    ("gidMappings", List(&ID_MAPPING)),
    ("sysctl", Any),
    ("resources", Object(RESOURCES)),
    ("cgroupsPath", Any),
    ("namespaces", List(&Object(&[("type", Any), ("path", Any)]))),
    ("devices", List(&Object(DEVICE))),
    ("seccomp", Object(SECCOMP)),
    ("rootfsPropagation", Any),
    ("maskedPaths", Any),
    ("readonlyPaths", Any),
    ("mountLabel", NotYet("SELinux labels are not there yet: leave it out")),
    ("intelRdt", NotYet("cache allocation is not there yet: leave it out")),
    ("memoryPolicy", NotYet("NUMA policies are not there yet: leave it out")),
    (
        "netDevices",
        NotYet("moving network devices is not there yet: move them into a namespace and give its path"),
    ),
    ("personality", NotYet("execution domains are not there yet: leave it out")),
    ("timeOffsets", NotYet("time namespaces are not there yet: leave it out")),
];

const ID_MAPPING: Shape = Object(&[("containerID", Any), ("hostID", Any), ("size", Any)]);

const DEVICE: &[(&str, Shape)] = &[
    ("path", Any),
    ("type", Any),
    ("major", Any),
    ("minor", Any),
    ("fileMode", Any),
    ("uid", Any),
    ("gid", Any),
];

const SECCOMP: &[(&str, Shape)] = &[
    ("defaultAction", Any),
    ("defaultErrnoRet", Any),
    ("architectures", Any),
    ("flags", Any),
    ("listenerPath", NotYet("a seccomp listener is not there yet: use an action of its own for each call")),
    ("listenerMetadata", NotYet("a seccomp listener is not there yet: leave it out")),
    (
        "syscalls",
        List(&Object(&[
            ("names", Any),
            ("action", Any),
            ("errnoRet", Any),
            ("args", List(&Object(&[("index", Any), ("value", Any), ("valueTwo", Any), ("op", Any)]))),
        ])),
    ),
];

const RESOURCES: &[(&str, Shape)] = &[
    (
        "devices",
        List(&Object(&[("allow", Any), ("type", Any), ("major", Any), ("minor", Any), ("access", Any)])),
    ),
    (
        "memory",
        Object(&[
            ("limit", Any),
            ("reservation", Any),
            ("swap", Any),
            ("kernel", Any),
            ("kernelTCP", Any),
            ("swappiness", Any),
            ("disableOOMKiller", Any),
            ("useHierarchy", Any),
            ("checkBeforeUpdate", Any),
        ]),
    ),
    (
        "cpu",
        Object(&[
            ("shares", Any),
            ("quota", Any),
            ("burst", Any),
            ("period", Any),
            ("realtimeRuntime", Any),
            ("realtimePeriod", Any),
            ("cpus", Any),
            ("mems", Any),
            ("idle", Any),
        ]),
    ),
    ("pids", Object(&[("limit", Any)])),
    ("blockIO", Any),
    ("hugepageLimits", Any),
    ("network", Any),
    ("rdma", Any),
    ("unified", Any),
];

/// What a walk over the raw JSON found.
#[derive(Default)]
pub(super) struct Walk {
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

/// Compares a raw Spec with the table.
pub(super) fn walk(spec: &Value) -> Walk {
    let mut walk = Walk::default();
    let Value::Object(fields) = spec else {
        walk.error("/", "a configuration is an object");
        return walk;
    };
    for key in fields.keys().filter(|key| !SPEC.iter().any(|(name, _)| name == key)) {
        walk.warnings
            .push(Finding { pointer: format!("/{key}"), message: "unknown property, ignored".into() });
    }
    for (name, shape) in SPEC {
        if let Some(value) = fields.get(*name) {
            walk.visit(&format!("/{name}"), value, shape);
        }
    }
    walk
}

impl Walk {
    fn visit(&mut self, pointer: &str, value: &Value, shape: &Shape) {
        match (shape, value) {
            (Object(fields), Value::Object(values)) => self.visit_object(pointer, values, fields),
            (List(shape), Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    self.visit(&format!("{pointer}/{index}"), value, shape);
                }
            }
            (NotYet(advice), value) if !is_empty(value) => self.error(pointer, advice),
            // serde would take a list for an object, its values as the fields in order.
            (Object(_), Value::Array(_)) => self.error(pointer, "a list where an object belongs"),
            // Any other wrong type is refused by `oci-spec`, which says which one it expects.
            (Any | OtherPlatform | NotYet(_) | Object(_) | List(_), _) => {}
        }
    }

    fn visit_object(&mut self, pointer: &str, values: &Map<String, Value>, fields: &[(&'static str, Shape)]) {
        for (key, value) in values {
            match fields.iter().find(|(name, _)| name == key) {
                Some((_, shape)) => self.visit(&format!("{pointer}/{key}"), value, shape),
                None => self.error(
                    &format!("{pointer}/{key}"),
                    "unknown field: correct its name or leave it out, this runtime cannot honour it",
                ),
            }
        }
    }

    fn error(&mut self, pointer: &str, message: &str) {
        self.errors.push(Finding { pointer: pointer.to_owned(), message: message.to_owned() });
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
