//! Rules R5, R6 and Q6 under every interleaving that shuttle finds: the first attempt polls, the future
//! holds and takes over or lets go, frames come in, and any of them is dropped. No wake-up is lost (the
//! scheduler would report a deadlock), no frame comes twice, none is missing.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
use http::Request;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use shuttle::{
    future::{block_on, spawn, yield_now},
    sync::atomic::{AtomicBool, Ordering},
};
use tower::BoxError;

use super::{
    Replay, ReplayBody,
    look::{Seen, look},
};
use crate::origin::guard::Listed;

const FRAMES: u8 = 3;

struct Fed(mpsc::UnboundedReceiver<u8>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // It takes its time: anything may happen before it knows, and after. To yield would wake the task.
        let step = AtomicBool::new(false);
        step.store(true, Ordering::Relaxed);
        let next = self.0.poll_next_unpin(cx);
        step.store(true, Ordering::Relaxed);
        next.map(|byte| byte.map(|byte| Ok(Frame::data(Bytes::from(vec![byte])))))
    }
}

/// A body under way, fed by a task of its own.
fn start(limit: usize) -> (ReplayBody<Fed>, Replay<Fed>) {
    start_with(limit, Fed)
}

fn start_with<B>(
    limit: usize,
    body: fn(mpsc::UnboundedReceiver<u8>) -> B,
) -> (ReplayBody<B>, Replay<B>)
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let (feed, frames) = mpsc::unbounded();
    spawn(async move {
        for byte in 0..FRAMES {
            yield_now().await;
            // Nobody may be listening any more.
            let _ = feed.unbounded_send(byte);
        }
    });
    record(body(frames), limit)
}

fn record<B>(mut body: B, limit: usize) -> (ReplayBody<B>, Replay<B>)
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let Seen::Stream(seen) = look(&mut body) else {
        unreachable!("its length is not known");
    };
    let (request, replay) = Replay::stream(Request::new(body), Listed::Unnamed, seen, limit);
    (request.into_body(), replay)
}

/// Reads at most so many frames; tells what came, and whether the body ended well.
async fn read<B>(mut body: ReplayBody<B>, most: usize) -> (Vec<u8>, bool)
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let mut seen = Vec::new();
    for _ in 0..most {
        match body.frame().await {
            Some(Ok(frame)) => seen.extend(frame.into_data().unwrap()),
            Some(Err(_)) => return (seen, false),
            None => return (seen, true),
        }
    }
    (seen, false)
}

fn all() -> Vec<u8> {
    (0..FRAMES).collect()
}

/// The first attempt reads so many frames at most, and is rejected midway; then the retry reads. What each
/// of them saw.
async fn rejected_midway(first: usize, retry: usize) -> [(Vec<u8>, bool); 2] {
    let (body, replay) = start(100);
    let first = spawn(read(body, first));
    yield_now().await;
    assert!(replay.hold());
    yield_now().await;
    let retry = read(replay.take_over(&[]).into_body(), retry).await;
    [first.await.unwrap(), retry]
}

/// Random schedules, and those that are rare in random ones.
fn explore(test: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(test.clone(), 1_500);
    shuttle::check_pct(test, 1_500, 3);
}

#[test]
fn a_body_that_is_taken_over_arrives_whole_and_the_first_attempt_ends() {
    explore(|| {
        block_on(async {
            let [(seen, _), retry] = rejected_midway(usize::MAX, usize::MAX).await;
            assert_eq!(retry, (all(), true));
            assert!(all().starts_with(&seen), "{seen:?}");
        });
    });
}

#[test]
fn a_body_that_is_held_and_let_go_reaches_its_end_on_the_first_attempt() {
    explore(|| {
        block_on(async {
            let (body, replay) = start(100);
            let first = spawn(read(body, usize::MAX));
            yield_now().await;
            if replay.hold() {
                yield_now().await;
            }
            drop(replay);
            assert_eq!(first.await.unwrap(), (all(), true));
        });
    });
}

#[test]
fn a_first_attempt_that_stops_midway_loses_nothing_of_the_retry() {
    explore(|| {
        block_on(async {
            let [_, retry] = rejected_midway(2, usize::MAX).await;
            assert_eq!(retry, (all(), true));
        });
    });
}

#[test]
fn a_retry_that_stops_midway_leaves_nothing_waiting() {
    explore(|| {
        block_on(async {
            let [(seen, _), _] = rejected_midway(usize::MAX, 1).await;
            assert!(all().starts_with(&seen), "{seen:?}");
        });
    });
}

#[test]
fn over_the_limit_there_is_a_replay_of_all_or_none_and_the_first_attempt_goes_on() {
    explore(|| {
        block_on(async {
            let (body, replay) = start(usize::from(FRAMES) - 1);
            let first = spawn(read(body, usize::MAX));
            yield_now().await;
            if replay.hold() {
                let (seen, whole) = read(replay.take_over(&[]).into_body(), usize::MAX).await;
                assert_eq!((seen, whole), (all(), true));
                first.await.unwrap();
            } else {
                drop(replay);
                assert_eq!(first.await.unwrap(), (all(), true));
            }
        });
    });
}

#[test]
fn a_retry_that_is_dropped_midway_leaves_nothing_waiting_and_the_body_is_dropped() {
    explore(|| {
        block_on(async {
            let (dropped, drops) = futures::channel::oneshot::channel();
            let (feed, frames) = mpsc::unbounded();
            let body = Watched(Fed(frames), Some(dropped));
            let (mut first, replay) = record(body, 100);
            // Whatever happens to it, it is not fed any more, and holds on to the recorder.
            let first = spawn(async move {
                let polled = futures::poll!(first.frame());
                yield_now().await;
                (first, polled.is_pending())
            });
            yield_now().await;
            assert!(replay.hold());
            let mut retry = replay.take_over(&[]).into_body();
            let _ = futures::poll!(retry.frame());
            drop(retry);
            let held = first.await.unwrap();
            assert_eq!(drops.await, Ok(()), "nobody polls it any more");
            drop((held, feed));
        });
    });
}

/// Tells when it is dropped.
struct Watched(Fed, Option<futures::channel::oneshot::Sender<()>>);

impl Drop for Watched {
    fn drop(&mut self) {
        let dropped = self.1.take().expect("it is dropped once");
        let _ = dropped.send(());
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

#[test]
fn a_body_that_fails_fails_on_the_attempt_that_polls_it_and_is_never_cut_short() {
    explore(|| {
        block_on(async {
            let (body, replay) = start_with(100, |frames| Failing(Fed(frames)));
            let first = spawn(read(body, usize::MAX));
            yield_now().await;
            if replay.hold() {
                let (seen, whole) = read(replay.take_over(&[]).into_body(), usize::MAX).await;
                assert!(all().starts_with(&seen) && !whole, "{seen:?}");
            } else {
                drop(replay);
            }
            assert!(!first.await.unwrap().1);
        });
    });
}

/// Ends in an error.
struct Failing(Fed);

impl Body for Failing {
    type Data = Bytes;
    type Error = std::fmt::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::fmt::Error>>> {
        let polled = Pin::new(&mut self.0).poll_frame(cx);
        polled.map(|polled| match polled {
            Some(Ok(frame)) => Some(Ok(frame)),
            _ => Some(Err(std::fmt::Error)),
        })
    }
}
