//! Rules T6, T8, J2 and J3 under every interleaving that shuttle finds: callers ask, give up, are
//! rejected and refresh, while flights land.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, poll};
use http::HeaderValue;
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};

use super::{
    AccessToken,
    cache::{Config, TokenCache},
    clock::{Clock, Moment},
    service::Fetched,
};
use crate::{TokenError, TokenErrorKind};

/// `token-1`, `token-2` and so on, but for calls that fail.
fn cache(fails: fn(usize) -> bool) -> (TokenCache, Arc<AtomicUsize>) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
    let fetch = move |_reason| {
        let call = count.fetch_add(1, Ordering::Relaxed) + 1;
        let fetched = async move {
            yield_now().await;
            if fails(call) {
                return Err(TokenError::new(TokenErrorKind::Unavailable, "down"));
            }
            let lifetime = Duration::from_secs(86_400);
            let token = AccessToken::sent_at(format!("token-{call}"), lifetime, Moment::now());
            let token = token.expect("it can stand in a header");
            Ok(Fetched { token, lifetime })
        };
        fetched.boxed()
    };
    let cache = TokenCache::new(Config {
        fetch: Arc::new(fetch),
        header: |_| HeaderValue::from_static("token"),
        margin: None,
        clock: Clock::default(),
    });
    (cache, fetches)
}

fn explore(test: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(test.clone(), 1_000);
    shuttle::check_pct(test, 1_000, 3);
}

async fn all<T>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.expect("no task panics"));
    }
    outcomes
}

#[test]
fn callers_without_a_token_make_one_fetch_whoever_gives_up() {
    explore(|| {
        block_on(async {
            let (cache, fetches) = cache(|_| false);
            let callers = (0..3).map(|number| {
                let cache = cache.clone();
                spawn(async move {
                    let mut token = Box::pin(cache.get());
                    if number == 0 {
                        // Dropped where it waits.
                        let _ = poll!(token.as_mut());
                        return 1;
                    }
                    token.await.expect("the fetch succeeds").generation
                })
            });
            assert_eq!(all(callers.collect()).await, [1; 3]);
            assert_eq!(fetches.load(Ordering::Relaxed), 1);
        });
    });
}

#[test]
fn callers_that_join_a_flight_share_its_error_and_the_cool_down_answers_the_rest() {
    explore(|| {
        block_on(async {
            let (cache, fetches) = cache(|_| true);
            let callers = (0..3).map(|_| {
                let cache = cache.clone();
                spawn(async move { cache.get().await.is_err() })
            });
            assert_eq!(all(callers.collect()).await, [true; 3]);
            assert_eq!(fetches.load(Ordering::Relaxed), 1);
        });
    });
}

#[test]
fn rejections_of_one_token_make_one_fetch_and_all_are_sent_again() {
    explore(|| {
        block_on(async {
            let (cache, fetches) = cache(|_| false);
            cache.get().await.expect("the fetch succeeds");
            let rejected = (0..3).map(|number: u32| {
                let cache = cache.clone();
                spawn(async move {
                    let key = format!("GET /{number}").into();
                    let newer = cache.clone().newer_than(1, key).await;
                    let claim = newer.unwrap_or_else(|why| panic!("{why}"));
                    let (_, generation) = cache.stamp().expect("it is live");
                    if let Some(claim) = claim {
                        claim.accepted();
                    }
                    generation
                })
            });
            let rejected: Vec<_> = rejected.collect();
            let reader = spawn({
                let cache = cache.clone();
                async move {
                    // A live token is always to be had, and never an older one than before.
                    let (_, before) = cache.stamp().expect("it is live");
                    yield_now().await;
                    let (_, after) = cache.stamp().expect("it is live");
                    assert!(before <= after);
                }
            });
            assert_eq!(all(rejected).await, [2; 3]);
            all(vec![reader]).await;
            assert_eq!(fetches.load(Ordering::Relaxed), 2);
        });
    });
}

#[test]
fn a_rejection_a_refresh_and_one_that_gives_up_never_leave_each_other_waiting() {
    explore(|| {
        block_on(async {
            let (cache, fetches) = cache(|call| call == 2);
            cache.get().await.expect("the fetch succeeds");
            let gives_up = spawn({
                let cache = cache.clone();
                async move {
                    let mut newer = Box::pin(cache.newer_than(1, "GET /a".into()));
                    let _ = poll!(newer.as_mut());
                }
            });
            let rejected = spawn({
                let cache = cache.clone();
                async move { drop(cache.newer_than(1, "GET /b".into()).await) }
            });
            let refreshed = spawn({
                let cache = cache.clone();
                async move { drop(cache.refresh().await) }
            });
            all(vec![gives_up, rejected, refreshed]).await;
            assert!(cache.stamp().is_some(), "a failure displaces no live token");
            assert!((2..=4).contains(&fetches.load(Ordering::Relaxed)));
        });
    });
}
