//! Which MAC a guest's IP address has (ARP, RFC 826).
//!
//! The usual cache forgets an entry after a minute and then holds packets back until the answer to one request, at most one
//! each second. When that minute ends during a failover, clients wait for a second. So here an entry is used as long as there
//! is no better one; it is asked for again in the background; and an unknown address is asked for ten times each second.

use super::config::Subnet;
use super::frame::{ARP, HEADER, Header, IPV4, Mac};
use super::packets::Packets;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Addresses known at most.
const MOST_KNOWN: usize = 1024;
/// Addresses asked for at a time.
const MOST_WANTED: usize = 256;
/// Packets that wait for one address.
const MOST_HELD: usize = 64;
/// An unknown address is asked for this often.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// An unknown address is not asked for any more after so long; a new packet starts again.
const GIVE_UP: Duration = Duration::from_secs(10);
/// A known address is asked for again after so long, while it stays in use.
const CONFIRM_AFTER: Duration = Duration::from_secs(30);

struct Known {
    mac: Mac,
    heard: Instant,
    asked: Instant,
}

struct Wanted {
    held: Vec<Vec<u8>>,
    ask_at: Instant,
    until: Instant,
}

/// The ARP of the switch itself.
pub(super) struct Neighbours {
    subnet: Subnet,
    mac: Mac,
    known: BTreeMap<Ipv4Addr, Known>,
    wanted: BTreeMap<Ipv4Addr, Wanted>,
    /// Frames that are ready to go.
    out: Packets,
}

impl Neighbours {
    pub(super) fn new(subnet: Subnet, mac: Mac) -> Self {
        Self { subnet, mac, known: BTreeMap::new(), wanted: BTreeMap::new(), out: Packets::default() }
    }

    /// The next frame that is ready to go.
    pub(super) fn next_frame(&mut self) -> Option<&[u8]> {
        self.out.pop().map(|frame| &*frame)
    }

    /// Whether a neighbour has the address.
    pub(super) fn knows(&self, mac: Mac) -> bool {
        self.known.values().any(|known| known.mac == mac)
    }

    /// An IPv4 packet came from `address`.
    pub(super) fn handle_packet(&mut self, address: Ipv4Addr, mac: Mac, now: Instant) {
        if let Some(known) = self.known.get_mut(&address).filter(|known| known.mac == mac) {
            known.heard = now;
        }
    }

    /// When the address last said anything.
    pub(super) fn heard(&self, address: Ipv4Addr) -> Option<Instant> {
        self.known.get(&address).map(|known| known.heard)
    }

    /// Sends an IPv4 packet that has room for an Ethernet header in front; holds it while the address is asked for.
    pub(super) fn send(&mut self, to: Ipv4Addr, frame: &mut [u8], now: Instant) {
        if let Some(known) = self.known.get_mut(&to) {
            Header { to: known.mac, from: self.mac, kind: IPV4 }.write(frame);
            let ask = now.saturating_duration_since(known.heard.max(known.asked)) > CONFIRM_AFTER;
            self.out.push(frame);
            if ask {
                known.asked = now;
                self.ask(to);
            }
            return;
        }
        if !self.subnet.contains(to) {
            return;
        }
        if !self.wanted.contains_key(&to) {
            if self.wanted.len() >= MOST_WANTED {
                return;
            }
            self.ask(to);
            self.wanted
                .insert(to, Wanted { held: Vec::new(), ask_at: now + ASK_EVERY, until: now + GIVE_UP });
        }
        if let Some(wanted) = self.wanted.get_mut(&to) {
            wanted.until = now + GIVE_UP;
            if wanted.held.len() < MOST_HELD {
                wanted.held.push(frame.to_vec());
            }
        }
    }

    /// An ARP packet came in, without its Ethernet header.
    pub(super) fn handle_arp(&mut self, packet: &[u8], now: Instant) {
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = ArpPacket::new_checked(packet).and_then(|packet| ArpRepr::parse(&packet))
        else {
            return;
        };
        let mac = Mac(source_hardware_addr.0);
        if !mac.is_unicast() || mac == self.mac || source_protocol_addr == self.subnet.address {
            return;
        }
        if self.subnet.contains(source_protocol_addr) {
            self.learn(source_protocol_addr, mac, now);
        }
        if operation == ArpOperation::Request && target_protocol_addr == self.subnet.address {
            self.push_arp(ArpOperation::Reply, mac, source_hardware_addr, source_protocol_addr);
        }
    }

    fn learn(&mut self, address: Ipv4Addr, mac: Mac, now: Instant) {
        let wanted = self.wanted.remove(&address);
        // Somebody who makes up addresses must not keep the switch from those it needs.
        if wanted.is_none() && !self.known.contains_key(&address) && self.known.len() >= MOST_KNOWN {
            return;
        }
        self.known.insert(address, Known { mac, heard: now, asked: now });
        for mut frame in wanted.into_iter().flat_map(|wanted| wanted.held) {
            Header { to: mac, from: self.mac, kind: IPV4 }.write(&mut frame);
            self.out.push(&frame);
        }
    }

    /// Asks again for what is still wanted.
    pub(super) fn poll(&mut self, now: Instant) {
        self.wanted.retain(|_, wanted| now < wanted.until);
        let due: Vec<Ipv4Addr> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| wanted.ask_at <= now)
            .map(|(address, _)| *address)
            .collect();
        for address in due {
            self.ask(address);
            if let Some(wanted) = self.wanted.get_mut(&address) {
                wanted.ask_at = now + ASK_EVERY;
            }
        }
    }

    /// When [`Neighbours::poll`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.wanted.values().map(|wanted| wanted.ask_at.min(wanted.until)).min()
    }

    fn ask(&mut self, address: Ipv4Addr) {
        self.push_arp(ArpOperation::Request, Mac::BROADCAST, EthernetAddress([0; 6]), address);
    }

    fn push_arp(&mut self, operation: ArpOperation, to: Mac, target: EthernetAddress, address: Ipv4Addr) {
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(self.mac.0),
            source_protocol_addr: self.subnet.address,
            target_hardware_addr: target,
            target_protocol_addr: address,
        };
        let header = Header { to, from: self.mac, kind: ARP };
        self.out.push_with(HEADER + arp.buffer_len(), |frame| {
            header.write(frame);
            arp.emit(&mut ArpPacket::new_unchecked(&mut frame[HEADER..]));
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 15]);

    fn neighbours() -> Neighbours {
        Neighbours::new("10.0.2.2/24".parse().unwrap(), Mac([0x52; 6]))
    }

    fn arp(operation: ArpOperation, from: Mac, target: Ipv4Addr) -> Vec<u8> {
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(from.0),
            source_protocol_addr: GUEST,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        };
        let mut bytes = vec![0; arp.buffer_len()];
        arp.emit(&mut ArpPacket::new_unchecked(&mut bytes[..]));
        bytes
    }

    fn kinds(neighbours: &mut Neighbours) -> Vec<(Mac, u16)> {
        let mut all = Vec::new();
        while let Some(frame) = neighbours.next_frame() {
            let header = Header::parse(frame).unwrap();
            all.push((header.to, header.kind));
        }
        all
    }

    #[test]
    fn packets_wait_until_the_address_is_known_and_it_is_asked_for_until_then() {
        let (mut neighbours, t0) = (neighbours(), Instant::now());
        neighbours.send(GUEST, &mut [0; 60], t0);
        neighbours.send(GUEST, &mut [0; 60], t0);
        assert_eq!(kinds(&mut neighbours), [(Mac::BROADCAST, ARP)]);
        assert_eq!(neighbours.deadline(), Some(t0 + ASK_EVERY));
        neighbours.poll(t0 + ASK_EVERY);
        assert_eq!(kinds(&mut neighbours), [(Mac::BROADCAST, ARP)]);
        neighbours.handle_arp(&arp(ArpOperation::Reply, MAC, Ipv4Addr::new(10, 0, 2, 2)), t0);
        assert_eq!(kinds(&mut neighbours), [(MAC, IPV4), (MAC, IPV4)]);
        assert_eq!(neighbours.deadline(), None);
    }

    #[test]
    fn nobody_is_asked_for_for_ever() {
        let (mut neighbours, t0) = (neighbours(), Instant::now());
        neighbours.send(GUEST, &mut [0; 60], t0);
        neighbours.poll(t0 + GIVE_UP);
        assert_eq!(neighbours.deadline(), None);
    }

    #[test]
    fn a_known_address_is_confirmed_without_making_packets_wait() {
        let (mut neighbours, t0) = (neighbours(), Instant::now());
        neighbours.handle_arp(&arp(ArpOperation::Request, MAC, GUEST), t0);
        let later = t0 + CONFIRM_AFTER + Duration::from_secs(1);
        neighbours.send(GUEST, &mut [0; 60], later);
        neighbours.send(GUEST, &mut [0; 60], later);
        assert_eq!(kinds(&mut neighbours), [(MAC, IPV4), (Mac::BROADCAST, ARP), (MAC, IPV4)]);
        // Another MAC took the address over.
        let other = Mac([2, 0, 0, 0, 0, 16]);
        neighbours.handle_arp(&arp(ArpOperation::Request, other, GUEST), later);
        neighbours.send(GUEST, &mut [0; 60], later);
        assert_eq!(kinds(&mut neighbours), [(other, IPV4)]);
        assert!(neighbours.knows(other) && !neighbours.knows(MAC));
    }

    #[test]
    fn requests_for_the_switch_are_answered() {
        let mut neighbours = neighbours();
        neighbours.handle_arp(&arp(ArpOperation::Request, MAC, Ipv4Addr::new(10, 0, 2, 2)), Instant::now());
        assert_eq!(kinds(&mut neighbours), [(MAC, ARP)]);
        neighbours.handle_arp(&[0; 5], Instant::now());
        assert_eq!(kinds(&mut neighbours), []);
    }
}
