//! The log file of a VM's process: what it says, and what its guest writes to the console, in bounded space.
//!
//! Invariant: `FILE` and `FILE.1` together never hold more than twice [`BYTES_MAX`] and one line.

use ft_net::identity::UtcTime;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// At this size the file becomes `FILE.1`, in place of the one before.
pub const BYTES_MAX: u64 = 4 << 20;

/// A log file, written to from several threads.
pub struct LogFile {
    path: PathBuf,
    open: Mutex<Open>,
}

struct Open {
    file: File,
    bytes: u64,
}

impl LogFile {
    /// Goes on at the end of the file at `path`, or begins it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.into(), open: Mutex::new(Open { file, bytes }) })
    }

    /// Adds a line, with the time in front.
    pub fn line(&self, text: &str) {
        let line = format!("{} {text}\n", UtcTime::from(SystemTime::now()));
        self.text(&line);
    }

    /// Adds text as it is. What cannot be written is lost: a full file system does not stop the machine.
    pub fn text(&self, text: &str) {
        let _ = (&mut &*self).write_all(text.as_bytes());
    }
}

/// Where the file before the current one is.
pub fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Makes the file at `path` the [`previous`] one, and begins it anew.
///
/// # Errors
/// The operating system's.
pub fn begin_anew(path: &Path) -> io::Result<File> {
    fs::rename(path, previous(path))?;
    append_to(path)
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A panic elsewhere leaves the file as it was: at worst a line is cut.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.bytes >= BYTES_MAX {
            *open = Open { file: begin_anew(&self.path)?, bytes: 0 };
        }
        let written = open.file.write(bytes)?;
        open.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_log_goes_on_where_it_ended_and_stays_within_its_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        LogFile::open(&path).unwrap().line("first");
        let log = LogFile::open(&path).unwrap();
        log.line("second");
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 2 && lines[0].ends_with(" first") && lines[1].ends_with(" second"), "{text}");
        let block = "x".repeat(1 << 20);
        for _ in 0..20 {
            log.text(&block);
        }
        let sizes = [&path, &previous(&path)].map(|path| fs::metadata(path).unwrap().len());
        assert!(sizes.iter().all(|size| (1 << 20..=BYTES_MAX + (1 << 20)).contains(size)), "{sizes:?}");
    }
}
