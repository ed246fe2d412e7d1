//! Certificates and keys as files: read with care for modes, written whole or not at all.
//!
//! Invariant: `create_dir` either makes the whole directory or changes nothing, also when the host crashes in
//! the middle: the files are made in a directory beside it and one `rename` puts that in place. A crash can
//! leave the other directory behind, under a name that starts with a dot; it is of no use to anybody and can
//! be deleted.

use super::{IdentityError, provider};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// No certificate or key file is anywhere near this long; a longer one is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file to make: its name, what is in it, its mode.
pub(super) struct NewFile<'a> {
    pub(super) name: &'a str,
    pub(super) contents: &'a str,
    pub(super) mode: u32,
}

impl<'a> NewFile<'a> {
    pub(super) fn public(name: &'a str, contents: &'a str) -> Self {
        Self { name, contents, mode: 0o644 }
    }

    pub(super) fn private(name: &'a str, contents: &'a str) -> Self {
        Self { name, contents, mode: 0o600 }
    }
}

/// Makes `dir` (mode 0700) with these files in it. An empty directory in its place is replaced; anything else
/// is left as it is, and `occupied` makes the error.
pub(super) fn create_dir(
    dir: &Path,
    files: &[NewFile<'_>],
    occupied: impl Fn() -> IdentityError,
) -> Result<(), IdentityError> {
    if !is_vacant(dir)? {
        return Err(occupied());
    }
    let (parent, staging) = staging_place(dir)?;
    fs::create_dir_all(&parent).map_err(io_error("create", &parent))?;
    let made = fill(&staging, files).and_then(|()| put_in_place(&staging, dir, &occupied));
    if made.is_err() {
        // Only tidiness: what went wrong is in `made` already.
        let _ = fs::remove_dir_all(&staging);
    }
    made?;
    sync_dir(&parent)
}

fn is_vacant(dir: &Path) -> Result<bool, IdentityError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(io_error("look into", dir)(error)),
    }
}

/// The parent of `dir`, and a fresh name in it: a rename within one directory never crosses file systems.
fn staging_place(dir: &Path) -> Result<(PathBuf, PathBuf), IdentityError> {
    let Some(name) = dir.file_name() else {
        let source = io::Error::new(ErrorKind::InvalidInput, "name a directory that does not exist yet");
        return Err(IdentityError::Io { doing: "create", path: dir.to_owned(), source });
    };
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let nonce = u64::from_ne_bytes(random()?);
    let staging = parent.join(format!(".{}.{nonce:016x}", name.display()));
    Ok((parent, staging))
}

fn fill(staging: &Path, files: &[NewFile<'_>]) -> Result<(), IdentityError> {
    let parent = staging.parent().unwrap_or(staging);
    DirBuilder::new().mode(0o700).create(staging).map_err(io_error("create a directory in", parent))?;
    for file in files {
        let path = staging.join(file.name);
        write_new(&path, file).map_err(io_error("write", &path))?;
    }
    sync_dir(staging)
}

fn write_new(path: &Path, file: &NewFile<'_>) -> io::Result<()> {
    let mut handle = OpenOptions::new().write(true).create_new(true).mode(file.mode).open(path)?;
    handle.write_all(file.contents.as_bytes())?;
    handle.sync_all()
}

/// `rename` replaces nothing but an empty directory, so a directory that somebody else made meanwhile stays.
fn put_in_place(
    staging: &Path,
    dir: &Path,
    occupied: &impl Fn() -> IdentityError,
) -> Result<(), IdentityError> {
    fs::rename(staging, dir).map_err(|error| match error.kind() {
        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory => occupied(),
        _ => io_error("create", dir)(error),
    })
}

fn sync_dir(dir: &Path) -> Result<(), IdentityError> {
    File::open(dir).and_then(|handle| handle.sync_all()).map_err(io_error("sync", dir))
}

/// Random bytes from the cryptographic library.
pub(super) fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    let filled = provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| IdentityError::Crypto {
        doing: "draw random bytes",
        why: "the system has no randomness to give".to_owned(),
    })?;
    Ok(bytes)
}

/// Reads a file that everybody may read; `todo` is what to do when it is not there.
pub(super) fn read_public(path: &Path, todo: &str) -> Result<Vec<u8>, IdentityError> {
    let (handle, _) = open(path, todo)?;
    read(handle, path, todo)
}

/// Reads a private key's file, unless others than its owner can get at it.
pub(super) fn read_private(path: &Path, todo: &str) -> Result<Vec<u8>, IdentityError> {
    let (handle, mode) = open(path, todo)?;
    if mode & 0o077 != 0 {
        return Err(IdentityError::KeyExposed { path: path.to_owned(), mode });
    }
    read(handle, path, todo)
}

/// The open file and its mode, which therefore belong together whatever happens to the path meanwhile.
fn open(path: &Path, todo: &str) -> Result<(File, u32), IdentityError> {
    let handle = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => IdentityError::Missing { path: path.to_owned(), todo: todo.to_owned() },
        _ => io_error("read", path)(error),
    })?;
    let mode = handle.metadata().map_err(io_error("read", path))?.permissions().mode() & 0o7777;
    Ok((handle, mode))
}

fn read(handle: File, path: &Path, todo: &str) -> Result<Vec<u8>, IdentityError> {
    let mut contents = Vec::new();
    handle.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents).map_err(io_error("read", path))?;
    if contents.len() as u64 > FILE_BYTES_MAX {
        return Err(damaged(path, "it is far too long for a certificate or key".to_owned(), todo));
    }
    Ok(contents)
}

/// The certificates in a PEM file, at least one.
pub(super) fn certificates(
    path: &Path,
    pem: &[u8],
    todo: &str,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(none) if none.is_empty() => {
            Err(damaged(path, pem_fault(pem, "certificate", &pem::Error::NoItemsFound), todo))
        }
        Ok(some) => Ok(some),
        Err(error) => Err(damaged(path, pem_fault(pem, "certificate", &error), todo)),
    }
}

/// The one certificate in a PEM file.
pub(super) fn certificate(
    path: &Path,
    pem: &[u8],
    todo: &str,
) -> Result<CertificateDer<'static>, IdentityError> {
    let mut all = certificates(path, pem, todo)?;
    match (all.pop(), all.len()) {
        (Some(only), 0) => Ok(only),
        (_, others) => {
            Err(damaged(path, format!("it holds {} certificates instead of one", others + 1), todo))
        }
    }
}

/// The private key in a PEM file.
pub(super) fn private_key(
    path: &Path,
    pem: &[u8],
    todo: &str,
) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| damaged(path, pem_fault(pem, "private key", &error), todo))
}

/// What is wrong with a PEM file; never a piece of its contents, which may be a key.
fn pem_fault(pem: &[u8], wanted: &str, error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound if pem.is_empty() => "it is empty".to_owned(),
        pem::Error::NoItemsFound => format!("it holds no PEM {wanted}"),
        pem::Error::MissingSectionEnd { .. } => "it is cut short: its END line is missing".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line in it is malformed".to_owned(),
        pem::Error::Base64Decode(_) => "its base64 text is malformed".to_owned(),
        _ => "it is not a PEM file".to_owned(),
    }
}

pub(super) fn damaged(path: &Path, why: String, todo: &str) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), why, todo: todo.to_owned() }
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> IdentityError + 'a {
    move |source| IdentityError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn occupied() -> IdentityError {
        IdentityError::Missing { path: "occupied".into(), todo: String::new() }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_directory_has_its_files_with_their_modes() {
        let room = tempfile::tempdir().unwrap();
        let dir = room.path().join("made/parents/too");
        create_dir(&dir, &[NewFile::public("a", "A"), NewFile::private("b", "B")], occupied).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(names(&dir), ["a", "b"]);
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("b")), 0o600);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "A");
        assert_eq!(names(dir.parent().unwrap()), ["too"], "nothing is left beside it");
    }

    #[test]
    fn what_is_there_stays_and_an_empty_directory_is_used() {
        let room = tempfile::tempdir().unwrap();
        let full = room.path().join("full");
        fs::create_dir(&full).unwrap();
        create_dir(&full, &[NewFile::public("a", "1")], occupied).unwrap();
        let error = create_dir(&full, &[NewFile::public("a", "2")], occupied).unwrap_err();
        assert!(matches!(error, IdentityError::Missing { .. }), "{error}");
        assert_eq!(fs::read_to_string(full.join("a")).unwrap(), "1");

        let file = room.path().join("file");
        fs::write(&file, "x").unwrap();
        create_dir(&file, &[], occupied).unwrap_err();
        assert_eq!(fs::read_to_string(&file).unwrap(), "x");
    }

    #[test]
    fn a_directory_made_meanwhile_is_not_overwritten() {
        let room = tempfile::tempdir().unwrap();
        let (staging, dir) = (room.path().join("staging"), room.path().join("dir"));
        fill(&staging, &[NewFile::public("a", "late")]).unwrap();
        fill(&dir, &[NewFile::public("a", "first")]).unwrap();
        let error = put_in_place(&staging, &dir, &occupied).unwrap_err();
        assert!(matches!(error, IdentityError::Missing { .. }), "{error}");
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "first");
    }

    #[test]
    fn a_failure_in_the_middle_leaves_nothing() {
        let room = tempfile::tempdir().unwrap();
        let dir = room.path().join("dir");
        let twice = [NewFile::public("a", "1"), NewFile::public("a", "2")];
        create_dir(&dir, &twice, occupied).unwrap_err();
        assert_eq!(names(room.path()), Vec::<String>::new());
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        let error = read_public(Path::new("/dev/zero"), "do something").unwrap_err().to_string();
        assert_eq!(error, "/dev/zero is damaged: it is far too long for a certificate or key; do something");
    }

    #[test]
    fn the_current_directory_is_not_replaced() {
        let room = tempfile::tempdir().unwrap();
        let error = create_dir(&room.path().join(".."), &[], occupied);
        assert!(error.is_err());
        assert!(staging_place(Path::new(".")).is_err());
    }
}
