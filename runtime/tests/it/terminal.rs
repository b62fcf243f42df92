//! Terminals: with the operator's in front, and with a console socket.
use crate::busybox::Bundle;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

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
