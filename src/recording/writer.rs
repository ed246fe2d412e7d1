//! Makes recordings.

use super::RecordingError;
use ft_core::frame::{Frame, LogEnd};
use ft_core::segment::SegmentHeader;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What a recording is written to: a file, or what a test puts in its place.
pub trait Medium: Write {
    /// Brings to the disk what has been written.
    ///
    /// # Errors
    /// When some of it may not be there.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts off what follows the first `len` bytes; the next write goes there.
    ///
    /// # Errors
    /// When it is still there.
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

impl Medium for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        self.seek(SeekFrom::Start(len)).map(drop)
    }
}

/// Appends frames to a recording.
#[derive(Debug)]
pub struct RecordingWriter<W = File> {
    medium: W,
    path: PathBuf,
    /// Bytes up to the end of the last frame.
    len: u64,
    synced: u64,
    end: LogEnd,
    /// Up to where the file is sound, and what the system said when it left the rest in doubt.
    broken: Option<(u64, ErrorKind)>,
}

impl RecordingWriter<File> {
    /// Makes a recording that is on the disk, without frames, when this returns.
    ///
    /// # Errors
    /// When there is something at `path`, which stays as it is; and when the system refuses, which leaves nothing behind.
    pub fn create(path: impl AsRef<Path>, header: &SegmentHeader) -> Result<Self, RecordingError> {
        let path = path.as_ref();
        let io_error =
            |doing| move |source| RecordingError::Io { doing, path: path.into(), offset: 0, source };
        // Before there is a file, for a header that is refused to leave none.
        encode(path, header)?;
        let file =
            OpenOptions::new().write(true).create_new(true).open(path).map_err(|source| {
                match source.kind() {
                    ErrorKind::AlreadyExists => RecordingError::Exists { path: path.into() },
                    _ => io_error("create")(source),
                }
            })?;
        let made = Self::new(file, path, header).and_then(|mut writer| {
            writer.sync()?;
            sync_name(path).map_err(io_error("sync the directory of"))?;
            Ok(writer)
        });
        made.inspect_err(|_| drop(fs::remove_file(path)))
    }
}

impl<W: Medium> RecordingWriter<W> {
    /// Writes the header to an empty medium. `path` names it in errors.
    ///
    /// # Errors
    /// When the header is refused, or the medium.
    pub fn new(medium: W, path: impl AsRef<Path>, header: &SegmentHeader) -> Result<Self, RecordingError> {
        let path = path.as_ref().to_owned();
        let bytes = encode(&path, header)?;
        let mut writer = Self { medium, path, len: 0, synced: 0, end: header.start, broken: None };
        writer.write(&bytes)?;
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Where the log ends in it.
    pub fn end(&self) -> LogEnd {
        self.end
    }

    /// Appends the next frame. It is handed to the system at once, and on the disk after [`Self::sync`].
    ///
    /// # Errors
    /// The frame is not in the file. Unless the error is [`RecordingError::Broken`], it may be appended again.
    pub fn append(&mut self, frame: &Frame) -> Result<(), RecordingError> {
        self.check()?;
        if frame.start() != self.end {
            let (path, offset) = (self.path.clone(), self.len);
            let (expected, found) = (self.end.seq.next(), frame.first());
            return Err(RecordingError::NotNext { path, offset, expected, found });
        }
        self.write(&frame.to_bytes())?;
        self.end = frame.end();
        Ok(())
    }

    /// Brings all frames to the disk.
    ///
    /// # Errors
    /// [`RecordingError::Broken`]: what was appended since the last sync may or may not be there, and the system does not
    /// try again.
    pub fn sync(&mut self) -> Result<(), RecordingError> {
        self.check()?;
        match self.medium.sync() {
            Ok(()) => self.synced = self.len,
            Err(source) => return Err(self.give_up(self.synced, source)),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), RecordingError> {
        match self.broken {
            Some((offset, kind)) => {
                Err(RecordingError::Broken { path: self.path.clone(), offset, source: kind.into() })
            }
            None => Ok(()),
        }
    }

    /// All of `bytes`, or none.
    fn write(&mut self, bytes: &[u8]) -> Result<(), RecordingError> {
        if let Err(source) = self.medium.write_all(bytes) {
            return Err(self.cut_back(source));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn give_up(&mut self, offset: u64, source: io::Error) -> RecordingError {
        self.broken = Some((offset, source.kind()));
        RecordingError::Broken { path: self.path.clone(), offset, source }
    }

    fn cut_back(&mut self, source: io::Error) -> RecordingError {
        let (path, offset) = (self.path.clone(), self.len);
        if let Err(source) = self.medium.cut(offset) {
            return self.give_up(offset, source);
        }
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                RecordingError::Full { path, offset, source }
            }
            _ => RecordingError::Io { doing: "append to", path, offset, source },
        }
    }
}

fn encode(path: &Path, header: &SegmentHeader) -> Result<bytes::Bytes, RecordingError> {
    header.encode().map_err(|source| RecordingError::Header { path: path.into(), source })
}

/// A file is found after a crash once its directory is on the disk.
fn sync_name(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
