//! What goes wrong: the script that an issuer of tokens and an API follow.

use std::ops::Range;

/// Since the trouble's beginning; before it, less than zero.
pub type Seconds = f64;

pub const DAY: Seconds = 86_400.0;
/// From a request's arrival at the API, where the token is looked at, to its answer.
pub const LATENCY: Seconds = 0.02;
/// How long the issuer takes.
pub const FETCH: Seconds = 0.1;

/// A token request.
pub struct Call {
    pub at: Seconds,
    /// The how manieth, from 1.
    pub number: usize,
}

/// What an issuer does about it.
#[derive(Clone, Copy)]
pub enum Reply {
    /// A token that has not been handed out before, good for so many seconds.
    New(Seconds),
    /// The newest token once more, good for so many seconds.
    Again(Seconds),
    Fails,
    RetryAfter(u64),
    Hangs,
    Panics,
    /// Asks the layer that it serves for a token, and hands out a new one then.
    CallsTheLayer,
}

/// A request at the API.
pub struct Seen {
    pub at: Seconds,
    pub path: usize,
    /// The token's number, from 1, and when it was issued.
    pub token: usize,
    pub issued: Seconds,
    /// When it ends.
    pub ends: Seconds,
    /// The number of the newest token.
    pub newest: usize,
    /// At random, 0 to 1.
    pub roll: f64,
}

type Issuing = dyn Fn(&Call) -> Reply + Send + Sync;
type Judging = dyn Fn(&Seen) -> bool + Send + Sync;

/// What goes wrong, and who is there to see it.
pub struct Trouble {
    pub issuer: Box<Issuing>,
    pub api: Box<Judging>,
    pub bad: usize,
    pub ids: bool,
    pub known_for: Seconds,
    pub quiet: Range<Seconds>,
    pub lasts: Seconds,
    pub refreshes: Vec<Seconds>,
    pub hang_up: bool,
    pub processes: usize,
    pub endpoint: bool,
    pub margin: Option<Seconds>,
    pub wall: fn(Seconds) -> Seconds,
}

/// Of what is not said: new tokens that last a day, all accepted, in one process that has had its token for
/// ten seconds when the trouble begins.
pub fn trouble(lasts: Seconds) -> Trouble {
    Trouble {
        issuer: Box::new(|_| Reply::New(DAY)),
        api: Box::new(|_| true),
        bad: 0,
        ids: false,
        known_for: 10.0,
        quiet: 0.0..0.0,
        lasts,
        refreshes: Vec::new(),
        hang_up: false,
        processes: 1,
        endpoint: false,
        margin: None,
        wall: |now| now,
    }
}

impl Trouble {
    pub fn issuer(mut self, issuer: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        self.issuer = Box::new(issuer);
        self
    }

    /// Which requests the API accepts on good paths.
    pub fn api(mut self, api: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Self {
        self.api = Box::new(api);
        self
    }

    /// So many paths always answer 401, beside the others. They get their share of the requests, half of
    /// them at most.
    pub fn bad_paths(mut self, bad: usize) -> Self {
        self.bad = bad;
        self
    }

    /// Each request has a path of its own, and half of them always answer 401.
    pub fn an_id_in_each_path(mut self) -> Self {
        (self.bad, self.ids) = (1, true);
        self
    }

    /// The first token was fetched, and accepted once, so long before.
    pub fn known_for(mut self, known_for: Seconds) -> Self {
        self.known_for = known_for;
        self
    }

    /// Nobody has had a token before.
    pub fn no_token_yet(self) -> Self {
        self.known_for(0.0)
    }

    /// No requests then.
    pub fn quiet(mut self, quiet: Range<Seconds>) -> Self {
        self.quiet = quiet;
        self
    }

    /// Somebody calls `refresh()` then.
    pub fn refresh_at(mut self, at: Seconds) -> Self {
        self.refreshes.push(at);
        self
    }

    /// Callers leave while their request is being sent again.
    pub fn retries_are_dropped(mut self) -> Self {
        self.hang_up = true;
        self
    }

    pub fn processes(mut self, processes: usize) -> Self {
        self.processes = processes;
        self
    }

    /// The issuer is behind `FetchToken`, which asks it more than once.
    pub fn through_fetch_token(mut self) -> Self {
        self.endpoint = true;
        self
    }

    pub fn refresh_margin(mut self, margin: Seconds) -> Self {
        self.margin = Some(margin);
        self
    }

    /// What the wall clock shows.
    pub fn wall_clock(mut self, wall: fn(Seconds) -> Seconds) -> Self {
        self.wall = wall;
        self
    }
}
