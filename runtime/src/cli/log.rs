//! Where errors go: standard error, and a file in the form that containerd and podman read.

use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use crate::open;
use crate::spec::on_one_line;

/// `--log` and `--log-format`.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub file: Option<PathBuf>,
    pub format: Format,
    printing: Printing,
}

/// What goes to standard error.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Printing {
    /// Errors; and where there is no file, everything.
    #[default]
    Something,
    /// Somebody else is told.
    Nothing,
    /// What could not be written to the file.
    Unwritten,
}

/// How a line of the file looks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `time="…" level=error msg="…"`
    #[default]
    Text,
    /// The same as a JSON object.
    Json,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: String,
}

impl Log {
    /// From here on there is the file only.
    pub fn print_nothing(&mut self) {
        self.printing = Printing::Nothing;
    }

    /// From here on what cannot be written to a file is printed: nobody else would hear of it.
    pub fn print_unwritten(&mut self) {
        self.printing = Printing::Unwritten;
    }

    /// Says that something failed.
    pub fn error(&self, sentence: &str) {
        self.say("error", sentence);
    }

    /// Says that something was ignored.
    pub fn warning(&self, sentence: &str) {
        self.say("warning", sentence);
    }

    /// Says in the file, if there is one, what calls for nobody's attention.
    pub fn remark(&self, sentence: &str) {
        let _is_written = self.write("warning", sentence);
    }

    /// Says what is about to be done.
    pub fn debug(&self, sentence: &str) {
        self.say("debug", sentence);
    }

    /// Standard error is the container's too: what is no error goes there only if there is no other place.
    fn say(&self, level: &str, sentence: &str) {
        let sentence = &on_one_line(sentence.chars());
        if self.printing == Printing::Something && (level == "error" || self.file.is_none()) {
            self.print(&format!("{level}: {sentence}"));
        }
        if !self.write(level, sentence) && self.printing == Printing::Unwritten {
            self.print(&format!("{level}: {sentence}"));
        }
    }

    /// Whether there is a file and it stands there.
    fn write(&self, level: &str, sentence: &str) -> bool {
        let Some(path) = &self.file else { return false };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let line = Line { level, msg: sentence, time: rfc_3339(since_1970) };
        let text = match self.format {
            // A structure of strings always becomes JSON.
            Format::Json => serde_json::to_string(&line).unwrap_or_default(),
            Format::Text => format!("time={:?} level={level} msg={sentence:?}", line.time),
        };
        let file = open::to_write(path, OFlags::APPEND, Mode::RUSR | Mode::WUSR);
        let written = file.and_then(|mut file| writeln!(file, "{text}"));
        if let Err(error) = &written {
            self.print(&format!("failed to write the log {}: {error}", path.display()));
        }
        written.is_ok()
    }

    fn print(&self, text: &str) {
        match self.printing {
            Printing::Something | Printing::Unwritten => eprintln!("docker-worker-runtime: {text}"),
            Printing::Nothing => {}
        }
    }
}

/// Seconds since 1970 as `2026-11-24T08:00:00Z`. The date is counted in years that begin in March, so that
/// the leap day is a year's last.
pub(super) fn rfc_3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let since_0000 = days + 719_468; // Days from 0000-03-01 to 1970-01-01.
    let (era, day_of_era) = (since_0000 / 146_097, since_0000 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::rfc_3339;

    #[test]
    fn a_time_is_printed_as_date_tells_it() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_507_200, "2026-11-24T08:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc_3339(seconds), expected, "{seconds}");
        }
    }
}
