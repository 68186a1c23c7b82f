//! A world that runs in simulated time: requests, an API and an issuer against the machine, with the shell's
//! doings played as plainly as they can be.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, VecDeque},
    time::{Duration, SystemTime},
};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    super::{
        clock::Moment,
        machine::{Key, Machine, Refusal, Waited},
    },
    trouble::{SECOND, Trouble},
};
use crate::FetchReason;

/// What happens, to the request or the fetch of that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Arrives,
    /// The API looks at the request's token.
    Judged(usize),
    Answered(usize, Said),
    /// Its wait (of that number) is over, for the time is.
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
pub(super) enum Said {
    Yes,
    No,
    Nothing,
}

pub(super) struct Request {
    pub(super) path: usize,
    pub(super) key: Key,
    pub(super) replayable: bool,
    pub(super) over_limit: bool,
    pub(super) since: Duration,
    pub(super) phase: RequestPhase,
    pub(super) waits: u32,
    pub(super) waited: Waited,
    /// It was sent in its token's life, less the hard margin, and arrived after its end.
    pub(super) outlived: bool,
}

pub(super) enum RequestPhase {
    WantsToken,
    First { generation: u64, probe: Option<u64> },
    Rejected { refusal: Refusal, until: Duration },
    Second { refusal: Refusal, generation: u64 },
    WantsNew,
    Done,
}

/// A token that the issuer handed out; its generation is its place among the machine's.
pub(super) struct Issued {
    pub(super) secret: String,
    pub(super) known_from: Duration,
    pub(super) revoked: Option<Duration>,
    pub(super) ends: Duration,
    /// What was left of its life when it was last handed out.
    pub(super) told: Duration,
}

impl Issued {
    /// Its end less the hard margin, which is scaled to what was told.
    pub(super) fn live_until(&self) -> Duration {
        self.ends.saturating_sub((self.told / 20).min(SECOND * 10))
    }
}

/// What the shell shows to the hot path.
pub(super) struct Shown {
    pub(super) generation: Option<u64>,
    pub(super) ask: Instant,
    pub(super) listens: bool,
    pub(super) awaits: bool,
}

/// What callers saw.
#[derive(Debug, Default, Clone)]
pub(super) struct Observed {
    pub(super) requests: usize,
    /// 401s and token errors that are not their path's own: when the last was, and how many.
    pub(super) refused: usize,
    pub(super) last_refused: Option<Duration>,
    /// Those that could not be sent again, and whose path was not bad.
    pub(super) lost: usize,
    pub(super) fetches: usize,
    pub(super) after_rejections: usize,
}

pub(super) struct World {
    pub(super) trouble: Trouble,
    pub(super) rng: Rng,
    pub(super) start: Moment,
    pub(super) now: Duration,
    /// What the wall clock is ahead of, or behind, the other.
    pub(super) ahead: Duration,
    pub(super) behind: Duration,
    pub(super) machine: Machine,
    pub(super) shown: Shown,
    pub(super) fetching: Option<u64>,
    pub(super) queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    pub(super) events: u64,
    pub(super) requests: Vec<Request>,
    /// Those that wait for the fetch, and those that are held.
    pub(super) waiting: Vec<(usize, u64, bool)>,
    pub(super) held: Vec<(usize, Option<u64>)>,
    pub(super) issued: Vec<Issued>,
    pub(super) generations: Vec<(u64, usize)>,
    /// Those that the machine was told of as accepted.
    pub(super) accepted: BTreeSet<u64>,
    pub(super) fetches: Vec<(Duration, FetchReason)>,
    pub(super) seen: Observed,
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
            accepted: BTreeSet::new(),
            fetches: Vec::new(),
            seen: Observed::default(),
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

    pub(super) fn at(&mut self, at: Duration, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((at, self.events, event)));
    }

    pub(super) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.history.len() == 60 {
            self.history.pop_front();
        }
        self.history
            .push_back(format!("{:9.3} {}", self.now.as_secs_f64(), what()));
    }

    pub(super) fn breaks(&mut self, what: String) {
        self.tell(|| format!("BROKEN: {what}"));
        self.broken.get_or_insert(what);
    }

    pub(super) fn moment(&self) -> Moment {
        Moment {
            mono: self.start.mono + self.now,
            wall: self.start.wall + self.now + self.ahead - self.behind,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.now >= self.trouble.ends
    }
}
