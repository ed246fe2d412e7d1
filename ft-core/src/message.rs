//! messages
/// x
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal;
impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("x")
    }
}
