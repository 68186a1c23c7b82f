//! Rule N4: new tokens may need a while to be known everywhere, so they are not thrown away for the next
//! as quickly as they are refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Instant, advance};
use tower_symbl_auth::{AccessToken, FetchReason, NotRetried};

use crate::{
    support::*,
    world::{Got, World, pause, scripted},
};

const MILLIS: Duration = Duration::from_millis(1);

fn second(why: &NotRetried) -> bool {
    matches!(why, NotRetried::SecondRejection)
}

/// A request each quarter of a second, each to a path of its own. When each fetch was made.
async fn traffic(world: &World, span: Duration) -> Vec<Duration> {
    let (start, mut fetched) = (Instant::now(), Vec::new());
    let mut known = world.fetches();
    while start.elapsed() < span {
        let path = format!("/good/{}", start.elapsed().as_millis());
        world.get(&path).await;
        let fetches = world.fetches();
        fetched.extend((known..fetches).map(|_| start.elapsed()));
        known = fetches;
        advance(250 * MILLIS).await;
    }
    fetched
}

#[tokio::test(start_paused = true)]
async fn an_api_that_refuses_everything_is_tried_with_new_tokens_less_and_less_often() {
    let world = World::new();
    world.accepts(&[]);
    let fetched = traffic(&world, 900 * SECOND).await;
    assert_eq!(fetched.len(), 13, "{fetched:?}");
    let gaps: Vec<_> = fetched.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let patience = [0, 1, 10, 20, 40, 80, 120, 120, 120, 120, 120, 120];
    for (gap, patience) in gaps.into_iter().zip(patience.map(Duration::from_secs)) {
        let longest = patience + 1500 * MILLIS;
        assert!(
            (patience..=longest).contains(&gap),
            "{gap:?} is not {patience:?}"
        );
    }
}

/// A fetch that was joined for a rejection replaces as much as one that was started for it.
#[tokio::test(start_paused = true)]
async fn what_an_early_fetch_replaces_counts_in_the_row_if_a_rejection_has_joined_it() {
    let issuer = Issuer::new(|call| async move {
        let lifetime = if call == 1 { 1000 * SECOND } else { DAY };
        pause(if call == 2 {
            SECOND / 2
        } else {
            Duration::ZERO
        })
        .await;
        Ok(AccessToken::new(format!("token-{call}"), lifetime)?)
    });
    let world = World::with(issuer, |builder| builder);
    assert_eq!(world.served().await, 1);
    advance(600 * SECOND).await;
    world.accepts(&[]);
    world.get("/a").await.because(second);
    assert_eq!((world.sent(), world.fetches()), (vec![1, 2], 2));
    // The second in a row is given one second, and the third ten.
    let fetched = traffic(&world, 9 * SECOND).await;
    assert!(matches!(fetched[..], [at] if at >= SECOND), "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn the_row_ends_when_the_newest_token_is_accepted() {
    let world = World::new();
    world.accepts(&[]);
    traffic(&world, 40 * SECOND).await;
    let newest = world.fetches();
    assert_eq!(newest, 5);
    world.accepts(&[newest]);
    let fetched = traffic(&world, 5 * SECOND).await;
    assert!(fetched.is_empty(), "{fetched:?}");
    world.accepts(&[]);
    let fetched = traffic(&world, 3 * SECOND).await;
    assert!(fetched.len() >= 2 && fetched[0] < SECOND, "{fetched:?}");
}

/// Also if nothing else asks for accepted answers: a token that is accepted is the newest again, for the bad one has gone.
#[tokio::test(start_paused = true)]
async fn the_row_ends_when_the_newest_token_is_accepted_after_a_long_silence() {
    let first_again = Arc::new(AtomicBool::new(false));
    let brings_first = Arc::clone(&first_again);
    let world = World::with(
        scripted(move |call| match brings_first.load(SeqCst) {
            true => (1, Duration::ZERO),
            false => (call, Duration::ZERO),
        }),
        |builder| builder,
    );
    world.prove().await;
    world.accepts(&[]);
    traffic(&world, 40 * SECOND).await;
    world.accepts(&[1]);
    first_again.store(true, SeqCst);
    while world.issuer.reasons().last() != Some(&FetchReason::Early) {
        world.get("/good").await;
        advance(SECOND).await;
    }
    first_again.store(false, SeqCst);
    advance(700 * SECOND).await;
    for _ in 0..100 {
        world.get("/good").await.accepted();
        advance(SECOND / 10).await;
    }
    world.accepts(&[]);
    let fetched = traffic(&world, 5 * SECOND).await;
    assert!(fetched.len() >= 2, "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn the_row_does_not_end_when_the_older_token_is_accepted() {
    let world = World::with_a_proven_token().await;
    world.accepts(&[]);
    while world.fetches() < 5 {
        traffic(&world, SECOND).await;
    }
    world.accepts(&[1]);
    traffic(&world, 3 * SECOND).await;
    assert_eq!(world.served().await, 1, "it takes over");
    world.accepts(&[]);
    let fetched = traffic(&world, 10 * SECOND).await;
    assert!(fetched.is_empty(), "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_token_is_not_replaced_while_another_is_accepted() {
    let world = World::with_a_proven_token().await;
    world.answers(|path, token| {
        if path == "/bad" || token > 1 {
            401
        } else {
            200
        }
    });
    let start = Instant::now();
    while start.elapsed() < 100 * SECOND {
        world.get("/good").await.accepted();
        world.get("/bad").await.because(second);
        advance(SECOND).await;
    }
    assert_eq!(world.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn it_is_once_that_was_more_than_two_seconds_ago() {
    let world = World::with_a_proven_token().await;
    world.answers(|path, token| {
        if path == "/bad" || token > 1 {
            401
        } else {
            200
        }
    });
    world.get("/good").await.accepted();
    world.get("/bad").await.because(second);
    advance(1900 * MILLIS).await;
    world.get("/bad").await;
    assert_eq!(world.fetches(), 2);
    advance(200 * MILLIS).await;
    world.get("/bad").await;
    assert_eq!(world.fetches(), 3);
}

/// Two requests at once, of which the first tries the candidate. What became of the second.
async fn beside_a_probe(world: &World) -> Got {
    world.delays(100 * MILLIS);
    let (_, got) = tokio::join!(world.get("/b"), world.get("/c"));
    got
}

#[tokio::test(start_paused = true)]
async fn beside_an_older_token_that_was_never_accepted_it_is_replaced_and_the_retry_takes_what_comes()
 {
    let world = World::new();
    world.accepts(&[]);
    world.get("/a").await.because(second);
    assert_eq!(world.sent(), [1, 2]);
    advance(1100 * MILLIS).await;
    world.accepts(&[3]);
    let got = beside_a_probe(&world).await;
    assert_eq!(world.sent(), [1, 2, 2, 3]);
    got.accepted();
}

#[tokio::test(start_paused = true)]
async fn beside_one_that_was_accepted_it_is_replaced_as_well_but_the_retry_takes_the_accepted_one()
{
    let world = World::new();
    world.get("/good").await.accepted();
    world.accepts(&[]);
    world.get("/a").await.because(second);
    advance(2100 * MILLIS).await;
    assert_eq!((world.sent(), world.served().await), (vec![1, 1, 2], 2));
    // What comes may be as little known as the one it replaces.
    world.accepts(&[1]);
    let got = beside_a_probe(&world).await;
    got.accepted();
    assert_eq!(world.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn beside_one_that_was_accepted_and_not_refused_since_the_retry_takes_that() {
    let world = World::with_a_proven_token().await;
    world.layer.refresh().await.unwrap();
    advance(60 * SECOND).await;
    world.accepts(&[1, 3]);
    world.get("/good").await.accepted();
    assert_eq!((world.sent(), world.fetches()), (vec![2, 1], 2));
}

#[tokio::test(start_paused = true)]
async fn in_its_first_second_a_request_that_could_only_take_a_refused_token_waits_for_its_age() {
    let world = World::new();
    world.accepts(&[]);
    world.get("/a").await.because(second);
    assert_eq!(world.sent(), [1, 2]);
    world.hang("/probe").await;
    assert_eq!(world.sent(), [1]);
    advance(400 * MILLIS).await;
    world.accepts(&[2]);
    let start = Instant::now();
    world.get("/b").await.accepted();
    assert_eq!(world.sent(), [2]);
    let waited = start.elapsed();
    assert!(
        (600 * MILLIS..=610 * MILLIS).contains(&waited),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn it_waits_no_longer_than_until_the_token_is_accepted_for_another() {
    let world = World::with(Issuer::fresh(DAY, 5 * SECOND), |builder| builder);
    world.layer.token().await.unwrap();
    world.delays(500 * MILLIS);
    let first = world.get("/first"); // is accepted after half a second
    let others = async {
        settle().await;
        world.delays(Duration::ZERO);
        world.answers(|path, _| if path == "/bad" { 401 } else { 200 });
        assert!(is_pending(world.get("/bad")).await);
        let start = Instant::now();
        world.get("/b").await.accepted();
        let waited = start.elapsed();
        assert!(
            (490 * MILLIS..=510 * MILLIS).contains(&waited),
            "{waited:?}"
        );
    };
    let (first, ()) = tokio::join!(first, others);
    first.accepted();
    assert_eq!(world.sent(), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_itself_refused_waits_as_well_from_the_second_of_a_row_on() {
    let world = World::new();
    world.delays(100 * MILLIS);
    world.accepts(&[]);
    world.layer.token().await.unwrap();
    let start = Instant::now();
    let first = world.get("/a"); // has the first token replaced after 100 ms, and is refused after 200
    let other = async {
        tokio::time::sleep(150 * MILLIS).await;
        let got = world.get("/b");
        let known = async {
            tokio::time::sleep(200 * MILLIS).await;
            world.accepts(&[2]);
        };
        tokio::join!(got, known).0
    };
    let (first, other) = tokio::join!(first, other);
    assert_eq!(world.sent(), [1, 2, 2, 2]);
    first.because(second);
    other.accepted();
    let waited = start.elapsed();
    assert!(
        (1200 * MILLIS..=1250 * MILLIS).contains(&waited),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_was_itself_refused_goes_with_it_once_it_is_accepted_for_another_and_fetches_none()
{
    let world = World::new();
    world.delays(100 * MILLIS);
    world.answers(|path, _| if path == "/known" { 200 } else { 401 });
    world.layer.token().await.unwrap();
    let start = Instant::now();
    let at = |millis: u32| tokio::time::sleep_until(start + millis * MILLIS);
    let first = world.get("/a"); // has the first token replaced after 100 ms, and is refused after 200
    let known = async {
        at(110).await;
        world.delays(300 * MILLIS);
        let known = world.get("/known");
        let others = async {
            at(120).await;
            world.delays(100 * MILLIS);
        };
        tokio::join!(known, others).0.accepted();
    };
    let other = async {
        at(150).await;
        let then = async {
            at(300).await;
            world.answers(|_, _| 200);
        };
        tokio::join!(world.get("/b"), then).0.accepted();
        start.elapsed()
    };
    let (_, (), took) = tokio::join!(first, known, other);
    assert_eq!((world.sent(), world.fetches()), (vec![1, 2, 2, 2, 2], 2));
    assert!((500 * MILLIS..=530 * MILLIS).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn with_no_other_token_to_try_a_request_goes_back_unproven() {
    // The first ends after three seconds, the second after five.
    let issuer = Issuer::new(|call| async move {
        let lifetime = [3 * SECOND, 5 * SECOND, DAY][call.min(3) - 1];
        Ok(AccessToken::new(format!("token-{call}"), lifetime)?)
    });
    let world = World::with(issuer, |builder| builder.refresh_margin(MILLIS));
    world.accepts(&[]);
    world.get("/a").await.because(second);
    advance(1500 * MILLIS).await;
    world.hang("/probe").await;
    world.get("/b").await.because(second);
    assert_eq!(world.sent(), [1, 2, 1, 2, 3]);
    advance(4 * SECOND).await;
    let why = |why: &NotRetried| matches!(why, NotRetried::Unproven);
    world.get("/c").await.because(why);
    assert_eq!((world.sent(), world.fetches()), (vec![3], 3));
}
