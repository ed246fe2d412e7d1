//! The reference VMM: a guest whose every input goes through the log.
//!
//! A [`machine::Vm`] is vCPU, RAM and device front ends: a deterministic function of its start state and its records. It implements
//! [`ft_core::machine::Machine`], so that everything in `ft-core` that runs a toy machine runs a real one. Host ends of devices are
//! in [`backend`]; they are attached only while a copy is live.
//!
//! `unsafe` is in three places: [`ram`] (mapped guest memory), the execution engine in [`soft`] (its TLBs point into that memory), and
//! the KVM vCPU.

pub mod ram;
pub mod soft;
pub mod vcpu;
