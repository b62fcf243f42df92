//! `linux.resources`: what the control groups are told.

use std::collections::BTreeMap;

use super::DeviceType;
use super::read::object;

object! {
    /// `linux.resources`.
    Resources: Default {
        devices: Vec<DeviceRule> = "devices",
        memory: Memory = "memory",
        cpu: Cpu = "cpu",
        pids: Pids = "pids",
        block_io: BlockIo = "blockIO",
        huge_pages: Vec<HugePageLimit> = "hugepageLimits",
        network: NetworkClass = "network",
        rdma: BTreeMap<String, RdmaLimits> = "rdma",
        /// Files of v2 by name.
        unified: BTreeMap<String, String> = "unified",
    }
}

object! {
    /// Which uses of which devices are allowed or not. A number or letter that is missing stands for all.
    DeviceRule {
        allow: bool = "allow",
        kind: Option<DeviceType> = "type",
        major: Option<i64> = "major",
        minor: Option<i64> = "minor",
        access: Option<String> = "access",
    }
}

object! {
    /// In bytes; -1 is no limit.
    Memory: Default {
        limit: Option<i64> = "limit",
        reservation: Option<i64> = "reservation",
        /// Of memory and swap together.
        swap: Option<i64> = "swap",
        swappiness: Option<u64> = "swappiness",
        disable_oom_killer: bool = "disableOOMKiller",
        hierarchy: Option<Hierarchical> = "useHierarchy",
    } refused {
        "kernel": "kernel memory is counted as memory and has no limit of its own since Linux 5.11: set limit",
        "kernelTCP": "limits of TCP buffers are not there: set limit, which counts them on cgroup v2",
        "checkBeforeUpdate": "the kernel makes room for a new limit, or kills: leave it out",
    }
}

/// `useHierarchy`, which is always so since Linux 5.11.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchical;

impl super::Read for Hierarchical {
    fn read(value: &mut serde_json::Value, notes: &mut super::Notes) -> Option<Hierarchical> {
        match bool::read(value, notes)? {
            true => Some(Hierarchical),
            false => {
                notes.refuse("a group's memory is counted with its children's since Linux 5.11: leave it out")
            }
        }
    }
}

object! {
    /// Times in microseconds.
    Cpu: Default {
        shares: Option<u64> = "shares",
        quota: Option<i64> = "quota",
        burst: Option<u64> = "burst",
        period: Option<u64> = "period",
        realtime_runtime: Option<i64> = "realtimeRuntime",
        realtime_period: Option<u64> = "realtimePeriod",
        cpus: Option<String> = "cpus",
        mems: Option<String> = "mems",
        idle: Option<i64> = "idle",
    }
}

object! {
    /// Processes and threads.
    Pids: Default {
        limit: Option<i64> = "limit",
    }
}

/// Advice for what went with a scheduler.
const LEAF_WEIGHT: &str = "leaf weights went with the CFQ scheduler in Linux 5.0: leave it out";

object! {
    /// Weights, and rates by the second.
    BlockIo: Default {
        weight: Option<u16> = "weight",
        weight_devices: Vec<WeightDevice> = "weightDevice",
        read_bytes: Vec<ThrottleDevice> = "throttleReadBpsDevice",
        write_bytes: Vec<ThrottleDevice> = "throttleWriteBpsDevice",
        read_operations: Vec<ThrottleDevice> = "throttleReadIOPSDevice",
        write_operations: Vec<ThrottleDevice> = "throttleWriteIOPSDevice",
    } refused {
        "leafWeight": LEAF_WEIGHT,
    }
}

object! {
    /// A weight of one device.
    WeightDevice {
        major: i64 = "major",
        minor: i64 = "minor",
        weight: Option<u16> = "weight",
    } refused {
        "leafWeight": LEAF_WEIGHT,
    }
}

object! {
    /// A rate of one device.
    ThrottleDevice {
        major: i64 = "major",
        minor: i64 = "minor",
        rate: u64 = "rate",
    }
}

object! {
    /// In bytes, for one size of page.
    HugePageLimit {
        page_size: String = "pageSize",
        limit: i64 = "limit",
    }
}

object! {
    /// For packet schedulers.
    NetworkClass: Default {
        class_id: Option<u32> = "classID",
        priorities: Vec<InterfacePriority> = "priorities",
    }
}

object! {
    /// Of what leaves by one interface.
    InterfacePriority {
        name: String = "name",
        priority: u32 = "priority",
    }
}

object! {
    /// Of one RDMA device.
    RdmaLimits {
        handles: Option<u32> = "hcaHandles",
        objects: Option<u32> = "hcaObjects",
    }
}
