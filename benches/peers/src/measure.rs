//! Time and allocations of a request, over those of the same request without the peer.

use std::time::Instant;

use tokio::runtime::Runtime;

const ROUNDS: usize = 5;
const BATCHES: usize = 21;
const REQUESTS: u32 = 2_000;
const COUNTED: u32 = 100;

/// What a peer adds to a request.
#[derive(Clone, Copy)]
pub struct Cost {
    pub baseline: f64,
    pub nanos: f64,
    pub allocations: f64,
}

/// Each batch of the peer follows one of its baseline, so that what disturbs the one disturbs the other;
/// of each round the median counts, of the rounds the best.
pub fn over(
    runtime: &Runtime,
    mut baseline: impl AsyncFnMut(),
    mut peer: impl AsyncFnMut(),
) -> Cost {
    batch(runtime, &mut baseline, REQUESTS);
    batch(runtime, &mut peer, REQUESTS);
    let mut best = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..BATCHES {
            times[0].push(batch(runtime, &mut baseline, REQUESTS));
            times[1].push(batch(runtime, &mut peer, REQUESTS));
        }
        for (best, times) in best.iter_mut().zip(times) {
            *best = best.min(median(times));
        }
    }
    let counted = [
        count(|| _ = batch(runtime, &mut baseline, COUNTED)),
        count(|| _ = batch(runtime, &mut peer, COUNTED)),
    ];
    Cost {
        baseline: best[0],
        nanos: best[1] - best[0],
        allocations: (counted[1] - counted[0]) / f64::from(COUNTED),
    }
}

/// Nanoseconds per request.
fn batch(runtime: &Runtime, request: &mut impl AsyncFnMut(), requests: u32) -> f64 {
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..requests {
            request().await;
        }
        start.elapsed().as_nanos() as f64 / f64::from(requests)
    })
}

fn count(measured: impl FnOnce()) -> f64 {
    allocation_counter::measure(measured).count_total as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
