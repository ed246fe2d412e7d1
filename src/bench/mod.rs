//! Measurements behind `ft bench`: one module for each subject, and the statistics of all.

pub(crate) mod channel;
pub(crate) mod heal;
pub(crate) mod stats;
mod table;
pub(crate) mod vm;
