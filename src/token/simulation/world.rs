//! A world that runs in simulated time: requests, an API and an issuer against the machine, with the shell's
//! doings played as plainly as they can be.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use fastrand::Rng;
use http::HeaderValue;
use tokio::time::Instant;

use super::{
    super::{
        AccessToken,
        clock::Moment,
        machine::{Answer, Ask, Brought, Ended, Key, Machine, Plan, Refusal, Wait, Waited, Want},
    },
    trouble::{Issuer, Outage, SECOND, Trouble},
};
use crate::{FetchReason, TokenError, TokenErrorKind};

/// What happens, to the request or the fetch of that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    /// The API looks at the request's token.
    Judged(usize),
    Answered(usize, Said),
    /// Its wait (the how manieth) is over, for the time is.
    Waited(usize, u32),
    Leaves(usize),
    Fetched(u64),
    Revoked,
    OtherProcess,
    Forced,
    Suspended(Duration),
    SteppedBack,
    TroubleEnds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Yes,
    No,
    Nothing,
}

struct Request {
    path: usize,
    key: Key,
    replayable: bool,
    over_limit: bool,
    since: Duration,
    phase: Phase,
    waits: u32,
    waited: Waited,
}

enum Phase {
    WantsToken,
    First { generation: u64, probe: Option<u64> },
    Rejected { refusal: Refusal, until: Duration },
    Second { refusal: Refusal, generation: u64 },
    WantsNew,
    Done,
}

/// A token that the issuer handed out; its generation is its place among the machine's.
struct Issued {
    secret: String,
    known_from: Duration,
    revoked: Option<Duration>,
    ends: Duration,
}

/// What the shell shows to the hot path.
struct Shown {
    generation: Option<u64>,
    ask: Instant,
    listens: bool,
    awaits: bool,
}

/// What callers saw.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    pub(super) requests: usize,
    /// 401s and token errors that are not their path's own: when the last was, and how many.
    pub(super) refused: usize,
    pub(super) last_refused: Option<Duration>,
    /// Whether any token has been accepted.
    pub(super) accepted: bool,
    pub(super) fetches: usize,
    pub(super) after_rejections: usize,
}

pub(super) struct World {
    trouble: Trouble,
    rng: Rng,
    start: Moment,
    now: Duration,
    /// What the wall clock is ahead of, or behind, the other.
    ahead: Duration,
    behind: Duration,
    machine: Machine,
    shown: Shown,
    fetching: Option<u64>,
    queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    events: u64,
    requests: Vec<Request>,
    /// Those that wait for the fetch, and those that are held.
    waiting: Vec<(usize, u64, bool)>,
    held: Vec<(usize, Option<u64>)>,
    issued: Vec<Issued>,
    generations: Vec<(u64, usize)>,
    fetches: Vec<(Duration, FetchReason)>,
    pub(super) seen: Seen,
    pub(super) history: VecDeque<String>,
    pub(super) broken: Option<String>,
}

impl World {
    pub(super) fn new(trouble: Trouble, seed: u64) -> Self {
        let start = Moment {
            mono: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        };
        let shown = Shown {
            generation: None,
            ask: start.mono,
            listens: false,
            awaits: false,
        };
        let mut world = Self {
            rng: Rng::with_seed(seed ^ 0x5EED),
            start,
            now: Duration::ZERO,
            ahead: Duration::ZERO,
            behind: Duration::ZERO,
            machine: Machine::new(None, Rng::with_seed(seed)),
            shown,
            fetching: None,
            queue: BinaryHeap::new(),
            events: 0,
            requests: Vec::new(),
            waiting: Vec::new(),
            held: Vec::new(),
            issued: Vec::new(),
            generations: Vec::new(),
            fetches: Vec::new(),
            seen: Seen::default(),
            history: VecDeque::new(),
            broken: None,
            trouble,
        };
        let trouble = world.trouble.clone();
        world.at(Duration::ZERO, Event::Arrives);
        world.at(trouble.ends, Event::TroubleEnds);
        trouble
            .revocations
            .iter()
            .for_each(|at| world.at(*at, Event::Revoked));
        trouble
            .forced
            .iter()
            .for_each(|at| world.at(*at, Event::Forced));
        trouble
            .steps_back
            .iter()
            .for_each(|at| world.at(*at, Event::SteppedBack));
        for (at, length) in trouble.suspends {
            world.at(at, Event::Suspended(length));
        }
        if let Some(every) = trouble.other_process {
            world.at(every, Event::OtherProcess);
        }
        world
    }

    /// Until `after` past the trouble's end, unless something is broken before.
    pub(super) fn run(&mut self, after: Duration) {
        let until = self.trouble.ends + after;
        while let Some(Reverse((at, _, event))) = self.queue.pop() {
            if at > until || self.broken.is_some() {
                break;
            }
            self.now = at;
            self.happens(event);
        }
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((at, self.events, event)));
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.history.len() == 60 {
            self.history.pop_front();
        }
        self.history
            .push_back(format!("{:9.3} {}", self.now.as_secs_f64(), what()));
    }

    fn breaks(&mut self, what: String) {
        self.tell(|| format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    fn moment(&self) -> Moment {
        Moment {
            mono: self.start.mono + self.now,
            wall: self.start.wall + self.now + self.ahead - self.behind,
        }
    }

    fn is_over(&self) -> bool {
        self.now >= self.trouble.ends
    }

    fn happens(&mut self, event: Event) {
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
                if it.waits == wait && !matches!(it.phase, Phase::Done) {
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
            Event::Forced => {
                self.tell(|| "refresh() is called".into());
                let request = self.request(usize::MAX, "refresh".into());
                self.requests[request].phase = Phase::WantsNew;
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

    // === requests ===

    fn request(&mut self, path: usize, key: Key) -> usize {
        self.requests.push(Request {
            path,
            key,
            replayable: true,
            over_limit: false,
            since: self.now,
            phase: Phase::WantsToken,
            waits: 0,
            waited: Waited::default(),
        });
        self.requests.len() - 1
    }

    fn arrives(&mut self) {
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

    fn want(&mut self, request: usize) {
        let now = self.moment();
        let Request {
            key,
            over_limit,
            phase,
            ..
        } = &self.requests[request];
        let (key, over_limit) = (Arc::clone(key), *over_limit);
        let new = matches!(phase, Phase::WantsNew);
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
            Want::Add(..) if new => self.requests[request].phase = Phase::Done,
            Want::Add(live, probe) => {
                if let Some(probe) = probe {
                    self.tell(|| format!("probe {probe} goes with token {}", live.generation));
                }
                self.send(request, live.generation, probe);
            }
            Want::Wait(wait) => {
                let may = matches!(wait, Wait::Hold(_)) || over_limit || new || !had_live;
                if !may {
                    self.breaks(format!("request {request} waits beside a live token"));
                }
                self.wait(request, wait, None);
            }
            Want::Fail(error) => {
                self.requests[request].phase = Phase::Done;
                if !new {
                    self.refused(request, &format!("{error}"));
                }
            }
        }
    }

    fn wait(&mut self, request: usize, wait: Wait, deadline: Option<Duration>) {
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

    fn waited(&mut self, request: usize, ended: Ended) {
        self.requests[request].waited.ended(ended);
        match &self.requests[request].phase {
            Phase::WantsToken | Phase::WantsNew => self.want(request),
            Phase::Rejected { .. } => self.decide(request, None),
            _ => {}
        }
    }

    fn send(&mut self, request: usize, generation: u64, probe: Option<u64>) {
        self.requests[request].phase = Phase::First { generation, probe };
        self.after(self.trouble.latency / 2, Event::Judged(request));
    }

    fn judge(&mut self, request: usize) -> Said {
        let it = &self.requests[request];
        let generation = match &it.phase {
            Phase::First { generation, .. } | Phase::Second { generation, .. } => *generation,
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
        let issued = self.issued(generation);
        let good = issued.is_some_and(|issued| {
            issued.revoked.is_none() && issued.known_from <= now && now < issued.ends
        });
        if good { Said::Yes } else { Said::No }
    }

    /// Whether it always answers 401. In a harmless world some token is accepted before any does.
    fn is_bad(&self, path: usize) -> bool {
        path < self.trouble.bad_paths && (self.seen.accepted || !self.trouble.harmless)
    }

    fn answered(&mut self, request: usize, said: Said) {
        let now = self.moment();
        let key = Arc::clone(&self.requests[request].key);
        match std::mem::replace(&mut self.requests[request].phase, Phase::Done) {
            Phase::First { generation, probe } => {
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
                let listens = self.shown.listens;
                if said == Said::Yes && listens {
                    self.seen.accepted = true;
                    let path = self.shown.awaits.then_some(&*key);
                    self.machine.accepted(now, generation, path, false);
                    self.follow();
                }
                if let Some(probe) = probe {
                    self.machine.probe_ended(probe);
                    self.follow();
                }
            }
            Phase::Second {
                refusal,
                generation,
            } => {
                match said {
                    Said::Yes => self.machine.accepted(now, generation, Some(&key), true),
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

    fn rejected(&mut self, request: usize, refusal: Refusal) {
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
        let mut waited = Waited::default();
        let answer = self.machine.rejected(now, &refusal, true, &mut waited);
        self.follow();
        let until = self.now + SECOND * 10;
        self.requests[request].waited = waited;
        self.requests[request].phase = Phase::Rejected { refusal, until };
        self.decide(request, Some(answer));
    }

    fn decide(&mut self, request: usize, answer: Option<Answer>) {
        let now = self.moment();
        let phase = std::mem::replace(&mut self.requests[request].phase, Phase::Done);
        let Phase::Rejected { refusal, until, .. } = phase else {
            return;
        };
        let answer = match answer {
            Some(answer) => answer,
            None => {
                let mut waited = std::mem::take(&mut self.requests[request].waited);
                let answer = self.machine.decide(now, &refusal, true, &mut waited);
                self.requests[request].waited = waited;
                self.follow();
                answer
            }
        };
        match answer {
            Answer::SendAgain(generation) => {
                if self.rng.f64() < self.trouble.drops_retry {
                    self.machine.unanswered(&refusal.path);
                    return self.follow();
                }
                let live = self.machine.pick(now, generation, refusal.generation);
                let generation = live.map_or(generation, |live| live.generation);
                self.requests[request].phase = Phase::Second {
                    refusal,
                    generation,
                };
                self.after(self.trouble.latency / 2, Event::Judged(request));
            }
            Answer::Wait(wait) => {
                self.requests[request].phase = Phase::Rejected { refusal, until };
                self.wait(request, wait, Some(until));
            }
            Answer::HandBack(why) => {
                self.machine.unanswered(&refusal.path);
                self.follow();
                self.refused(request, &format!("token {}: {why}", refusal.generation));
            }
        }
    }

    /// The caller goes away.
    fn leaves(&mut self, request: usize) {
        let phase = std::mem::replace(&mut self.requests[request].phase, Phase::Done);
        self.waiting.retain(|(waiting, ..)| *waiting != request);
        self.held.retain(|(held, _)| *held != request);
        match phase {
            Phase::First {
                probe: Some(probe), ..
            } => self.machine.probe_ended(probe),
            Phase::Rejected { refusal, .. } | Phase::Second { refusal, .. } => {
                self.machine.unanswered(&refusal.path);
            }
            _ => {}
        }
        self.follow();
    }

    /// A caller sees a 401, or a token error.
    fn refused(&mut self, request: usize, why: &str) {
        let Request {
            path,
            replayable,
            since,
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
        // An issuer of one token at a time revokes with each refresh what is on its way.
        if replayable || self.trouble.issuer != Issuer::OneAtATime {
            self.seen.last_refused = Some(self.now);
        }
        if self.trouble.harmless && replayable {
            self.breaks(format!("request {request} of a good path is refused"));
        }
    }

    // === tokens ===

    fn issued(&self, generation: u64) -> Option<&Issued> {
        let found = self.generations.iter().find(|(it, _)| *it == generation);
        found.map(|(_, index)| &self.issued[*index])
    }

    /// Makes a token, or hands out the one there is. Its place.
    fn issue(&mut self) -> usize {
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
        });
        self.issued.len() - 1
    }

    /// How the endpoint is at that time.
    fn outage(&self, at: Duration) -> Option<Outage> {
        // In a harmless world there is a token before anything goes wrong.
        if self.trouble.harmless && self.issued.is_empty() {
            return None;
        }
        let mut outages = self.trouble.outages.iter();
        let found = outages.find(|(_, period)| period.contains(&at));
        found.map(|(outage, _)| *outage)
    }

    fn fetched(&mut self, id: u64) {
        if self.fetching != Some(id) {
            return;
        }
        let now = self.moment();
        let (since, reason) = self.fetches[self.fetches.len() - 1];
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
            let Issued { secret, ends, .. } = &self.issued[place];
            let remaining = ends.saturating_sub(self.now);
            Brought {
                token: AccessToken::sent_at(secret.clone(), remaining, now).expect("it is plain"),
                value: HeaderValue::from_static("token"),
                remaining,
                lifetime: remaining,
            }
        });
        let failed = outcome.is_err();
        let told = self.machine.fetched(now, id, outcome);
        let Some((_, ended, _)) = told else {
            return self.breaks("a fetch that is under way is not known".into());
        };
        if let (Ended::Brought(live, _), Some(place)) = (&ended, place) {
            let generation = live.generation;
            if !self.generations.iter().any(|(it, _)| *it == generation) {
                self.generations.push((generation, place));
            }
            self.tell(|| format!("a fetch ({reason:?}) brought token {generation}"));
        } else {
            self.tell(|| format!("a fetch ({reason:?}) failed: {ended:?}"));
        }
        let still = self.plan().live.map(|live| live.generation);
        if failed && live.is_some() && still != live && !self.machine.has_turned(now) {
            self.breaks("a failed fetch displaced a live token".into());
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.fetching = None;
        self.follow();
        for (request, it, _) in waiting {
            debug_assert_eq!(it, id);
            let ended = match &ended {
                Ended::Brought(live, vouches) => Ended::Brought(Arc::clone(live), *vouches),
                Ended::Failed(error) => Ended::Failed(error.clone()),
                _ => Ended::TimedOut,
            };
            self.waited(request, ended);
        }
    }

    // === the shell ===

    fn plan(&self) -> Plan {
        self.machine.plan(self.moment())
    }

    /// Does what follows from a decision: starts the fetch, tells who waits, shows the token.
    fn follow(&mut self) {
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

    fn starts(&mut self, id: u64, reason: FetchReason, after_rejection: bool) {
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
