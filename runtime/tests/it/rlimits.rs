//! Resource limits of the running kernel. They belong to the whole process, so these tests only set ones
//! that no other test depends on.
use runtime::rlimits::apply;
use runtime::spec::PosixLimit;
use rustix::process::{Resource, getrlimit};
use serde_json::json;

fn limit(name: &str, soft: u64, hard: u64) -> PosixLimit {
    runtime::spec::read(&json!({ "type": name, "soft": soft, "hard": hard })).unwrap()
}

#[test]
fn a_limit_of_the_spec_is_set() {
    apply(&limit("RLIMIT_MSGQUEUE", 4096, 8192)).unwrap();
    let now = getrlimit(Resource::Msgqueue);
    assert_eq!((now.current, now.maximum), (Some(4096), Some(8192)));
}

#[test]
fn a_limit_above_the_runtimes_own_names_values_and_capability() {
    let without_resource = || {
        caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE).unwrap();
        apply(&limit("RLIMIT_LOCKS", 7, 98)).unwrap();
        apply(&limit("RLIMIT_LOCKS", 7, 99)).unwrap_err()
    };
    // Lowering it first makes the outcome independent of how the test was started.
    let error = std::thread::scope(|scope| scope.spawn(without_resource).join()).unwrap();
    assert_eq!(
        error.to_string(),
        "set RLIMIT_LOCKS to soft 7, hard 99: the runtime's own hard value is 98, and it lacks CAP_SYS_RESOURCE to \
         raise it; lower the limit in the Spec or grant that capability"
    );
}
