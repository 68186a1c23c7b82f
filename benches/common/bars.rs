//! Bars that a figure must keep to, and timings fit to be held against them: interleaved, in one run.

use std::time::Instant;

/// Prints `figure, bar, holds` or `figure, bar, short`.
pub fn at_most(name: &str, figure: f64, bar: f64) {
    let verdict = if figure <= bar { "holds" } else { "short" };
    println!("{name} {figure:.3}, at most {bar}, {verdict}");
}

/// As [`at_most`], for figures that are the better the greater they are.
pub fn at_least(name: &str, figure: f64, bar: f64) {
    let verdict = if figure >= bar { "holds" } else { "short" };
    println!("{name} {figure:.3}, at least {bar}, {verdict}");
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds per call of each candidate: medians over rounds in which every one has its turn, so that
/// what disturbs one of them disturbs all.
pub fn interleaved(candidates: &mut [Box<dyn FnMut()>], rounds: usize, calls: u32) -> Vec<f64> {
    let mut times = vec![Vec::new(); candidates.len()];
    for round in 0..=rounds {
        for (times, candidate) in times.iter_mut().zip(&mut *candidates) {
            let start = Instant::now();
            (0..calls).for_each(|_| candidate());
            let nanos = start.elapsed().as_nanos() as f64 / f64::from(calls);
            // The first round warms up.
            if round > 0 {
                times.push(nanos);
            }
        }
    }
    times.into_iter().map(median).collect()
}
