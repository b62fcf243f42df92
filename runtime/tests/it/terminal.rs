//! Terminals: with the operator's in front, and with a console socket.
use crate::busybox::Bundle;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};

#[test]
fn the_pty_is_the_containers_own_and_its_first_size_the_specs() {
    let mut bundle = Bundle::shell("tty; stty size; test -c /dev/console && echo console; ls /dev/pts");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({ "height": 12, "width": 34 });
    assert_eq!(bundle.output(), "/dev/pts/0\r\n12 34\r\nconsole\r\n0     ptmx\r\n");
}

#[test]
fn the_operators_terminal_is_passed_through_and_gets_its_mode_back() {
    let mut bundle = Bundle::shell("stty size; read line; echo \"got <$line>\"; exit 9");
    bundle.config["process"]["terminal"] = json!(true);
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&master).unwrap();
    let size = Winsize { ws_row: 20, ws_col: 70, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).unwrap();
    let peer: OwnedFd = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    let before = tcgetattr(&peer).unwrap();
    let stream = || peer.try_clone().unwrap();
    let mut command = bundle.command(&["run", &bundle.id]);
    let mut child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
    let mut terminal = std::fs::File::from(master);
    terminal.write_all(b"hello\r").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    let mut shown = [0; 256];
    let length = terminal.read(&mut shown).unwrap();
    let shown = String::from_utf8_lossy(&shown[..length]).into_owned();
    assert!(shown.contains("20 70") && shown.contains("got <hello>"), "{shown:?}");
    assert_eq!(tcgetattr(&peer).unwrap().local_modes, before.local_modes);
    bundle.assert_nothing_left();
}

#[test]
fn a_console_socket_gets_the_master() {
    let mut bundle = Bundle::shell("echo over the socket");
    bundle.config["process"]["terminal"] = json!(true);
    assert_eq!(bundle.tell(&["create", &bundle.id]).status, 1, "nobody would hold the terminal");
    bundle.assert_nothing_left();
    bundle.config["process"]["terminal"] = json!(false);
    for command in ["run", "create"] {
        let ran = bundle.tell(&[command, "--console-socket", "/nonesuch", &bundle.id]);
        assert!(ran.status == 1 && ran.stderr.contains("--console-socket takes a terminal"), "{ran:?}");
    }
    bundle.config["process"]["terminal"] = json!(true);

    // One whose queue is full is not waited for.
    let (full, address) = (bundle.path("full"), SocketAddrUnix::new(bundle.path("full")).unwrap());
    let stream = || socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let (listening, waiting) = (stream(), stream());
    bind(&listening, &address).unwrap();
    listen(&listening, 0).unwrap();
    connect(&waiting, &address).unwrap();
    for command in ["run", "create"] {
        let ran = bundle.tell(&[command, "--console-socket", full.to_str().unwrap(), &bundle.id]);
        assert!(ran.status == 1 && ran.stderr.contains("console socket"), "{ran:?}");
        bundle.assert_nothing_left();
    }

    let path = bundle.path("console");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = path.to_str().unwrap();
    assert_eq!(bundle.tell(&["create", "--console-socket", socket, &bundle.id]).status, 0);
    let (connection, _) = listener.accept().unwrap();
    let mut master = std::fs::File::from(receive(connection.as_fd()));
    assert_eq!(bundle.tell(&["start", &bundle.id]).status, 0);
    let mut printed = Vec::new();
    master.read_to_end(&mut printed).unwrap_err();
    assert_eq!(String::from_utf8(printed).unwrap(), "over the socket\r\n");
    assert_eq!(bundle.tell(&["delete", "-f", &bundle.id]).status, 0);
    bundle.assert_nothing_left();
}

/// `run` between two pipes, with a terminal inside.
fn relayed(bundle: &mut Bundle) -> (Child, std::io::PipeReader) {
    bundle.config["process"]["terminal"] = json!(true);
    let (reader, writer) = std::io::pipe().unwrap();
    // As a terminal multiplexer makes it for all who share it.
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut command = bundle.command(&["run", &bundle.id]);
    (command.stdin(Stdio::piped()).stdout(writer).spawn().unwrap(), reader)
}

#[test]
fn the_end_of_the_input_is_said_once_and_only_to_who_reads_lines() {
    for (command, typed, expected) in [
        ("cat; echo end", "", "end\r\n"),
        ("stty -echo; echo ready; cat; echo end", "within a line", "ready\r\nwithin a lineend\r\n"),
        ("stty raw -echo; echo ready; (timeout 0.5 cat; :) 2>/dev/null | wc -c", "", "ready\n0\n"),
    ] {
        let mut bundle = Bundle::shell(command);
        let (mut child, mut reader) = relayed(&mut bundle);
        let mut printed = Vec::new();
        if expected.starts_with("ready") {
            printed.resize(expected.find('\n').unwrap() + 1, 0);
            reader.read_exact(&mut printed).unwrap();
        }
        let mut input = child.stdin.take().unwrap();
        input.write_all(typed.as_bytes()).unwrap();
        drop(input);
        reader.read_to_end(&mut printed).unwrap();
        assert_eq!(String::from_utf8_lossy(&printed), expected, "{command}");
        child.wait().unwrap();
        bundle.assert_nothing_left();
    }
}

#[test]
fn an_output_that_is_full_loses_nothing_and_leaves_the_monitor_its_ears() {
    let mut bundle = Bundle::shell("seq 30000");
    let (mut child, reader) = relayed(&mut bundle);
    assert_eq!(std::io::BufRead::lines(std::io::BufReader::new(reader)).count(), 30_000);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    bundle.assert_nothing_left();

    // Nobody reads: the pipe is full when it is asked to end.
    let mut bundle = Bundle::new(&["yes", "ready"]);
    let (mut child, mut reader) = relayed(&mut bundle);
    reader.read_exact(&mut [0; 5]).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    // A second one: what is left in the terminal is not waited for either.
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    while child.try_wait().unwrap().is_none() {
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(137));
    bundle.assert_nothing_left();
}

#[test]
fn a_process_that_outlives_the_command_in_the_terminal_is_not_waited_for() {
    let mut bundle = Bundle::shell("(trap '' HUP TERM; exec sleep 1000) & echo printed");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
    let (mut child, mut reader) = relayed(&mut bundle);
    let mut printed = String::new();
    reader.read_to_string(&mut printed).unwrap();
    assert_eq!((printed.as_str(), child.wait().unwrap().code()), ("printed\r\n", Some(0)));
    bundle.assert_nothing_left();
}

fn receive(socket: std::os::fd::BorrowedFd<'_>) -> OwnedFd {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
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
fn output_that_nobody_takes_any_more_ends_the_container_with_a_sentence() {
    let mut bundle = Bundle::shell("while echo line; do sleep 0.01; done");
    bundle.config["process"]["terminal"] = json!(true);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = bundle.command(&["run", &bundle.id]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(told.contains("failed to look after the container: Broken pipe"), "{told}");
    bundle.assert_nothing_left();
}
