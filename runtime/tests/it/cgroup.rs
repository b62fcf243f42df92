//! Control groups on this host, whichever version it has.
use crate::groups;
use std::os::fd::AsFd;

#[test]
fn a_pids_limit_stops_a_fork_bomb() {
    groups::a_pids_limit_stops_a_fork_bomb();
}

#[test]
fn a_memory_limit_ends_who_passes_it() {
    groups::a_memory_limit_ends_who_passes_it();
}

#[test]
fn cpu_limits_are_as_the_spec_says() {
    groups::cpu_limits_are_as_the_spec_says();
}

#[test]
fn only_listed_devices_open() {
    groups::only_listed_devices_open();
}

#[test]
fn undoing_ends_what_runs_and_leaves_other_containers() {
    groups::undoing_ends_what_runs_and_leaves_other_containers();
}

#[test]
fn a_group_with_processes_is_refused() {
    groups::a_group_with_processes_is_refused();
}

#[test]
fn an_empty_group_that_was_left_behind_is_used_and_removed() {
    groups::an_empty_group_that_was_left_behind_is_used_and_removed();
}

#[test]
fn a_fork_bomb_does_not_outrun_its_removal() {
    groups::a_fork_bomb_does_not_outrun_its_removal();
}

#[test]
fn a_value_that_the_kernel_refuses_is_named_with_its_file() {
    groups::a_value_that_the_kernel_refuses_is_named_with_its_file();
}

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
