//! 16550 serial port: `vm-superio`'s registers, with what a guest needs beyond them.
//!
//! `vm-superio` signals edges; here the interrupt is the level that a 16550 has: received data stays pending until it has been read, IIR names
//! one cause at a time, and OUT2 connects the line. What is typed beyond the FIFO waits in a bounded backlog.
//!
//! Output is gathered: it leaves with a line feed, when [`BATCH_BYTES`] have gathered, or [`BATCH_NS`] after its first byte, about
//! what one byte takes on a line of 115200 baud. All three are functions of the guest's execution and the machine's clock.

use super::Outbox;
use bytes::Bytes;
use ft_core::effect::EffectKind;
use ft_core::error::Fault;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::convert::Infallible;
use vm_superio::serial::{NoEvents, SerialState as Registers};
use vm_superio::{Serial as Uart, Trigger};

/// Output that leaves at once.
pub const BATCH_BYTES: usize = 256;

/// How long output waits for more.
pub const BATCH_NS: u64 = 87_000;

/// Typed bytes that wait for the guest, at most (R9). More are lost, as on any serial line.
pub const BACKLOG_BYTES: usize = 4096;

const DATA: u8 = 0;
const IIR: u8 = 2;
const LCR: u8 = 3;

const LCR_DIVISOR: u8 = 1 << 7;
const IER_RECEIVED: u8 = 1 << 0;
const IIR_NONE: u8 = 1 << 0;
const IER_EMPTY: u8 = 1 << 1;
const IIR_EMPTY: u8 = 1 << 1;
const IIR_RECEIVED: u8 = 1 << 2;
const IIR_FIFO: u8 = 0b1100_0000;
const MCR_OUT2: u8 = 1 << 3;

/// Interrupts are levels, asked for after each access.
#[derive(Debug)]
struct Silent;

impl Trigger for Silent {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Everything that determines a serial port's future.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialState {
    /// DLL, DLM, IER, IIR, LCR, LSR, MCR, MSR and SCR.
    pub registers: [u8; 9],
    /// Receiver FIFO.
    pub fifo: Vec<u8>,
    /// Typed, and not in the FIFO yet.
    pub backlog: Vec<u8>,
    /// Output that has not left yet.
    pub batch: Vec<u8>,
    /// When it leaves at the latest.
    pub leaves_ns: Option<u64>,
}

/// A serial port.
#[derive(Debug)]
pub struct Serial {
    uart: Uart<Silent, NoEvents, Vec<u8>>,
    backlog: VecDeque<u8>,
    leaves_ns: Option<u64>,
}

impl Default for Serial {
    fn default() -> Self {
        Self { uart: Uart::new(Silent, Vec::new()), backlog: VecDeque::new(), leaves_ns: None }
    }
}

impl Serial {
    /// Whether the interrupt line is high.
    pub fn interrupt(&self) -> bool {
        let registers = self.uart.state();
        registers.interrupt_identification & IIR_NONE == 0 && registers.modem_control & MCR_OUT2 != 0
    }

    /// When gathered output leaves at the latest.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.leaves_ns
    }

    /// Lets gathered output leave if its time has come.
    pub fn advance(&mut self, now_ns: u64, outbox: &mut Outbox) {
        if self.leaves_ns.is_some_and(|leaves| leaves <= now_ns) {
            self.flush(outbox);
        }
    }

    /// Lets gathered output leave.
    pub fn flush(&mut self, outbox: &mut Outbox) {
        self.leaves_ns = None;
        let batch = std::mem::take(self.uart.writer_mut());
        if !batch.is_empty() {
            outbox.emit(EffectKind::Console, 0, Bytes::from(batch));
        }
    }

    /// Bytes that somebody typed.
    pub fn receive(&mut self, bytes: &[u8]) {
        let room = BACKLOG_BYTES - self.backlog.len();
        self.backlog.extend(bytes.iter().take(room));
        self.refill();
    }

    /// A byte read at an offset from 0x3F8.
    pub fn read(&mut self, offset: u8) -> u8 {
        // IIR names the cause with the highest priority. Only data that is read ends the first of the two.
        if offset == IIR && self.uart.state().interrupt_identification & IIR_RECEIVED != 0 {
            return IIR_FIFO | IIR_RECEIVED;
        }
        let value = self.uart.read(offset);
        self.refill();
        value
    }

    /// A byte written at an offset from 0x3F8.
    pub fn write(&mut self, offset: u8, value: u8, now_ns: u64, outbox: &mut Outbox) {
        // It fails when output or trigger do: neither can.
        let _ = self.uart.write(offset, value);
        self.refill();
        if offset != DATA || self.uart.writer().is_empty() {
            return;
        }
        let divisor = self.uart.read(LCR) & LCR_DIVISOR != 0;
        let sent = !divisor;
        if sent && (value == b'\n' || self.uart.writer().len() >= BATCH_BYTES) {
            self.flush(outbox);
        } else if sent {
            self.leaves_ns.get_or_insert(now_ns.saturating_add(BATCH_NS));
        }
    }

    /// Moves typed bytes into the FIFO, and makes the causes in IIR those that are both there and enabled.
    fn refill(&mut self) {
        let count = self.uart.fifo_capacity().min(self.backlog.len());
        if count > 0 {
            // All of them, wherever the queue happens to wrap: that is not part of the state.
            let bytes = &self.backlog.make_contiguous()[..count];
            // In loopback mode it takes none.
            let taken = self.uart.enqueue_raw_bytes(bytes).unwrap_or(0);
            self.backlog.drain(..taken);
        }
        let mut registers = self.uart.state();
        let pending = !registers.in_buffer.is_empty() && registers.interrupt_enable & IER_RECEIVED != 0;
        let mut identification = registers.interrupt_identification & !(IIR_RECEIVED | IIR_NONE);
        if registers.interrupt_enable & IER_EMPTY == 0 {
            identification &= !IIR_EMPTY;
        }
        if pending {
            identification |= IIR_RECEIVED;
        }
        if identification == 0 {
            identification = IIR_NONE;
        }
        if identification != registers.interrupt_identification {
            registers.interrupt_identification = identification;
            let batch = std::mem::take(self.uart.writer_mut());
            self.uart = uart(&registers, batch).expect("its own FIFO fits");
        }
    }

    /// All of its state.
    pub fn state(&self) -> SerialState {
        let from = self.uart.state();
        SerialState {
            registers: [
                from.baud_divisor_low,
                from.baud_divisor_high,
                from.interrupt_enable,
                from.interrupt_identification,
                from.line_control,
                from.line_status,
                from.modem_control,
                from.modem_status,
                from.scratch,
            ],
            fifo: from.in_buffer,
            backlog: self.backlog.iter().copied().collect(),
            batch: self.uart.writer().clone(),
            leaves_ns: self.leaves_ns,
        }
    }

    /// A serial port that goes on from a state.
    ///
    /// # Errors
    /// When its buffers hold more than they can.
    pub fn from_state(state: &SerialState) -> Result<Self, Fault> {
        let [
            low,
            high,
            enable,
            identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
        ] = state.registers;
        let registers = Registers {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: enable,
            interrupt_identification: identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer: state.fifo.clone(),
        };
        let fits = state.backlog.len() <= BACKLOG_BYTES && state.batch.len() < BATCH_BYTES;
        let uart = uart(&registers, state.batch.clone()).filter(|_| fits);
        let uart =
            uart.ok_or_else(|| Fault("a serial port's state with more than its buffers hold".into()))?;
        Ok(Self { uart, backlog: state.backlog.iter().copied().collect(), leaves_ns: state.leaves_ns })
    }
}

fn uart(registers: &Registers, batch: Vec<u8>) -> Option<Uart<Silent, NoEvents, Vec<u8>>> {
    Uart::from_state(registers, Silent, NoEvents, batch).ok()
}

#[cfg(test)]
mod tests;
