//! Recordings on disk: files that hold one [segment](ft_core::segment) each.
//!
//! [`RecordingWriter`] makes a file and appends frames; [`RecordingReader`] streams them back, every check included;
//! [`repair`] cuts off what a crash left half written. Reading never changes a file.
//!
//! Invariant: between two calls the writer's file ends where a frame ends, unless an error said otherwise. What has been
//! synced is there after a crash.
//!
//! One file has one writer, and nothing here enforces that.

mod reader;
mod writer;

pub use reader::{RecordingReader, TornTail, repair};
pub use writer::{Medium, RecordingWriter};

use ft_core::error::Misuse;
use ft_core::segment::SegmentError;
use ft_core::units::Seq;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// What went wrong with a recording's file.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// Something is there already.
    #[error("{path} exists, and a recording is never overwritten: choose another name, or move it away")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// No room on the disk: the host's fault. The file is as it was before the call.
    #[error("disk full: {path} is whole and ends at byte {offset}; free space and try again")]
    Full {
        /// The file.
        path: PathBuf,
        /// Where it ends.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused: the host's fault. The file is as it was before the call.
    #[error("cannot {doing} {path} at byte {offset}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused, and what the file holds is not certain any more.
    #[error("{path} is sound up to byte {offset} at most and takes no more frames: go on in another file")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What follows this byte, or was never synced, may be lost or torn.
        offset: u64,
        /// What the system said when it happened.
        source: io::Error,
    },
    /// A frame that does not continue the recording: the caller's fault.
    #[error(
        "a frame from record {found} on does not continue {path}, where {expected} is due at byte {offset}"
    )]
    NotNext {
        /// The file.
        path: PathBuf,
        /// Where it ends.
        offset: u64,
        /// The record that is due.
        expected: Seq,
        /// First record of the frame. The same number, if it is a frame of another history.
        found: Seq,
    },
    /// A header that cannot be written: the caller's fault.
    #[error("cannot write the header of {path}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with the header.
        source: Misuse,
    },
    /// A file that was made and never filled: its writer died at once.
    #[error("{path} ends after {bytes} bytes, inside its header: it holds no record and can be deleted")]
    Headless {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Not a recording, of a newer version, or damaged.
    #[error("cannot read {path} from byte {offset} on")]
    Segment {
        /// The file.
        path: PathBuf,
        /// What comes before is sound.
        offset: u64,
        /// What is there.
        source: SegmentError,
    },
    /// Something else writes to a file that was to be repaired.
    #[error("{path} is being written to: stop its writer before repairing it from byte {offset} on")]
    Busy {
        /// The file.
        path: PathBuf,
        /// Where its last whole frame ended.
        offset: u64,
    },
}
