//! Integration tests: real kernel, real registry, real clients.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod allow_ptrace;
mod architecture;
mod broken_disk;
mod cache_purge;
mod caches_and_artifacts;
mod chain_of_trust;
mod control;
mod crash;
mod crash_artifact;
mod crash_pull;
mod crash_steps;
mod crash_walk;
mod crowd;
mod disk_full;
mod docker_save;
mod escape;
mod exhaustion;
mod fixtures;
mod garbage;
mod image_contents;
mod image_store;
mod interrupts;
mod live_log;
mod network;
mod network_crash;
mod network_links;
mod own_queue;
mod own_queue_clients;
mod own_queue_crash;
mod own_queue_crowd;
mod own_queue_disk;
mod own_queue_faults;
mod own_queue_kept;
mod own_queue_origins;
mod own_queue_page;
mod page_bundle;
mod payload;
mod pid_reuse;
mod private_images;
mod processors;
mod profile;
mod proxy_confinement;
mod proxy_process;
mod queue;
mod recorded;
mod refused_images;
mod run;
mod run_deployed;
mod run_in_process;
mod script;
mod second_container;
mod sidecars;
mod standalone;
mod standalone_services;
mod start;
mod start_artifacts;
mod start_caches;
mod start_claims;
mod start_crash;
mod start_disk;
mod start_environment;
mod start_idle;
mod start_live_logs;
mod start_logs;
mod start_observed;
mod start_resolutions;
mod start_runner;
mod start_superseding;
mod start_tasks;
mod start_unfinished;
mod stuck_monitor;
mod support;
mod task_images;
mod task_images_faults;
mod taskcluster_proxy;
mod transports;
mod unfit_hosts;
