//! Signatures that need the body and a key alone: Forge's own, and those in a header of the target's choice.

use ring::hmac;

use crate::hex;

/// HMAC-SHA256.
pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

/// HMAC-SHA256 in lower-case hex.
pub(super) fn hmac_hex(key: &[u8], message: &[u8]) -> String {
    hex::encode(hmac_sha256(key, message).as_ref())
}

/// `t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">`. The time is signed with the body, so that an old delivery cannot be played again.
pub(super) fn forge_signature(secret: &[u8], unix_seconds: i64, body: &[u8]) -> String {
    let mut message = format!("{unix_seconds}.").into_bytes();
    message.extend_from_slice(body);
    format!("t={unix_seconds},v1={}", hmac_hex(secret, &message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let digits = hmac_hex(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(digits, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn the_time_is_signed_with_the_body() {
        let signature = forge_signature(b"secret", 1_700_000_000, b"{}");
        assert_eq!(signature, format!("t=1700000000,v1={}", hmac_hex(b"secret", b"1700000000.{}")));
        assert_ne!(signature, forge_signature(b"secret", 1_700_000_001, b"{}"));
    }
}
