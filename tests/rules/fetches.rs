//! Rule T8: a fetch belongs to no caller, survives what its callers do, and outlives none of them.
//!
//! Peers' bugs covered: a panic of the refresh reaching callers, leaked tasks, a fetch tied to the first
//! caller's runtime (google-cloud-rust #6697, restate #5154), a caller's timeout or hang-up ending the
//! fetch for all (smithy-rs #2086, teamclaude-rs #325, ktor #5193).

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    runtime,
    time::{Instant, sleep, timeout},
};
use tower::{BoxError, Service};
use tower_symbl_auth::{AccessToken, SymblAuthLayer, TokenErrorKind, TokenRequest};

use crate::support::*;

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
fn a_lost_fetch_is_restarted_three_times_at_most() {
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
    assert_eq!((error.kind(), polls), (TokenErrorKind::Internal, 5));
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
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let layer = Issuer::fresh(DAY, Duration::ZERO).layer();
    let error = futures::executor::block_on(layer.token()).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Internal);
    assert!(error.to_string().contains("runtime"), "{error}");
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
