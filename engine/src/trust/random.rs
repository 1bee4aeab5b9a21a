//! The one door to the operating system's randomness.

use thiserror::Error;

/// Why no random bytes could be had.
#[derive(Debug, Error)]
#[error("the operating system gave no random bytes; no key can be made safely until it does")]
pub struct RandomError(#[source] getrandom::Error);

/// Returns `N` bytes from the operating system's cryptographic generator.
///
/// # Errors
/// When the operating system has none to give, for example early at boot in a bare container.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    #[expect(
        clippy::disallowed_methods,
        reason = "the door through which randomness enters"
    )]
    getrandom::fill(&mut bytes).map_err(RandomError)?;
    Ok(bytes)
}
