//! The key that stored tokens are sealed with, and the name they are stored under.

use std::{fmt, sync::Arc};

use chacha20poly1305::{XNonce, aead::Generate};
use hkdf::Hkdf;
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;

/// What stored tokens are sealed with, and the name they are stored under: both derived from a secret,
/// and bound to a context.
///
/// [`FetchToken::sealing_key`](crate::FetchToken::sealing_key) makes one from the app secret, for its app
/// id and endpoint. For other token services, take the secret that they get tokens with, or any other
/// that all replicas have, and a context that tells apart what must not share a token. Another secret or
/// another context is another key and another name: the two never meet.
///
/// Clones share one copy, which is zeroized when the last is dropped.
///
/// ```
/// use tower_symbl_auth::store::SealingKey;
///
/// let key = SealingKey::new("client-secret", "my-client https://issuer.example/token");
/// assert!(!format!("{key:?}").contains("client-secret"));
/// ```
///
/// # Derivation
///
/// HKDF-SHA-256 (RFC 5869) with the salt `tower-symbl-auth/store` and the secret as input:
///
/// | info | length | what |
/// |---|---|---|
/// | `seal`, a zero byte, the context | 32 | the key for XChaCha20-Poly1305 |
/// | `name`, a zero byte, the context | 16 | the name, as 32 lower-case hexadecimal digits |
#[derive(Clone)]
pub struct SealingKey(Arc<Derived>);

struct Derived {
    seal: Zeroizing<[u8; 32]>,
    name: String,
}

impl SealingKey {
    /// The key of a secret in a context. The secret may have any length; it should be one that nobody
    /// can guess, since whoever reads the store can try guesses.
    #[must_use]
    pub fn new(secret: impl AsRef<[u8]>, context: impl AsRef<[u8]>) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(SALT), secret.as_ref());
        let expand = |label: &[u8], output: &mut [u8]| {
            hkdf.expand_multi_info(&[label, b"\0", context.as_ref()], output)
                .expect("SHA-256 expands to 32 bytes and more");
        };
        let mut seal = Zeroizing::new([0; 32]);
        expand(b"seal", &mut *seal);
        let mut name = [0; 16];
        expand(b"name", &mut name);
        let name = hex(&name);
        Self(Arc::new(Derived { seal, name }))
    }

    pub(super) fn seal(&self) -> &[u8; 32] {
        &self.0.seal
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey([redacted])")
    }
}

/// A text that nobody else has made or will make; `None` if the system has no random bytes.
pub(super) fn random() -> Option<String> {
    XNonce::try_generate().ok().map(|bytes| hex(&bytes))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(digit).collect()
}

const SALT: &[u8] = b"tower-symbl-auth/store";

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's `hmac`, see `envelope`.
    #[test]
    fn key_and_name_are_those_of_the_documented_derivation() {
        let key = SealingKey::new("app-secret", "context");
        assert_eq!(
            hex(key.seal()),
            "6945b73537065a535e6c7655e00c23af1bc7a26b676355b11e314685704d880a"
        );
        assert_eq!(key.name(), "3f1e96821faefc0986b52a2b97b78b2f");
    }

    #[test]
    fn another_secret_or_context_is_another_key_and_another_name() {
        let keys =
            [("a", "b"), ("a", "c"), ("b", "b"), ("ab", "")].map(|(s, c)| SealingKey::new(s, c));
        for (index, key) in keys.iter().enumerate() {
            for other in &keys[..index] {
                assert_ne!(key.seal(), other.seal());
                assert_ne!(key.name(), other.name());
            }
        }
    }
}
