//! What is stored: a token, sealed. `envelope.md` tells it byte by byte.

use std::{fmt, time::Duration};

use bytes::Bytes;
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{AeadInOut, Generate, KeyInit},
};
use secrecy::zeroize::Zeroizing;
use tower::BoxError;

use super::{SealingKey, limits::FleetLimits};

const VERSION: u8 = 1;
const NONCE: usize = 24;

/// A body.
pub(super) struct Envelope {
    pub(super) sequence: u64,
    pub(super) asked: u64,
    pub(super) kept: Duration,
    pub(super) good: Duration,
    pub(super) limits: FleetLimits,
    pub(super) confirmed: bool,
    pub(super) secret: Zeroizing<String>,
}

/// Why stored bytes are not used. Nothing of them is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    Truncated,
    Version(u8),
    Foreign,
    Malformed,
}

impl Envelope {
    /// # Errors
    ///
    /// When the system has no random bytes.
    pub(super) fn seal(&self, key: &SealingKey, name: &str) -> Result<Bytes, BoxError> {
        Ok(self.seal_with(key, name, &XNonce::try_generate()?))
    }

    fn seal_with(&self, key: &SealingKey, name: &str, nonce: &XNonce) -> Bytes {
        // Encrypted in place: of what was in clear, nothing is left.
        let mut body = self.body();
        XChaCha20Poly1305::new(key.seal().into())
            .encrypt_in_place(nonce, &associated(name), &mut *body)
            .expect("a token is shorter than 256 GiB");
        [&[VERSION], nonce.as_slice(), body.as_slice()]
            .concat()
            .into()
    }

    pub(super) fn open(bytes: &[u8], key: &SealingKey, name: &str) -> Result<Self, Unreadable> {
        let (&version, rest) = bytes.split_first().ok_or(Unreadable::Truncated)?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let (nonce, sealed) = rest.split_at_checked(NONCE).ok_or(Unreadable::Truncated)?;
        let nonce = XNonce::try_from(nonce).map_err(|_| Unreadable::Truncated)?;
        let mut body = Zeroizing::new(sealed.to_vec());
        XChaCha20Poly1305::new(key.seal().into())
            .decrypt_in_place(&nonce, &associated(name), &mut *body)
            .map_err(|_| Unreadable::Foreign)?;
        Self::from_body(&body).ok_or(Unreadable::Malformed)
    }

    fn body(&self) -> Zeroizing<Vec<u8>> {
        // With room for the tag, so that it is never moved.
        let mut body = Zeroizing::new(Vec::with_capacity(41 + self.secret.len() + 16));
        body.extend(self.sequence.to_be_bytes());
        body.extend(self.asked.to_be_bytes());
        body.extend(millis(self.kept).to_be_bytes());
        body.extend(millis(self.good).to_be_bytes());
        body.extend(self.limits.slow.to_be_bytes());
        body.extend(self.limits.fast.to_be_bytes());
        body.push(self.confirmed.into());
        body.extend_from_slice(self.secret.as_bytes());
        body
    }

    fn from_body(body: &[u8]) -> Option<Self> {
        let mut rest = body;
        let sequence = u64::from_be_bytes(take(&mut rest)?);
        let asked = u64::from_be_bytes(take(&mut rest)?);
        let kept = Duration::from_millis(u64::from_be_bytes(take(&mut rest)?));
        let good = Duration::from_millis(u64::from_be_bytes(take(&mut rest)?));
        let slow = u32::from_be_bytes(take(&mut rest)?);
        let fast = u32::from_be_bytes(take(&mut rest)?);
        let [confirmed] = take(&mut rest)?;
        let secret = str::from_utf8(rest).ok()?;
        Some(Self {
            sequence,
            asked,
            kept,
            good,
            limits: FleetLimits { slow, fast },
            confirmed: confirmed == 1,
            secret: Zeroizing::new(secret.to_owned()),
        })
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("it is cut off"),
            Self::Version(version) => write!(f, "its version is {version}, and 1 is known"),
            Self::Foreign => f.write_str("it was not sealed with this key, or is damaged"),
            Self::Malformed => f.write_str("it was sealed with this key, and holds no token"),
        }
    }
}

fn associated(name: &str) -> Vec<u8> {
    [&[VERSION], name.as_bytes()].concat()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::key::hex;

    fn key() -> SealingKey {
        SealingKey::new("app-secret", "context")
    }

    fn envelope() -> Envelope {
        let day = Duration::from_secs(86_400);
        Envelope {
            sequence: 7,
            asked: 2,
            kept: day,
            good: day,
            limits: FleetLimits {
                slow: 150_000,
                fast: 15_000,
            },
            confirmed: false,
            secret: Zeroizing::new("s3cr3t".to_owned()),
        }
    }

    fn why(bytes: &[u8], key: &SealingKey, name: &str) -> Option<Unreadable> {
        Envelope::open(bytes, key, name).err()
    }

    /// Computed with Python's `hmac` and pycryptodome's XChaCha20-Poly1305.
    #[test]
    fn the_documented_test_vector_is_what_is_sealed_and_opens() {
        let vector: String = include_str!("envelope.md")
            .split("```")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .skip(1)
            .collect();
        let nonce = XNonce::from(std::array::from_fn(|index| index as u8));
        let sealed = envelope().seal_with(&key(), key().name(), &nonce);
        assert_eq!(hex(&sealed), vector);

        let opened = Envelope::open(&sealed, &key(), key().name()).ok().unwrap();
        assert_eq!(opened.body(), envelope().body());
    }

    #[test]
    fn no_two_envelopes_are_alike() {
        let sealed = || envelope().seal(&key(), "name").unwrap();
        assert_ne!(sealed(), sealed());
        assert!(!sealed().windows(6).any(|window| window == b"s3cr3t"));
    }

    #[test]
    fn another_key_another_name_and_another_version_open_nothing() {
        let sealed = envelope().seal(&key(), "name").unwrap();
        assert_eq!(why(&sealed, &key(), "name"), None);
        assert_eq!(why(&sealed, &key(), "name-2"), Some(Unreadable::Foreign));
        let other = SealingKey::new("app-secret", "other");
        assert_eq!(why(&sealed, &other, "name"), Some(Unreadable::Foreign));
        let future = [&[2], &sealed[1..]].concat();
        assert_eq!(why(&future, &key(), "name"), Some(Unreadable::Version(2)));
        assert_eq!(why(b"", &key(), "name"), Some(Unreadable::Truncated));
        assert_eq!(
            why(&sealed[..20], &key(), "name"),
            Some(Unreadable::Truncated)
        );
    }

    #[test]
    fn a_body_that_holds_no_token_is_malformed() {
        let (key, nonce) = (key(), XNonce::default());
        for body in [&b""[..], &[0; 40], &[0xff; 50]] {
            let mut sealed = body.to_vec();
            let cipher = XChaCha20Poly1305::new(key.seal().into());
            cipher
                .encrypt_in_place(&nonce, &associated("name"), &mut sealed)
                .unwrap();
            let bytes = [&[VERSION], nonce.as_slice(), &sealed].concat();
            assert_eq!(why(&bytes, &key, "name"), Some(Unreadable::Malformed));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes: Vec<u8>, version in 0..3_u8) {
            prop_assert!(Envelope::open(&bytes, &key(), "name").is_err());
            let bytes = [&[version], &*bytes].concat();
            prop_assert!(Envelope::open(&bytes, &key(), "name").is_err());
            Envelope::from_body(&bytes);
        }

        #[test]
        fn a_changed_or_missing_byte_is_noticed(at: prop::sample::Index, change in 1..=255_u8) {
            let sealed = envelope().seal(&key(), "name").unwrap();
            let at = at.index(sealed.len());
            let mut changed = sealed.to_vec();
            changed[at] ^= change;
            prop_assert!(Envelope::open(&changed, &key(), "name").is_err());
            prop_assert!(Envelope::open(&sealed[..at], &key(), "name").is_err());
        }
    }
}
