//! The machine: what the guest does in ring 3 with its processor, memory and devices.
//!
//! `unsafe` is here only: in access to ports, device registers, queues shared with devices, and the functions on memory.

pub mod boot;
pub mod clock;
pub mod cpu;
pub mod entropy;
pub mod memory;
pub mod net;
pub mod serial;
pub mod server;
pub mod virtio;
