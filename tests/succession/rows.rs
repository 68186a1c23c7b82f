//! The table's rows.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::{
    bodies::Bodies,
    row::{nothing, refused_until, row, row_with},
    traffic::Traffic,
    trouble::{Call, DAY, FETCH, LATENCY, Reply, Seconds, Seen, trouble},
};

/// Tokens that were issued before the trouble are refused from then on.
pub fn revoked(seen: &Seen) -> bool {
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
            |traffic| {
                // What is over the limit tries no candidate while the served token works. So one that was
                // fetched for the bad path stands by, ends with the revocation too, and is replaced only
                // once nobody has accepted the other for 2 s.
                let untried = match traffic.bodies {
                    Bodies::Known => traffic.in_seconds(2.0),
                    _ => 0,
                };
                nothing(0..=19 * bad + 1).but(for_a_revocation(traffic) + untried)
            },
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
                .quiet(100.0..3597.0)
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
            match (
                lasted <= 1.1 + FETCH + 2.0 * LATENCY + 3.0 / traffic.rate,
                fetches,
            ) {
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
