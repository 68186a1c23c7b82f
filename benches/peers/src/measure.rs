//! What a request costs over the same request without the peer: nanoseconds, or allocations.

use tokio::runtime::Runtime;

#[cfg(feature = "allocations")]
pub const UNIT: &str = "allocations";
#[cfg(not(feature = "allocations"))]
pub const UNIT: &str = "ns";

const ROUNDS: usize = 2_001;
const REQUESTS: u32 = 100;

/// In [`UNIT`]s per request: medians, and the difference of them.
#[derive(Clone, Copy)]
pub struct Cost {
    pub baseline: f64,
    pub over: f64,
}

/// Each batch of the peer follows one of its baseline, so that what disturbs the one disturbs the other.
pub fn over(
    runtime: &Runtime,
    mut baseline: impl AsyncFnMut(),
    mut peer: impl AsyncFnMut(),
) -> Cost {
    let rounds = if UNIT == "ns" { ROUNDS } else { 1 };
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        let pair = [batch(runtime, &mut baseline), batch(runtime, &mut peer)];
        // The first round warms up.
        if round > 0 {
            costs
                .iter_mut()
                .zip(pair)
                .for_each(|(costs, cost)| costs.push(cost));
        }
    }
    let [baseline, peer] = costs.map(median);
    Cost {
        baseline,
        over: peer - baseline,
    }
}

/// The cost of each of some requests.
fn batch(runtime: &Runtime, request: &mut impl AsyncFnMut()) -> f64 {
    let all = || {
        runtime.block_on(async {
            for _ in 0..REQUESTS {
                request().await;
            }
        });
    };
    cost(all) / f64::from(REQUESTS)
}

#[cfg(feature = "allocations")]
fn cost(measured: impl FnOnce()) -> f64 {
    allocation_counter::measure(measured).count_total as f64
}

#[cfg(not(feature = "allocations"))]
fn cost(measured: impl FnOnce()) -> f64 {
    let start = std::time::Instant::now();
    measured();
    start.elapsed().as_nanos() as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
