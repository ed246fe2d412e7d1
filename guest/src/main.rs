//! The built-in guest: starts what [`ft_guest`] describes on the machine of docs/guest.md.

#![no_std]
#![no_main]
#![warn(missing_docs, unreachable_pub, clippy::unwrap_used)]

extern crate alloc;

mod metal;

use alloc::format;
use core::fmt::Write as _;
use ft_guest::cmdline::{Mode, Options};
use ft_guest::compute;
use ft_guest::log::Log;
use ft_guest::log::open::OpenError;
use ft_guest::service::Service;
use ft_guest::session::Demand;
use ft_guest::store::{Limits, Store};
use metal::block::Block;
use metal::boot::Boot;
use metal::clock::Clock;
use metal::net::Card;
use metal::serial::Serial;
use metal::server::{Memory, Server};
use metal::{block, cpu, entropy, net, watchdog};

const LINE_TIMER: u16 = 1 << 0;

/// Of the heap: what devices and waiting changes take. Of the rest, half is for the store, a quarter for sockets, an eighth for requests
/// and replies; the last eighth is for what falls between the pieces.
const FIXED_BYTES: usize = 12 << 20;

/// One line on the serial port.
fn log(line: &str) {
    // The port cannot fail.
    let _ = writeln!(Serial, "{line}");
}

fn main(boot: Boot) -> ! {
    log(&format!("ft guest {}: {} MiB", env!("CARGO_PKG_VERSION"), boot.heap_bytes >> 20));
    let options = Options::parse(boot.command_line).unwrap_or_else(|word| {
        log(&format!("command line: {word} makes no sense, nor does the rest count"));
        Options::default()
    });
    watchdog::start(options.watchdog_s);
    match options.mode {
        Mode::KeyValue => Machine::start(&options, boot.heap_bytes).serve(),
        Mode::Compute { rounds } => {
            let checksum = compute::run(rounds, watchdog::alive);
            log(&format!("checksum {checksum:016x} rounds {rounds}"));
            cpu::power_off();
        }
    }
}

/// All that takes part in serving.
struct Machine {
    clock: Clock,
    service: Service,
    server: Server,
    disk: Option<Block>,
    failure_told: bool,
}

impl Machine {
    fn start(options: &Options, heap_bytes: usize) -> Self {
        let mut clock = Clock::start();
        cpu::unmask(LINE_TIMER | net::LINE | block::LINE | entropy::LINE);
        let seed = entropy::random().unwrap_or_default();
        let free = heap_bytes.saturating_sub(FIXED_BYTES);
        let limits = Limits { memory_bytes: free as u64 / 2, record_bytes: u64::MAX };
        let (mut service, disk) = open_store(limits);
        service.debug = options.debug;
        clock.update();
        service.set_now(clock.now());
        let Some(card) = Card::open() else {
            log("no network card");
            cpu::power_off();
        };
        let memory = Memory { socket_bytes: free / 4, session_bytes: free / 8 };
        let server = Server::new(card, options, seed, memory, clock.now());
        let [a, b, c, d] = options.address;
        log(&format!("ready: {a}.{b}.{c}.{d}:{}, {} keys", metal::server::PORT, service.store().len()));
        Self { clock, service, server, disk, failure_told: false }
    }

    fn serve(mut self) -> ! {
        loop {
            let lines = cpu::take_lines();
            if lines & LINE_TIMER != 0 {
                self.tick();
            }
            if lines & net::LINE != 0 {
                self.server.acknowledge();
            }
            if lines & block::LINE != 0 {
                self.disk.iter().for_each(Block::acknowledge);
            }
            self.drive_disk();
            let more = self.server.poll(self.clock.now(), &mut self.service);
            self.drive_disk();
            if let Some(demand) = self.server.demand() {
                bring_down(demand);
            }
            if !more {
                cpu::idle();
            }
        }
    }

    fn tick(&mut self) {
        watchdog::alive();
        self.clock.update();
        self.service.set_now(self.clock.now());
        if let Some(changes) = self.service.log_mut() {
            changes.tick();
            if changes.has_failed() && !self.failure_told {
                self.failure_told = true;
                log("the disk failed: changes are refused");
            }
        }
    }

    /// Hears what the disk has done, and gives it more.
    fn drive_disk(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        while let Some((id, ok)) = disk.take_done() {
            if let Some(changes) = self.service.log_mut() {
                changes.handle_done(id, ok);
            }
        }
        while let Some(request) = self.service.poll_log() {
            disk.submit(request);
        }
        disk.notify();
    }
}

/// Does what a client wants to become of the machine.
fn bring_down(demand: Demand) -> ! {
    match demand {
        Demand::PowerOff => {
            log("off");
            cpu::power_off()
        }
        Demand::Hang => {
            log("debug: hangs");
            cpu::hang()
        }
        Demand::Crash => {
            log("debug: crashes");
            cpu::crash()
        }
    }
}

/// The store that the disk holds, and the disk; an empty one and none if there is nothing to be had from it.
fn open_store(limits: Limits) -> (Service, Option<Block>) {
    let Some(mut disk) = Block::open() else {
        log("no disk: nothing survives a restart");
        return (Service::new(Store::new(limits), None), None);
    };
    let mut store = Store::new(limits);
    match Log::open(&mut disk, &mut store) {
        Ok(changes) => {
            store.set_limits(Limits { record_bytes: changes.record_bytes_max(), ..limits });
            (Service::new(store, Some(changes)), Some(disk))
        }
        Err(error) => {
            let reason = match error {
                OpenError::TooSmall => "is too small",
                OpenError::Disk => "cannot be read",
                OpenError::Foreign => "holds something else",
                OpenError::Hole => "lacks a part of the log",
            };
            log(&format!("the disk {reason} and is left alone: nothing survives a restart"));
            (Service::new(Store::new(limits), None), None)
        }
    }
}
