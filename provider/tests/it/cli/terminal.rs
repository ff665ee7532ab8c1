//! A pseudo-terminal to run the program on.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Runs a command with all its streams on a terminal of 100 columns; gives its exit code and all
/// that it showed.
pub(crate) fn run(mut command: Command) -> (i32, String) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&controller).expect("its rights");
    unlockpt(&controller).expect("its lock");
    let size = rustix::termios::Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&controller, size).expect("its size");
    let name = ptsname(&controller, Vec::new()).expect("its name");
    let open = || {
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        Stdio::from(OpenOptions::new().read(true).write(true).open(path).expect("its end"))
    };
    let mut child =
        command.stdin(open()).stdout(open()).stderr(open()).spawn().expect("the program runs");
    // The command keeps its ends open, and the terminal with them.
    drop(command);
    let mut shown = Vec::new();
    let mut controller = File::from(controller);
    let mut buffer = [0; 4096];
    // Linux ends a terminal whose other end is closed with EIO, not with an end of file.
    while let Ok(read) = controller.read(&mut buffer)
        && read > 0
    {
        shown.extend_from_slice(&buffer[..read]);
    }
    let code = child.wait().expect("it ends").code().expect("it was not killed");
    (code, String::from_utf8_lossy(&shown).into_owned())
}
