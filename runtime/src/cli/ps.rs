//! `ps`: the processes of a container, as the host numbers them.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use lexopt::Arg;

use super::{Global, HELP, Problem, print};
use crate::groups;
use crate::id::ContainerId;
use crate::state::ContainerDirectory;

/// Looked for here only: what is executed is the host's, whatever the caller's PATH says.
const PS: [&str; 2] = ["/usr/bin/ps", "/bin/ps"];

/// How they are printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Json,
}

pub(super) fn ps(global: &Global, mut arguments: lexopt::Parser) -> Result<u8, Problem> {
    let mut form = Form::Table;
    let id = loop {
        match arguments.next()? {
            Some(Arg::Long("help") | Arg::Short('h')) => return print(HELP),
            Some(Arg::Long("format") | Arg::Short('f')) => {
                form = match arguments.value()?.to_str() {
                    Some("table") => Form::Table,
                    Some("json") => Form::Json,
                    other => return Err(Problem::Usage(format!("unknown format {other:?}: table or json"))),
                };
            }
            Some(Arg::Value(text)) => break ContainerId::new(&text.to_string_lossy())?,
            Some(other) => return Err(other.unexpected().into()),
            None => return Err(Problem::Usage("give the container's id".into())),
        }
    };
    let options: Vec<_> = arguments.raw_args()?.collect();
    let because =
        |error: &dyn std::error::Error| Problem::because(&format!("list the processes of {id}"), error);
    let directory = ContainerDirectory::open(&global.root, &id).map_err(|error| because(&error))?;
    let journal = directory.journal().map_err(|error| because(&error))?;
    let processes = match &journal {
        Some(journal) => groups::processes(journal).map_err(|error| because(&error))?,
        None => BTreeSet::new(),
    };
    match form {
        Form::Json => print(&format!("{}\n", serde_json::json!(processes))),
        Form::Table => {
            let Some(program) = PS.iter().find(|path| std::path::Path::new(path).exists()) else {
                return Err(Problem::Failed(
                    "a table needs ps: install it (Debian: procps), or give --format json".into(),
                ));
            };
            let mut command = Command::new(program);
            match options.is_empty() {
                true => command.arg("-ef"),
                false => command.args(&options),
            };
            let output = command.env_clear().stdin(Stdio::null()).stderr(Stdio::inherit()).output();
            let output = output.map_err(|error| because(&error))?;
            if !output.status.success() {
                return Err(Problem::Failed(format!(
                    "failed to list the processes of {id}: ps ended with {}",
                    output.status
                )));
            }
            print(&rows(&String::from_utf8_lossy(&output.stdout), &processes).ok_or_else(|| {
                Problem::Failed("ps printed no column PID: leave its options out, or ask for one".into())
            })?)
        }
    }
}

/// The heading, and of the other lines those of the processes.
fn rows(table: &str, processes: &BTreeSet<i32>) -> Option<String> {
    let heading = table.lines().next()?;
    let column = heading.split_whitespace().position(|name| name == "PID")?;
    let is_one = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| processes.contains(&pid))
    };
    let kept = std::iter::once(heading).chain(table.lines().skip(1).filter(is_one));
    Some(kept.map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_table_the_lines_of_the_processes_are_kept() {
        let table = "UID  PID PPID CMD\nroot   1    0 init\nroot  12    1 sleep 13\nroot  13   12 x 12\n";
        let processes = BTreeSet::from([12, 99]);
        let expected = "UID  PID PPID CMD\nroot  12    1 sleep 13\n";
        assert_eq!(rows(table, &processes).as_deref(), Some(expected));
        assert_eq!(rows("USER CMD\n", &processes), None);
    }
}
