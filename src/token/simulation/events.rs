//! What each event does to the world.

use std::time::Duration;

use super::{
    super::machine::Ended,
    trouble::{Issuer, SECOND},
    world::{Event, RequestPhase, World},
};

impl World {
    pub(super) fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives => self.arrives(),
            Event::Judged(request) => {
                let said = self.judge(request);
                let half = self.trouble.latency / 2;
                self.after(half, Event::Answered(request, said));
            }
            Event::Answered(request, said) => self.answered(request, said),
            Event::Waited(request, wait) => {
                let it = &self.requests[request];
                if it.waits == wait && !matches!(it.phase, RequestPhase::Done) {
                    let held = self.held.iter().any(|(held, _)| *held == request);
                    self.waiting.retain(|(waiting, ..)| *waiting != request);
                    self.held.retain(|(held, _)| *held != request);
                    self.waited(request, if held { Ended::Held } else { Ended::TimedOut });
                }
            }
            Event::Leaves(request) => self.leaves(request),
            Event::Fetched(id) => self.fetched(id),
            Event::Revoked => {
                self.tell(|| "all tokens are revoked".into());
                let now = self.now;
                for issued in &mut self.issued {
                    issued.revoked.get_or_insert(now);
                }
            }
            Event::OtherProcess => {
                if !self.is_over() {
                    self.issue();
                    let every = self.trouble.other_process.unwrap_or(SECOND);
                    self.after(every, Event::OtherProcess);
                }
            }
            // It is harmless once there is a token that has been accepted.
            Event::Forced if self.trouble.harmless && self.accepted.is_empty() => {}
            Event::Forced => {
                self.tell(|| "refresh() is called".into());
                let request = self.request(usize::MAX, "refresh".into());
                self.requests[request].phase = RequestPhase::WantsNew;
                self.want(request);
            }
            Event::Suspended(length) => {
                self.tell(|| format!("the machine sleeps for {length:?}"));
                self.ahead += length;
                for issued in &mut self.issued {
                    issued.ends = issued.ends.saturating_sub(length);
                }
            }
            Event::SteppedBack => {
                self.tell(|| "the wall clock is set back by an hour".into());
                self.behind += Duration::from_secs(3600);
            }
            Event::TroubleEnds => {
                self.tell(|| "all trouble is over".into());
                let now = self.now;
                for issued in &mut self.issued {
                    issued.known_from = issued.known_from.min(now);
                }
                self.trouble.lag = Duration::ZERO;
                self.trouble.leaves = 0.0;
                self.trouble.drops_retry = 0.0;
                if !self.trouble.bad_paths_stay {
                    self.trouble.bad_paths = 0;
                }
                if let Issuer::Caches(_) = self.trouble.issuer {
                    self.trouble.issuer = Issuer::Caches(Duration::ZERO);
                }
            }
        }
    }
}
