//! `exec` with a terminal: the operator's in front of it, or a console socket.
use crate::busybox::Bundle;
use rustix::fs::fstat;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use std::io::{BufRead, BufReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn sleeping() -> Bundle {
    let bundle = Bundle::shell("exec sleep 1000");
    bundle.up();
    bundle
}

/// The operator's terminal: what they see, and what a program has.
fn terminal(rows: u16, columns: u16) -> (std::fs::File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&master).unwrap();
    tcsetwinsize(&master, size(rows, columns)).unwrap();
    let peer =
        ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    (master.into(), peer)
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

#[test]
fn the_first_size_is_the_operators_and_a_later_one_too() {
    let bundle = sleeping();
    let (master, peer) = terminal(41, 62);
    let stream = || Stdio::from(peer.try_clone().unwrap());
    let mut shown = BufReader::new(master.try_clone().unwrap());
    let mut line = || {
        let mut line = String::new();
        shown.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    for _ in 0..50 {
        let mut command = bundle.exec_command(&["--tty"], &["stty", "size"]);
        let status = command.stdin(stream()).stdout(stream()).stderr(stream()).status().unwrap();
        assert_eq!((status.code(), line().as_str()), (Some(0), "41 62"));
    }
    let script = "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut command = bundle.exec_command(&["--tty"], &["sh", "-c", script]);
    let mut child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
    assert_eq!(line(), "ready");
    // A command of somebody else's gets a terminal of its own, not the operator's.
    let mut command =
        bundle.exec_command(&["--tty", "--user", "1000"], &["stat", "-L", "-c", "%u", "/proc/self/fd/0"]);
    let status = command.stdin(stream()).stdout(stream()).stderr(stream()).status().unwrap();
    assert_eq!((status.code(), line().as_str()), (Some(0), "1000"));
    assert_eq!(fstat(&peer).unwrap().st_uid, 0);
    tcsetwinsize(&master, size(12, 34)).unwrap();
    kill_process(Pid::from_child(&child), Signal::WINCH).unwrap();
    assert_eq!(line(), "12 34");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    bundle.down();
}

#[test]
fn the_operator_is_heard_and_gets_the_mode_of_the_terminal_back() {
    let bundle = sleeping();
    let (mut master, peer) = terminal(20, 70);
    let before = tcgetattr(&peer).unwrap();
    let stream = || Stdio::from(peer.try_clone().unwrap());
    let script = "tty; ps -o pid,tty | grep -c pts/; read line; echo \"got <$line>\"; exit 9";
    let mut command = bundle.exec_command(&["-t"], &["sh", "-c", script]);
    let mut child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
    master.write_all(b"hello\r").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    let mut shown = String::new();
    // A terminal gives what there is in pieces.
    while !shown.contains("got <hello>") {
        let mut piece = [0; 256];
        let length = master.read(&mut piece).unwrap();
        shown += &String::from_utf8_lossy(&piece[..length]);
    }
    assert!(shown.contains("/dev/pts/0"), "{shown:?}");
    assert_eq!(tcgetattr(&peer).unwrap().local_modes, before.local_modes);
    bundle.down();
}

#[test]
fn who_is_left_in_the_terminal_keeps_nobody_waiting() {
    let bundle = sleeping();
    for left in ["nohup sleep 300", "trap '' HUP; sleep 300", "trap '' HUP TTOU; yes"] {
        let begun = Instant::now();
        let script = format!("({left}) & echo printed; exit 3");
        let ran = bundle.exec(&["-t"], &["sh", "-c", &script]);
        assert_eq!(ran.status, 3, "{left}: {ran:?}");
        assert!(ran.stdout.contains("printed\r\n"), "{left}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{left}");
    }
    bundle.down();
}

#[test]
fn nothing_that_was_printed_before_the_end_is_lost() {
    let bundle = sleeping();
    for _ in 0..50 {
        let script = "head -c 65536 /dev/zero | tr '\\0' x; exit 7";
        let ran = bundle.exec(&["-t"], &["sh", "-c", script]);
        assert_eq!((ran.status, ran.stdout.len()), (7, 65536));
    }
    bundle.down();
}

#[test]
fn the_end_of_the_input_is_the_end_of_the_file() {
    let bundle = sleeping();
    let mut command = bundle.exec_command(&["-t"], &["sh", "-c", "stty -echo; echo ready; cat; echo end"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    shown.read_line(&mut text).unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    shown.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), child.wait().unwrap().code()), ("ready\r\ntyped\r\nend\r\n", Some(0)));
    bundle.down();
}

#[test]
fn a_console_socket_gets_the_master_and_exec_need_not_stay() {
    let bundle = sleeping();
    let path = bundle.path("console");
    let socket = path.to_str().unwrap();
    // Nobody listens: no command runs.
    let ran = bundle.exec(&["-t", "-d", "--console-socket", socket], &["touch", "/ran"]);
    assert!(ran.status == 1 && ran.stderr.contains("console socket"), "{ran:?}");
    assert!(!bundle.rootfs().join("ran").exists());
    let listener = UnixListener::bind(&path).unwrap();
    let ran =
        bundle.exec(&["-t", "-d", "--console-socket", socket], &["sh", "-c", "tty; read line; echo $line"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let (connection, _) = listener.accept().unwrap();
    let mut master = std::fs::File::from(receive(connection.as_fd()));
    master.write_all(b"hello\n").unwrap();
    let mut printed = Vec::new();
    master.read_to_end(&mut printed).unwrap_err();
    assert_eq!(String::from_utf8_lossy(&printed).matches("hello").count(), 2, "the echo, and the line");
    bundle.down();
}

fn receive(socket: BorrowedFd<'_>) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 64];
    let parts = &mut [rustix::io::IoSliceMut::new(&mut bytes)];
    recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut received = control.drain();
    match received.next().unwrap() {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next().unwrap(),
        _ => panic!("no descriptor came"),
    }
}

#[test]
fn a_terminal_takes_the_containers_devpts() {
    let mut bundle = Bundle::shell("exec sleep 1000");
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/pts");
    bundle.up();
    let ran = bundle.exec(&["-t"], &["true"]);
    assert!(ran.status == 1 && ran.stderr.contains("does it mount devpts on /dev/pts?"), "{ran:?}");
    bundle.down();
}
