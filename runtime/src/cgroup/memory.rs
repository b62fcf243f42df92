//! Memory limits.
use super::Version;
use super::setting::{Setting, SettingError};
use crate::spec::Memory;

/// The files for `linux.resources.memory`: bytes, -1 for no limit; 0 leaves a file alone, as in runc.
///
/// # Errors
///
/// [`SettingError`] for what the version does not have, and for numbers that make no sense together.
pub(super) fn settings(version: Version, memory: &Memory) -> Result<Vec<Setting>, SettingError> {
    let given = |bytes: Option<i64>| bytes.filter(|&bytes| bytes != 0);
    let (limit, swap) = (given(memory.limit), given(memory.swap));
    let reservation = given(memory.reservation);
    for (at, value) in
        [("/memory/limit", limit), ("/memory/swap", swap), ("/memory/reservation", reservation)]
    {
        if let Some(value) = value.filter(|&value| value < -1) {
            return Err(SettingError::Range { at, value, allowed: "give bytes, or -1 for no limit" });
        }
    }
    match version {
        Version::V1 => Ok(v1(memory, limit, swap, reservation)),
        Version::V2 => v2(memory, limit, swap, reservation),
    }
}

fn v1(memory: &Memory, limit: Option<i64>, swap: Option<i64>, reservation: Option<i64>) -> Vec<Setting> {
    let number = |file: &str, value: Option<i64>| value.map(|value| Setting::new(file, value));
    [
        // In this order: the kernel wants memory and swap together to be at least memory.
        number("memory.limit_in_bytes", limit),
        number("memory.memsw.limit_in_bytes", swap),
        number("memory.soft_limit_in_bytes", reservation),
        memory.swappiness.map(|value| Setting::new("memory.swappiness", value)),
        memory.disable_oom_killer.then(|| Setting::new("memory.oom_control", 1)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn v2(
    memory: &Memory,
    limit: Option<i64>,
    swap: Option<i64>,
    reservation: Option<i64>,
) -> Result<Vec<Setting>, SettingError> {
    let absent = [
        ("/memory/swappiness", memory.swappiness.is_some()),
        ("/memory/disableOOMKiller", memory.disable_oom_killer),
    ];
    if let Some((at, _)) = absent.into_iter().find(|&(_, wanted)| wanted) {
        return Err(SettingError::NotInThisVersion { at, version: Version::V2 });
    }
    let amount = |file: &str, bytes: i64| match bytes {
        -1 => Setting::new(file, "max"),
        bytes => Setting::new(file, bytes),
    };
    // The Spec counts memory and swap together, as v1 does; v2 counts swap alone.
    let swap = match (limit, swap) {
        (_, None) => None,
        (_, Some(-1)) => Some(-1),
        (Some(limit), Some(both)) if limit != -1 && both >= limit => Some(both - limit),
        (_, Some(value)) => {
            let allowed =
                "it counts memory and swap together, so it needs a memory limit and must not be below it";
            return Err(SettingError::Range { at: "/memory/swap", value, allowed });
        }
    };
    let files = [("memory.max", limit), ("memory.swap.max", swap), ("memory.low", reservation)];
    Ok(files.into_iter().filter_map(|(file, bytes)| Some(amount(file, bytes?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The Spec's section, and the files and values, or the error's text.
    type Case = (Value, Result<&'static [(&'static str, &'static str)], &'static str>);

    fn check(version: Version, cases: &[Case]) {
        for (raw, expected) in cases {
            let result = settings(version, &crate::spec::read(raw).unwrap());
            let result = result.map_err(|error| error.to_string());
            let expected = expected
                .map(|files| files.iter().map(|(file, value)| Setting::new(*file, value)).collect::<Vec<_>>())
                .map_err(str::to_owned);
            assert_eq!(result, expected, "{raw}");
        }
    }

    #[test]
    fn v1_takes_the_numbers_of_the_spec() {
        check(
            Version::V1,
            &[
                (json!({}), Ok(&[])),
                (json!({ "limit": 0, "swap": 0 }), Ok(&[])),
                (json!({ "limit": 1024 }), Ok(&[("memory.limit_in_bytes", "1024")])),
                (
                    json!({ "swap": -1, "limit": 4096, "reservation": 2048 }),
                    Ok(&[
                        ("memory.limit_in_bytes", "4096"),
                        ("memory.memsw.limit_in_bytes", "-1"),
                        ("memory.soft_limit_in_bytes", "2048"),
                    ]),
                ),
                (
                    json!({ "swappiness": 10, "disableOOMKiller": true }),
                    Ok(&[("memory.swappiness", "10"), ("memory.oom_control", "1")]),
                ),
                (
                    json!({ "limit": -2 }),
                    Err("set /memory/limit: -2 is out of range; give bytes, or -1 for no limit"),
                ),
            ],
        );
    }

    #[test]
    fn v2_counts_swap_without_memory() {
        check(
            Version::V2,
            &[
                (
                    json!({ "limit": 4096, "swap": 6144, "reservation": -1 }),
                    Ok(&[("memory.max", "4096"), ("memory.swap.max", "2048"), ("memory.low", "max")]),
                ),
                (
                    json!({ "limit": 4096, "swap": 4096 }),
                    Ok(&[("memory.max", "4096"), ("memory.swap.max", "0")]),
                ),
                (
                    json!({ "limit": -1, "swap": -1 }),
                    Ok(&[("memory.max", "max"), ("memory.swap.max", "max")]),
                ),
                (json!({ "disableOOMKiller": false }), Ok(&[])),
                (
                    json!({ "swappiness": 60 }),
                    Err("set /memory/swappiness: cgroup v2 has no such limit; remove it from the Spec"),
                ),
                (
                    json!({ "swap": 10 }),
                    Err(
                        "set /memory/swap: 10 is out of range; it counts memory and swap together, so it needs a \
                         memory limit and must not be below it",
                    ),
                ),
            ],
        );
    }
}
