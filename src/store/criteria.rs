//! What would do for an answer.

use super::{
    found::Found,
    memory::{Memory, is_same},
};
use crate::{AccessToken, FetchReason, TokenRequest};

pub(super) struct Criteria {
    reason: FetchReason,
    /// The token to be replaced, and its number.
    replaced: Option<(AccessToken, u64)>,
}

impl Criteria {
    pub(super) fn new(request: &TokenRequest, memory: &Memory) -> Self {
        let reason = request.reason();
        let replaced = match (request.replaces(), reason) {
            (Some(token), _) => Some(token),
            (None, FetchReason::First) => None,
            // Whoever asks does not say. That it has the newest it was given is the safe guess.
            (None, _) => memory.newest(),
        };
        Self {
            reason,
            replaced: replaced.map(|token| (token.clone(), memory.sequence(token))),
        }
    }

    /// Whether what was found in the store will do. `asked` is what its counter was when the request
    /// began.
    pub(super) fn takes(&self, found: &Found, asked: u64) -> bool {
        if self.reason == FetchReason::Forced || !found.is_live() {
            return false;
        }
        let Some((replaced, sequence)) = &self.replaced else {
            // Nobody knows which token was rejected.
            return self.reason != FetchReason::Rejected;
        };
        if !is_same(replaced, &found.token) {
            return found.sequence > *sequence;
        }
        match self.reason {
            // Meanwhile the issuer was asked, for another's rejection, and handed it out again.
            FetchReason::Rejected => found.asked > asked,
            FetchReason::Early => found.is_confirmed(),
            _ => false,
        }
    }

    /// Whether a token that was fetched for this is one that there was already.
    pub(super) fn is_confirmed_by(&self, token: &AccessToken, found: Option<&Found>) -> bool {
        let known = [self.replaced(), found.map(|found| &found.token)];
        known
            .into_iter()
            .flatten()
            .any(|known| is_same(known, token))
    }

    /// Fetches for rejections are, and no others.
    pub(super) fn is_limited(&self) -> bool {
        self.reason == FetchReason::Rejected
    }

    /// Whether a fetch for this counts as the issuer's own word on a token that was refused.
    pub(super) fn asks_the_issuer(&self) -> bool {
        matches!(self.reason, FetchReason::Rejected | FetchReason::Forced)
    }

    pub(super) fn replaced(&self) -> Option<&AccessToken> {
        self.replaced.as_ref().map(|(token, _)| token)
    }

    /// The number of a token that was fetched for this: that of the newest token, if it is that one
    /// again, else the next.
    pub(super) fn number(&self, token: &AccessToken, found: Option<&Found>, highest: u64) -> u64 {
        let found = found.map(|found| (&found.token, found.sequence));
        let replaced = self
            .replaced
            .as_ref()
            .map(|(token, number)| (token, *number));
        let newest = [found, replaced].into_iter().flatten();
        let newest = newest.max_by_key(|(_, number)| *number);
        match newest {
            Some((newest, number)) if is_same(newest, token) && number >= highest => number,
            Some((_, number)) => number.max(highest).saturating_add(1),
            None => highest.saturating_add(1),
        }
    }
}
