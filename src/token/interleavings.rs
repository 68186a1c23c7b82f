//! Rules T6, T8, J2 and J3 under every interleaving that shuttle finds: callers ask, give up, are
//! rejected and refresh, while fetches end and are lost.

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
    AccessToken, Next, PATIENT, Refusal, Waited,
    cache::{Config, TokenCache},
    clock::{Clock, Moment},
    fetching::Fetched,
};
use crate::{NotRetried, TokenError, TokenErrorKind};

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
                    let mut token = Box::pin(cache.token(false));
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
fn callers_that_join_a_fetch_share_its_error_and_the_gate_answers_the_rest() {
    explore(|| {
        block_on(async {
            let (cache, fetches) = cache(|_| true);
            let callers = (0..3).map(|_| {
                let cache = cache.clone();
                spawn(async move { cache.token(false).await.is_err() })
            });
            assert_eq!(all(callers.collect()).await, [true; 3]);
            assert_eq!(fetches.load(Ordering::Relaxed), 1);
        });
    });
}

/// A rejection of the token of that generation, until there is one to send again with.
async fn reject(cache: &TokenCache, generation: u64, path: String) -> Result<u64, NotRetried> {
    let refusal = Refusal {
        generation,
        path: path.into(),
        probe: None,
        retry: true,
    };
    let (rejection, generation) = cache.rejected(refusal, PATIENT).await?;
    rejection.accepted(generation);
    Ok(generation)
}

/// The generation of the token that a request goes with at once.
fn served(cache: &TokenCache) -> u64 {
    match cache.ask(None, false, &mut Waited::default()) {
        Ok(Next::Do(stamp)) => stamp.generation,
        _ => panic!("there is a live token"),
    }
}

#[test]
fn rejections_of_one_token_make_one_fetch_and_all_are_sent_again() {
    explore(|| {
        block_on(async {
            let (cache, fetches) = cache(|_| false);
            cache.token(false).await.expect("the fetch succeeds");
            cache.accepted(1, || None);
            let rejected = (0..3).map(|number: u32| {
                let cache = cache.clone();
                spawn(async move {
                    let again = reject(&cache, 1, format!("GET /{number}")).await;
                    again.unwrap_or_else(|why| panic!("{why}"))
                })
            });
            let rejected: Vec<_> = rejected.collect();
            let reader = spawn({
                let cache = cache.clone();
                async move {
                    // A live token is always to be had, and never an older one than before.
                    let before = served(&cache);
                    yield_now().await;
                    assert!(before <= served(&cache));
                }
            });
            assert_eq!(all(rejected).await, [2; 3]);
            all(vec![reader]).await;
            assert_eq!(served(&cache), 2);
            assert_eq!(fetches.load(Ordering::Relaxed), 2);
        });
    });
}

#[test]
fn a_rejection_a_refresh_and_one_that_gives_up_never_leave_each_other_waiting() {
    explore(|| {
        block_on(async {
            let (cache, fetches) = cache(|call| call == 2);
            cache.token(false).await.expect("the fetch succeeds");
            let gives_up = spawn({
                let cache = cache.clone();
                async move {
                    let mut again = Box::pin(reject(&cache, 1, "GET /a".into()));
                    let _ = poll!(again.as_mut());
                }
            });
            let rejected = spawn({
                let cache = cache.clone();
                async move { drop(reject(&cache, 1, "GET /b".into()).await) }
            });
            let refreshed = spawn({
                let cache = cache.clone();
                async move { drop(cache.refresh().await) }
            });
            all(vec![gives_up, rejected, refreshed]).await;
            let live = (cache.shared).step(|machine, now| machine.plan(now).live);
            assert!(live.is_some(), "a failure displaces no live token");
            assert!((2..=4).contains(&fetches.load(Ordering::Relaxed)));
        });
    });
}

#[test]
fn a_lost_fetch_is_made_again_by_one_of_those_who_waited_for_it() {
    explore(|| {
        block_on(async {
            let (cache, fetches) = cache(|_| false);
            let callers = (0..2).map(|_| {
                let cache = cache.clone();
                spawn(async move {
                    cache
                        .token(false)
                        .await
                        .expect("it is made again")
                        .generation
                })
            });
            let callers: Vec<_> = callers.collect();
            // As if the first fetch's runtime were shut down, at whatever moment.
            cache.shared.lost(1);
            let generations = all(callers).await;
            assert!(
                generations
                    .iter()
                    .all(|generation| *generation == generations[0])
            );
            assert!((1..=2).contains(&fetches.load(Ordering::Relaxed)));
            // The lost fetch's task is still to be dropped; each holds a weak handle, as the cache itself does.
            while Arc::weak_count(&cache.shared) > 1 {
                yield_now().await;
            }
        });
    });
}
