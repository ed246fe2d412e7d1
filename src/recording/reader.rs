//! Reads recordings, and cuts torn ones.

use super::RecordingError;
use ft_core::segment::{SegmentError, SegmentHeader, SegmentReader, Tail, Verified};
use ft_core::units::Seq;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Bytes that are read at a time. Beside them a reader holds one frame.
const READ_BYTES: usize = 64 << 10;

/// What a writer that died left behind the last whole frame. The reader leaves it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TornTail {
    /// How much.
    pub bytes: u64,
    /// The last record before it.
    pub after: Seq,
    /// Where it starts in the file.
    pub offset: u64,
}

impl fmt::Display for TornTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, after, offset } = self;
        write!(f, "torn tail: {bytes} bytes after record {after} at offset {offset} were cut")
    }
}

/// Streams a recording.
#[derive(Debug)]
pub struct RecordingReader<R = File> {
    source: Source<R>,
    segment: SegmentReader,
    header: SegmentHeader,
    last: Seq,
    tail: Option<Tail>,
}

impl RecordingReader<File> {
    /// Opens a recording and reads its header.
    ///
    /// # Errors
    /// When there is no recording at `path` that this build reads.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| RecordingError::Io {
            doing: "open",
            path: path.into(),
            offset: 0,
            source,
        })?;
        Self::new(file, path)
    }
}

impl<R: Read> RecordingReader<R> {
    /// Reads the header from the start of `inner`. `path` names it in errors.
    ///
    /// # Errors
    /// When there is none that this build reads.
    pub fn new(inner: R, path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        let mut source = Source::new(inner, path.as_ref());
        let mut segment = SegmentReader::new();
        while segment.header().is_none() && source.feed(&mut segment)? {
            source.check(segment.poll())?;
        }
        let Some(header) = segment.header().cloned() else {
            source.check(segment.finish())?;
            return Err(RecordingError::Headless { path: source.path, bytes: source.position });
        };
        let last = header.start.seq;
        Ok(Self { source, segment, header, last, tail: None })
    }

    /// Whose log it is, and from where on.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// When what follows is damaged, or cannot be read.
    pub fn next_frame(&mut self) -> Result<Option<Verified>, RecordingError> {
        while self.tail.is_none() {
            if let Some(verified) = self.source.check(self.segment.poll())? {
                self.last = verified.frame.last();
                return Ok(Some(verified));
            }
            if !self.source.feed(&mut self.segment)? {
                let segment = std::mem::take(&mut self.segment);
                self.tail = Some(self.source.check(segment.finish())?);
            }
        }
        Ok(None)
    }

    /// What was left out at the end, once [`Self::next_frame`] has come there.
    pub fn torn(&self) -> Option<TornTail> {
        match self.tail? {
            Tail::Whole => None,
            Tail::Torn { offset, bytes } => Some(TornTail { bytes, after: self.last, offset }),
        }
    }
}

/// Cuts a torn tail off the recording at `path`, and says what it was. The writer must be gone: what it is about to append
/// looks like a torn tail.
///
/// # Errors
/// When the recording cannot be read, or is damaged elsewhere. It is as it was.
pub fn repair(path: impl AsRef<Path>) -> Result<Option<TornTail>, RecordingError> {
    let path = path.as_ref();
    let mut reader = RecordingReader::open(path)?;
    while reader.next_frame()?.is_some() {}
    let Some(torn) = reader.torn() else { return Ok(None) };
    let offset = torn.offset;
    let io_error = |doing| move |source| RecordingError::Io { doing, path: path.into(), offset, source };
    let file = OpenOptions::new().write(true).open(path).map_err(io_error("open for repair"))?;
    if file.metadata().map_err(io_error("repair"))?.len() != offset + torn.bytes {
        return Err(RecordingError::Busy { path: path.into(), offset });
    }
    file.set_len(offset).and_then(|()| file.sync_all()).map_err(io_error("cut"))?;
    Ok(Some(torn))
}

/// Bytes on their way from a file into a segment.
#[derive(Debug)]
struct Source<R> {
    inner: R,
    path: PathBuf,
    buffer: Box<[u8]>,
    /// What of the buffer has been read and not fed.
    from: usize,
    to: usize,
    /// Bytes read from the file.
    position: u64,
}

impl<R: Read> Source<R> {
    fn new(inner: R, path: &Path) -> Self {
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        Self { inner, path: path.into(), buffer, from: 0, to: 0, position: 0 }
    }

    /// Feeds what the segment has room for. `false` at the end of the file.
    fn feed(&mut self, segment: &mut SegmentReader) -> Result<bool, RecordingError> {
        if self.from == self.to {
            let (path, offset) = (&self.path, self.position);
            let error = |source| RecordingError::Io { doing: "read", path: path.clone(), offset, source };
            self.to = read(&mut self.inner, &mut self.buffer).map_err(error)?;
            self.from = 0;
            self.position += self.to as u64;
        }
        self.from += segment.push(&self.buffer[self.from..self.to]);
        Ok(self.to > 0)
    }

    fn check<T>(&self, result: Result<T, SegmentError>) -> Result<T, RecordingError> {
        result.map_err(|source| {
            let (path, offset) = (self.path.clone(), source.offset());
            RecordingError::Segment { path, offset, source }
        })
    }
}

fn read(inner: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match inner.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
