//! One container, many questions: a table of commands and what each has to print.

use super::worker::Worker;

/// Runs every command of the table in one container of `source`, and compares the line that each prints. An expectation
/// may name several answers: `EROFS|EACCES`.
pub fn observe(worker: &Worker, source: &str, table: &[(&str, &str)]) {
    // A command may print nothing or several lines: a marker ends each answer.
    let script: String =
        table.iter().map(|(command, _)| format!("{command} 2>&1; echo; echo =====\n")).collect();
    let run = worker.run(source, &["/bin/sh", "-c", &script]).expect(0, "the table's container");
    let output = run.output();
    let answers: Vec<&str> = output.split("=====\n").map(str::trim).collect();
    assert_eq!(answers.len(), table.len() + 1, "{run:?}");
    let wrong: Vec<String> = table
        .iter()
        .zip(&answers)
        .filter(|((_, expected), answer)| !expected.split('|').any(|expected| expected == **answer))
        .map(|((command, expected), answer)| format!("{command}: {answer:?}, not {expected:?}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
