//! The machine: what the guest does in ring 3 with its processor, memory and devices.
//!
//! `unsafe` is here only: in access to ports, device registers, queues shared with devices, and the functions on memory.

pub(crate) mod block;
pub(crate) mod boot;
pub(crate) mod clock;
pub(crate) mod cpu;
pub(crate) mod entropy;
pub(crate) mod memory;
pub(crate) mod net;
pub(crate) mod serial;
pub(crate) mod server;
pub(crate) mod virtio;
pub(crate) mod watchdog;
