//! What a switch is told at its start.

use super::error::LanError;
use super::frame::{HEADER, Mac};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Bytes of a VLAN tag, which the switch passes on and does not look at.
const VLAN_TAG: usize = 4;

/// Everything about a switch. [`SwitchConfig::new`] has defaults for all but the socket.
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// Unix socket on which ports connect.
    pub socket: PathBuf,
    /// TCP address on which ports connect too. Loopback only: whoever connects is on the LAN.
    pub listen_tcp: Option<SocketAddr>,
    /// The switch's own address in the guests' network, and the size of that network.
    pub subnet: Subnet,
    /// Ports of the host that lead to guests.
    pub forwards: Vec<Forward>,
    /// Longest frame, with header and VLAN tag, without checksum: 1518 to 9018. The guests' MTU is 18 less.
    pub max_frame: usize,
    /// Bytes that wait for a port at most. Whole frames beyond that are dropped.
    pub port_queue: usize,
    /// Ports connected at a time.
    pub max_ports: usize,
    /// Addresses remembered. Frames to others are flooded.
    pub max_addresses: usize,
    /// An address that was silent for so long is forgotten.
    pub ageing: Duration,
    /// Forwarded connections at a time. More wait in the host's queue.
    pub max_connections: usize,
    /// Bytes that a forwarded connection buffers in each direction.
    pub connection_buffer: usize,
    /// A forwarded connection whose guest acknowledges nothing for so long is reset.
    pub guest_timeout: Duration,
}

impl SwitchConfig {
    /// A switch at `socket` that forwards nothing.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            listen_tcp: None,
            subnet: Subnet { address: Ipv4Addr::new(10, 0, 2, 2), prefix: 24 },
            forwards: Vec::new(),
            max_frame: 1518,
            port_queue: 4 << 20,
            max_ports: 256,
            max_addresses: 4096,
            ageing: Duration::from_secs(300),
            max_connections: 1024,
            connection_buffer: 128 << 10,
            guest_timeout: Duration::from_secs(60),
        }
    }

    /// Largest IP packet.
    pub(super) fn mtu(&self) -> usize {
        self.max_frame - HEADER - VLAN_TAG
    }

    /// The switch's own MAC, which follows from its IP address.
    pub(super) fn mac(&self) -> Mac {
        let [a, b, c, d] = self.subnet.address.octets();
        Mac([0x52, 0x55, a, b, c, d])
    }

    pub(super) fn check(&self) -> Result<(), LanError> {
        if !(1518..=9018).contains(&self.max_frame) {
            return Err(LanError::Config(format!(
                "a longest frame of {} is not in 1518..9018",
                self.max_frame
            )));
        }
        if self.port_queue < self.max_frame + 4 {
            return Err(LanError::Config(format!("a queue of {} holds not even one frame", self.port_queue)));
        }
        if self.max_connections == 0 || self.max_connections > 16_000 {
            return Err(LanError::Config("connections must be 1 to 16000".to_owned()));
        }
        if !(4 << 10..=1 << 30).contains(&self.connection_buffer) {
            return Err(LanError::Config("a connection's buffer must be 4 KiB to 1 GiB".to_owned()));
        }
        if let Some(tcp) = self.listen_tcp.filter(|tcp| !tcp.ip().is_loopback()) {
            return Err(LanError::Config(format!(
                "ports connect without a password, so {tcp} would open the LAN to everybody; name a loopback address"
            )));
        }
        for forward in &self.forwards {
            let guest = *forward.guest.ip();
            if !self.subnet.contains(guest) || guest == self.subnet.address {
                return Err(LanError::Config(format!(
                    "cannot forward to {guest}: it is not the address of a guest in {}",
                    self.subnet
                )));
            }
        }
        Ok(())
    }
}

/// An address and the network it is in, as in `10.0.2.2/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The switch's own address.
    pub address: Ipv4Addr,
    /// Leading bits that all addresses of the network share: 8 to 30.
    pub prefix: u8,
}

impl Subnet {
    /// Whether a guest can have the address: neither the network's own nor its broadcast address.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.prefix));
        let (ours, host) = (u32::from(self.address), u32::from(address) & !mask);
        u32::from(address) & mask == ours & mask && host != 0 && host != !mask
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = || {
            format!("{text:?} is not an address with the bits of its network; write for instance 10.0.2.2/24")
        };
        let (address, prefix) = text.split_once('/').ok_or_else(hint)?;
        let subnet = Self {
            address: address.parse().map_err(|_| hint())?,
            prefix: prefix.parse().map_err(|_| hint())?,
        };
        match (8..=30).contains(&subnet.prefix) && subnet.contains(subnet.address) {
            true => Ok(subnet),
            false => Err(hint()),
        }
    }
}

/// A TCP port of the host that leads to a guest's, as in `127.0.0.1:6379=10.0.2.15:6379`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where the host listens. Port 0 is any free one.
    pub host: SocketAddr,
    /// Where the guest listens.
    pub guest: SocketAddrV4,
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = || format!("{text:?} is no forwarding; write for instance 127.0.0.1:6379=10.0.2.15:6379");
        let (host, guest) = text.split_once('=').ok_or_else(hint)?;
        let forward =
            Self { host: host.parse().map_err(|_| hint())?, guest: guest.parse().map_err(|_| hint())? };
        if forward.guest.port() == 0 || matches!(forward.host.ip(), IpAddr::V4(ip) if ip.is_multicast()) {
            return Err(hint());
        }
        Ok(forward)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn subnets() {
        let subnet: Subnet = "10.0.2.2/24".parse().unwrap();
        assert!(subnet.contains(Ipv4Addr::new(10, 0, 2, 15)));
        for outside in [[10, 0, 3, 15], [10, 0, 2, 0], [10, 0, 2, 255]] {
            assert!(!subnet.contains(Ipv4Addr::from(outside)), "{outside:?}");
        }
        for wrong in ["", "10.0.2.2", "10.0.2.2/33", "10.0.2.2/7", "10.0.2.0/24", "10.0.2/24", "x/24"] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn forwards() {
        let forward: Forward = "127.0.0.1:0=10.0.2.15:6379".parse().unwrap();
        assert_eq!((forward.host.port(), forward.guest.port()), (0, 6379));
        for wrong in ["", "127.0.0.1:1", "127.0.0.1=10.0.2.15", "a:1=10.0.2.15:2", "127.0.0.1:1=10.0.2.15:0"]
        {
            assert!(wrong.parse::<Forward>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let good = SwitchConfig::new("/s");
        good.check().unwrap();
        let forwards = vec!["127.0.0.1:0=10.0.3.15:1".parse().unwrap()];
        let wrong = [
            SwitchConfig { max_frame: 1517, ..good.clone() },
            SwitchConfig { max_frame: 9019, ..good.clone() },
            SwitchConfig { port_queue: 1000, ..good.clone() },
            SwitchConfig { listen_tcp: Some("10.1.1.1:5".parse().unwrap()), ..good.clone() },
            SwitchConfig { forwards, ..good.clone() },
        ];
        for config in wrong {
            assert!(config.check().is_err(), "{config:?}");
        }
    }
}
