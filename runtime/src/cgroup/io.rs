//! Block device weights and rates.
use super::Version;
use super::setting::{Setting, SettingError};
use crate::spec::{BlockIo, ThrottleDevice};

/// The files for `linux.resources.blockIO`. Rates are per second: bytes, or operations.
///
/// # Errors
///
/// [`SettingError`] for a weight out of range.
pub(super) fn settings(version: Version, io: &BlockIo) -> Result<Vec<Setting>, SettingError> {
    let mut settings = Vec::new();
    if let Some(value) = io.weight.filter(|&value| value != 0) {
        settings.push(weight(version, "", value)?);
    }
    for device in &io.weight_devices {
        if let Some(value) = device.weight {
            settings.push(weight(version, &format!("{}:{} ", device.major, device.minor), value)?);
        }
    }
    let rates = [
        (&io.read_bytes, "read_bps", "rbps"),
        (&io.write_bytes, "write_bps", "wbps"),
        (&io.read_operations, "read_iops", "riops"),
        (&io.write_operations, "write_iops", "wiops"),
    ];
    for (devices, v1, v2) in rates {
        settings.extend(devices.iter().map(|device| match version {
            Version::V1 => throttle(format!("blkio.throttle.{v1}_device"), device, ""),
            Version::V2 => throttle("io.max".to_owned(), device, &format!("{v2}=")),
        }));
    }
    Ok(settings)
}

fn throttle(file: String, device: &ThrottleDevice, key: &str) -> Setting {
    Setting::new(file, format_args!("{}:{} {key}{}", device.major, device.minor, device.rate))
}

/// 10 to 1000 in the Spec and in the BFQ scheduler's file; v2's general file goes from 1 to 10000.
fn weight(version: Version, device: &str, value: u16) -> Result<Setting, SettingError> {
    if !(10..=1000).contains(&value) {
        let allowed = "a weight is from 10 to 1000";
        return Err(SettingError::Range { at: "/blockIO/weight", value: value.into(), allowed });
    }
    Ok(match version {
        Version::V1 => Setting {
            otherwise: Some(Box::new(Setting::new("blkio.weight", format_args!("{device}{value}")))),
            ..Setting::new("blkio.bfq.weight", format_args!("{device}{value}"))
        },
        Version::V2 => {
            let wide = 1 + (u32::from(value) - 10) * 9_999 / 990;
            Setting {
                otherwise: Some(Box::new(Setting::new("io.weight", format_args!("{device}{wide}")))),
                ..Setting::new("io.bfq.weight", format_args!("{device}{value}"))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_and_weights_have_their_files_in_both_versions() {
        let io = crate::spec::read(&json!({
            "weight": 1000,
            "throttleReadBpsDevice": [{ "major": 8, "minor": 16, "rate": 1048576 }],
            "throttleWriteIOPSDevice": [{ "major": 8, "minor": 0, "rate": 100 }],
        }))
        .unwrap();
        let text =
            |version| settings(version, &io).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            text(Version::V1),
            [
                r#"blkio.bfq.weight="1000""#,
                r#"blkio.throttle.read_bps_device="8:16 1048576""#,
                r#"blkio.throttle.write_iops_device="8:0 100""#,
            ]
        );
        assert_eq!(
            text(Version::V2),
            [r#"io.bfq.weight="1000""#, r#"io.max="8:16 rbps=1048576""#, r#"io.max="8:0 wiops=100""#]
        );
    }

    #[test]
    fn without_the_bfq_scheduler_the_general_file_is_used() {
        let otherwise = |version| *weight(version, "8:0 ", 500).unwrap().otherwise.unwrap();
        assert_eq!(otherwise(Version::V1), Setting::new("blkio.weight", "8:0 500"));
        assert_eq!(otherwise(Version::V2), Setting::new("io.weight", "8:0 4950"));
    }

    #[test]
    fn a_weight_out_of_range_is_refused() {
        for value in [1, 9, 1001] {
            assert!(matches!(weight(Version::V2, "", value), Err(SettingError::Range { .. })), "{value}");
        }
    }
}
