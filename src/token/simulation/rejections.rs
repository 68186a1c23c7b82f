//! Requests that were rejected: what becomes of them, and what their callers see.

use super::{
    super::machine::{Next, Refusal, Waited},
    trouble::{Issuer, SECOND},
    world::{Event, Request, RequestPhase, World},
};

impl World {
    pub(super) fn rejected(&mut self, request: usize, refusal: Refusal) {
        let now = self.moment();
        if !refusal.retry {
            self.machine.rejected_for_good(now, &refusal, None, true);
            self.follow();
            return self.refused(
                request,
                &format!("token {}, not sent again", refusal.generation),
            );
        }
        self.requests[request].waited = Waited::default();
        self.machine.rejected(now, &refusal);
        let until = self.now + SECOND * 10;
        self.requests[request].phase = RequestPhase::Rejected { refusal, until };
        self.decide(request);
    }

    pub(super) fn decide(&mut self, request: usize) {
        let now = self.moment();
        let phase = std::mem::replace(&mut self.requests[request].phase, RequestPhase::Done);
        let RequestPhase::Rejected { refusal, until, .. } = phase else {
            return;
        };
        let mut waited = std::mem::take(&mut self.requests[request].waited);
        let answer = self.machine.decide(now, &refusal, true, &mut waited);
        self.requests[request].waited = waited;
        self.follow();
        match answer {
            Next::Do(Ok(generation)) => {
                if self.rng.f64() < self.trouble.drops_retry {
                    self.machine.unanswered(&refusal.path);
                    return self.follow();
                }
                let live = self.machine.pick(now, generation, refusal.generation);
                let generation = live.map_or(generation, |live| live.generation);
                self.requests[request].phase = RequestPhase::Second {
                    refusal,
                    generation,
                };
                self.after(self.trouble.latency / 2, Event::Judged(request));
            }
            Next::Wait(wait) => {
                self.requests[request].phase = RequestPhase::Rejected { refusal, until };
                self.wait(request, wait, Some(until));
            }
            Next::Do(Err(why)) => {
                self.machine.unanswered(&refusal.path);
                self.follow();
                self.refused(request, &format!("token {}: {why}", refusal.generation));
            }
        }
    }

    /// A caller sees a 401, or a token error.
    pub(super) fn refused(&mut self, request: usize, why: &str) {
        let Request {
            path,
            replayable,
            since,
            outlived,
            ..
        } = self.requests[request];
        let took = self.now - since;
        if self.is_bad(path) {
            return;
        }
        self.tell(|| format!("request {request} of path {path} is refused after {took:?}: {why}"));
        if since < self.trouble.ends && self.is_over() {
            return;
        }
        self.seen.refused += 1;
        // An issuer of one token at a time revokes with each refresh what is on its way, and one that caches hands
        // out what may end on it: the hard margin is a twentieth of the little that is left.
        if replayable || self.trouble.issuer != Issuer::OneAtATime && !outlived {
            self.seen.last_refused = Some(self.now);
        }
        if !self.trouble.harmless {
            return;
        }
        if replayable {
            self.breaks(format!("request {request} of a good path is refused"));
        } else if self.trouble.bad_paths == 0 {
            self.seen.lost += 1;
            // A probe each second at first, then less often.
            if self.seen.lost > 40 {
                self.breaks("a token that is not accepted yet is tried by many".into());
            }
        }
    }
}
