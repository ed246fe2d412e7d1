//! Measurements behind `ft bench`: one module for each subject, and the statistics of all.

pub(crate) mod channel;
pub(crate) mod stats;
pub(crate) mod vm;
