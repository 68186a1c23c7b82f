//! The table's rows about tokens that are accepted only a while after they were issued.

use crate::{
    bodies::Bodies,
    measured::Measured,
    row::{Bounds, nothing, refused_until, row, row_with},
    rows::revoked,
    traffic::Traffic,
    trouble::{DAY, LATENCY, Reply, Seconds, Trouble, trouble},
};

fn late_on_refresh_ahead(lag: Seconds) -> Trouble {
    trouble(2.0 * lag + 45.0)
        // Due 200 to 240 s before its end.
        .known_for(200.0)
        .refresh_margin(200.0)
        .issuer(|call| Reply::New(if call.number == 1 { 420.0 } else { DAY }))
        .api(move |seen| seen.token == 1 || seen.at >= seen.issued + lag)
}

/// How often a token is tried until it is accepted: at once, and after 1, 3, 7 s and so on.
fn probes(lag: Seconds) -> usize {
    1 + (lag + 1.0).log2() as usize
}

#[tokio::test(start_paused = true)]
async fn a_late_token_is_not_noticed_on_refresh_ahead() {
    for lag in [4.0, 12.0, 61.0] {
        row(
            &format!("accepted after {lag} s, on refresh ahead"),
            || late_on_refresh_ahead(lag),
            |traffic| match traffic.bodies {
                Bodies::Unknown => nothing(1..=1).but(probes(lag)),
                _ => nothing(1..=1),
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_token_is_not_noticed_on_refresh_ahead_beside_a_bad_path() {
    for lag in [4.0, 12.0, 61.0] {
        row_with(
            &format!("accepted after {lag} s, on refresh ahead, and a bad path"),
            || late_on_refresh_ahead(lag).bad_paths(1),
            |traffic, measured| {
                // Each rejection of the path's lets any request be a probe, and each token that is fetched on
                // its account is as late.
                let refused = match (traffic.replayable(), traffic.rate > 1.0) {
                    (true, _) => 0,
                    (false, true) => (measured.fetches.len() + 1) * probes(lag),
                    // A refused probe may be all that is heard for 2 s: then the tokens change places.
                    (false, false) => measured.requests / 2,
                };
                nothing(1..=19).but(refused).check(traffic, measured)
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_token_is_not_noticed_when_refresh_brings_it() {
    for lag in [4.0, 12.0, 61.0] {
        row(
            &format!("accepted after {lag} s, brought by refresh()"),
            || {
                trouble(2.0 * lag + 30.0)
                    .refresh_at(0.0)
                    .api(move |seen| seen.token == 1 || seen.at >= seen.issued + lag)
            },
            // It is served at once, so that of those that cannot be sent again one has to find out.
            |traffic| match traffic.bodies {
                Bodies::Replayable => nothing(1..=1),
                // None of them tries it once more, so that it is replaced when it is two minutes old.
                Bodies::Known => nothing(1..=2).but(1 + traffic.in_seconds(2.0 * LATENCY)),
                Bodies::Unknown => {
                    nothing(1..=1).but(1 + traffic.in_seconds(2.0 * LATENCY) + probes(lag))
                }
            },
        )
        .await;
    }
}

/// What holds if a token is accepted only later, and there is no other.
fn without_another(
    traffic: &Traffic,
    lag: Seconds,
    bad: usize,
    measured: &Measured,
) -> Result<(), String> {
    // At a request a second each step may come some seconds late.
    let first = measured.refused.first().map_or(0.0, |first| first.at) + 10.0 / traffic.rate;
    let bounds = match (lag > 1.0, traffic.replayable()) {
        // The seventh is for a candidate that nobody has tried for two minutes: none of those can.
        (true, _) if traffic.bodies == Bodies::Known => {
            refused_until(first + 2.0 * lag + 21.0, 1..=7)
        }
        (true, _) => refused_until(first + 2.0 * lag + 21.0, 1..=6),
        // Counted, since at a request a second those few may be some seconds apart.
        // Those of the first 0.1 s, and whoever is sent before the first of their retries is answered.
        (false, true) => refused_until(f64::INFINITY, 1..=2)
            .but(traffic.in_seconds(0.1 + LATENCY) + 5)
            .waiting(1.3),
        // Not until the token that is refused has given way, after 2 s, can they be sent with the other.
        (false, false) => refused_until(first + lag + 2.0, 1..=2),
    };
    if bad == 0 {
        return bounds.check(traffic, measured);
    }
    let bounds = Bounds {
        fetches: 1..=19,
        ..bounds
    };
    if traffic.replayable() {
        return bounds.check(traffic, measured);
    }
    // Each token that is fetched on the bad path's account is as late, and tried by those as well.
    let heals = if lag > 1.0 {
        2.0 * lag + 21.0
    } else {
        lag + 2.0
    };
    let tries = (measured.fetches.len() + 1) * probes(lag);
    Bounds {
        until: f64::INFINITY,
        ..bounds
    }
    .but(traffic.in_seconds(heals) + tries)
    .check(traffic, measured)
}

/// Up to a second, and beyond. Of one that takes a whole second the answer to a refusal comes later than that.
const LAGS: [Seconds; 5] = [0.5, 0.95, 4.0, 12.0, 61.0];

#[tokio::test(start_paused = true)]
async fn a_late_token_after_a_revocation_is_waited_for() {
    for lag in LAGS {
        for bad in [0, 1] {
            row_with(
                &format!("revoked, new ones accepted after {lag} s, {bad} bad paths"),
                || {
                    trouble(3.0 * lag + 40.0).bad_paths(bad).api(move |seen| {
                        revoked(seen) && (seen.at < 0.0 || seen.at >= seen.issued + lag)
                    })
                },
                |traffic, measured| without_another(traffic, lag, bad, measured),
            )
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_first_token_is_waited_for() {
    for lag in LAGS {
        row_with(
            &format!("the first token ever, accepted after {lag} s"),
            || {
                trouble(3.0 * lag + 40.0)
                    .no_token_yet()
                    .api(move |seen| seen.at >= seen.issued + lag)
            },
            |traffic, measured| without_another(traffic, lag, 0, measured),
        )
        .await;
    }
}
