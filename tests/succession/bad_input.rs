//! Token services, APIs and clocks that do what they should not.

use std::sync::Mutex;

use crate::{
    bodies::Bodies,
    row::{nothing, refused_until, row, row_with},
    trouble::{Call, DAY, FETCH, LATENCY, Reply, Seen, trouble},
};

const YEAR: u64 = 365 * 86_400;

/// After half a minute all is well.
fn first(call: &Call, reply: Reply) -> Reply {
    if call.at < 30.0 {
        reply
    } else {
        Reply::New(DAY)
    }
}

fn unless_ended(seen: &Seen) -> bool {
    seen.at < seen.ends
}

// === token services ===

#[tokio::test(start_paused = true)]
async fn the_same_token_for_ever_is_kept_and_works_again_with_the_api() {
    row(
        "the same token for ever, and the API refuses it for 2 min",
        || {
            trouble(180.0)
                .issuer(|_| Reply::Again(DAY))
                .api(|seen| !(0.0..120.0).contains(&seen.at))
        },
        // At the limits: 16, and one every ten seconds.
        |_| refused_until(120.0 + LATENCY + FETCH, 1..=16 + 12 + 1),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hands_out_the_same_token_until_near_its_end_is_not_asked_in_a_loop() {
    row(
        "the same token until 5 s before its end, for 15 min",
        || {
            let kept_until = Mutex::new(f64::NEG_INFINITY);
            let issuer = move |call: &Call| {
                let mut ends = kept_until.lock().unwrap();
                if *ends - call.at > 5.0 {
                    return Reply::Again(*ends - call.at - FETCH);
                }
                *ends = call.at + FETCH + 600.0;
                Reply::New(600.0)
            };
            trouble(900.0)
                .known_for(300.0)
                .issuer(issuer)
                .api(unless_ended)
        },
        |_| nothing(1..=40).waiting(0.3),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_expired_is_an_error_until_the_next_and_never_served() {
    row(
        "the first tokens are expired for 30 s",
        || {
            trouble(60.0)
                .no_token_yet()
                .issuer(|call| first(call, Reply::New(0.0)))
                .api(unless_ended)
        },
        |_| refused_until(40.3, 2..=13),
    )
    .await;
    row(
        "tokens that are refreshed ahead are expired for ever",
        || {
            trouble(150.0)
                .known_for(200.0)
                .refresh_margin(200.0)
                .issuer(|call| Reply::New(if call.number == 1 { 420.0 } else { 0.0 }))
                .api(unless_ended)
        },
        |_| nothing(1..=16),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn tokens_that_end_earlier_than_the_last_do_not_displace_it() {
    row(
        "each token ends earlier than the last",
        || {
            trouble(190.0)
                .known_for(200.0)
                .refresh_margin(200.0)
                .issuer(|call| Reply::New(if call.number == 1 { 420.0 } else { 100.0 }))
                .api(unless_ended)
        },
        |_| nothing(1..=12),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_of_a_year_holds_for_a_minute() {
    row(
        "Retry-After: a year, and no token",
        || {
            trouble(90.0)
                .no_token_yet()
                .issuer(|call| first(call, Reply::RetryAfter(YEAR)))
        },
        // Counted from the first request.
        |traffic| refused_until(if traffic.rate > 1.0 { 61.0 } else { 66.0 }, 2..=2),
    )
    .await;
    row(
        "Retry-After: a year to refresh(), revoked a second later",
        || {
            let issuer = |call: &Call| match call.at {
                -2.0..0.0 => Reply::RetryAfter(YEAR),
                _ => Reply::New(DAY),
            };
            (trouble(90.0).refresh_at(-1.0).issuer(issuer))
                .api(|seen| seen.at < 0.0 || seen.issued >= 0.0)
        },
        |_| refused_until(60.0, 2..=2),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_token_service_that_panics_every_second_time_is_asked_again_within_a_second() {
    row_with(
        "panics every second time, revoked every 10 s",
        || {
            let issuer = |call: &Call| match call.number % 2 {
                0 => Reply::Panics,
                _ => Reply::New(DAY),
            };
            let api = |seen: &Seen| {
                seen.at < 0.0 || seen.issued >= (seen.at / 10.0).floor().min(4.0) * 10.0
            };
            trouble(60.0).issuer(issuer).api(api)
        },
        |traffic, measured| {
            let late = measured.refused.iter().filter(|it| {
                traffic.rate > 1.0
                    && it.at % 10.0 > 1.3 + f64::from(u8::from(!traffic.replayable()))
            });
            match late.count() {
                0 => refused_until(52.5, 1..=10).check(traffic, measured),
                late => Err(format!(
                    "{late} refused later than a second after a revocation"
                )),
            }
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_token_service_that_calls_the_layer_it_serves_ends_like_any_other() {
    row(
        "calls its layer, which has a token, and that is revoked",
        || {
            (trouble(30.0).issuer(|call| match call.at {
                0.0.. => Reply::CallsTheLayer,
                _ => Reply::New(DAY),
            }))
            .api(|seen| seen.at < 0.0 || seen.issued >= 0.0)
        },
        |traffic| match traffic.bodies {
            Bodies::Replayable => nothing(1..=1),
            _ => refused_until(f64::INFINITY, 1..=1)
                .but(1 + traffic.in_seconds(FETCH + 2.0 * LATENCY)),
        },
    )
    .await;
    row(
        "calls its layer, which waits for that very call",
        || {
            let issuer = |call: &Call| match call.number {
                1 => Reply::CallsTheLayer,
                _ => Reply::New(DAY),
            };
            trouble(60.0).no_token_yet().issuer(issuer)
        },
        // The fetch's deadline.
        |traffic| refused_until(35.5 + 10.0 / traffic.rate, 2..=2).waiting(35.5),
    )
    .await;
}

// === APIs ===

#[tokio::test(start_paused = true)]
async fn an_api_that_refuses_half_of_all_is_retried_within_the_limits() {
    row(
        "the API refuses half of all for 2 min",
        || trouble(150.0).api(|seen| !(0.0..120.0).contains(&seen.at) || seen.roll < 0.5),
        |traffic| {
            // One in four, with one retry each.
            let share = if traffic.replayable() { 0.27 } else { 0.52 };
            let mean = share * 120.0 * traffic.rate;
            refused_until(120.1 + LATENCY, 1..=16 + 120 + 1)
                .but((mean + 5.0 * mean.sqrt() + 5.0) as usize)
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_one_path_that_an_api_accepts_sees_nothing_and_its_revocation_is_healed() {
    row_with(
        "all paths but one are refused for 3 min, a revocation after 1",
        || {
            trouble(180.0).api(|seen| {
                seen.at < 0.0 || seen.path == 0 && (seen.at < 60.0 || seen.issued >= 60.0)
            })
        },
        |traffic, measured| {
            if traffic.paths > 1 && traffic.rate / (traffic.paths as f64) < 0.5 {
                // Hardly any request is accepted, so that little is known of any token.
                return refused_until(f64::INFINITY, 1..=16 + 18 + 1).check(traffic, measured);
            }
            let its_own = measured.refused.iter().filter(|it| it.path == 0);
            let its_own: Vec<_> = its_own.map(|it| it.at).collect();
            let before = its_own.iter().filter(|at| **at < 60.0).count();
            let last = its_own.last().copied().unwrap_or_default();
            let fetches = measured.fetches.len();
            match (before == 0 || !traffic.replayable(), last < 70.5, fetches) {
                (true, true, 0..=35) => Ok(()),
                _ => Err(format!(
                    "{before} before, last at {last:.2} s, {fetches} fetches"
                )),
            }
        },
    )
    .await;
}

// === clocks ===

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_back_or_stands_still_is_not_noticed() {
    type Wall = fn(f64) -> f64;
    let walls: [(&str, Wall); 3] = [
        ("jumps back an hour", |now| {
            now - if now < 0.0 { 0.0 } else { 3600.0 }
        }),
        ("stands still", |now| now.min(0.0)),
        ("jumps ahead an hour", |now| {
            now + if now < 0.0 { 0.0 } else { 3600.0 }
        }),
    ];
    for (what, wall) in walls {
        row(
            &format!("the wall clock {what}"),
            || {
                trouble(150.0)
                    .wall_clock(wall)
                    .issuer(|_| Reply::New(120.0))
                    .api(unless_ended)
            },
            |_| nothing(1..=6),
        )
        .await;
    }
}
