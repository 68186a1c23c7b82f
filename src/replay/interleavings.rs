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
use shuttle::future::{block_on, spawn, yield_now};

use super::{Replay, ReplayBody, record};

const FRAMES: u8 = 3;

struct Fed(mpsc::UnboundedReceiver<u8>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.poll_next_unpin(cx);
        next.map(|byte| byte.map(|byte| Ok(Frame::data(Bytes::from(vec![byte])))))
    }
}

/// A body under way, fed by a task of its own.
fn start(limit: usize) -> (ReplayBody<Fed>, Replay<Fed>) {
    let (feed, frames) = mpsc::unbounded();
    spawn(async move {
        for byte in 0..FRAMES {
            yield_now().await;
            // Nobody may be listening any more.
            let _ = feed.unbounded_send(byte);
        }
    });
    let mut request = Request::new(ReplayBody::empty());
    let replay = record(&mut request, Fed(frames), limit);
    (request.into_body(), replay)
}

/// Reads at most so many frames; tells what came, and whether the body ended well.
async fn read(mut body: ReplayBody<Fed>, most: usize) -> (Vec<u8>, bool) {
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
    let retry = read(replay.take_over().into_body(), retry).await;
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
                let (seen, whole) = read(replay.take_over().into_body(), usize::MAX).await;
                assert_eq!((seen, whole), (all(), true));
                first.await.unwrap();
            } else {
                drop(replay);
                assert_eq!(first.await.unwrap(), (all(), true));
            }
        });
    });
}
