//! The shell, played as plainly as it can be: it starts what the machine has planned, and shows the rest; and it
//! watches the limits.

use super::{
    super::machine::{Ended, Plan},
    trouble::{Outage, SECOND},
    world::{Event, World},
};
use crate::FetchReason;

impl World {
    pub(super) fn plan(&self) -> Plan {
        self.machine.plan(self.moment())
    }

    /// Does what follows from a decision: starts the fetch, tells who waits, shows the token.
    pub(super) fn follow(&mut self) {
        let plan = self.plan();
        self.machine.take_dropped();
        let mono = self.moment().mono;
        self.shown.generation = plan.live.as_ref().map(|live| live.generation);
        self.shown.ask = plan.ask.min(mono + SECOND / 10);
        (self.shown.listens, self.shown.awaits) = (plan.listens, plan.awaits);
        if let Some((id, reason)) = plan.fetching
            && self.fetching != Some(id)
        {
            self.starts(id, reason, plan.after_rejection);
        }
        if self.fetching != plan.fetching.map(|(id, _)| id) {
            self.fetching = None;
        }
        let fetching = self.fetching;
        let lost: Vec<_> = (self.waiting.iter())
            .filter(|(_, id, _)| Some(*id) != fetching)
            .copied()
            .collect();
        self.waiting.retain(|(_, id, _)| Some(*id) == fetching);
        let told: Vec<_> = (self.held.iter())
            .filter(|(_, generation)| *generation != plan.held_for)
            .map(|(request, _)| *request)
            .collect();
        self.held
            .retain(|(_, generation)| *generation == plan.held_for);
        for (request, _, own) in lost {
            self.waited(request, Ended::Lost { own });
        }
        for request in told {
            self.waited(request, Ended::Held);
        }
    }

    pub(super) fn starts(&mut self, id: u64, reason: FetchReason, after_rejection: bool) {
        self.fetching = Some(id);
        self.fetches.push((self.now, reason));
        self.seen.fetches += 1;
        self.tell(|| format!("a fetch ({reason:?}) is started"));
        if after_rejection {
            self.seen.after_rejections += 1;
            let minute = self.now.saturating_sub(SECOND * 60);
            let recent = self.fetches.iter().rev().take_while(|(at, _)| *at > minute);
            let rejected = recent
                .filter(|(_, it)| *it == FetchReason::Rejected)
                .count();
            if rejected > 16 + 60 {
                self.breaks("more fetches after rejections than the limit".into());
            }
        }
        let mut takes = self.trouble.fetch;
        if self.outage(self.now) == Some(Outage::Hangs) {
            let attempts =
                (1..3).find(|n| self.outage(self.now + SECOND * 10 * *n) != Some(Outage::Hangs));
            takes += SECOND * 10 * attempts.unwrap_or(3);
        }
        self.after(takes, Event::Fetched(id));
    }
}
