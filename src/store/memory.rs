//! What a process remembers of the tokens it has had, and of the store.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::found::Found;
use crate::AccessToken;

#[derive(Default)]
pub(super) struct Memory {
    /// The highest number seen in the store. What has a lower one is an older token, from a store that
    /// was rolled back, or replayed by somebody.
    highest: u64,
    /// The last tokens handed out, with their numbers, newest last.
    handed: VecDeque<(AccessToken, u64)>,
    /// Until when the store is not asked.
    off: Option<Instant>,
    limit_told: Option<Instant>,
}

/// How long a store in trouble is left alone.
const OFF: Duration = Duration::from_secs(10);
/// Two are all that a layer keeps; a fetch may be lost after its token was handed out.
const KEPT: usize = 8;
const TELL_LIMIT_EVERY: Duration = Duration::from_secs(60);

impl Memory {
    /// Takes note of what the store has; `false` if it is older than what it had.
    pub(super) fn note(&mut self, found: &Found) -> bool {
        if found.sequence < self.highest {
            return false;
        }
        self.highest = found.sequence;
        let same = |(token, _): &&mut (AccessToken, u64)| is_same(token, &found.token);
        if let Some((_, sequence)) = self.handed.iter_mut().find(same) {
            *sequence = found.sequence;
        }
        true
    }

    /// A token's number. One that was not handed out here, or long ago, is older than all of them.
    pub(super) fn sequence(&self, token: &AccessToken) -> u64 {
        let known = self.handed.iter().find(|(known, _)| is_same(known, token));
        known.map_or(0, |(_, sequence)| *sequence)
    }

    pub(super) fn newest(&self) -> Option<&AccessToken> {
        self.handed.back().map(|(token, _)| token)
    }

    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    pub(super) fn saved(&mut self, sequence: u64) {
        self.highest = self.highest.max(sequence);
    }

    pub(super) fn hand(&mut self, token: &AccessToken, sequence: u64) {
        self.handed.retain(|(known, _)| !is_same(known, token));
        if self.handed.len() == KEPT {
            self.handed.pop_front();
        }
        self.handed.push_back((token.clone(), sequence));
    }

    /// A token that did not pass through the store: whether it is older or newer than the next one
    /// there, nobody knows, so that counts as no newer, and is not used in its place.
    pub(super) fn hand_unsaved(&mut self, token: &AccessToken) {
        let known = self.handed.iter().find(|(known, _)| is_same(known, token));
        let sequence = known.map_or(self.highest.saturating_add(1), |(_, known)| *known);
        self.hand(token, sequence);
    }

    pub(super) fn is_off(&self) -> bool {
        self.off.is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn turn_off(&mut self) {
        self.off = Some(Instant::now() + OFF);
    }

    /// Whether it is time to say that the fleet's limit is reached: at first, and once a minute.
    pub(super) fn tells_limit(&mut self) -> bool {
        let now = Instant::now();
        let tells = self
            .limit_told
            .is_none_or(|told| now >= told + TELL_LIMIT_EVERY);
        if tells {
            self.limit_told = Some(now);
        }
        tells
    }
}

pub(super) fn is_same(one: &AccessToken, other: &AccessToken) -> bool {
    one.expose_secret() == other.expose_secret()
}
