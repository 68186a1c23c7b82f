//! What a flight leaves behind: a newer token, the same one, or an error.

use std::time::Duration;

use super::{
    FetchReason,
    cache::Shared,
    clock::Moment,
    flight::{Home, Landed},
    live::Live,
    schedule::{after_same_token, hard_margin, refresh_margin},
    service::Fetched,
    state::State,
};
use crate::{TokenError, TokenErrorKind, sync::Ordering, telemetry};

impl Home for Shared {
    fn land(&self, id: u64, outcome: Result<Fetched, TokenError>) {
        let mut state = self.lock();
        // A flight that was replaced has nothing more to say.
        let Some(flight) = state.flight.take_if(|flight| flight.id == id) else {
            return;
        };
        self.after_rejection.store(false, Ordering::Relaxed);
        let before = state.generation();
        let landed = outcome
            .and_then(|fetched| self.adopt(&mut state, flight.reason, fetched))
            .map_err(|error| self.suffer(&mut state, error));
        let newer = matches!(&landed, Ok(live) if live.generation > before);
        if let Some(key) = &flight.made_for {
            match &landed {
                Ok(live) if newer => state.book.brought(key, id, live.generation),
                _ => state.book.fruitless(key, id, self.now().mono),
            }
            self.count_unjudged(&mut state);
        }
        drop(state);
        telemetry::fetched(flight.reason, flight.time, newer, landed.as_ref().err());
        telemetry::left(|| self.life_left());
        flight.tell(landed);
    }

    fn lose(&self, id: u64, told: Option<TokenError>) {
        let mut state = self.lock();
        let Some(flight) = state.flight.take_if(|flight| flight.id == id) else {
            return;
        };
        self.after_rejection.store(false, Ordering::Relaxed);
        flight.judge_nobody(&mut state.book);
        self.count_unjudged(&mut state);
        let now = self.now();
        if let Some(live) = self.live_at(now) {
            self.publish(&mut state, live.with_refresh(live.due), now.mono);
        }
        drop(state);
        match told {
            Some(error) => {
                telemetry::fetched(flight.reason, flight.time, false, Some(&error));
                flight.tell(Err(error));
            }
            None => {
                telemetry::lost(flight.reason, flight.time);
                drop(flight);
            }
        }
    }
}

impl Shared {
    fn adopt(&self, state: &mut State, reason: FetchReason, fetched: Fetched) -> Landed {
        let Fetched { token, lifetime } = fetched;
        let arrival = Moment::now();
        let remaining = token.remaining(arrival);
        if remaining.is_zero() {
            return Err(TokenError::new(
                TokenErrorKind::InvalidResponse,
                "the token had expired when it arrived",
            ));
        }
        let newest = state.newest.as_deref();
        let same = newest.is_some_and(|it| it.token.expose_secret() == token.expose_secret());
        let no_later = same || newest.is_some_and(|it| remaining <= it.token.remaining(arrival));
        let margin = if reason == FetchReason::Early && no_later {
            // The endpoint caches: asked any sooner, it would hand out the same once more.
            remaining.saturating_sub(after_same_token(remaining))
        } else {
            refresh_margin(lifetime, self.config.margin)
        };
        let generation = state.generation() + u64::from(!same);
        // By the cache's own clock, which need not be the one that the token was made by.
        let now = self.now();
        let due = now.after(remaining.saturating_sub(margin));
        let value = match state.newest.as_deref() {
            Some(newest) if same => newest.value.clone(),
            _ => (self.config.header)(&token),
        };
        let live = Live {
            value,
            token,
            generation,
            expires: now.after(remaining.saturating_sub(hard_margin(lifetime))),
            due,
            refresh: due,
            look: now.mono,
        };
        state.refresh_failures.reset();
        state.fetch_failures.reset();
        state.cool_down = None;
        state.asked_to_wait = None;
        Ok(self.publish(state, live, now.mono))
    }

    /// An error never displaces a live token: it puts off the next refresh, or with no live token
    /// begins a cool-down.
    fn suffer(&self, state: &mut State, error: TokenError) -> TokenError {
        let now = self.now();
        let asked = error.retry_after().unwrap_or_default();
        if let Some(live) = self.live_at(now) {
            let asked = asked.min(LONGEST_REFRESH_DELAY);
            if !asked.is_zero() {
                let end = now.mono + asked;
                state.asked_to_wait = Some((end, error.clone().until(end)));
            }
            let delay = state.refresh_failures.fail().max(asked);
            let refresh = now.after(delay.max(now.until(live.due)));
            self.publish(state, live.with_refresh(refresh), now.mono);
            return error;
        }
        let delay = match error.kind() {
            TokenErrorKind::Credentials => Duration::from_secs(5),
            _ => state.fetch_failures.fail(),
        };
        let end = now.mono + delay.max(asked.min(LONGEST_COOL_DOWN));
        let error = error.until(end);
        state.cool_down = Some((end, error.clone()));
        error
    }

    pub(super) fn count_unjudged(&self, state: &mut State) {
        let unjudged = state.book.unjudged(self.now().mono);
        self.unjudged.store(unjudged, Ordering::Relaxed);
    }
}

/// How long a `Retry-After` is honoured while there is a live token, and while there is none.
const LONGEST_REFRESH_DELAY: Duration = Duration::from_secs(300);
const LONGEST_COOL_DOWN: Duration = Duration::from_secs(60);
