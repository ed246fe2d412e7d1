//! The built-in guest is the same wherever it is built.
#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)]
#[path = "../build.rs"]
mod build;

use std::fs;
use std::path::Path;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if entry.file_type().unwrap().is_dir() {
            if name != "target" {
                copy(&entry.path(), &to.join(name));
            }
        } else {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

#[test]
fn the_same_sources_give_the_same_image_in_another_place() {
    let elsewhere = tempfile::tempdir().unwrap();
    let guest = elsewhere.path().join("a/longer/path/to/guest");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest"), &guest);
    let image = build::build(&guest, &elsewhere.path().join("target"));
    assert!(fs::read(image).unwrap() == ft_vmm::guest_image::BUILT_IN, "the images differ");
}
