//! The table's rows.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::{
    measured::Measured,
    row::{Bounds, nothing, refused_until, row, row_with},
    traffic::{Bodies, Traffic},
    world::{Call, DAY, FETCH, LATENCY, Reply, Seconds, Seen, Trouble, trouble},
};

/// Tokens that were issued before the trouble are refused from then on.
fn revoked(seen: &Seen) -> bool {
    revoked_at(seen, 0.0)
}

fn revoked_at(seen: &Seen, at: Seconds) -> bool {
    seen.at < at || seen.issued >= at
}

/// How many a revocation may cost. Of those that cannot be sent again: the one that finds out, those in
/// flight then, and until the new token is known to be accepted; if nobody knows that they are such, those
/// that come while the new one is fetched, too.
fn for_a_revocation(traffic: &Traffic) -> usize {
    match traffic.bodies {
        Bodies::Replayable => 0,
        Bodies::Known => 1 + traffic.in_seconds(2.0 * LATENCY),
        Bodies::Unknown => 1 + traffic.in_seconds(FETCH + 2.0 * LATENCY),
    }
}

// === revocations ===

#[tokio::test(start_paused = true)]
async fn twenty_revocations_are_not_noticed_and_cost_one_fetch_each() {
    let api = |seen: &Seen| seen.at < 0.0 || seen.issued >= seen.at.floor().min(19.0);
    row(
        "revoked twenty times, a second apart",
        || trouble(22.0).api(api),
        |traffic| nothing(1..=20).but(20 * for_a_revocation(traffic)),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_not_noticed_while_callers_drop_their_retries() {
    let api =
        |seen: &Seen| seen.at < 0.0 || seen.issued >= (seen.at / 10.0).floor().min(4.0) * 10.0;
    row(
        "revoked five times, and retries are dropped",
        || trouble(60.0).api(api).retries_are_dropped(),
        |traffic| nothing(1..=5).but(5 * for_a_revocation(traffic)),
    )
    .await;
}

// === paths that always answer 401 ===

#[tokio::test(start_paused = true)]
async fn bad_paths_keep_their_401s_to_themselves() {
    for bad in [1, 3] {
        row(
            &format!("{bad} bad paths for 12 min, a revocation after 6"),
            || {
                trouble(720.0)
                    .bad_paths(bad)
                    .api(|seen| revoked_at(seen, 360.0))
            },
            |traffic| nothing(0..=19 * bad + 1).but(for_a_revocation(traffic)),
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_bad_paths_keep_a_revocation_from_being_healed_for_ten_seconds() {
    let limit = 16 + 180 / 10 + 1;
    row(
        "a thousand bad paths for 3 min, a revocation after 1",
        || {
            trouble(180.0)
                .bad_paths(1000)
                .api(|seen| revoked_at(seen, 60.0))
        },
        |_| refused_until(70.2, 0..=limit),
    )
    .await;
    row(
        "an id in each path for 3 min, half of them bad, a revocation after 1",
        || {
            trouble(180.0)
                .an_id_in_each_path()
                .api(|seen| revoked_at(seen, 60.0))
        },
        |_| refused_until(70.2, 0..=limit),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_path_and_an_endpoint_that_fails_do_not_hurt_others() {
    row(
        "a bad path, and the endpoint fails for 10 min",
        || trouble(600.0).bad_paths(1).issuer(fails(0.0, 600.0)),
        // Three a minute, and those of the first. At a request a second the others' acceptances come so
        // seldom that each rejection may be urgent.
        |traffic| nothing(0..=if traffic.rate > 1.0 { 33 } else { 60 }),
    )
    .await;
}

// === tokens that are accepted late ===

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
        (false, true) => refused_until(f64::INFINITY, 1..=2)
            .but(traffic.in_seconds(0.1) + 5)
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

// === endpoints that fail ===

fn fails(from: Seconds, to: Seconds) -> impl Fn(&Call) -> Reply + Send + Sync + 'static {
    move |call| match (from..to).contains(&call.at) {
        true => Reply::Fails,
        false => Reply::New(DAY),
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_is_over_ten_seconds_after_its_return() {
    row(
        "revoked, and the endpoint fails for 66 s",
        || trouble(120.0).api(revoked).issuer(fails(0.0, 66.0)),
        |_| refused_until(76.3, 2..=16),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_over_twenty_seconds_after_its_return() {
    row(
        "revoked, and the endpoint hangs for 60 s",
        || {
            let issuer = |call: &Call| match call.at {
                0.0..60.0 => Reply::Hangs,
                _ => Reply::New(DAY),
            };
            trouble(120.0)
                .api(revoked)
                .issuer(issuer)
                .through_fetch_token()
        },
        |_| refused_until(80.3, 2..=8),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_an_hour_ago_is_forgotten() {
    row_with(
        "trouble an hour ago, now revoked, and one fetch fails",
        || {
            let failed = AtomicBool::new(false);
            trouble(3660.0)
                .quiet(150.0..3597.0)
                .api(|seen| revoked_at(seen, 0.0) && revoked_at(seen, 3600.0))
                .issuer(move |call| match call.at {
                    0.0..66.0 => Reply::Fails,
                    3600.0.. if !failed.swap(true, Relaxed) => Reply::Fails,
                    _ => Reply::New(DAY),
                })
        },
        |traffic, measured| {
            let now = measured.refused.iter().filter(|it| it.at > 3599.0);
            let mut ends: Vec<_> = now.map(|it| it.at).collect();
            if !traffic.replayable() {
                ends.pop();
            }
            let lasted = ends.last().unwrap_or(&0.0) - ends.first().unwrap_or(&0.0);
            let fetches = measured.fetches_in(3599.0, f64::INFINITY);
            match (lasted <= 1.1 + FETCH + 2.0 * LATENCY, fetches) {
                (true, 0..=2) => Ok(()),
                _ => Err(format!("now refused for {lasted:.2} s, {fetches} fetches")),
            }
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_of_five_minutes_holds_a_revocation_up_for_one() {
    row(
        "Retry-After: 300 to refresh(), revoked a second later",
        || {
            trouble(90.0)
                .refresh_at(-1.0)
                .api(revoked)
                .issuer(|call| match call.at {
                    -2.0..0.0 => Reply::RetryAfter(300),
                    _ => Reply::New(DAY),
                })
        },
        |_| refused_until(60.0, 2..=2),
    )
    .await;
}

// === APIs and issuers that are wrong for long ===

#[tokio::test(start_paused = true)]
async fn an_api_that_refuses_everything_is_over_with_its_end() {
    row(
        "the API refuses everything for 15 min",
        || trouble(960.0).api(|seen| !(0.0..900.0).contains(&seen.at)),
        |_| refused_until(900.0 + LATENCY + 0.01, 1..=13),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn bad_tokens_are_over_two_minutes_after_their_end() {
    row(
        "the issuer's tokens are bad for 15 min",
        || trouble(1080.0).api(|seen| seen.at < 0.0 || seen.issued >= 900.0),
        // Thirteen while it lasts, and the one that ends it.
        |_| refused_until(1020.2, 1..=14),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_bad_node_of_five_refuses_one_in_twenty_five() {
    row(
        "one of five nodes refuses every token for 2 min",
        || trouble(120.0).api(|seen| seen.at < 0.0 || seen.roll >= 0.2),
        |traffic| {
            let share = if traffic.replayable() { 0.04 } else { 0.2 };
            let mean = share * 123.0 * traffic.rate;
            refused_until(f64::INFINITY, 1..=16 + 120 + 1)
                .but((mean + 4.0 * mean.sqrt() + 3.0) as usize)
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn two_processes_that_revoke_each_others_tokens_are_limited_and_warned() {
    row_with(
        "two processes, and one token at a time, for 2 min",
        || {
            trouble(120.0)
                .processes(2)
                .api(|seen| seen.at < 0.0 || seen.token == seen.newest)
        },
        |traffic, measured| {
            let most = 2 * (16 + 120 + 1);
            let fetches = measured.fetches.len();
            if fetches > most {
                return Err(format!("{fetches} fetches, not {most} at most"));
            }
            // A process that asks once a second never meets the limit.
            if traffic.rate > 1.0 && measured.warnings.is_some_and(|warnings| warnings < 2) {
                return Err("no warning from each".to_owned());
            }
            let refused = measured.refused.len() as f64 / measured.requests as f64;
            if traffic.rate == 20.0 && traffic.replayable() && refused > 0.5 {
                return Err(format!("{:.0} % refused", 100.0 * refused));
            }
            Ok(())
        },
    )
    .await;
}
