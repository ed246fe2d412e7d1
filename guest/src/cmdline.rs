//! The command line: words separated by spaces, most of them `key=value`. Words that the guest does not know are left alone.

/// What to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The key-value store.
    KeyValue,
    /// Work for processor and memory, then off.
    Compute {
        /// How often.
        rounds: u32,
    },
}

/// The command line, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What to be.
    pub mode: Mode,
    /// The machine's IPv4 address.
    pub address: [u8; 4],
    /// Bits of the network in it.
    pub prefix_bits: u8,
    /// The way to other networks.
    pub gateway: Option<[u8; 4]>,
    /// For how long it may look as if it hung before the machine is reset: 2 to 30 seconds, or 0 for ever.
    pub watchdog_s: u8,
    /// Whether clients may make it hang and crash.
    pub debug: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::KeyValue,
            address: [10, 0, 2, 15],
            prefix_bits: 24,
            gateway: Some([10, 0, 2, 2]),
            watchdog_s: WATCHDOG_S,
            debug: false,
        }
    }
}

/// Rounds of `mode=compute` when nothing is said.
const ROUNDS: u32 = 10;
/// Longer than any command takes, on a slow host and with a secondary that slows the machine down further.
const WATCHDOG_S: u8 = 10;

impl Options {
    /// Reads a command line.
    ///
    /// # Errors
    /// The first word with a value that makes no sense.
    pub fn parse(line: &str) -> Result<Self, &str> {
        let mut options = Self::default();
        let mut rounds = ROUNDS;
        let mut compute = false;
        for word in line.split_ascii_whitespace() {
            options.debug |= word == "debug";
            let Some((key, value)) = word.split_once('=') else { continue };
            let understood = match key {
                "mode" => {
                    compute = value == "compute";
                    (compute || value == "kv").then_some(())
                }
                "rounds" => value.parse().map(|number| rounds = number).ok(),
                "watchdog" => seconds(value).map(|seconds| options.watchdog_s = seconds),
                "ip" => network(value).map(|(address, prefix_bits)| {
                    (options.address, options.prefix_bits) = (address, prefix_bits);
                    options.gateway = None;
                }),
                _ => Some(()),
            };
            understood.ok_or(word)?;
        }
        // After `ip`, which takes the default gateway away, wherever it stands.
        for word in line.split_ascii_whitespace() {
            if let Some(value) = word.strip_prefix("gw=") {
                options.gateway = Some(ipv4(value).ok_or(word)?);
            }
        }
        if compute {
            options.mode = Mode::Compute { rounds };
        }
        Ok(options)
    }
}

fn seconds(text: &str) -> Option<u8> {
    text.parse().ok().filter(|seconds| matches!(seconds, 0 | 2..=30))
}

fn network(text: &str) -> Option<([u8; 4], u8)> {
    let (address, prefix_bits) = text.split_once('/')?;
    let prefix_bits = prefix_bits.parse().ok().filter(|bits| *bits <= 32)?;
    Some((ipv4(address)?, prefix_bits))
}

fn ipv4(text: &str) -> Option<[u8; 4]> {
    text.parse::<core::net::Ipv4Addr>().ok().map(|address| address.octets())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_a_default() {
        assert_eq!(Options::parse(""), Ok(Options::default()));
        assert_eq!(Options::parse("  quiet mode=kv x=y "), Ok(Options::default()));
    }

    #[test]
    fn everything_can_be_said_in_any_order() {
        let options = Options::parse("gw=192.168.7.1 ip=192.168.7.20/16 rounds=3 mode=compute").unwrap();
        assert_eq!(options.mode, Mode::Compute { rounds: 3 });
        assert_eq!((options.address, options.prefix_bits), ([192, 168, 7, 20], 16));
        assert_eq!(options.gateway, Some([192, 168, 7, 1]));
        assert_eq!(Options::parse("ip=10.1.1.1/8").unwrap().gateway, None);
    }

    #[test]
    fn supervision_can_be_set() {
        assert_eq!(Options::parse("").map(|options| (options.watchdog_s, options.debug)), Ok((10, false)));
        let options = Options::parse("debug watchdog=2").unwrap();
        assert_eq!((options.watchdog_s, options.debug), (2, true));
        assert_eq!(Options::parse("watchdog=0 debug=1").map(|options| options.debug), Ok(false));
    }

    #[test]
    fn nonsense_is_named() {
        for word in [
            "watchdog=1",
            "watchdog=31",
            "mode=dance",
            "rounds=-1",
            "ip=10.0.2.15",
            "ip=10.0.2.15/33",
            "ip=10.0.2/24",
            "gw=nowhere",
        ] {
            assert_eq!(Options::parse(word), Err(word));
        }
    }
}
