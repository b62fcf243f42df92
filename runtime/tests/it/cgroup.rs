//! Control groups as only v1 has them; what holds for both versions is in `support/groups.rs`.
use crate::groups;
use std::os::fd::AsFd;

#[test]
fn a_thread_joins_v1_groups_through_tasks() {
    let container = groups::Container::create(&serde_json::json!({ "pids": { "limit": 50 } }));
    let joins = || {
        for group in &container.groups {
            runtime::cgroup::join_tasks(group.open_tasks().unwrap().as_fd()).unwrap();
        }
        std::fs::read_to_string("/proc/thread-self/cgroup").unwrap()
    };
    let joined = std::thread::scope(|scope| scope.spawn(joins).join()).unwrap();
    for group in &container.groups {
        let expected = format!(":/{}", group.group.path.display());
        let controller = format!(":{}", group.group.controllers.join(","));
        assert!(
            joined.lines().any(|line| line.contains(&controller) && line.ends_with(&expected)),
            "{controller} {expected}: {joined}"
        );
    }
}
