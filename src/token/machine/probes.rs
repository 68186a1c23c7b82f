//! How the candidate is tried while the served token works.
//!
//! ```text
//!          the next request that may          accepted
//!   due ────────────────────────────► probe ───────────► the candidate takes over
//!    ▲                                 │  │
//!    │  dropped, failed, or            │  │ refused: it goes again with the served token
//!    ├──── no answer for 10 s ─────────┘  ▼
//!    └───────────────────────────────── rest 1 s, 2 s … 60 s
//! ```

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Key, Moment, gate::doubled, tokens::Tokens, tracked::SECOND};
use crate::token::live::Live;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const ANY_PATH_AFTER: Duration = Duration::from_secs(5);
const REFUSED_BY: usize = 64;

/// How the candidate is tried.
#[derive(Debug, Default)]
pub(super) struct Probing {
    probe: Option<Probe>,
    probes: u64,
    /// How many probes have been refused, and until when the next has to wait.
    refused: u32,
    rest_until: Option<Instant>,
    refused_by: Vec<Key>,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    id: u64,
    since: Instant,
}

impl Probing {
    /// That path refused the candidate.
    pub(super) fn refused_by(&mut self, path: &Key) {
        if self.refused_by.len() < REFUSED_BY && !self.refused_by.contains(path) {
            self.refused_by.push(Arc::clone(path));
        }
    }
}

impl Tokens {
    /// From when on the next request may be a probe, if any may.
    pub(super) fn probe_due(&self, now: Moment) -> Option<Instant> {
        let (served, candidate) = (self.served.as_ref()?, self.candidate.as_ref()?);
        let worth = candidate.ends_later_than(served, now) || served.doubted;
        if !worth || now.has_reached(candidate.live.expires) {
            return None;
        }
        let given_up = self.probing.probe.map(|probe| probe.since + ANSWER_WITHIN);
        Some(given_up.max(self.probing.rest_until).unwrap_or(now.mono))
    }

    /// Makes a request of that path the probe, if it may be one.
    pub(super) fn probe(&mut self, path: &Key, now: Moment) -> Option<(Arc<Live>, u64)> {
        if self.probe_due(now).is_none_or(|due| now.mono < due) {
            return None;
        }
        let candidate = self.candidate.as_ref()?;
        let has_refused = self.probing.refused_by.contains(path);
        if has_refused && candidate.age(now.mono) < ANY_PATH_AFTER {
            return None;
        }
        let live = Arc::clone(&candidate.live);
        Some((live, self.begin_probe(now.mono)))
    }

    pub(super) fn begin_probe(&mut self, now: Instant) -> u64 {
        self.probing.probes += 1;
        let id = self.probing.probes;
        self.probing.probe = Some(Probe { id, since: now });
        id
    }

    /// The probe was answered, dropped or failed. Whether it was the one that is waited for.
    pub(super) fn end_probe(&mut self, id: u64) -> bool {
        let ended = self.probing.probe.take_if(|probe| probe.id == id);
        ended.is_some()
    }

    pub(super) fn rest(&mut self, now: Instant) {
        let probing = &mut self.probing;
        let rest = doubled(SECOND, probing.refused, Duration::from_secs(60));
        probing.refused = probing.refused.saturating_add(1);
        probing.rest_until = Some(now + rest);
    }

    /// The served token was refused as well, for a request that had been a probe: that says nothing of
    /// the candidate, unless that is very young.
    pub(super) fn unrest(&mut self, now: Instant) {
        let candidate = self.candidate.as_ref();
        if candidate.is_some_and(|candidate| candidate.age(now) >= SECOND) {
            self.probing.refused = self.probing.refused.saturating_sub(1);
            self.probing.rest_until = None;
        }
    }

    pub(super) fn forget_probes(&mut self) {
        let probes = self.probing.probes;
        self.probing = Probing {
            probes,
            ..Probing::default()
        };
    }
}
