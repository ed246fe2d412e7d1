//! What lies between the two peers.

use super::error::Error;
use super::netns::{BURST, Namespaces, QUEUE, RATE};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr};

/// A kind of link to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LinkKind {
    /// 127.0.0.1: no limit but the CPUs
    Loopback,
    /// Two network namespaces, 10 Gbit/s each way, with added delay (needs root)
    Shaped,
}

/// One link to set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkSpec {
    Loopback,
    Shaped { rtt_us: u64 },
}

impl LinkSpec {
    /// The name in reports.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Loopback => "loopback".to_owned(),
            Self::Shaped { rtt_us: 0 } => "shaped".to_owned(),
            Self::Shaped { rtt_us } => format!("shaped+{rtt_us}us"),
        }
    }
}

/// A link that stands. Dropping it takes it down.
pub(super) struct Rig {
    spec: LinkSpec,
    mtu: u16,
    namespaces: Option<Namespaces>,
}

impl Rig {
    /// # Errors
    /// Says why this link cannot be had here, and what to do about it.
    pub(super) fn set_up(spec: &LinkSpec, mtu: u16) -> Result<Self, Error> {
        let namespaces = match spec {
            LinkSpec::Loopback => None,
            LinkSpec::Shaped { rtt_us } => Some(Namespaces::make(mtu, *rtt_us as f64 / 2.0)?),
        };
        Ok(Self { spec: *spec, mtu, namespaces })
    }

    pub(super) fn spec(&self) -> LinkSpec {
        self.spec
    }

    /// Where the serving side lives: its namespace and its address.
    pub(super) fn serve(&self) -> (Option<&str>, IpAddr) {
        match &self.namespaces {
            None => (None, Ipv4Addr::LOCALHOST.into()),
            Some(namespaces) => {
                let (name, address) = namespaces.serve();
                (Some(name), address)
            }
        }
    }

    /// The driving side's namespace.
    pub(super) fn drive(&self) -> Option<&str> {
        self.namespaces.as_ref().map(Namespaces::drive)
    }

    /// The link's settings, for the report.
    pub(super) fn describe(&self) -> String {
        match self.spec {
            LinkSpec::Loopback => "127.0.0.1".to_owned(),
            LinkSpec::Shaped { rtt_us } => format!(
                "veth MTU {}, tbf {RATE} burst {BURST} queue {QUEUE} each way, {}",
                self.mtu,
                if rtt_us == 0 {
                    "no delay added".to_owned()
                } else {
                    format!("netem {rtt_us} us per round trip")
                }
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_different_names() {
        let names = [LinkSpec::Loopback, LinkSpec::Shaped { rtt_us: 0 }, LinkSpec::Shaped { rtt_us: 50 }]
            .map(|spec| spec.name());
        assert_eq!(names, ["loopback", "shaped", "shaped+50us"]);
    }
}
