//! Tokens: 256 random bits behind a prefix that says what they open; stored as SHA-256, compared in constant time.
//!
//! The prefix lets people and scanners of leaked secrets tell a token's kind. It carries no meaning for the check.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forge_api::Secret;
use forge_config::Digest;
use ring::rand::SecureRandom as _;

/// How many random bytes a token has.
const TOKEN_BYTES: usize = 32;

/// What a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The user's side of the API; its hash stands in `access/NAME.toml`.
    Access,
    /// Registering runners; its hash stands in `registration-tokens/NAME.toml`.
    Registration,
    /// A registered runner's own requests.
    Runner,
    /// One attempt's own requests.
    Attempt,
}

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes: try again, and look at the kernel's log when it stays so")]
pub struct NoRandomness;

impl TokenKind {
    /// What every token of this kind begins with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Access => "forge_access_",
            Self::Registration => "forge_registration_",
            Self::Runner => "forge_runner_",
            Self::Attempt => "forge_attempt_",
        }
    }
}

/// Makes a token and the digest under which it is stored.
pub fn new_token(kind: TokenKind) -> Result<(Secret, Digest), NoRandomness> {
    Ok(token_of(kind, &random_bytes::<TOKEN_BYTES>()?))
}

/// The token whose 256 bits are given.
pub(crate) fn token_of(kind: TokenKind, bits: &[u8]) -> (Secret, Digest) {
    let token = Secret::new(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bits)));
    let digest = digest_of(&token);
    (token, digest)
}

/// The digest under which a token is stored.
pub fn digest_of(token: &Secret) -> Digest {
    let hash = ring::digest::digest(&ring::digest::SHA256, token.reveal().as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.as_ref());
    Digest(bytes)
}

/// Whether two digests are the same, in a time that does not depend on where they differ.
pub(crate) fn same_digest(one: &Digest, other: &Digest) -> bool {
    let differing = one.0.iter().zip(other.0.iter()).fold(0, |differing, (a, b)| differing | (a ^ b));
    std::hint::black_box(differing) == 0
}

/// Random bytes from the system.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_its_kind_and_never_comes_twice() {
        let (one, digest) = new_token(TokenKind::Runner).expect("randomness");
        let (other, _) = new_token(TokenKind::Runner).expect("randomness");
        assert!(one.reveal().starts_with("forge_runner_"));
        assert_eq!(one.reveal().len(), "forge_runner_".len() + 43);
        assert!(one != other);
        assert!(same_digest(&digest, &digest_of(&one)));
        assert!(!same_digest(&digest, &digest_of(&other)));
    }
}
