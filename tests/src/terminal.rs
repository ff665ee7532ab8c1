//! A command on a pseudo-terminal, and the screen that a person sees.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A running command whose streams are all one terminal. Dropping it kills the command.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    screen: Arc<Mutex<Screen>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts a command on a terminal of so many columns and 40 rows.
    ///
    /// # Errors
    /// When there is no pseudo-terminal, or the program cannot be started.
    pub fn start(mut command: Command, columns: u16) -> Result<Self> {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)
            .context("failed to open a pseudo-terminal")?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        tcsetwinsize(
            &controller,
            Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 },
        )?;
        let name = ptsname(&controller, Vec::new())?;
        let end = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(Path::new(OsStr::from_bytes(name.as_bytes())))
        };
        command
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(end()?)
            .stdout(end()?)
            .stderr(end()?);
        let child = command.spawn().context("failed to start a program on a terminal")?;
        // It keeps the ends open, and with them the terminal.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let screen = Arc::new(Mutex::new(Screen::new(columns.into())));
        let seen = Arc::clone(&screen);
        let reader = std::thread::spawn(move || {
            let mut controller = File::from(controller);
            let mut buffer = [0; 4096];
            // Linux ends a terminal whose other end is closed with EIO, not with an end of file.
            while let Ok(read) = controller.read(&mut buffer)
                && read > 0
            {
                seen.lock().unwrap_or_else(PoisonError::into_inner).take(&buffer[..read]);
            }
        });
        Ok(Self { child, screen, reader: Some(reader) })
    }

    /// What stands on the screen now: its lines, and those that went over its top.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).lines()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// As much of a terminal as programs here use of one.
#[derive(Debug)]
struct Screen {
    columns: usize,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// What of a character or of a sequence has come so far.
    pending: Vec<u8>,
}

impl Screen {
    fn new(columns: usize) -> Self {
        Self { columns, rows: vec![Vec::new()], row: 0, column: 0, pending: Vec::new() }
    }

    fn lines(&self) -> Vec<String> {
        self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
    }

    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.pending.push(byte);
            if self.pending[0] == 0x1b {
                self.take_sequence();
            } else if let Ok(text) = std::str::from_utf8(&self.pending) {
                let character = text.chars().next();
                self.pending.clear();
                character.into_iter().for_each(|character| self.put(character));
            }
        }
    }

    fn take_sequence(&mut self) {
        let is_control = self.pending.get(1) == Some(&b'[');
        let end = self.pending[1..]
            .iter()
            .skip(usize::from(is_control))
            .find(|byte| (0x40..=0x7e).contains(*byte));
        let Some(&end) = end else { return };
        let sequence = std::mem::take(&mut self.pending);
        if !is_control {
            return;
        }
        let argument = String::from_utf8_lossy(&sequence[2..sequence.len() - 1]).into_owned();
        let count = argument.parse().unwrap_or(1);
        match end {
            b'A' => self.row = self.row.saturating_sub(count),
            b'B' => self.move_down(count),
            b'C' => self.column = (self.column + count).min(self.columns - 1),
            b'D' => self.column = self.column.saturating_sub(count),
            b'G' => self.column = count.saturating_sub(1),
            b'K' if argument == "2" => self.rows[self.row].clear(),
            b'K' => self.rows[self.row].truncate(self.column),
            b'J' => {
                self.rows[self.row].truncate(self.column);
                self.rows.truncate(self.row + 1);
            }
            // Colours, and whether the cursor shows.
            _ => {}
        }
    }

    fn move_down(&mut self, count: usize) {
        self.row += count;
        while self.rows.len() <= self.row {
            self.rows.push(Vec::new());
        }
    }

    fn put(&mut self, character: char) {
        match character {
            '\r' => self.column = 0,
            '\n' => self.move_down(1),
            _ => {
                if self.column == self.columns {
                    self.column = 0;
                    self.move_down(1);
                }
                let row = &mut self.rows[self.row];
                while row.len() <= self.column {
                    row.push(' ');
                }
                row[self.column] = character;
                self.column += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Screen;

    #[test]
    fn a_line_that_is_drawn_again_stands_once() {
        let mut screen = Screen::new(10);
        screen.take("\u{1b}[1mtwo\u{1b}[0m\r\nlinés".as_bytes());
        screen.take("\u{1b}[1A\r\u{1b}[2Kone\u{1b}[1B\r\u{1b}".as_bytes());
        screen.take("[2Kdone, and more".as_bytes());
        assert_eq!(screen.lines(), ["one", "done, and", "more"]);
    }
}
