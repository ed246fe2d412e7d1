//! Two network namespaces and the wire between them. Dropping it removes them.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// 198.18.0.0/15 is set aside for measurements (RFC 2544).
pub(crate) const ADDRESSES: [&str; 2] = ["198.18.0.1", "198.18.0.2"];

/// The same name at both ends; they live in different namespaces.
const INTERFACE: &str = "ft0";

/// How the wire behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire {
    /// As veth is.
    Plain,
    /// 10 Gbit/s each way.
    Shaped,
    /// 2 ms each way, and one packet in a hundred is lost.
    Bad,
}

pub(crate) struct Namespaces(Vec<String>);

impl Namespaces {
    /// `Err` says what is missing here.
    pub(crate) fn make(wire: Wire) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut namespaces = Self(Vec::new());
        for end in ["a", "b"] {
            let name = format!("ftn{}-{count}{end}", std::process::id());
            run("ip", &["netns", "add", &name])?;
            namespaces.0.push(name);
        }
        let [a, b] = [0, 1].map(|end| namespaces.0[end].as_str());
        run(
            "ip",
            &["-n", a, "link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", b],
        )?;
        for (name, address) in [a, b].into_iter().zip(ADDRESSES) {
            run("ip", &["-n", name, "address", "add", &format!("{address}/30"), "dev", INTERFACE])?;
            run("ip", &["-n", name, "link", "set", INTERFACE, "up"])?;
            let add = ["-n", name, "qdisc", "add", "dev", INTERFACE, "root"];
            let shaped = ["tbf", "rate", "10gbit", "burst", "256kb", "limit", "32mb"];
            let bad = ["netem", "delay", "2ms", "loss", "1%", "limit", "40000"];
            match wire {
                Wire::Plain => {}
                Wire::Shaped => run("tc", &[&add[..], &shaped].concat())?,
                Wire::Bad => run("tc", &[&add[..], &bad].concat())?,
            }
        }
        Ok(namespaces)
    }

    /// What stands before a command to run it at this end.
    pub(crate) fn at(&self, end: usize) -> [&str; 4] {
        ["ip", "netns", "exec", &self.0[end]]
    }

    /// Pulls the plug at the first end, or puts it back in.
    pub(crate) fn set(&self, up_or_down: &str) {
        run("ip", &["-n", &self.0[0], "link", "set", INTERFACE, up_or_down]).unwrap();
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = run("ip", &["netns", "delete", name]) {
                eprintln!("{error}; remove it with `ip netns delete {name}`");
            }
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let failed = |why: &str| format!("`{program} {}` failed: {why}", arguments.join(" "));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(&error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(failed(said.lines().next().unwrap_or("no message"))) }
}
