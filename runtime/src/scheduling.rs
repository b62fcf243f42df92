//! On which processors a process runs, and how willingly it waits.
//!
//! A caller that restricts itself starts the monitor with its own restrictions; the command must not inherit them. So it
//! says what the command gets instead ([`Scheduling`]), and the monitor takes that for the length of the fork.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::str::FromStr;

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Serialize, Serializer};

/// Processors by their numbers. As text it is the kernel's list format, `0-3,8` (cpuset(7)); never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessorSet(BTreeSet<usize>);

/// A text is no list of processors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no list of processors below {most}, as 0-3,8", most = CpuSet::MAX_CPU)]
pub struct ProcessorSetError(String);

impl FromStr for ProcessorSet {
    type Err = ProcessorSetError;

    fn from_str(text: &str) -> Result<ProcessorSet, ProcessorSetError> {
        let wrong = || ProcessorSetError(text.to_owned());
        let mut numbers = BTreeSet::new();
        for range in text.trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number < CpuSet::MAX_CPU);
            let (first, last) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
            if first > last {
                return Err(wrong());
            }
            numbers.extend(first..=last);
        }
        Ok(ProcessorSet(numbers))
    }
}

impl fmt::Display for ProcessorSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = numbers.next() {
            let mut last = first;
            while let Some(next) = numbers.next_if(|next| *next == last + 1) {
                last = next;
            }
            if first == last {
                write!(out, "{separator}{first}")?;
            } else {
                write!(out, "{separator}{first}-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl Serialize for ProcessorSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl ProcessorSet {
    /// Those that the calling thread may run on.
    ///
    /// # Errors
    ///
    /// `EINVAL` on a host with more processors than fit.
    pub fn own() -> io::Result<ProcessorSet> {
        let set = sched_getaffinity(None)?;
        Ok(ProcessorSet((0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect()))
    }

    /// This one alone.
    pub fn of(number: usize) -> ProcessorSet {
        ProcessorSet(BTreeSet::from([number]))
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Those of them that are not in `others`.
    pub fn beyond(&self, others: &ProcessorSet) -> Option<ProcessorSet> {
        let rest: BTreeSet<usize> = self.0.difference(&others.0).copied().collect();
        (!rest.is_empty()).then_some(ProcessorSet(rest))
    }

    /// Their numbers, from the lowest on.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    fn bind(&self) -> io::Result<()> {
        let mut set = CpuSet::new();
        self.numbers().for_each(|number| set.set(number));
        Ok(sched_setaffinity(None, &set)?)
    }
}

/// What a thread has of both, and whatever it starts inherits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// Where it may run.
    pub processors: ProcessorSet,
    /// -20 to 19: the higher, the longer it waits (nice(2)).
    pub niceness: i32,
}

impl Scheduling {
    /// That of the calling thread.
    ///
    /// # Errors
    ///
    /// As for [`ProcessorSet::own`].
    pub fn own() -> io::Result<Scheduling> {
        Ok(Scheduling { processors: ProcessorSet::own()?, niceness: getpriority_process(None)? })
    }

    /// Gives it to the calling thread.
    ///
    /// # Errors
    ///
    /// `EACCES` where a lower niceness is not allowed (CAP_SYS_NICE), `EINVAL` where none of the processors is.
    pub fn take(&self) -> io::Result<()> {
        self.processors.bind()?;
        if getpriority_process(None)? != self.niceness {
            setpriority_process(None, self.niceness)?;
        }
        Ok(())
    }
}

/// `5:0-3`, for a command line.
impl fmt::Display for Scheduling {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.niceness, self.processors)
    }
}

/// A text is no [`Scheduling`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchedulingError {
    /// It does not begin with a niceness.
    #[error("{0:?} is no niceness from -20 to 19 and a list of processors, as 5:0-3")]
    Niceness(String),
    /// What follows is no list.
    #[error(transparent)]
    Processors(#[from] ProcessorSetError),
}

impl FromStr for Scheduling {
    type Err = SchedulingError;

    fn from_str(text: &str) -> Result<Scheduling, SchedulingError> {
        let (niceness, processors) = text.split_once(':').unwrap_or((text, ""));
        let niceness = niceness.parse().ok().filter(|niceness| (-20..=19).contains(niceness));
        let niceness = niceness.ok_or_else(|| SchedulingError::Niceness(text.to_owned()))?;
        Ok(Scheduling { processors: processors.parse()?, niceness })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_for_a_command_line_is_read_again() {
        for text in ["0:0-3", "-20:1", "19:0,2"] {
            assert_eq!(text.parse::<Scheduling>().unwrap().to_string(), text);
        }
        for text in ["", "0", "0:", ":0", "20:0", "0:x", "0:0:0"] {
            assert!(text.parse::<Scheduling>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_list_is_read_as_the_kernel_writes_it() {
        for (text, expected) in
            [("0", "0"), ("0-1\n", "0-1"), ("3,0-1,2", "0-3"), ("8,1-2,4-4", "1-2,4,8"), ("0,2", "0,2")]
        {
            assert_eq!(text.parse::<ProcessorSet>().unwrap().to_string(), expected, "{text:?}");
        }
        for text in ["", ",", "a", "1-", "-1", "2-1", "0 1", "1024", "0-99999999999", "1-2-3"] {
            assert_eq!(text.parse::<ProcessorSet>(), Err(ProcessorSetError(text.to_owned())), "{text:?}");
        }
    }
}
