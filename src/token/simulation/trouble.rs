//! What can go wrong in a world, drawn at random, and when it ends.

use std::{ops::Range, time::Duration};

use fastrand::Rng;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A stretch of time in which something is wrong.
pub(super) type Period = Range<Duration>;

/// Which tokens the issuer hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Issuer {
    /// A new one each time.
    Fresh,
    /// A new one each time, which revokes the one before.
    OneAtATime,
    /// The same until near its end, or for that long after its revocation.
    Caches(Duration),
}

/// How token requests fail in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outage {
    Fails,
    Hangs,
    /// Status 429, with that `Retry-After`.
    Limits(Duration),
    Refuses,
    /// The fetch is lost with its runtime.
    Loses,
}

/// One world: its traffic, its API, its issuer, and their troubles until `ends`.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) harmless: bool,
    pub(super) ends: Duration,
    // traffic
    pub(super) rate: f64,
    pub(super) poisson: bool,
    pub(super) paths: usize,
    pub(super) ids_in_paths: bool,
    pub(super) unreplayable: f64,
    pub(super) over_limit: f64,
    pub(super) leaves: f64,
    pub(super) drops_retry: f64,
    // API
    pub(super) latency: Duration,
    pub(super) bad_paths: usize,
    pub(super) bad_paths_stay: bool,
    pub(super) bad_node: Option<(f64, Period)>,
    pub(super) refuses_all: Option<Period>,
    pub(super) fails: Option<(f64, Period)>,
    pub(super) lag: Duration,
    pub(super) revocations: Vec<Duration>,
    pub(super) other_process: Option<Duration>,
    // issuer
    pub(super) issuer: Issuer,
    pub(super) lifetime: Duration,
    pub(super) fetch: Duration,
    pub(super) outages: Vec<(Outage, Period)>,
    pub(super) forced: Vec<Duration>,
    // clocks
    pub(super) suspends: Vec<(Duration, Duration)>,
    pub(super) steps_back: Vec<Duration>,
}

/// A number between the two, each power of ten as likely as the other.
fn between(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low * (high / low).powf(rng.f64())
}

fn seconds(rng: &mut Rng, low: f64, high: f64) -> Duration {
    Duration::from_secs_f64(between(rng, low, high))
}

fn one_in(rng: &mut Rng, times: u32) -> bool {
    rng.u32(..times) == 0
}

fn period(rng: &mut Rng, ends: Duration) -> Period {
    let from = ends.mul_f64(rng.f64());
    let length = seconds(rng, 1.0, 120.0);
    from..(from + length).min(ends)
}

impl Trouble {
    pub(super) fn draw(rng: &mut Rng, harmless: bool) -> Self {
        let rate = between(rng, 0.5, 60.0);
        let longest = (700.0 / rate).clamp(20.0, 400.0);
        let ends = seconds(rng, 10.0, longest);
        let at = |rng: &mut Rng| ends.mul_f64(rng.f64());
        let many = |rng: &mut Rng| if one_in(rng, 4) { rng.usize(1..8) } else { 0 };
        let outages = (0..rng.usize(..3)).map(|_| {
            let outage = match rng.u32(..6) {
                0 | 1 => Outage::Fails,
                2 => Outage::Hangs,
                3 => Outage::Limits(seconds(rng, 1.0, 600.0)),
                4 => Outage::Loses,
                _ => Outage::Refuses,
            };
            (outage, period(rng, ends))
        });
        let outages = outages.collect();
        let issuer = match rng.u32(..8) {
            0 if !harmless => Issuer::OneAtATime,
            1 => Issuer::Caches(seconds(rng, 1.0, 60.0)),
            _ => Issuer::Fresh,
        };
        let short = one_in(rng, 3);
        let paths = between(rng, 1.0, 300.0) as usize;
        let bad_paths = match rng.u32(..3) {
            0 => between(rng, 1.0, 30.0) as usize,
            _ => 0,
        };
        Self {
            harmless,
            ends,
            rate,
            poisson: rng.bool(),
            paths,
            ids_in_paths: one_in(rng, 8),
            unreplayable: if one_in(rng, 3) { rng.f64() } else { 0.0 },
            over_limit: if one_in(rng, 4) { rng.f64() } else { 0.0 },
            leaves: if one_in(rng, 4) { 0.3 * rng.f64() } else { 0.0 },
            drops_retry: if one_in(rng, 4) { rng.f64() } else { 0.0 },
            latency: seconds(rng, 0.002, 0.5),
            // In a harmless world somebody must be there to accept a token.
            bad_paths: if harmless {
                bad_paths.min(paths - 1)
            } else {
                bad_paths.min(paths)
            },
            bad_paths_stay: rng.bool(),
            bad_node: (!harmless && one_in(rng, 6)).then(|| (rng.f64() * 0.6, period(rng, ends))),
            refuses_all: (!harmless && one_in(rng, 8)).then(|| period(rng, ends)),
            fails: one_in(rng, 6).then(|| (rng.f64(), period(rng, ends))),
            lag: if rng.bool() {
                seconds(rng, 0.05, 90.0)
            } else {
                Duration::ZERO
            },
            revocations: match harmless {
                true => Vec::new(),
                false => (0..many(rng) + usize::from(rng.bool()))
                    .map(|_| at(rng))
                    .collect(),
            },
            other_process: (!harmless && issuer == Issuer::OneAtATime && rng.bool())
                .then(|| seconds(rng, 0.5, 30.0)),
            issuer,
            // In a harmless world the old token lives longer than a new one takes to be known.
            lifetime: match (short, harmless) {
                (true, false) => seconds(rng, 20.0, 600.0),
                (true, true) => seconds(rng, 500.0, 1200.0),
                (false, _) => Duration::from_secs(86_400),
            },
            fetch: seconds(rng, 0.01, 3.0),
            outages,
            forced: (0..many(rng)).map(|_| at(rng)).collect(),
            suspends: match one_in(rng, 8) && !harmless {
                true => vec![(at(rng), seconds(rng, 10.0, 40_000.0))],
                false => Vec::new(),
            },
            steps_back: match one_in(rng, 8) {
                true => vec![at(rng)],
                false => Vec::new(),
            },
        }
    }
}
