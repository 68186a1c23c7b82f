//! Rules T6 and T8: callers join one fetch, which belongs to none of them, survives what its callers do, and outlives none of them.
//!
//! Peers' bugs covered: a panic of the refresh reaching callers, leaked tasks, a fetch tied to the first
//! caller's runtime (google-cloud-rust #6697, restate #5154), a caller's timeout or hang-up ending the
//! fetch for all (smithy-rs #2086, teamclaude-rs #325, ktor #5193).

use std::{
    future::pending,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    thread,
    time::{Duration, SystemTime},
};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use http::StatusCode;
use tokio::{
    runtime,
    sync::Semaphore,
    time::{Instant, advance, sleep, timeout},
};
use tower::{BoxError, Layer, Service, limit::GlobalConcurrencyLimitLayer};
use tower_symbl_auth::{
    AccessToken, NotRetried, SymblAuthLayer, TokenError, TokenErrorKind, TokenRequest,
};

use crate::support::*;

/// T6
#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_make_one_fetch_and_share_its_token() {
    let issuer = Issuer::fresh(DAY, 20 * SECOND / 1000);
    let layer = issuer.layer();
    let api = Api::judging(|_| StatusCode::OK);
    let start = Instant::now();
    let callers = (0..10_000).map(|_| send(&layer, &api, get(URL)));
    let answers = join_all(callers).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((issuer.calls(), api.calls()), (1, 10_000));
    assert_eq!(start.elapsed(), 20 * SECOND / 1000);
}

/// T6
#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_make_one_fetch_and_share_its_error() {
    let issuer = Issuer::new(|_| async {
        sleep(20 * SECOND / 1000).await;
        Err(TokenError::new(TokenErrorKind::Unavailable, "down").into())
    });
    let layer = issuer.layer();
    let api = Api::judging(|_| StatusCode::OK);
    let start = Instant::now();
    let callers = (0..10_000).map(|_| send(&layer, &api, get(URL)));
    for answer in join_all(callers).await {
        let error = answer.unwrap_err();
        let error = error.downcast_ref::<TokenError>().unwrap();
        assert_eq!(error.kind(), TokenErrorKind::Unavailable);
    }
    assert_eq!((issuer.calls(), api.calls()), (1, 0));
    assert_eq!(start.elapsed(), 20 * SECOND / 1000);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_first_caller_loses_nothing() {
    let issuer = Issuer::fresh(DAY, 10 * SECOND);
    let layer = issuer.layer();
    let first = timeout(SECOND, layer.token()).await;
    assert!(first.is_err(), "the first caller has given up");
    let start = Instant::now();
    assert_eq!(layer.token().await.unwrap().expose_secret(), "token-1");
    assert_eq!(start.elapsed(), 9 * SECOND);
    assert_eq!(issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_all_callers_gave_up_still_serves_the_next() {
    let issuer = Issuer::fresh(DAY, 10 * SECOND);
    let layer = issuer.layer();
    assert!(timeout(SECOND, layer.token()).await.is_err());
    sleep(10 * SECOND).await;
    assert!(!is_pending(layer.token()).await);
    assert_eq!(issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_never_answers_times_out_by_its_own_deadline() {
    let layer = Issuer::new(|_| pending()).layer();
    let start = Instant::now();
    let error = layer.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert_eq!(start.elapsed(), 35 * SECOND);
}

/// A token service that panics in its nth method.
#[derive(Clone)]
struct Panics {
    first: usize,
    calls: Arc<AtomicUsize>,
}

impl Service<TokenRequest> for Panics {
    type Response = AccessToken;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<AccessToken, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let first = self.calls.fetch_add(1, Ordering::Relaxed) == 0;
        assert!(!(first && self.first == 0), "in poll_ready");
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: TokenRequest) -> Self::Future {
        let first = self.calls.load(Ordering::Relaxed) == 1;
        assert!(!(first && self.first == 1), "in call");
        let panics = first && self.first == 2;
        Box::pin(async move {
            assert!(!panics, "in the future");
            Ok(AccessToken::new("token", DAY)?)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_token_service_is_an_internal_error_and_frees_the_slot() {
    for first in 0..3 {
        let calls = Arc::default();
        let layer = SymblAuthLayer::builder(Panics { first, calls }).build();
        let (one, other) = tokio::join!(layer.token(), layer.token());
        for error in [one.unwrap_err(), other.unwrap_err()] {
            assert_eq!(error.kind(), TokenErrorKind::Internal);
            assert!(error.to_string().contains("panicked"), "{error}");
        }
        sleep(SECOND).await;
        layer.token().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_last_layer_and_service_are_dropped_nothing_stays_running() {
    struct Running(Arc<AtomicUsize>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let running = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&running);
    let issuer = Issuer::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&counter));
        async move {
            let _running = running;
            pending().await
        }
    });
    let layer = issuer.layer();
    let clone = layer.clone();
    assert!(is_pending(layer.token()).await);
    drop(layer);
    settle().await;
    assert_eq!(running.load(Ordering::Relaxed), 1);
    drop(clone);
    settle().await;
    assert_eq!(running.load(Ordering::Relaxed), 0);
}

fn runtime() -> runtime::Runtime {
    runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn when_the_runtime_of_a_fetch_is_shut_down_waiters_on_another_start_a_new_one() {
    let issuer = Issuer::new(|call| async move {
        match call {
            1 => pending().await,
            _ => Ok(AccessToken::new("token-2", DAY)?),
        }
    });
    let layer = issuer.layer();
    let (doomed, other) = (runtime(), runtime());
    let first = layer.clone();
    doomed.spawn(async move { first.token().await });
    while issuer.calls() == 0 {
        thread::yield_now();
    }
    let (waits, waiting) = mpsc::channel();
    let waiter = other.spawn(async move {
        let mut token = Box::pin(layer.token());
        assert!(futures::poll!(token.as_mut()).is_pending());
        waits.send(()).unwrap();
        token.await
    });
    waiting.recv().unwrap();
    doomed.shutdown_background();
    let token = other.block_on(waiter).unwrap().unwrap();
    assert_eq!(token.expose_secret(), "token-2");
}

#[test]
fn a_caller_that_loses_three_fetches_of_its_own_gives_up() {
    let layer = Issuer::fresh(DAY, Duration::ZERO).layer();
    let mut token = Box::pin(layer.token());
    let mut polls = 0;
    let error = loop {
        // The fetch is queued in a runtime that is gone before it gets to run it.
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let polled = token.as_mut().now_or_never();
        polls += 1;
        match polled {
            Some(token) => break token.unwrap_err(),
            None => assert!(polls < 10, "it is restarted for ever"),
        }
    };
    assert_eq!((error.kind(), polls), (TokenErrorKind::Internal, 4));
}

/// One caller's fetch, queued in a runtime that is gone before it gets to run it.
fn lose_a_fetch(layer: &SymblAuthLayer) {
    let doomed = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    {
        let _entered = doomed.enter();
        let _ = layer.token().now_or_never();
    }
    doomed.shutdown_background();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_others_runtimes_is_not_told_to_a_waiter_on_a_healthy_one() {
    let issuer = Issuer::fresh(DAY, Duration::ZERO);
    let layer = issuer.layer();
    for _ in 0..20 {
        lose_a_fetch(&layer);
    }
    // Its own is queued in this runtime, which is well.
    let token = timeout(SECOND, layer.token()).await.unwrap();
    assert_eq!(token.unwrap().expose_secret(), "token-1");
    assert_eq!(issuer.calls(), 1, "what was lost never ran");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_was_lost_keeps_what_is_not_urgent_waiting_for_a_second_at_most() {
    // By the wall clock, which this runtime and the other one share.
    let (issuer, wall) = (Issuer::fresh(1000 * SECOND, Duration::ZERO), Wall::new());
    let layer = issuer.builder().wall_clock(wall.reader()).build();
    layer.token().await.unwrap();
    wall.forward(600 * SECOND);
    advance(SECOND / 10).await;
    lose_a_fetch(&layer); // the refresh ahead
    layer_in_use(&layer).await;
    advance(SECOND * 4 / 10).await;
    layer_in_use(&layer).await;
    assert_eq!(issuer.calls(), 1);
    advance(SECOND * 7 / 10).await;
    layer_in_use(&layer).await;
    assert_eq!(issuer.calls(), 2);
}

/// One runtime for each request, as some test harnesses and scripts have it.
#[test]
fn runtimes_that_come_and_go_make_no_storm_of_refreshes_ahead() {
    let (issuer, wall) = (Issuer::fresh(DAY, SECOND), Wall::new());
    let layer = issuer.builder().wall_clock(wall.reader()).build();
    runtime().block_on(layer.token()).unwrap();
    wall.forward(DAY - 1800 * SECOND);
    let start = std::time::Instant::now();
    for _ in 0..200 {
        let short_lived = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        // Polled once more, so that the fetch does begin.
        short_lived.block_on(async {
            assert_eq!(layer.token().await.unwrap().expose_secret(), "token-1");
            settle().await;
        });
    }
    // Half a second, one, two and so on lie between them.
    let most = 2 + (start.elapsed().as_secs_f64() * 2.0) as usize;
    let calls = issuer.calls() - 1;
    assert!((1..=most).contains(&calls), "{calls} of {most}");
}

/// A token service that asks the layer which it serves: it would wait for itself, but not for a lock.
#[derive(Clone)]
struct CallsBack {
    layer: Arc<OnceLock<SymblAuthLayer>>,
}

impl CallsBack {
    fn ask(&self) {
        let layer = self.layer.get().unwrap();
        let _ = layer.token().now_or_never();
        let _ = layer.refresh().now_or_never();
        layer.accepted(&AccessToken::new("another", DAY).unwrap());
        let _ = format!("{layer:?}");
    }
}

impl Service<TokenRequest> for CallsBack {
    type Response = AccessToken;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<AccessToken, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ask();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: TokenRequest) -> Self::Future {
        self.ask();
        let this = self.clone();
        Box::pin(async move {
            this.ask();
            Ok(AccessToken::new("token-1", DAY)?)
        })
    }
}

/// Whether it ends, in a thread and runtime of its own, within ten seconds: what dead-locks does not.
fn ends(test: impl Future<Output = ()> + Send + 'static) -> bool {
    let (ended, wait) = mpsc::channel();
    thread::spawn(move || {
        // Of one thread, so that no fetch ends before the test says where.
        let mut runtime = runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(test);
        ended.send(()).unwrap();
    });
    wait.recv_timeout(10 * SECOND).is_ok()
}

#[test]
fn a_token_service_may_call_the_layer_that_it_serves() {
    let cell = Arc::new(OnceLock::new());
    let layer = Arc::clone(&cell);
    let layer = SymblAuthLayer::builder(CallsBack { layer }).build();
    cell.set(layer.clone()).unwrap();
    assert!(ends(async move {
        assert_eq!(layer.token().await.unwrap().expose_secret(), "token-1");
        assert_eq!(layer.refresh().await.unwrap().expose_secret(), "token-1");
    }));
}

#[test]
fn the_clock_may_call_the_layer_whose_clock_it_is() {
    let cell: Arc<OnceLock<SymblAuthLayer>> = Arc::default();
    let (inside, calls) = (AtomicBool::new(false), Arc::new(AtomicUsize::new(0)));
    let (layer, count) = (Arc::clone(&cell), Arc::clone(&calls));
    let issuer = Issuer::fresh(DAY, Duration::ZERO);
    let clock = move || {
        if !inside.swap(true, Ordering::Relaxed) {
            if let Some(layer) = layer.get() {
                let _ = layer.token().now_or_never();
                let _ = format!("{layer:?}");
                count.fetch_add(1, Ordering::Relaxed);
            }
            inside.store(false, Ordering::Relaxed);
        }
        SystemTime::now()
    };
    let layer = issuer.builder().wall_clock(clock).build();
    cell.set(layer.clone()).unwrap();
    assert!(ends(async move {
        layer.token().await.unwrap();
        layer.refresh().await.unwrap();
    }));
    assert!(calls.load(Ordering::Relaxed) > 0);
}

/// A source of an error, which calls the layer when it is dropped.
#[derive(Debug)]
struct CallsBackWhenDropped(SymblAuthLayer);

impl std::fmt::Display for CallsBackWhenDropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("down")
    }
}

impl std::error::Error for CallsBackWhenDropped {}

impl Drop for CallsBackWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.token().now_or_never();
    }
}

/// A layer whose first token requests fail with such an error.
fn fails_at_first(times: usize) -> SymblAuthLayer {
    let cell: Arc<OnceLock<SymblAuthLayer>> = Arc::default();
    let layer = Arc::clone(&cell);
    let issuer = Issuer::new(move |call| {
        let layer = layer.get().unwrap().clone();
        async move {
            if call <= times {
                return Err(CallsBackWhenDropped(layer).into());
            }
            Ok(AccessToken::new(format!("token-{call}"), DAY)?)
        }
    });
    let layer = issuer.layer();
    cell.set(layer.clone()).unwrap();
    layer
}

#[test]
fn an_error_of_the_token_service_may_call_the_layer_when_it_is_dropped() {
    let layer = fails_at_first(2);
    assert!(ends(async move {
        // Each replaces what the gate keeps of the last.
        layer.token().await.unwrap_err();
        layer.refresh().await.unwrap_err();
        layer.refresh().await.unwrap();
    }));
}

#[test]
fn the_last_of_that_error_may_be_dropped_by_one_who_had_waited_for_it() {
    let layer = fails_at_first(1);
    assert!(ends(async move {
        let mut waits = Box::pin(layer.token());
        assert!(futures::poll!(&mut waits).is_pending());
        while layer.refresh().await.is_err() {} // the first may join it; in the end the gate keeps no error
        assert_eq!(waits.await.unwrap().expose_secret(), "token-2");
    }));
}

#[tokio::test(start_paused = true)]
async fn a_panic_each_second_time_costs_the_fetches_that_it_ends_and_no_more() {
    let issuer = Issuer::new(|call| async move {
        assert!(call % 2 == 0, "each second time");
        Ok(AccessToken::new(format!("token-{call}"), DAY)?)
    });
    let layer = issuer.layer();
    for call in 1..=10 {
        match layer.refresh().await {
            Ok(token) => assert_eq!(number(token.expose_secret()), call),
            Err(error) => assert_eq!(error.kind(), TokenErrorKind::Internal),
        }
        assert_eq!(issuer.calls(), call);
    }
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_stands_still_delays_a_fetch_by_its_deadline_and_no_more() {
    let issuer = Issuer::fresh(DAY, Duration::ZERO);
    let layer = issuer.layer();
    // Never run again after this: the fetch is in its queue.
    let stalled = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    {
        let _entered = stalled.enter();
        assert!(futures::poll!(Box::pin(layer.token())).is_pending());
    }
    let start = Instant::now();
    assert_eq!(layer.token().await.unwrap().expose_secret(), "token-1");
    assert!(start.elapsed() <= 41 * SECOND, "{:?}", start.elapsed());
    stalled.shutdown_background();
}

#[test]
fn a_request_that_is_made_outside_a_runtime_waits_in_the_one_it_is_polled_in() {
    let paused = || {
        let runtime = runtime::Builder::new_current_thread();
        { runtime }.enable_all().start_paused(true).build().unwrap()
    };
    let api = Api::judging(|_| StatusCode::OK);
    for made_in_another in [false, true] {
        let issuer = Issuer::fresh(DAY, Duration::ZERO);
        let mut service = issuer.layer().layer(api.clone());
        // Never run: the fetch is in its queue.
        let stalled = paused();
        let first = {
            let _entered = stalled.enter();
            service.call(get(URL))
        };
        let other = paused();
        let answer = {
            let _entered = made_in_another.then(|| other.enter());
            service.call(get(URL))
        };
        drop(other);
        paused().block_on(async {
            let start = Instant::now();
            let answer = timeout(60 * SECOND, answer).await.expect("it ends");
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
            assert!(start.elapsed() <= 41 * SECOND, "{:?}", start.elapsed());
        });
        drop(first);
        stalled.shutdown_background();
    }
}

#[test]
fn a_request_that_is_made_outside_a_runtime_and_must_fail_waits_for_no_permit() {
    let issuer = Issuer::new(|_| async { Err("no".into()) });
    let layer = issuer.layer();
    let one = Arc::new(Semaphore::new(1));
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(one.clone());
    let mut service = layer.layer(limit.layer(Api::judging(|_| StatusCode::OK)));
    runtime().block_on(layer.token()).unwrap_err();
    let _taken = one.try_acquire().unwrap();
    let answer = service.call(get(URL));
    let error = runtime().block_on(async { timeout(SECOND, answer).await.expect("at once") });
    error.unwrap_err().downcast::<TokenError>().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_joins_a_fetch_that_stands_still_waits_for_what_is_left_of_its_deadline() {
    let layer = Issuer::fresh(DAY, Duration::ZERO).layer();
    // It is never run, so it does not even end by its own deadline.
    let stalled = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    {
        let _entered = stalled.enter();
        assert!(futures::poll!(Box::pin(layer.token())).is_pending());
    }
    advance(30 * SECOND).await;
    let start = Instant::now();
    assert_eq!(layer.token().await.unwrap().expose_secret(), "token-1");
    assert!(start.elapsed() <= 11 * SECOND, "{:?}", start.elapsed());
    stalled.shutdown_background();
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let layer = Issuer::fresh(DAY, Duration::ZERO).layer();
    let error = futures::executor::block_on(layer.token()).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Internal);
    assert!(error.to_string().contains("runtime"), "{error}");
}

/// The whole layer, with a token service that needs no timer itself.
#[test]
fn in_a_runtime_without_a_timer_there_is_an_error_that_says_so_and_no_panic() {
    let issuer = Issuer::fresh(DAY, Duration::ZERO);
    let layer = issuer.layer();
    let untimed = runtime::Builder::new_current_thread().build().unwrap();
    untimed.block_on(async {
        for error in [layer.token().await, layer.refresh().await].map(Result::unwrap_err) {
            assert_eq!(error.kind(), TokenErrorKind::Internal);
            assert!(error.to_string().contains("enable_time"), "{error}");
        }
        let api = Api::judging(|_| StatusCode::OK);
        let error = send(&layer, &api, get(URL)).await.unwrap_err();
        let error = error.downcast::<TokenError>().unwrap();
        assert_eq!(error.kind(), TokenErrorKind::Internal);
        let mut request = get(URL);
        layer.authorize(&mut request).await.unwrap_err();
        assert!(layer.keep_fresh().now_or_never().is_none());
        assert_eq!(issuer.calls(), 0);
    });
    // A token that was fetched elsewhere is used, and its rejection is handed back with the reason.
    runtime().block_on(layer.token()).unwrap();
    untimed.block_on(async {
        let api = Api::judging(|_| StatusCode::UNAUTHORIZED);
        let response = send(&layer, &api, get(URL)).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        match response.extensions().get() {
            Some(NotRetried::Token(error)) => assert_eq!(error.kind(), TokenErrorKind::Internal),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_request_that_is_made_outside_a_runtime_gets_its_token_once_it_is_polled_in_one() {
    let issuer = Issuer::fresh(DAY, Duration::from_secs(1));
    let api = Api::judging(|_| StatusCode::OK);
    let mut service = issuer.layer().layer(api.clone());
    let answer = service.call(get(URL));
    assert_eq!(issuer.calls(), 0);
    let response = runtime().block_on(answer).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(issuer.calls(), 1);

    let outside = issuer.layer().layer(api).call(get(URL));
    let error = futures::executor::block_on(outside).unwrap_err();
    let error = error.downcast::<TokenError>().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Internal);
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_a_runtime_costs_those_who_have_one_nothing() {
    let issuer = Issuer::fresh(DAY, Duration::ZERO);
    let layer = issuer.layer();
    let outside = layer.clone();
    let outside = thread::spawn(move || futures::executor::block_on(outside.token()));
    outside.join().unwrap().unwrap_err();
    assert_eq!(layer.token().await.unwrap().expose_secret(), "token-1");
}
