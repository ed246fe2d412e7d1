//! The reference VMM: a guest whose every input goes through the log.
//!
//! The machine is vCPU, RAM and device front ends: a deterministic function of its start state and its records. It implements
//! [`ft_core::machine::Machine`], so that everything in `ft-core` that runs a toy machine runs a real one.
//!
//! `unsafe` is in few places: [`ram`] (mapped guest memory) and the execution engines, whose translations point into that memory.

pub mod board;
pub mod boot;
pub mod clock;
pub mod devices;
pub mod digests;
pub mod guest_image;
pub mod machine;
pub mod power;
pub mod ram;
pub mod sections;
pub mod soft;
pub mod transfer;
pub mod vcpu;
