//! Requests and their callers: what they ask of the machine, and what they do with its answers.

use std::{sync::Arc, time::Duration};

use super::{
    super::machine::{Ask, Ended, Key, Next, Refusal, Wait, Waited},
    trouble::SECOND,
    world::{Event, Request, RequestPhase, Said, World},
};

impl World {
    pub(super) fn request(&mut self, path: usize, key: Key) -> usize {
        self.requests.push(Request {
            path,
            key,
            replayable: true,
            over_limit: false,
            since: self.now,
            phase: RequestPhase::WantsToken,
            waits: 0,
            waited: Waited::default(),
            outlived: false,
        });
        self.requests.len() - 1
    }

    pub(super) fn arrives(&mut self) {
        let every = 1.0 / self.trouble.rate;
        let gap = match self.trouble.poisson {
            true => -every * (1.0 - self.rng.f64()).ln(),
            false => every,
        };
        self.after(Duration::from_secs_f64(gap), Event::Arrives);
        let path = self.rng.usize(..self.trouble.paths);
        let key: Key = match self.trouble.ids_in_paths {
            true => format!("/{path}/{}", self.seen.requests).into(),
            false => format!("/{path}").into(),
        };
        let request = self.request(path, key);
        self.seen.requests += 1;
        let over_limit = self.rng.f64() < self.trouble.over_limit;
        let replayable = !over_limit && self.rng.f64() >= self.trouble.unreplayable;
        let it = &mut self.requests[request];
        (it.over_limit, it.replayable) = (over_limit, replayable);
        if self.rng.f64() < self.trouble.leaves {
            let soon = self.trouble.latency.mul_f64(3.0 * self.rng.f64());
            self.after(soon, Event::Leaves(request));
        }
        let asks = over_limit && self.plan().after_rejection;
        match self.shown.generation {
            Some(generation) if !asks && self.moment().mono < self.shown.ask => {
                self.send(request, generation, None);
            }
            _ => self.want(request),
        }
    }

    pub(super) fn want(&mut self, request: usize) {
        let now = self.moment();
        let Request {
            key,
            over_limit,
            phase,
            ..
        } = &self.requests[request];
        let (key, over_limit) = (Arc::clone(key), *over_limit);
        let new = matches!(phase, RequestPhase::WantsNew);
        let mut waited = std::mem::take(&mut self.requests[request].waited);
        let path = || Arc::clone(&key);
        let ask = Ask {
            path: Some(&path),
            over_limit,
            can_fetch: true,
            handshake: false,
        };
        let had_live = self.plan().live.is_some();
        let want = match new {
            true => self.machine.wants_new(now, true, &mut waited),
            false => self.machine.wants(now, &ask, &mut waited),
        };
        self.requests[request].waited = waited;
        self.follow();
        match want {
            Next::Do(Ok(_)) if new => self.requests[request].phase = RequestPhase::Done,
            Next::Do(Ok((live, probe))) => {
                if let Some(probe) = probe {
                    self.tell(|| format!("probe {probe} goes with token {}", live.generation));
                }
                self.send(request, live.generation, probe);
            }
            Next::Wait(wait) => {
                let may = matches!(wait, Wait::Hold(_)) || over_limit || new || !had_live;
                if !may {
                    self.breaks(format!("request {request} waits beside a live token"));
                }
                self.wait(request, wait, None);
            }
            Next::Do(Err(error)) => {
                self.requests[request].phase = RequestPhase::Done;
                if !new {
                    self.refused(request, &format!("{error}"));
                }
            }
        }
    }

    pub(super) fn wait(&mut self, request: usize, wait: Wait, deadline: Option<Duration>) {
        self.requests[request].waits += 1;
        let waits = self.requests[request].waits;
        let until = match wait {
            Wait::Fetch { own, limit } => {
                let Some(id) = self.fetching else {
                    return self.breaks(format!("request {request} waits for no fetch"));
                };
                self.waiting.push((request, id, own));
                self.now + limit
            }
            Wait::Hold(until) => {
                let until = until.saturating_duration_since(self.start.mono);
                if until > self.now + SECOND {
                    self.breaks(format!("request {request} is held for more than a second"));
                }
                self.held.push((request, self.plan().held_for));
                until
            }
        };
        let until = deadline.map_or(until, |deadline| until.min(deadline));
        self.at(until, Event::Waited(request, waits));
    }

    pub(super) fn waited(&mut self, request: usize, ended: Ended) {
        self.requests[request].waited.ended(ended);
        match &self.requests[request].phase {
            RequestPhase::WantsToken | RequestPhase::WantsNew => self.want(request),
            RequestPhase::Rejected { .. } => self.decide(request),
            _ => {}
        }
    }

    pub(super) fn send(&mut self, request: usize, generation: u64, probe: Option<u64>) {
        self.requests[request].phase = RequestPhase::First { generation, probe };
        self.after(self.trouble.latency / 2, Event::Judged(request));
    }

    pub(super) fn answered(&mut self, request: usize, said: Said) {
        let now = self.moment();
        let key = Arc::clone(&self.requests[request].key);
        match std::mem::replace(&mut self.requests[request].phase, RequestPhase::Done) {
            RequestPhase::First { generation, probe } => {
                if said == Said::No {
                    let retry = self.requests[request].replayable;
                    let refusal = Refusal {
                        generation,
                        path: key,
                        probe,
                        retry,
                    };
                    if let Some(probe) = probe {
                        self.tell(|| format!("probe {probe} is refused"));
                    }
                    return self.rejected(request, refusal);
                }
                if said == Said::Yes && self.shown.listens {
                    let path = self.shown.awaits.then_some(&*key);
                    self.accepted(generation, path, false);
                    self.follow();
                }
                if let Some(probe) = probe {
                    self.machine.probe_ended(probe);
                    self.follow();
                }
            }
            RequestPhase::Second {
                refusal,
                generation,
            } => {
                match said {
                    Said::Yes => self.accepted(generation, Some(&key), true),
                    Said::Nothing => self.machine.unanswered(&key),
                    Said::No => {
                        let second = Refusal {
                            generation,
                            path: key,
                            probe: None,
                            retry: false,
                        };
                        (self.machine).rejected_for_good(now, &second, Some(&refusal), true);
                    }
                }
                self.follow();
                if said == Said::No {
                    let first = refusal.generation;
                    self.refused(request, &format!("token {first}, then {generation}"));
                }
            }
            other => self.requests[request].phase = other,
        }
    }

    /// The machine is told so.
    fn accepted(&mut self, generation: u64, path: Option<&str>, retry: bool) {
        self.accepted.insert(generation);
        let now = self.moment();
        self.machine.accepted(now, generation, path, retry);
    }

    /// The caller goes away.
    pub(super) fn leaves(&mut self, request: usize) {
        let phase = std::mem::replace(&mut self.requests[request].phase, RequestPhase::Done);
        self.waiting.retain(|(waiting, ..)| *waiting != request);
        self.held.retain(|(held, _)| *held != request);
        match phase {
            RequestPhase::First {
                probe: Some(probe), ..
            } => self.machine.probe_ended(probe),
            RequestPhase::Rejected { refusal, .. } | RequestPhase::Second { refusal, .. } => {
                self.machine.unanswered(&refusal.path);
            }
            _ => {}
        }
        self.follow();
    }
}
