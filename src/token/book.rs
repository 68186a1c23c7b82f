//! The book of rejections, which keeps one path's trouble from becoming another's.
//!
//! An API can answer 401 on one path for reasons that no token heals. So each refresh after a
//! rejection is *made for* one key (method, origin and path: whoever's rejection started it), draws
//! one share of a budget common to all keys, and is on trial until it has shown its worth:
//!
//! ```text
//!            draw a share                    newer token
//!   (none) ───────────────► on trial, flying ───────────► on trial, landed
//!     ▲                        │        │                    │         │
//!     │  flight lost:          │        │ same token,        │ retry   │ retry
//!     ├────── share back ──────┘        │ error              │ accepted│ rejected
//!     │                                 ▼                    │         ▼
//!     │                             fruitless: cool-down ◄───┼───── fruitless
//!     └──────────── key cleared, share back ◄────────────────┘
//! ```
//!
//! Who judges is the retry of the request that started the refresh. When there is none (the request
//! could not be replayed, or its caller went away), the next answer to that key under the new
//! generation does.
//!
//! A rejection of the key under the new generation, before its retry is answered, may be one more
//! revocation; but to wait for a slow retry each time would let its path begin one refresh after the
//! other. So for a key without a fruitless refresh it begins a second trial, once, and else it is a
//! verdict.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{budget::Budget, schedule::Backoff};

/// Method, origin and path, as one string.
pub(crate) type Key = Arc<str>;

const KEYS: usize = 64;
/// A trial that no answer has ended by then is dropped, so that a path gone silent costs nothing.
const TRIAL: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Book {
    /// Least recently judged first.
    entries: Vec<Entry>,
    budget: Budget,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    fruitless: Backoff,
    cool_until: Option<Instant>,
    trial: Option<Trial>,
}

#[derive(Debug)]
struct Trial {
    flight: u64,
    /// The generation that the flight brought; `None` while it is under way.
    brought: Option<u64>,
    judge: Judge,
    /// It was begun before the one before had been judged.
    second: bool,
}

#[derive(Debug)]
enum Judge {
    Retry,
    NextAnswer { until: Instant },
}

impl Book {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
            budget: Budget::new(),
        }
    }

    pub(crate) fn is_cooling_down(&self, key: &str, now: Instant) -> bool {
        let entry = self.entries.iter().find(|entry| *entry.key == *key);
        entry.is_some_and(|entry| entry.cool_until.is_some_and(|end| now < end))
    }

    /// Draws a share for one more refresh, made for `key`; `false` if the budget is empty.
    pub(crate) fn open(&mut self, key: &Key, flight: u64, has_retry: bool, now: Instant) -> bool {
        if !self.budget.draw(now) {
            return false;
        }
        let judge = if has_retry {
            Judge::Retry
        } else {
            Judge::next_answer(now)
        };
        let entry = self.entry(key);
        let second = entry.trial.is_some();
        entry.trial = Some(Trial {
            flight,
            brought: None,
            judge,
            second,
        });
        true
    }

    /// The refresh brought a newer token; the trial goes on.
    pub(crate) fn brought(&mut self, key: &str, flight: u64, generation: u64) {
        if let Some(trial) = self.trial(key, flight) {
            trial.brought = Some(generation);
        }
    }

    /// The refresh came to nothing of its own: give its share back, and judge nobody.
    pub(crate) fn lost(&mut self, key: &str, flight: u64) {
        if self.end_trial(key, flight).is_some() {
            self.budget.give_back();
        }
    }

    /// The retry that the refresh was for was accepted.
    pub(crate) fn accepted(&mut self, key: &str, flight: u64) {
        self.budget.give_back();
        self.end_trial(key, flight);
        self.clear(key);
    }

    /// A retry was accepted: nothing is held against its key. A refresh that is on trial stays so.
    pub(crate) fn clear(&mut self, key: &str) {
        self.entries
            .retain(|entry| *entry.key != *key || entry.trial.is_some());
        if let Some(entry) = self.entries.iter_mut().find(|entry| *entry.key == *key) {
            entry.fruitless.reset();
            entry.cool_until = None;
            if let Some(trial) = &mut entry.trial {
                trial.second = false;
            }
        }
    }

    /// The refresh did not help. Told once more after the verdict, or of a later refresh's key, this
    /// changes nothing.
    pub(crate) fn fruitless(&mut self, key: &Key, flight: u64, now: Instant) {
        if self.end_trial(key, flight).is_some() {
            self.cool_down(key, now);
        }
    }

    fn cool_down(&mut self, key: &Key, now: Instant) {
        let entry = self.entry(key);
        entry.cool_until = Some(now + entry.fruitless.step());
    }

    /// The retry will not be answered: leave the verdict to the next answer.
    pub(crate) fn leave(&mut self, key: &str, flight: u64, now: Instant) {
        if let Some(trial) = self.trial(key, flight) {
            trial.judge = Judge::next_answer(now);
        }
    }

    /// An answer to a request stamped with that generation.
    pub(crate) fn answered(&mut self, key: &Key, generation: u64, accepted: bool, now: Instant) {
        let on_trial = self.entries.iter().find_map(|entry| {
            let trial = entry.trial.as_ref()?;
            let is_judged = entry.key == *key && trial.is_judged_by(generation);
            let is_verdict = match trial.judge {
                Judge::NextAnswer { until } => now < until,
                Judge::Retry => !accepted && (trial.second || entry.fruitless.has_failed()),
            };
            (is_judged && is_verdict).then_some(trial.flight)
        });
        match on_trial {
            Some(flight) if accepted => self.accepted(key, flight),
            Some(flight) => self.fruitless(key, flight, now),
            None => {}
        }
    }

    /// How many trials wait for their key's next answer.
    pub(crate) fn unjudged(&mut self, now: Instant) -> usize {
        let mut waiting = 0;
        for entry in &mut self.entries {
            let until = entry.trial.as_ref().and_then(Trial::waits_until);
            match until {
                Some(until) if now < until => waiting += 1,
                Some(_) => entry.trial = None,
                None => {}
            }
        }
        waiting
    }

    /// The key's entry, as the most recently judged one; the least recent makes room for a new one.
    fn entry(&mut self, key: &Key) -> &mut Entry {
        let found = self.entries.iter().position(|entry| entry.key == *key);
        let entry = match found {
            Some(index) => self.entries.remove(index),
            None => {
                if self.entries.len() == KEYS {
                    self.entries.remove(0);
                }
                Entry {
                    key: key.clone(),
                    fruitless: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
                    cool_until: None,
                    trial: None,
                }
            }
        };
        let last = self.entries.len();
        self.entries.push(entry);
        &mut self.entries[last]
    }

    fn trial(&mut self, key: &str, flight: u64) -> Option<&mut Trial> {
        let entry = self.entries.iter_mut().find(|entry| *entry.key == *key)?;
        entry.trial.as_mut().filter(|trial| trial.flight == flight)
    }

    fn end_trial(&mut self, key: &str, flight: u64) -> Option<Trial> {
        let entry = self.entries.iter_mut().find(|entry| *entry.key == *key)?;
        entry.trial.take_if(|trial| trial.flight == flight)
    }
}

impl Trial {
    fn is_judged_by(&self, generation: u64) -> bool {
        self.brought.is_some_and(|brought| generation >= brought)
    }

    fn waits_until(&self) -> Option<Instant> {
        match self.judge {
            Judge::NextAnswer { until } => Some(until),
            Judge::Retry => None,
        }
    }
}

impl Judge {
    fn next_answer(now: Instant) -> Self {
        Self::NextAnswer { until: now + TRIAL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(name: &str) -> Key {
        name.into()
    }

    #[test]
    fn a_key_cools_down_longer_with_each_fruitless_refresh_until_an_accepted_retry_clears_it() {
        let (mut book, key, mut now) = (Book::new(), key("GET /"), Instant::now());
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            book.cool_down(&key, now);
            assert!(book.is_cooling_down(&key, now + seconds * SECOND - SECOND / 2));
            now += seconds * SECOND;
            assert!(!book.is_cooling_down(&key, now));
        }
        assert!(book.open(&key, 7, true, now));
        book.brought(&key, 7, 2);
        book.accepted(&key, 7);
        book.cool_down(&key, now);
        assert!(!book.is_cooling_down(&key, now + SECOND));
    }

    #[test]
    fn only_the_next_answer_under_the_new_generation_judges_what_has_no_retry() {
        let (mut book, key, now) = (Book::new(), key("POST /"), Instant::now());
        assert!(book.open(&key, 1, false, now));
        assert_eq!(book.unjudged(now), 1);
        book.answered(&key, 1, false, now);
        assert!(
            !book.is_cooling_down(&key, now),
            "the flight has not landed"
        );
        book.brought(&key, 1, 2);
        book.answered(&key, 1, false, now);
        assert!(
            !book.is_cooling_down(&key, now),
            "stamped before the refresh"
        );
        book.answered(&key, 2, false, now);
        assert!(book.is_cooling_down(&key, now));
        assert_eq!(book.unjudged(now), 0);
    }

    #[test]
    fn a_trial_that_nothing_answers_is_dropped_after_a_minute() {
        let (mut book, key, now) = (Book::new(), key("POST /"), Instant::now());
        assert!(book.open(&key, 1, true, now));
        book.leave(&key, 1, now);
        assert_eq!(book.unjudged(now + 59 * SECOND), 1);
        book.brought(&key, 1, 2);
        let later = now + 60 * SECOND;
        book.answered(&key, 2, false, later);
        assert!(!book.is_cooling_down(&key, later), "swept or not");
        assert_eq!(book.unjudged(later), 0);
    }

    #[test]
    fn an_accepted_retry_lets_the_next_revocation_have_a_second_trial_again() {
        let (mut book, key, now) = (Book::new(), key("GET /"), Instant::now());
        assert!(book.open(&key, 1, true, now) && book.open(&key, 2, true, now));
        book.brought(&key, 2, 3);
        book.clear(&key);
        book.answered(&key, 3, false, now);
        assert!(!book.is_cooling_down(&key, now));
    }

    #[test]
    fn the_least_recently_judged_of_sixty_four_keys_makes_room() {
        let (mut book, now) = (Book::new(), Instant::now());
        for number in 0..KEYS {
            book.cool_down(&key(&number.to_string()), now);
        }
        book.cool_down(&key("0"), now);
        book.cool_down(&key("new"), now);
        assert!(book.is_cooling_down("0", now) && book.is_cooling_down("new", now));
        assert!(!book.is_cooling_down("1", now));
    }

    #[test]
    fn an_older_refresh_never_settles_the_trial_of_a_newer_one() {
        let (mut book, key, now) = (Book::new(), key("GET /"), Instant::now());
        assert!(book.open(&key, 1, true, now) && book.open(&key, 2, true, now));
        book.accepted(&key, 1);
        assert!(book.trial(&key, 2).is_some());
    }

    #[test]
    fn a_rejection_under_the_new_generation_is_a_verdict_before_the_retrys_own() {
        let (mut book, key, now) = (Book::new(), key("GET /"), Instant::now());
        assert!(book.open(&key, 1, true, now));
        book.brought(&key, 1, 2);
        book.answered(&key, 2, true, now);
        assert!(book.trial(&key, 1).is_some(), "only the retry may accept");
        book.answered(&key, 2, false, now);
        assert!(!book.is_cooling_down(&key, now), "it may be a revocation");
        assert!(book.open(&key, 2, true, now));
        book.brought(&key, 2, 3);
        book.answered(&key, 3, false, now);
        assert!(book.is_cooling_down(&key, now), "once");
        book.fruitless(&key, 2, now);
        assert!(!book.is_cooling_down(&key, now + SECOND), "it counts once");
        let later = now + SECOND;
        assert!(book.open(&key, 3, true, later));
        book.brought(&key, 3, 4);
        book.answered(&key, 4, false, later);
        assert!(book.is_cooling_down(&key, later), "not with that history");
        book.accepted(&key, 3);
        assert!(!book.is_cooling_down(&key, later));
    }

    #[test]
    fn an_accepted_retry_without_a_refresh_of_its_own_clears_the_key_and_gives_no_share_back() {
        let (mut book, key, now) = (Book::new(), key("GET /"), Instant::now());
        let shares = book.budget.shares();
        book.cool_down(&key, now);
        book.clear(&key);
        assert!(!book.is_cooling_down(&key, now));
        assert_eq!(book.budget.shares(), shares);
    }
}
