//! A protected VM as a process: the reference VMM put together with the pair protocol, its network, its arbiter and its host ends.
//!
//! [`config::VmFile`] says what a VM is made of and which hosts may run it; [`process::run`] is one copy of it on one host;
//! [`report::Report`] is what that says about itself, and [`control`] is how an agent hears it and tells it what to do.

pub mod config;
pub mod control;
pub mod disk;
pub mod ends;
pub mod entropy;
pub mod log;
pub mod mirror;
pub mod process;
pub mod recipe;
pub mod report;
pub mod transfers;
pub mod wishes;
