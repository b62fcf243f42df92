//! What a run's container has used: for the log's last line but one, and for `resolution.json`.

use std::time::Duration;

use runtime::launch::Exited;
use serde::Serialize;

use crate::net::link::Bytes;

/// What a container used. What nobody has counted is absent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// From the command's start to the end of its last process, in seconds.
    pub wall_seconds: f64,
    /// Processor time of all its processes, in seconds.
    pub cpu_seconds: f64,
    /// The most memory it had at once, page cache included, where the kernel counts it.
    pub memory_peak_bytes: Option<u64>,
    /// What came to it by its network.
    pub network_received_bytes: Option<u64>,
    /// What it sent by its network.
    pub network_sent_bytes: Option<u64>,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom_killed: bool,
}

impl Resources {
    /// Of a container that has ended `wall` after its command had started. `traffic` is the task's side of it.
    #[must_use]
    pub fn of(exited: &Exited, wall: Duration, traffic: Option<Bytes>) -> Resources {
        Resources {
            wall_seconds: whole_milliseconds(wall),
            cpu_seconds: whole_milliseconds(exited.usage.cpu),
            memory_peak_bytes: exited.usage.memory_peak_bytes,
            network_received_bytes: traffic.map(|bytes| bytes.received),
            network_sent_bytes: traffic.map(|bytes| bytes.sent),
            oom_killed: exited.oom_killed,
        }
    }

    /// The line for the log. Programs read it: names, units and order stay, and what is unknown is left out.
    #[must_use]
    pub fn line(&self) -> String {
        let Resources { wall_seconds, cpu_seconds, .. } = self;
        let counted = [
            ("memory", self.memory_peak_bytes),
            ("received", self.network_received_bytes),
            ("sent", self.network_sent_bytes),
        ];
        let mut line = format!("Resources: wall {wall_seconds:.3} s, cpu {cpu_seconds:.3} s");
        for (name, bytes) in counted {
            line.extend(bytes.map(|bytes| format!(", {name} {bytes} B")));
        }
        line
    }
}

/// Seconds, no finer than anybody wants to read them.
fn whole_milliseconds(duration: Duration) -> f64 {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use runtime::launch::Usage;

    use super::*;

    #[test]
    fn the_line_has_what_is_known() {
        let usage = Usage { cpu: Duration::from_micros(250_900), memory_peak_bytes: Some(4096) };
        let exited = Exited { status: 0, signal: None, oom_killed: false, usage };
        let unknown = Exited { usage: Usage::default(), ..exited.clone() };
        let traffic = Some(Bytes { received: 7_000_000_000, sent: 12 });
        for (exited, traffic, expected) in [
            (&exited, traffic, "wall 61.500 s, cpu 0.250 s, memory 4096 B, received 7000000000 B, sent 12 B"),
            (&exited, None, "wall 61.500 s, cpu 0.250 s, memory 4096 B"),
            (&unknown, None, "wall 61.500 s, cpu 0.000 s"),
        ] {
            let resources = Resources::of(exited, Duration::from_millis(61_500), traffic);
            assert_eq!(resources.line(), format!("Resources: {expected}"));
        }
    }
}
