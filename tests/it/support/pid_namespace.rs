//! A pid namespace of a test's own, in which it decides who gets which number.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::fixtures::compiled;

/// The namespace, with a procfs of its own in a mount namespace. Its processes end with the value.
pub struct PidNamespace {
    /// `unshare`, which waits for the namespace's first process: `tests/pid_namespace.c`.
    outer: Child,
    talk: RefCell<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    entrance: [String; 4],
}

impl PidNamespace {
    pub fn new() -> PidNamespace {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pid_namespace.c");
        let program = compiled("pid-namespace", &fs::read_to_string(source).unwrap());
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]).arg(&program);
        let mut outer = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut answers = BufReader::new(outer.stdout.take().unwrap());
        answers.read_line(&mut String::new()).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let init = fs::read_to_string(children).unwrap().trim().to_owned();
        let entrance = [
            "nsenter".to_owned(),
            format!("--pid=/proc/{init}/ns/pid"),
            format!("--mount=/proc/{init}/ns/mnt"),
            "--".to_owned(),
        ];
        let talk = RefCell::new(Some((outer.stdin.take().unwrap(), answers)));
        PidNamespace { outer, talk, entrance }
    }

    /// The program and its first arguments that start a command in here.
    pub fn entrance(&self) -> [&str; 4] {
        self.entrance.each_ref().map(String::as_str)
    }

    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let [nsenter, arguments @ ..] = self.entrance();
        let mut command = Command::new(nsenter);
        command.args(arguments).arg(program.as_ref());
        command
    }

    /// Starts a process that gets this number in here.
    pub fn take(&self, number: i32) {
        assert_eq!(self.ask("take", number), number, "the number is not to be had");
    }

    /// Whether the process that [`PidNamespace::take`] started lives.
    pub fn lives(&self, number: i32) -> bool {
        self.ask("look", number) == number
    }

    fn ask(&self, word: &str, number: i32) -> i32 {
        let mut talk = self.talk.borrow_mut();
        let (questions, answers) = talk.as_mut().unwrap();
        writeln!(questions, "{word} {number}").unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        line.trim_end().parse().unwrap()
    }
}

impl Drop for PidNamespace {
    fn drop(&mut self) {
        // The end of its input.
        self.talk.take();
        self.outer.wait().unwrap();
    }
}
