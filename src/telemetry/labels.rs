//! The words that fields and labels are made of. They are documented: to change one breaks dashboards.

#[cfg(feature = "metrics")]
use crate::NotRetried;
use crate::{FetchReason, TokenError, TokenErrorKind};

pub(super) const LOST: &str = "lost";
#[cfg(all(feature = "metrics", feature = "store"))]
pub(super) const TROUBLE: &str = "trouble";
#[cfg(all(feature = "metrics", feature = "store"))]
pub(super) const IGNORED: &str = "ignored";
#[cfg(feature = "metrics")]
pub(super) const RETRIED: &str = "retried";

pub(super) fn reason(reason: FetchReason) -> &'static str {
    match reason {
        FetchReason::First => "first",
        FetchReason::Expired => "expired",
        FetchReason::Early => "early",
        FetchReason::Rejected => "rejected",
        FetchReason::Forced => "forced",
    }
}

pub(super) fn outcome(newer: bool, error: Option<&TokenError>) -> &'static str {
    match error.map(TokenError::kind) {
        None if newer => "new_token",
        None => "same_token",
        Some(TokenErrorKind::Credentials) => "credentials",
        Some(TokenErrorKind::RateLimited) => "rate_limited",
        Some(TokenErrorKind::Unavailable) => "unavailable",
        Some(TokenErrorKind::Timeout) => "timeout",
        Some(TokenErrorKind::InvalidResponse) => "invalid_response",
        Some(TokenErrorKind::Internal) => "internal",
    }
}

#[cfg(feature = "metrics")]
pub(super) fn not_retried(why: &NotRetried) -> &'static str {
    match why {
        NotRetried::Body => "body",
        NotRetried::CoolingDown => "cooling_down",
        NotRetried::SameToken => "same_token",
        NotRetried::SecondRejection => "second_rejection",
        NotRetried::Unproven => "unproven",
        NotRetried::Unstamped => "unstamped",
        NotRetried::Token(_) => "token_error",
    }
}

#[cfg(all(feature = "metrics", feature = "store"))]
pub(super) fn store(outcome: super::StoreOutcome) -> &'static str {
    match outcome {
        super::StoreOutcome::Shared => "shared",
        super::StoreOutcome::Saved => "saved",
        super::StoreOutcome::Bypassed => "bypassed",
        super::StoreOutcome::Limited => "limited",
    }
}
