//! A row of the table: a trouble, and what may come of it.

use std::{env, fmt::Write as _, io::Write as _, ops::RangeInclusive};

use crate::{
    measured::Measured,
    traffic::{Traffic, play},
    trouble::{Seconds, Trouble},
};

/// So many requests a traffic may make to be played by default; and that for which one stands.
const BUDGET: f64 = 4000.0;
const BUDGET_OF_SAMPLE: f64 = 60_000.0;

/// What callers may see at most, and what it may cost.
pub struct Bounds {
    /// How many are refused, on good paths.
    pub refused: usize,
    /// When the last of them gets its answer.
    pub until: Seconds,
    pub longest_wait: Seconds,
    pub fetches: RangeInclusive<usize>,
}

/// Nothing is refused, and a request waits for one fetch at most.
pub fn nothing(fetches: RangeInclusive<usize>) -> Bounds {
    Bounds {
        refused: 0,
        until: f64::INFINITY,
        longest_wait: 1.0,
        fetches,
    }
}

/// As many as may be are refused until then.
pub fn refused_until(until: Seconds, fetches: RangeInclusive<usize>) -> Bounds {
    Bounds {
        refused: usize::MAX,
        until,
        longest_wait: 10.1,
        fetches,
    }
}

impl Bounds {
    /// So many may be refused as well.
    pub fn but(self, refused: usize) -> Self {
        Self { refused, ..self }
    }

    pub fn waiting(self, longest_wait: Seconds) -> Self {
        Self {
            longest_wait,
            ..self
        }
    }

    pub fn check(&self, traffic: &Traffic, measured: &Measured) -> Result<(), String> {
        let refused = measured.refused.len();
        if refused > self.refused {
            return Err(format!("{refused} refused, not {} at most", self.refused));
        }
        // Of those that cannot be sent again one has to find out that it is over.
        let last = measured.last_but(usize::from(!traffic.replayable()));
        if last > self.until {
            return Err(format!("refused after {:.2} s", self.until));
        }
        if measured.longest_wait > self.longest_wait {
            return Err(format!("waited longer than {:.2} s", self.longest_wait));
        }
        if !self.fetches.contains(&measured.fetches.len()) {
            return Err(format!("fetches are not {:?}", self.fetches));
        }
        if measured.lost() > 0 {
            return Err("requests without an answer, or whose body was not whole".to_owned());
        }
        Ok(())
    }
}

/// Plays a trouble before all traffics.
pub async fn row(name: &str, trouble: impl Fn() -> Trouble, bounds: impl Fn(&Traffic) -> Bounds) {
    row_with(name, trouble, |traffic, measured| {
        bounds(traffic).check(traffic, measured)
    })
    .await;
}

/// The same, with what is to hold in words of its own.
pub async fn row_with(
    name: &str,
    trouble: impl Fn() -> Trouble,
    check: impl Fn(&Traffic, &Measured) -> Result<(), String>,
) {
    let (all, table) = (is_set("SUCCESSION_ALL"), is_set("SUCCESSION_TABLE"));
    let mut failures = String::new();
    let mut played = 0;
    for (seed, traffic) in (1..).zip(Traffic::all()) {
        let trouble = trouble();
        let quiet = trouble.quiet.end - trouble.quiet.start;
        let requests = traffic.rate * (trouble.lasts - quiet) * trouble.processes as f64;
        let is_sample = traffic.paths == 7 && traffic.replayable() && traffic.poisson;
        let budget = if is_sample { BUDGET_OF_SAMPLE } else { BUDGET };
        if !all && requests > budget {
            continue;
        }
        let measured = play(trouble, traffic, seed).await;
        played += 1;
        let line = format!("{name} | {traffic} | {measured}");
        if table {
            // Past the capture of what tests print.
            writeln!(std::io::stdout().lock(), "{line}").unwrap();
        }
        if let Err(why) = check(&traffic, &measured) {
            writeln!(failures, "{line}\n    {why}").unwrap();
        }
    }
    assert!(played > 0);
    assert!(failures.is_empty(), "\n{failures}");
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| value == "1")
}
