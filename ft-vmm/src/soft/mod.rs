pub(crate) mod x87;
pub(crate) mod xmm;
