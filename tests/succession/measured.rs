//! What callers saw of a trouble, and what it cost.

use std::{collections::BTreeMap, fmt};

use crate::trouble::Seconds;

/// A request that got a 401, or an error.
#[derive(Debug)]
pub struct Refused {
    pub path: usize,
    pub at: Seconds,
    pub why: String,
}

#[derive(Debug, Default)]
pub struct Measured {
    pub requests: usize,
    pending: usize,
    /// On good paths.
    pub refused: Vec<Refused>,
    pub refused_on_bad_paths: usize,
    /// How many requests took longer than the API did, and by how much at most.
    pub waited: usize,
    pub longest_wait: Seconds,
    /// When tokens were asked for, but for that which there was before.
    pub fetches: Vec<Seconds>,
    pub broken: usize,
    /// That a limit was met; `None` if nothing is told of it.
    pub warnings: Option<usize>,
}

impl Measured {
    pub fn begins(&mut self) {
        self.requests += 1;
        self.pending += 1;
    }

    pub fn ended(&mut self, waited: Seconds) {
        self.pending -= 1;
        // The clock's precision, twice.
        if waited > 0.003 {
            self.waited += 1;
            self.longest_wait = self.longest_wait.max(waited);
        }
    }

    pub fn refused(&mut self, on_bad_path: bool, refused: Refused) {
        if on_bad_path {
            self.refused_on_bad_paths += 1;
        } else {
            self.refused.push(refused);
        }
    }

    /// When the last was refused; the beginning of time if none was.
    pub fn last(&self) -> Seconds {
        self.last_but(0)
    }

    /// When the last but so many was refused.
    pub fn last_but(&self, so_many: usize) -> Seconds {
        let mut ends: Vec<_> = self.refused.iter().map(|refused| refused.at).collect();
        ends.sort_by(f64::total_cmp);
        let last = ends.len().checked_sub(so_many + 1);
        last.map_or(f64::NEG_INFINITY, |last| ends[last])
    }

    pub fn fetches_in(&self, from: Seconds, to: Seconds) -> usize {
        let fetches = self.fetches.iter();
        fetches.filter(|at| (from..to).contains(*at)).count()
    }

    /// Those who never got an answer, or whose body was not whole.
    pub fn lost(&self) -> usize {
        self.pending + self.broken
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut why = BTreeMap::<&str, usize>::new();
        for refused in &self.refused {
            *why.entry(&refused.why).or_default() += 1;
        }
        let why: Vec<_> = why
            .iter()
            .map(|(why, count)| format!("{count} {why}"))
            .collect();
        write!(
            f,
            "{:>6} requests, {:>5} refused",
            self.requests,
            self.refused.len()
        )?;
        if let Some(first) = self.refused.first() {
            write!(f, " from {:.2} to {:.2} s", first.at, self.last())?;
        }
        write!(
            f,
            "; {:>5} waited, {:.2} s at most; {} fetches",
            self.waited,
            self.longest_wait,
            self.fetches.len()
        )?;
        if self.refused_on_bad_paths > 0 {
            write!(f, "; bad paths' own {}", self.refused_on_bad_paths)?;
        }
        if let Some(warnings) = self.warnings.filter(|warnings| *warnings > 0) {
            write!(f, "; {warnings} warnings")?;
        }
        if self.lost() > 0 {
            write!(f, "; LOST {}", self.lost())?;
        }
        if !why.is_empty() {
            write!(f, " ({})", why.join(", "))?;
        }
        Ok(())
    }
}
