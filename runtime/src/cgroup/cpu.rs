//! CPU time and CPU sets.
use super::Version;
use super::setting::{Setting, SettingError};
use crate::spec::Cpu;

/// The period that the kernel starts with, in microseconds (`default_cfs_period`).
const DEFAULT_PERIOD: u64 = 100_000;

/// The files for `linux.resources.cpu`. Times are in microseconds; 0 leaves a file alone, as in runc.
///
/// # Errors
///
/// [`SettingError::NotInThisVersion`] for real-time limits on v2.
pub(super) fn settings(version: Version, cpu: &Cpu) -> Result<Vec<Setting>, SettingError> {
    let time = match version {
        Version::V1 => v1(cpu),
        Version::V2 => v2(cpu)?,
    };
    let sets =
        [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)].into_iter().filter_map(|(file, list)| {
            let list = list.as_deref()?;
            Some(Setting::new(file, list))
        });
    Ok(time.into_iter().chain(sets).collect())
}

fn v1(cpu: &Cpu) -> Vec<Setting> {
    let unsigned =
        |file: &str, value: Option<u64>| Some(Setting::new(file, value.filter(|&value| value != 0)?));
    let signed =
        |file: &str, value: Option<i64>| Some(Setting::new(file, value.filter(|&value| value != 0)?));
    [
        unsigned("cpu.shares", cpu.shares),
        // Periods before what is granted in each: the kernel compares the two.
        unsigned("cpu.cfs_period_us", cpu.period),
        signed("cpu.cfs_quota_us", cpu.quota),
        unsigned("cpu.cfs_burst_us", cpu.burst),
        unsigned("cpu.rt_period_us", cpu.realtime_period),
        signed("cpu.rt_runtime_us", cpu.realtime_runtime),
        cpu.idle.map(|idle| Setting::new("cpu.idle", idle)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn v2(cpu: &Cpu) -> Result<Vec<Setting>, SettingError> {
    let real_time = [
        ("/cpu/realtimeRuntime", cpu.realtime_runtime.is_some_and(|value| value != 0)),
        ("/cpu/realtimePeriod", cpu.realtime_period.is_some_and(|value| value != 0)),
    ];
    if let Some((at, _)) = real_time.into_iter().find(|&(_, wanted)| wanted) {
        return Err(SettingError::NotInThisVersion { at, version: Version::V2 });
    }
    let (quota, period) = (cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0));
    let bandwidth = (quota != 0 || period != 0).then(|| {
        let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        let period = if period == 0 { DEFAULT_PERIOD } else { period };
        Setting::new("cpu.max", format_args!("{quota} {period}"))
    });
    Ok([
        cpu.shares.filter(|&shares| shares != 0).map(|shares| Setting::new("cpu.weight", weight(shares))),
        bandwidth,
        cpu.burst.filter(|&burst| burst != 0).map(|burst| Setting::new("cpu.max.burst", burst)),
        cpu.idle.map(|idle| Setting::new("cpu.idle", idle)),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// From v1's 2..262144 to v2's 1..10000, in a straight line: as runc and crun have it.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(version: Version, raw: Value, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(file, value)| Setting::new(*file, value)).collect();
        assert_eq!(settings(version, &crate::spec::read(&raw).unwrap()), Ok(expected), "{raw}");
    }

    #[test]
    fn a_limit_of_zero_leaves_the_kernels_value() {
        let nothing = json!({ "shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "" });
        check(Version::V1, nothing.clone(), &[]);
        check(Version::V2, nothing, &[]);
    }

    #[test]
    fn quota_and_period_become_one_file_in_v2() {
        let both = json!({ "quota": 50_000, "period": 200_000 });
        check(Version::V1, both.clone(), &[("cpu.cfs_period_us", "200000"), ("cpu.cfs_quota_us", "50000")]);
        check(Version::V2, both, &[("cpu.max", "50000 200000")]);
        check(Version::V2, json!({ "quota": 50_000 }), &[("cpu.max", "50000 100000")]);
        check(Version::V2, json!({ "quota": -1 }), &[("cpu.max", "max 100000")]);
        check(Version::V2, json!({ "period": 1000 }), &[("cpu.max", "max 1000")]);
    }

    #[test]
    fn shares_become_a_weight_in_v2() {
        for (shares, expected) in [(1, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        check(Version::V1, json!({ "shares": 512 }), &[("cpu.shares", "512")]);
    }

    #[test]
    fn cpu_sets_are_the_same_in_both() {
        let sets = json!({ "cpus": "0-1", "mems": "0" });
        check(Version::V1, sets.clone(), &[("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]);
        check(Version::V2, sets, &[("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]);
    }

    #[test]
    fn real_time_limits_are_refused_in_v2() {
        let cpu = crate::spec::read(&json!({ "realtimeRuntime": 100 })).unwrap();
        let refused = SettingError::NotInThisVersion { at: "/cpu/realtimeRuntime", version: Version::V2 };
        assert_eq!(settings(Version::V2, &cpu), Err(refused));
        assert_eq!(settings(Version::V1, &cpu), Ok(vec![Setting::new("cpu.rt_runtime_us", 100)]));
    }
}
