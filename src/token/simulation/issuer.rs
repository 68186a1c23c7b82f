//! The issuer of tokens, and the API that looks at them.

use std::time::Duration;

use http::HeaderValue;

use super::{
    super::{
        AccessToken,
        machine::{Brought, Ended},
    },
    trouble::{Issuer, Outage, SECOND},
    world::{Issued, RequestPhase, Said, World},
};
use crate::{FetchReason, TokenError, TokenErrorKind};

impl World {
    pub(super) fn judge(&mut self, request: usize) -> Said {
        let it = &self.requests[request];
        let generation = match &it.phase {
            RequestPhase::First { generation, .. } | RequestPhase::Second { generation, .. } => {
                *generation
            }
            _ => return Said::Nothing,
        };
        let path = it.path;
        let now = self.now;
        let within = |period: &super::trouble::Period| period.contains(&now);
        if let Some((share, _)) = self.trouble.fails.as_ref().filter(|(_, it)| within(it))
            && self.rng.f64() < *share
        {
            return Said::Nothing;
        }
        let bad_node = self.trouble.bad_node.as_ref().filter(|(_, it)| within(it));
        if bad_node.is_some_and(|(share, _)| self.rng.f64() < *share)
            || self.is_bad(path)
            || self.trouble.refuses_all.as_ref().is_some_and(within)
        {
            return Said::No;
        }
        let Some(issued) = self.issued(generation) else {
            return Said::No;
        };
        if issued.revoked.is_some() || now < issued.known_from {
            return Said::No;
        }
        if now < issued.ends {
            return Said::Yes;
        }
        let sent = now.saturating_sub(self.trouble.latency / 2);
        self.requests[request].outlived = sent < issued.live_until();
        Said::No
    }

    /// Whether it always answers 401. In a harmless world some token is accepted before any does.
    pub(super) fn is_bad(&self, path: usize) -> bool {
        path < self.trouble.bad_paths && (!self.accepted.is_empty() || !self.trouble.harmless)
    }

    pub(super) fn issued(&self, generation: u64) -> Option<&Issued> {
        let found = self.generations.iter().find(|(it, _)| *it == generation);
        found.map(|(_, index)| &self.issued[*index])
    }

    /// Makes a token, or hands out the one there is. Its place.
    pub(super) fn issue(&mut self) -> usize {
        let now = self.now;
        if let (Issuer::Caches(stale), Some(last)) = (self.trouble.issuer, self.issued.last()) {
            let is_good = last.revoked.is_none_or(|at| now < at + stale);
            let left = last.ends.saturating_sub(now);
            if is_good && left > self.trouble.lifetime / 10 {
                return self.issued.len() - 1;
            }
        }
        if self.trouble.issuer == Issuer::OneAtATime {
            for issued in &mut self.issued {
                issued.revoked.get_or_insert(now);
            }
        }
        // The very first token of a harmless world is known from the start.
        let lag = match self.trouble.harmless && self.issued.is_empty() {
            true => Duration::ZERO,
            false => self.trouble.lag,
        };
        self.issued.push(Issued {
            secret: format!("token-{}", self.issued.len() + 1),
            known_from: now + lag,
            revoked: None,
            ends: now + self.trouble.lifetime,
            told: self.trouble.lifetime,
        });
        self.issued.len() - 1
    }

    /// How the endpoint is at that time.
    pub(super) fn outage(&self, at: Duration) -> Option<Outage> {
        // In a harmless world there is a token before anything goes wrong.
        if self.trouble.harmless && self.issued.is_empty() {
            return None;
        }
        let mut outages = self.trouble.outages.iter();
        let found = outages.find(|(_, period)| period.contains(&at));
        found.map(|(outage, _)| *outage)
    }

    pub(super) fn fetched(&mut self, id: u64) {
        if self.fetching != Some(id) {
            return;
        }
        let now = self.moment();
        let (since, _) = self.fetches[self.fetches.len() - 1];
        let outcome = match self.outage(since) {
            Some(Outage::Loses) => {
                self.tell(|| "the fetch is lost".into());
                self.machine.lost(now, id);
                return self.follow();
            }
            Some(Outage::Hangs)
                if (1..3).all(|n| self.outage(since + SECOND * 10 * n) == Some(Outage::Hangs)) =>
            {
                Err(TokenError::new(TokenErrorKind::Timeout, "it hangs"))
            }
            Some(Outage::Fails) => Err(TokenError::new(TokenErrorKind::Unavailable, "it fails")),
            Some(Outage::Refuses) => Err(TokenError::new(TokenErrorKind::Credentials, "who?")),
            Some(Outage::Limits(after)) => {
                Err(TokenError::new(TokenErrorKind::RateLimited, "slow").with_retry_after(after))
            }
            Some(Outage::Hangs) | None => Ok(self.issue()),
        };
        let place = outcome.as_ref().ok().copied();
        let live = self.plan().live.map(|live| live.generation);
        let outcome = outcome.map(|place| {
            let Issued {
                secret, ends, told, ..
            } = &mut self.issued[place];
            let remaining = ends.saturating_sub(self.now);
            *told = remaining;
            Brought {
                token: AccessToken::sent_at(secret.clone(), remaining, now).expect("it is plain"),
                value: HeaderValue::from_static("token"),
                remaining,
                lifetime: remaining,
            }
        });
        let failed = outcome.is_err();
        let told = self.machine.fetched(now, id, outcome);
        let Some((reason, told, _)) = told else {
            return self.breaks("a fetch that is under way is not known".into());
        };
        if let (Ok((live, _)), Some(place)) = (&told, place) {
            let generation = live.generation;
            if !self.generations.iter().any(|(it, _)| *it == generation) {
                self.generations.push((generation, place));
            }
            self.tell(|| format!("a fetch ({reason:?}) brought token {generation}"));
        } else {
            self.tell(|| format!("a fetch ({reason:?}) failed: {told:?}"));
        }
        let still = self.plan().live.map(|live| live.generation);
        if failed && live.is_some() && still != live && !self.machine.has_turned(now) {
            self.breaks("a failed fetch displaced a live token".into());
        }
        let was_accepted = live.is_some_and(|live| self.accepted.contains(&live));
        let displaced = still != live && reason != FetchReason::Forced;
        if was_accepted && displaced && !self.machine.has_turned(now) {
            self.breaks("a token that had been accepted gave way to one that had not".into());
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.fetching = None;
        self.follow();
        for (request, it, _) in waiting {
            debug_assert_eq!(it, id);
            self.waited(request, Ended::Told(told.clone()));
        }
    }
}
