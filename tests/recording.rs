//! Recordings as an embedder meets them: files that come back, that were cut short, damaged, or met a full disk.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use ft::error::in_one_line;
use ft::recording::{Medium, RecordingError, RecordingReader, RecordingWriter, TornTail, repair};
use ft_core::frame::{Frame, LogEnd};
use ft_core::log::LogWriter;
use ft_core::message::{PROTOCOL_VERSION, Profile};
use ft_core::segment::SegmentHeader;
use ft_core::units::{Instant, Seq, Tick};
use ft_core::{Event, Point};
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

fn header() -> SegmentHeader {
    let profile = Profile { protocol: PROTOCOL_VERSION, vm: "toy".into(), ..Profile::default() };
    SegmentHeader { profile, ..SegmentHeader::default() }
}

/// A log of `count` frames, of two records each.
fn frames(count: u64) -> Vec<Frame> {
    let mut log = LogWriter::new(LogEnd::default(), 1 << 16);
    for n in 0..count {
        for tick in [10 * n, 10 * n + 5] {
            let frame = Bytes::from(vec![n as u8; 60]);
            log.append(Instant(0), Point::new(Tick(tick), tick, 0), Event::Net { device: 0, frame }).unwrap();
        }
        log.seal();
    }
    log.after(Seq(0)).unwrap().cloned().collect()
}

/// A directory with a recording of these frames in it.
struct Room(tempfile::TempDir);

impl Room {
    fn new(frames: &[Frame]) -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        let mut writer = RecordingWriter::create(room.path(), &header()).unwrap();
        frames.iter().for_each(|frame| writer.append(frame).unwrap());
        writer.sync().unwrap();
        assert_eq!(writer.bytes(), room.bytes().len() as u64);
        room
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("toy.rec")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }
}

/// All frames of a recording, and its torn tail.
fn read(path: &Path) -> Result<(Vec<Frame>, Option<TornTail>), RecordingError> {
    read_all(RecordingReader::open(path)?)
}

fn read_all<R: Read>(
    mut reader: RecordingReader<R>,
) -> Result<(Vec<Frame>, Option<TornTail>), RecordingError> {
    let mut frames = Vec::new();
    while let Some(verified) = reader.next_frame()? {
        frames.push(verified.frame);
    }
    assert!(reader.next_frame()?.is_none(), "the end stays the end");
    Ok((frames, reader.torn()))
}

#[test]
fn what_was_recorded_comes_back() {
    let written = frames(50);
    let room = Room::new(&written);
    assert_eq!(RecordingReader::open(room.path()).unwrap().header(), &header());
    assert_eq!(read(&room.path()).unwrap(), (written, None));
}

#[test]
fn a_recording_without_frames_is_whole() {
    let room = Room::new(&[]);
    assert_eq!(read(&room.path()).unwrap(), (Vec::new(), None));
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let room = Room::new(&frames(1));
    let before = room.bytes();
    let error = RecordingWriter::create(room.path(), &header()).unwrap_err();
    let advice = "exists, and a recording is never overwritten: choose another name, or move it away";
    assert_eq!(in_one_line(&error), format!("{} {advice}", room.path().display()));
    assert_eq!(room.bytes(), before);
}

#[test]
fn a_header_that_is_refused_leaves_no_file() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("none.rec");
    let error = RecordingWriter::create(&path, &SegmentHeader::default()).unwrap_err();
    assert!(matches!(error, RecordingError::Header { .. }), "{}", in_one_line(&error));
    assert!(!path.exists());
    let error = RecordingWriter::create(room.path().join("no/such.rec"), &header()).unwrap_err();
    assert!(in_one_line(&error).starts_with("cannot create "), "{}", in_one_line(&error));
}

#[test]
fn only_the_next_frame_is_appended() {
    let (frames, room) = (frames(3), Room::new(&[]));
    let path = room.path().with_extension("two");
    let mut writer = RecordingWriter::create(&path, &header()).unwrap();
    writer.append(&frames[0]).unwrap();
    for wrong in [&frames[0], &frames[2]] {
        let error = writer.append(wrong).unwrap_err();
        assert!(matches!(error, RecordingError::NotNext { expected: Seq(3), .. }), "{}", in_one_line(&error));
    }
    writer.append(&frames[1]).unwrap();
    assert_eq!(writer.end(), frames[1].end());
    assert_eq!(read(&path).unwrap(), (frames[..2].to_vec(), None));
}

/// Cut at every byte of its last frame: the tail is named and left alone until somebody asks for a repair.
#[test]
fn a_torn_tail_is_named_and_cut_on_request() {
    let frames = frames(3);
    let room = Room::new(&frames);
    let whole = room.bytes();
    let last = whole.len() - frames[2].size();
    for len in last + 1..whole.len() {
        fs::write(room.path(), &whole[..len]).unwrap();
        let torn = TornTail { bytes: (len - last) as u64, after: Seq(4), offset: last as u64 };
        let sound = frames[..2].to_vec();
        assert_eq!(read(&room.path()).unwrap(), (sound.clone(), Some(torn)));
        assert_eq!(room.bytes().len(), len, "reading changes nothing");
        assert_eq!(repair(room.path()).unwrap(), Some(torn));
        assert_eq!(read(&room.path()).unwrap(), (sound, None));
        assert_eq!(room.bytes(), &whole[..last]);
        assert_eq!(repair(room.path()).unwrap(), None, "nothing is left to repair");
    }
}

#[test]
fn a_torn_tail_says_what_is_lost() {
    let torn = TornTail { bytes: 120, after: Seq(4), offset: 560 };
    assert_eq!(torn.to_string(), "torn tail: 120 bytes after record #4 at offset 560 were cut");
}

#[test]
fn a_file_that_was_extended_and_never_filled_is_cut() {
    let frames = frames(2);
    let room = Room::new(&frames);
    let len = room.bytes().len() as u64;
    File::options().write(true).open(room.path()).unwrap().set_len(len + 100_000).unwrap();
    let torn = TornTail { bytes: 100_000, after: Seq(4), offset: len };
    assert_eq!(repair(room.path()).unwrap(), Some(torn));
    assert_eq!(read(&room.path()).unwrap(), (frames, None));
}

#[test]
fn damage_is_refused_with_its_place_and_never_repaired() {
    let frames = frames(3);
    let room = Room::new(&frames);
    let mut bytes = room.bytes();
    let last = bytes.len() - frames[2].size();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(room.path(), &bytes).unwrap();
    let path = room.path();
    let expected = format!(
        "cannot read {} from byte {last} on: bad frame at byte {last}: frame at record #5 is corrupt: \
         its bytes do not match its checksum",
        path.display()
    );
    assert_eq!(in_one_line(&read(&path).unwrap_err()), expected);
    assert_eq!(in_one_line(&repair(&path).unwrap_err()), expected);
    assert_eq!(room.bytes(), bytes);
}

#[test]
fn what_is_no_recording_is_said_to_be_none() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("letter.txt");
    fs::write(&path, "Dear all,\n").unwrap();
    let expected = format!("cannot read {} from byte 0 on: not a recording", path.display());
    assert_eq!(in_one_line(&read(&path).unwrap_err()), expected);
    let header = header().encode().unwrap();
    for len in [0, 5, header.len() - 1] {
        fs::write(&path, &header[..len]).unwrap();
        let error = repair(&path).unwrap_err();
        assert!(matches!(error, RecordingError::Headless { bytes, .. } if bytes == len as u64));
    }
    let absent = in_one_line(&read(&room.path().join("absent")).unwrap_err());
    assert!(absent.starts_with("cannot open ") && absent.contains("absent at byte 0"), "{absent}");
}

/// A disk of few bytes that can be made to fail. Clones are the same disk.
#[derive(Clone, Debug, Default)]
struct Disk(Rc<RefCell<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    bytes: Vec<u8>,
    room: usize,
    full: Option<ErrorKind>,
    cut_fails: bool,
    sync_fails: bool,
}

impl Disk {
    fn new(room: usize, full: ErrorKind) -> Self {
        let disk = Self::default();
        disk.set(|disk| (disk.room, disk.full) = (room, Some(full)));
        disk
    }

    fn set(&self, change: impl FnOnce(&mut Platter)) {
        change(&mut self.0.borrow_mut());
    }

    fn read(&self) -> (Vec<Frame>, Option<TornTail>) {
        let bytes = Cursor::new(self.0.borrow().bytes.clone());
        read_all(RecordingReader::new(bytes, "disk").unwrap()).unwrap()
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.borrow_mut();
        // A write that does not fit fills the disk first.
        let taken = bytes.len().min(disk.room - disk.bytes.len());
        disk.bytes.extend_from_slice(&bytes[..taken]);
        match disk.full {
            Some(kind) if taken == 0 => Err(kind.into()),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Medium for Disk {
    fn sync(&mut self) -> io::Result<()> {
        if self.0.borrow().sync_fails { Err(io::Error::other("lost a page")) } else { Ok(()) }
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        if disk.cut_fails {
            return Err(io::Error::other("no more writes"));
        }
        disk.bytes.truncate(len as usize);
        Ok(())
    }
}

/// Full at every byte of the third frame: two frames stay, and the third goes in once there is room.
#[test]
fn a_full_disk_leaves_whole_frames_and_can_be_tried_again() {
    let frames = frames(3);
    let start = header().encode().unwrap().len() + 2 * frames[0].size();
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge] {
        for room in start..start + frames[2].size() {
            let disk = Disk::new(room, kind);
            let mut writer = RecordingWriter::new(disk.clone(), "disk", &header()).unwrap();
            writer.append(&frames[0]).unwrap();
            writer.append(&frames[1]).unwrap();
            let error = in_one_line(&writer.append(&frames[2]).unwrap_err());
            let advice =
                format!("disk full: disk is whole and ends at byte {start}; free space and try again");
            assert_eq!(error, format!("{advice}: {}", io::Error::from(kind)));
            assert_eq!((writer.bytes(), writer.end()), (start as u64, frames[1].end()));
            assert_eq!(disk.read(), (frames[..2].to_vec(), None));
            disk.set(|disk| disk.room += 1000);
            writer.append(&frames[2]).unwrap();
            assert_eq!(disk.read(), (frames.clone(), None));
        }
    }
}

#[test]
fn a_disk_too_full_for_the_header_says_so() {
    let error = RecordingWriter::new(Disk::new(10, ErrorKind::StorageFull), "disk", &header()).unwrap_err();
    assert!(matches!(error, RecordingError::Full { offset: 0, .. }), "{}", in_one_line(&error));
}

#[test]
fn other_write_errors_name_path_and_offset() {
    let room = header().encode().unwrap().len();
    let disk = Disk::new(room, ErrorKind::PermissionDenied);
    let mut writer = RecordingWriter::new(disk, "disk", &header()).unwrap();
    let error = writer.append(&frames(1)[0]).unwrap_err();
    assert_eq!(in_one_line(&error), format!("cannot append to disk at byte {room}: permission denied"));
}

#[test]
fn a_tail_that_cannot_be_cut_ends_the_recording() {
    let frames = frames(2);
    let room = header().encode().unwrap().len() + frames[0].size();
    let disk = Disk::new(room + 40, ErrorKind::StorageFull);
    disk.set(|disk| disk.cut_fails = true);
    let mut writer = RecordingWriter::new(disk.clone(), "disk", &header()).unwrap();
    writer.append(&frames[0]).unwrap();
    let first = writer.append(&frames[1]).unwrap_err().to_string();
    let advice =
        format!("disk is sound up to byte {room} at most and takes no more frames: go on in another file");
    assert_eq!(first, advice);
    assert_eq!(writer.append(&frames[1]).unwrap_err().to_string(), first);
    assert_eq!(writer.sync().unwrap_err().to_string(), first);
    let torn = TornTail { bytes: 40, after: Seq(2), offset: room as u64 };
    assert_eq!(disk.read(), (frames[..1].to_vec(), Some(torn)));
}

#[test]
fn a_failed_sync_ends_the_recording_where_it_was_last_synced() {
    let frames = frames(1);
    let disk = Disk::new(usize::MAX, ErrorKind::Other);
    disk.set(|disk| disk.sync_fails = true);
    let mut writer = RecordingWriter::new(disk, "disk", &header()).unwrap();
    writer.append(&frames[0]).unwrap();
    let error = writer.sync().unwrap_err();
    assert!(matches!(error, RecordingError::Broken { offset: 0, .. }), "{}", in_one_line(&error));
    assert!(matches!(writer.append(&frames[0]), Err(RecordingError::Broken { offset: 0, .. })));
}

/// Gives a byte, then an interruption, and so on; then an error where one is due.
struct Slow<'a> {
    rest: &'a [u8],
    interrupt: bool,
    fails: bool,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        match self.interrupt {
            true => Err(ErrorKind::Interrupted.into()),
            false if self.rest.is_empty() && self.fails => Err(io::Error::other("bad sector")),
            false => self.rest.read(&mut buffer[..1]),
        }
    }
}

#[test]
fn pieces_and_interruptions_make_no_difference() {
    let frames = frames(4);
    let room = Room::new(&frames);
    let bytes = room.bytes();
    let slow = |fails| Slow { rest: &bytes, interrupt: false, fails };
    let reader = RecordingReader::new(slow(false), room.path()).unwrap();
    assert_eq!(read_all(reader).unwrap(), (frames, None));
    let reader = RecordingReader::new(slow(true), "disk").unwrap();
    let error = in_one_line(&read_all(reader).unwrap_err());
    assert_eq!(error, format!("cannot read disk at byte {}: bad sector", bytes.len()));
}
