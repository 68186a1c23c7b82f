//! Fetches: when one is started without a rejection, and what becomes of what it brings.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use http::HeaderValue;
use tokio::time::Instant;

use super::{AccessToken, FetchReason, Live, Machine, Moment, OVERDUE, Tracked, Urgency};
use crate::{TokenError, TokenErrorKind};

/// The fetch under way.
#[derive(Debug, Clone)]
pub(crate) struct Fetching {
    pub(crate) id: u64,
    /// What the token service is asked for.
    pub(crate) reason: FetchReason,
    /// Somebody wants a new token in any case, and has started it or joined it.
    pub(super) forced: bool,
    pub(super) since: Moment,
    /// A rejection started or joined it.
    pub(crate) after_rejection: bool,
    /// It was started since some path refuses the token of that generation.
    pub(super) refused: Option<u64>,
}

impl Fetching {
    /// How long until it is taken to be lost.
    pub(super) fn left(&self, now: Moment) -> Duration {
        OVERDUE.saturating_sub(now.since(self.since))
    }
}

/// What a fetch brought.
#[derive(Debug)]
pub(crate) struct Brought {
    pub(crate) token: AccessToken,
    /// The header's value that carries it.
    pub(crate) value: HeaderValue,
    /// What is left of its life.
    pub(crate) remaining: Duration,
    /// What was left of it when its request was sent.
    pub(crate) lifetime: Duration,
}

/// What those who wait for a fetch are told: the token, and whether the endpoint vouches for it, having been told to
/// bring another; or an error.
pub(crate) type Told = Result<(Arc<Live>, bool), TokenError>;

impl Machine {
    pub(super) fn refresh_ahead(&mut self, now: Moment, can_fetch: bool) {
        if can_fetch && self.refresh_due(now).is_some_and(|due| due <= now.mono) {
            self.start(now, FetchReason::Early);
        }
    }

    /// When the next refresh ahead is to be made, unless a fetch is under way.
    pub(super) fn refresh_due(&self, now: Moment) -> Option<Instant> {
        if self.fetching.is_some() {
            return None;
        }
        let due = self.tokens.refresh_due(now)?;
        Some(self.gate.opens().map_or(due, |opens| opens.max(due)))
    }

    /// How long until a refresh ahead may be due, or the token's end.
    pub(crate) fn until_refresh(&self, now: Moment) -> Duration {
        let Some(served) = self.tokens.served() else {
            return Duration::ZERO;
        };
        let due = self.refresh_due(now);
        let due = due.map_or(OVERDUE, |due| due.saturating_duration_since(now.mono));
        due.min(now.until(served.live.expires))
    }

    pub(super) fn start(&mut self, now: Moment, reason: FetchReason) -> u64 {
        self.fetches += 1;
        self.fetching = Some(Fetching {
            id: self.fetches,
            reason,
            forced: reason == FetchReason::Forced,
            since: now,
            after_rejection: false,
            refused: None,
        });
        self.fetches
    }

    /// The fetch ended. `None`: it is not the one under way, and what it brought is of no use. Else its
    /// reason, and what to tell those who wait for it; the flag says that its token is a new one.
    pub(crate) fn fetched(
        &mut self,
        now: Moment,
        id: u64,
        outcome: Result<Brought, TokenError>,
    ) -> Option<(FetchReason, Told, bool)> {
        let Some(fetching) = self.fetching.take_if(|fetching| fetching.id == id) else {
            self.dropped.extend(outcome.err());
            return None;
        };
        let (told, new) = match outcome.and_then(expired_on_arrival) {
            Ok(brought) => {
                let (brought, new) = self.brought(now, &fetching, brought);
                (Ok(brought), new)
            }
            Err(error) => {
                self.came_to_nothing(&fetching);
                let failed = self.gate.failed(now.mono, error.clone(), &mut self.rng);
                self.dropped.extend(failed);
                let urgency = match self.tokens.live(now) {
                    Some(_) => Urgency::NotUrgent,
                    None => Urgency::Urgent,
                };
                let closed = self.gate.closed(now.mono, urgency);
                (Err(closed.unwrap_or(error)), false)
            }
        };
        self.settle(now);
        let reason = match fetching.forced {
            true => FetchReason::Forced,
            false => fetching.reason,
        };
        Some((reason, told, new))
    }

    fn brought(
        &mut self,
        now: Moment,
        fetching: &Fetching,
        brought: Brought,
    ) -> ((Arc<Live>, bool), bool) {
        self.dropped.extend(self.gate.open());
        self.hear(now.mono);
        let reason = fetching.reason;
        let Brought {
            token,
            value,
            remaining,
            lifetime,
        } = brought;
        let known = self.tokens.generation_of(token.expose_secret());
        let same = known.is_some();
        let generation = known.unwrap_or(self.tokens.last_generation + 1);
        let ends = now.after(remaining);
        let served = self.tokens.served();
        let no_later = same || served.is_some_and(|it| remaining <= now.until(it.live.ends));
        let due = if reason == FetchReason::Early && no_later {
            // The endpoint caches: asked any sooner, it would hand out the same once more.
            now.after((remaining / 2).max(Duration::from_secs(10)))
        } else {
            let margin = refresh_margin(lifetime, self.margin, &mut self.rng);
            now.after(remaining.saturating_sub(margin))
        };
        let live = Arc::new(Live {
            value,
            token,
            generation,
            expires: now.after(remaining.saturating_sub(hard_margin(lifetime))),
            ends,
            ask: now.mono,
        });
        let tracked = Tracked::new(Arc::clone(&live), due, now);
        let unproven = self.tokens.newest().is_some_and(|newest| !newest.proven);
        if fetching.after_rejection && unproven && !same {
            self.tokens.row = self.tokens.row.saturating_add(1);
        }
        self.tokens.bring(tracked, fetching.forced, now);
        self.tokens.put_off(now);
        let vouches = matches!(reason, FetchReason::Rejected | FetchReason::Forced) && same;
        if vouches && fetching.refused == Some(generation) {
            self.paths.fetch_brought_the_same(fetching.id, now.mono);
        } else {
            self.paths.fetch_brought(fetching.id, generation);
        }
        ((live, vouches), !same)
    }

    /// The fetch was lost with its runtime.
    pub(crate) fn lost(&mut self, now: Moment, id: u64) {
        if let Some(fetching) = self.fetching.take_if(|fetching| fetching.id == id) {
            self.gate.lost(now.mono, &mut self.rng);
            self.came_to_nothing(&fetching);
        }
        self.settle(now);
    }

    /// That is not the fault of the path whose 401 asked for it.
    fn came_to_nothing(&mut self, fetching: &Fetching) {
        if fetching.refused.is_some() {
            self.limits.give_back();
            self.paths.fetch_failed(fetching.id);
        }
    }
}

fn expired_on_arrival(brought: Brought) -> Result<Brought, TokenError> {
    if brought.remaining.is_zero() {
        return Err(TokenError::new(
            TokenErrorKind::InvalidResponse,
            "the token had expired when it arrived",
        ));
    }
    Ok(brought)
}

/// A request must arrive before its token expires.
fn hard_margin(lifetime: Duration) -> Duration {
    (lifetime / 20).min(Duration::from_secs(10))
}

/// How long before its end a token is refreshed: up to 20 % longer at random, so that a fleet spreads.
fn refresh_margin(lifetime: Duration, user: Option<Duration>, rng: &mut Rng) -> Duration {
    let margin = user.unwrap_or(Duration::from_secs(3600)).min(lifetime / 2);
    margin.mul_f64(1.0 + 0.2 * rng.f64())
}
