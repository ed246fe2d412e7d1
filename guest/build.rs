//! Links the bare-metal program at the addresses of `link.ld`, without libc or start files.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    println!("cargo::rerun-if-changed=build.rs");
    let script = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("link.ld");
    let script = format!("-T{}", script.display());
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", &script] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
