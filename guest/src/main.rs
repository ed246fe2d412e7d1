//! The built-in guest: starts what [`ft_guest`] describes on the machine of docs/guest.md.

#![no_std]
#![no_main]
#![warn(missing_docs, unreachable_pub, clippy::unwrap_used)]

extern crate alloc;

mod metal;

use alloc::format;
use core::fmt::Write as _;
use ft_guest::cmdline::{Mode, Options};
use ft_guest::service::Service;
use ft_guest::store::Limits;
use metal::boot::Boot;
use metal::clock::Clock;
use metal::net::Card;
use metal::serial::Serial;
use metal::server::Server;
use metal::{cpu, entropy};

const LINE_TIMER: u16 = 1 << 0;
const LINE_NET: u16 = 1 << 5;

/// One line on the serial port.
fn log(line: &str) {
    // The port cannot fail.
    let _ = writeln!(Serial, "{line}");
}

fn main(boot: Boot) -> ! {
    log(&format!("ft guest {}, {} MiB free", env!("CARGO_PKG_VERSION"), boot.heap_bytes >> 20));
    let options = Options::parse(boot.command_line).unwrap_or_else(|word| {
        log(&format!("command line: cannot understand {word}"));
        Options::default()
    });
    match options.mode {
        Mode::KeyValue => serve(&options, boot.heap_bytes),
        Mode::Compute { .. } => cpu::power_off(),
    }
}

fn serve(options: &Options, heap_bytes: usize) -> ! {
    let mut clock = Clock::start();
    cpu::unmask(LINE_TIMER | LINE_NET | entropy::LINE);
    let seed = entropy::random().unwrap_or_default();
    let limits = Limits { memory_bytes: heap_bytes as u64 / 2, record_bytes: u64::MAX };
    let mut service = Service::new(limits);
    service.set_now(clock.now());
    let Some(card) = Card::open() else {
        log("no network card");
        cpu::power_off();
    };
    let mut server = Server::new(card, options, seed, heap_bytes / 8, clock.now());
    let [a, b, c, d] = options.address;
    log(&format!("ready on {a}.{b}.{c}.{d}:6379"));
    loop {
        let lines = cpu::take_lines();
        if lines & LINE_TIMER != 0 {
            clock.update();
            service.set_now(clock.now());
        }
        if lines & LINE_NET != 0 {
            server.acknowledge();
        }
        let more = server.poll(clock.now(), &mut service);
        if server.shuts_down() {
            log("off");
            cpu::power_off();
        }
        if !more {
            cpu::idle();
        }
    }
}
