//! Two network namespaces joined by a shaped link: a 10 Gbit/s wire on one machine.
//!
//! What is not here: a wire. Packets that both ends keep whole (GSO) cross the link whole; the kernel charges the
//! shaper for the headers that a wire would carry, so the rate is right and the cost for each packet is not.

use super::error::Error;
use ft::netns;
use std::net::{IpAddr, Ipv4Addr};

/// The rate of the shaped link, each way.
pub(super) const RATE: &str = "10gbit";
/// Tokens that may be saved up: several of the largest GSO packets, or the shaper would cut them up.
pub(super) const BURST: &str = "256kb";
/// The shaper's queue: deeper than the windows in use, so that the link loses nothing.
pub(super) const QUEUE: &str = "32mb";
/// Packets that may be under way in the delay line: what the windows hold, in 1500-byte packets, twice over.
const DELAY_LINE_PACKETS: &str = "40000";
/// The same name at both ends; they live in different namespaces.
const INTERFACE: &str = "ft0";

/// The two ends. Dropping it removes them.
pub(super) struct Namespaces {
    made: netns::Namespaces,
}

impl Namespaces {
    /// Makes both namespaces, the link, the shapers and, if `delay_us` is not zero, a delay line each way.
    ///
    /// # Errors
    /// When this process is not root, iproute2 is missing, or the kernel lacks a queueing discipline. The text says
    /// what to do.
    pub(super) fn make(mtu: u16, delay_us: f64) -> Result<Self, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::Obstacle(
                "network namespaces need root: run as root to measure it".to_owned(),
            ));
        }
        let mut namespaces = Self { made: netns::Namespaces::default() };
        for name in names(std::process::id()) {
            namespaces.made.add(name)?;
        }
        namespaces.join()?;
        for (name, address) in namespaces.made.iter().zip(ADDRESSES) {
            bring_up(name, address, mtu)?;
            shape(name, delay_us)?;
        }
        Ok(namespaces)
    }

    /// The serving end.
    pub(super) fn serve(&self) -> (&str, IpAddr) {
        (&self.made[0], ADDRESSES[0].into())
    }

    /// The driving end.
    pub(super) fn drive(&self) -> &str {
        &self.made[1]
    }

    fn join(&self) -> Result<(), Error> {
        let [a, b] = [&self.made[0], &self.made[1]];
        let peer = ["type", "veth", "peer", "name", INTERFACE, "netns", b];
        tool("ip", &[&["-n", a, "link", "add", INTERFACE][..], &peer[..]].concat())
    }
}

/// 198.18.0.0/15 is set aside for benchmarks (RFC 2544).
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)];

/// Unique among the runs on this host.
fn names(pid: u32) -> [String; 2] {
    ["a", "b"].map(|end| format!("ftb{pid}{end}"))
}

fn bring_up(namespace: &str, address: Ipv4Addr, mtu: u16) -> Result<(), Error> {
    let (address, mtu) = (format!("{address}/30"), mtu.to_string());
    tool("ip", &["-n", namespace, "address", "add", &address, "dev", INTERFACE])?;
    tool("ip", &["-n", namespace, "link", "set", INTERFACE, "mtu", &mtu, "up"])
}

/// Delay first, then rate: the shaper's queue then holds bytes that have arrived and wait for the wire.
fn shape(namespace: &str, delay_us: f64) -> Result<(), Error> {
    let add = ["-n", namespace, "qdisc", "add", "dev", INTERFACE];
    let rate = ["tbf", "rate", RATE, "burst", BURST, "limit", QUEUE];
    if delay_us == 0.0 {
        return tool("tc", &[&add[..], &["root"], &rate[..]].concat());
    }
    let delay = format!("{delay_us}us");
    let netem = ["root", "handle", "1:", "netem", "delay", &delay, "limit", DELAY_LINE_PACKETS];
    tool("tc", &[&add[..], &netem[..]].concat()).map_err(explain_missing_netem)?;
    tool("tc", &[&add[..], &["parent", "1:1", "handle", "10:"], &rate[..]].concat())
}

/// Small kernels are built without netem, and `tc` only says that the kind is unknown.
fn explain_missing_netem(error: Error) -> Error {
    match error {
        Error::Tool { said, .. } if said.contains("qdisc kind is unknown") => {
            let why = "delay needs netem: modprobe sch_netem, or a kernel built with CONFIG_NET_SCH_NETEM";
            Error::Obstacle(why.to_owned())
        }
        other => other,
    }
}

fn tool(program: &str, arguments: &[&str]) -> Result<(), Error> {
    Ok(netns::tool(program, arguments).map(drop)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_short_and_differ() {
        let [a, b] = names(u32::MAX);
        assert_ne!(a, b);
        assert!(a.starts_with("ftb") && a.len() <= 15);
    }

    #[test]
    fn a_kernel_without_netem_is_explained() {
        let said = "Error: Specified qdisc kind is unknown.".to_owned();
        let error = explain_missing_netem(Error::Tool { command: "tc".to_owned(), said });
        assert!(error.to_string().contains("CONFIG_NET_SCH_NETEM"));
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let error = tool("ft-no-such-tool", &[]).unwrap_err();
        assert_eq!(error.to_string(), "`ft-no-such-tool` is not installed: install iproute2");
    }
}
