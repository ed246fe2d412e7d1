//! What the copies of a VM say of themselves, heard from outside, and who is well by that: for those who show a cluster, measure it or
//! break it.

mod cluster;
mod healing;
mod picture;
mod witness;

pub use cluster::Observed;
pub use healing::Healing;
pub use picture::{Copy, Picture};
pub use witness::{Heard, Said, Witness};
