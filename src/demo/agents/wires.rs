//! A network for hosts on one machine: a namespace for each, joined by a bridge in one more, so that a link can be cut.
//!
//! Invariant: only namespaces that this run made are removed, or those of a run that is over.

use crate::netns::{Namespaces, ToolError, tool};
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;
use thiserror::Error;

/// What all names begin with; the id of the process follows.
const PREFIX: &str = "ftw";

/// The interface of each host, and the bridge.
const INTERFACE: &str = "ft0";
const BRIDGE: &str = "ftbr";

/// Hosts that fit.
const HOSTS_MAX: u64 = 64;

/// The network. Dropping it removes it; processes in it must have ended.
#[derive(Debug)]
pub struct Wires {
    made: Namespaces,
}

/// Why there is no network for hosts here, or a link cannot be changed.
#[derive(Debug, Error)]
pub enum WiresError {
    /// Only root may.
    #[error("network namespaces need root")]
    NotRoot,
    /// More hosts than there is room for.
    #[error("a network for hosts holds 1 to {HOSTS_MAX} of them")]
    Hosts,
    /// iproute2 is missing, or refuses.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

impl Wires {
    /// Makes a network for hosts 1 to `hosts`, and removes what runs that were killed left behind.
    ///
    /// # Errors
    /// [`WiresError`]: nothing is left of what was made.
    pub fn make(hosts: u64) -> Result<Self, WiresError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(WiresError::NotRoot);
        }
        if !(1..=HOSTS_MAX).contains(&hosts) {
            return Err(WiresError::Hosts);
        }
        remove_leftovers()?;
        let mut wires = Self { made: Namespaces::default() };
        for number in 0..=hosts {
            wires.made.add(namespace(std::process::id(), number))?;
        }
        let hub = &wires.made[0];
        ip(&["-n", hub, "link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["-n", hub, "link", "set", BRIDGE, "up"])?;
        for host in 1..=hosts {
            wires.join(host)?;
        }
        Ok(wires)
    }

    fn join(&self, host: u64) -> Result<(), WiresError> {
        let (hub, own, port) = (&self.made[0], self.namespace(host), port(host));
        let address = format!("{}/24", self.address(host));
        ip(&["-n", own, "link", "set", "lo", "up"])?;
        ip(&["-n", own, "link", "add", INTERFACE, "type", "veth", "peer", "name", &port, "netns", hub])?;
        ip(&["-n", own, "address", "add", &address, "dev", INTERFACE])?;
        ip(&["-n", own, "link", "set", INTERFACE, "up"])?;
        ip(&["-n", hub, "link", "set", &port, "master", BRIDGE, "up"])
    }

    fn namespace(&self, host: u64) -> &str {
        &self.made[host as usize]
    }

    /// A host's address: of those that are set aside for tests of networks (RFC 2544).
    pub fn address(&self, host: u64) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 1, host as u8)
    }

    /// A command that runs `program` on a host.
    pub fn command(&self, host: u64, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        // It becomes the program: the process is the same.
        command.args(["netns", "exec", self.namespace(host)]).arg(program);
        command
    }

    /// Pulls a host's cable.
    ///
    /// # Errors
    /// [`WiresError::Tool`].
    pub fn cut(&self, host: u64) -> Result<(), WiresError> {
        ip(&["-n", &self.made[0], "link", "set", &port(host), "down"])
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// [`WiresError::Tool`].
    pub fn mend(&self, host: u64) -> Result<(), WiresError> {
        ip(&["-n", &self.made[0], "link", "set", &port(host), "up"])
    }
}

/// Unique among the runs on this machine: 0 is the bridge's, the others are the hosts'.
fn namespace(pid: u32, number: u64) -> String {
    format!("{PREFIX}{pid}-{number}")
}

/// The end of a host's cable at the bridge.
fn port(host: u64) -> String {
    format!("port{host}")
}

/// The process whose namespace this is, if it is one of ours.
fn maker(namespace: &str) -> Option<u32> {
    let (pid, number) = namespace.strip_prefix(PREFIX)?.split_once('-')?;
    number.parse::<u64>().ok()?;
    pid.parse().ok()
}

fn remove_leftovers() -> Result<(), WiresError> {
    for line in tool("ip", &["netns", "list"])?.lines() {
        let Some(name) = line.split_whitespace().next() else { continue };
        let is_over = |pid: u32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
        if maker(name).is_some_and(is_over) {
            // Another run may have been faster.
            let _ = ip(&["netns", "delete", name]);
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<(), WiresError> {
    Ok(tool("ip", arguments).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        assert_eq!(maker(&namespace(4_194_304, 64)), Some(4_194_304));
        for foreign in ["ftw", "ftw1", "ftw1-", "ftw1-x", "x1-2", "ftb12a"] {
            assert_eq!(maker(foreign), None, "{foreign}");
        }
    }
}
