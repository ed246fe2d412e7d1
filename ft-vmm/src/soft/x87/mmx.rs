//! mmx
