//! The daemon's signing key as this runner has pinned it. It goes over to another one only in the words of the one before.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::KeyChange;
use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, UnparsedPublicKey};

use crate::files;

/// Why a change of the daemon's signing key is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PinError {
    /// Not base64, or no key.
    #[error(
        "the daemon says that its signing key changed, and what it says is damaged (the {0}): the pinned key stays"
    )]
    Damaged(&'static str),
    /// Not from the key that is pinned.
    #[error(
        "the daemon says that its signing key changed, and begins from another key than the pinned one, which stays"
    )]
    Elsewhere,
    /// Signed by someone else.
    #[error(
        "the daemon says that its signing key changed, and the pinned key did not sign that: the pinned one stays. Somebody may stand \
         between daemon and runner"
    )]
    Signature,
}

/// The key that `changes` lead to from `pinned`; `None` when there are none. All of them must be signed, each by the key before.
pub fn follow(pinned: &[u8], changes: &[KeyChange]) -> Result<Option<Vec<u8>>, PinError> {
    let mut current = pinned.to_vec();
    for change in changes {
        let decode = |text: &str, what| STANDARD.decode(text).map_err(|_| PinError::Damaged(what));
        let (from, to) = (decode(&change.from, "old key")?, decode(&change.to, "new key")?);
        let signature = decode(&change.signature, "signature")?;
        if from != current {
            return Err(PinError::Elsewhere);
        }
        if to.len() != ED25519_PUBLIC_KEY_LEN {
            return Err(PinError::Damaged("new key"));
        }
        UnparsedPublicKey::new(&ED25519, &current)
            .verify(&KeyChange::signed_bytes(&from, &to), &signature)
            .map_err(|_| PinError::Signature)?;
        current = to;
    }
    Ok((!changes.is_empty()).then_some(current))
}

/// A key as the API and the file show it.
pub(crate) fn shown(key: &[u8]) -> String {
    STANDARD.encode(key)
}

/// Pins `key` in the file at `path`.
pub(crate) fn write(path: &Path, key: &[u8]) -> io::Result<()> {
    files::replace_private(path, format!("{}\n", shown(key)).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    fn key(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key")
    }

    fn public(key: &Ed25519KeyPair) -> Vec<u8> {
        key.public_key().as_ref().to_vec()
    }

    fn change(from: &Ed25519KeyPair, to: &Ed25519KeyPair, signer: &Ed25519KeyPair) -> KeyChange {
        let signed = KeyChange::signed_bytes(&public(from), &public(to));
        KeyChange {
            from: shown(&public(from)),
            to: shown(&public(to)),
            signature: STANDARD.encode(signer.sign(&signed)),
        }
    }

    #[test]
    fn changes_are_followed_link_by_link() {
        let (one, two, three) = (key(1), key(2), key(3));
        let pinned = public(&one);
        assert_eq!(follow(&pinned, &[]), Ok(None));
        let chain = [change(&one, &two, &one), change(&two, &three, &two)];
        assert_eq!(follow(&pinned, &chain), Ok(Some(public(&three))));
        assert_eq!(follow(&public(&two), &chain), Err(PinError::Elsewhere), "the daemon sends what begins at the pin");
    }

    #[test]
    fn no_link_may_be_forged_left_out_or_damaged() {
        let (one, two, three) = (key(1), key(2), key(3));
        let pinned = public(&one);
        let forged = [change(&one, &two, &one), change(&two, &three, &three)];
        assert_eq!(follow(&pinned, &forged), Err(PinError::Signature));
        let gap = [change(&one, &two, &one), change(&three, &two, &three)];
        assert_eq!(follow(&pinned, &gap), Err(PinError::Elsewhere));
        let good = change(&one, &two, &one);
        let swapped = KeyChange { to: shown(&public(&three)), ..good.clone() };
        assert_eq!(follow(&pinned, &[swapped]), Err(PinError::Signature));
        let short = KeyChange { to: STANDARD.encode([1, 2, 3]), ..good.clone() };
        assert_eq!(follow(&pinned, &[short]), Err(PinError::Damaged("new key")));
        let garbled = KeyChange { signature: "?".to_owned(), ..good };
        assert_eq!(follow(&pinned, &[garbled]), Err(PinError::Damaged("signature")));
    }
}
