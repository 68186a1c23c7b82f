//! What was found in the store: an envelope, opened, with its age taken into account.

use std::{fmt, time::Duration};

use secrecy::zeroize::Zeroizing;

use super::{
    SealingKey, Stored,
    envelope::{Envelope, Unreadable},
    limits::FleetLimits,
};
use crate::{AccessToken, token::clock::Moment};

pub(super) struct Found {
    /// The token, and what is left of its life.
    pub(super) token: AccessToken,
    pub(super) sequence: u64,
    pub(super) asked: u64,
    pub(super) limits: FleetLimits,
    /// How long the token was good for when it was saved.
    good: Duration,
    /// When it was saved, the issuer had handed it out once more.
    confirmed: bool,
}

/// Why what was found is not used.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ignored {
    Unreadable(Unreadable),
    Older,
}

/// As for tokens that were fetched.
const HARD_MARGIN: Duration = Duration::from_secs(10);

impl Found {
    /// Opens what the store answered to a question of that moment.
    pub(super) fn open(
        stored: &Stored,
        key: &SealingKey,
        name: &str,
        asked_at: Moment,
    ) -> Result<Self, Ignored> {
        let envelope = Envelope::open(&stored.bytes, key, name).map_err(Ignored::Unreadable)?;
        // By the store's clock alone.
        let age = envelope.kept.saturating_sub(stored.expires_in);
        let left = envelope.good.saturating_sub(age);
        let secret = envelope.secret.as_str().to_owned();
        let token = AccessToken::sent_at(secret, left, asked_at)
            .map_err(|_| Ignored::Unreadable(Unreadable::Malformed))?;
        Ok(Self {
            token,
            sequence: envelope.sequence,
            asked: envelope.asked,
            limits: envelope.limits.after(age),
            good: envelope.good,
            confirmed: envelope.confirmed,
        })
    }

    /// The same, to be saved with other limits.
    pub(super) fn sealed_again(&self, limits: FleetLimits) -> Envelope {
        let good = self.token.expires_in();
        Envelope {
            sequence: self.sequence,
            asked: self.asked,
            kept: kept_for(&self.token),
            good,
            limits,
            confirmed: false,
            secret: Zeroizing::new(self.token.expose_secret().to_owned()),
        }
    }

    /// Neither expired nor so near to it that no request would arrive before.
    pub(super) fn is_live(&self) -> bool {
        self.token.expires_in() > HARD_MARGIN.min(self.good / 20)
    }

    /// The issuer has handed out this token once more, and half of what it then told of its life is not
    /// over: to ask again this early brings the same.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed && self.token.expires_in() > self.good / 2
    }
}

/// How long a token is kept in the store: until it ends, and until nothing is left to be known of the
/// limits. In whole milliseconds, as it is told in the envelope.
pub(super) fn kept_for(token: &AccessToken) -> Duration {
    let lives = token.expires_in();
    let lives = lives - Duration::from_nanos((lives.subsec_nanos() % 1_000_000).into());
    FleetLimits::FULL_AFTER.max(lives)
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => why.fmt(f),
            Self::Older => f.write_str("it is older than what was stored before"),
        }
    }
}
