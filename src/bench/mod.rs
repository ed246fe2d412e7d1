//! Measurements behind `ft bench`: one module for each subject.

pub(crate) mod channel;
pub(crate) mod vm;
