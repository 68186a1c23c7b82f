//! Rules R1, R3 to R7, and J7 for bodies: what the first attempt's body does before, during and after a
//! rejection, and what the retry's is made of.
//!
//! Peers' bugs covered: the retry's body empty (google-cloud-python #18238), its first chunk twice
//! (linkerd2 #15649).

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::{Buf, Bytes};
use futures::{FutureExt, StreamExt, channel::mpsc, future::BoxFuture};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Layer, ServiceExt};
use tower_symbl_auth::{
    AccessToken, NotRetried, ReplayBody, SymblAuthLayer, TokenError, TokenErrorKind,
};

use crate::support::*;

// === a body that the test feeds ===

type Item = Result<Frame<Bytes>, BoxError>;

struct Fed {
    frames: mpsc::UnboundedReceiver<Item>,
    hint: SizeHint,
}

fn fed(hint: SizeHint) -> (mpsc::UnboundedSender<Item>, Fed) {
    let (sender, frames) = mpsc::unbounded();
    (sender, Fed { frames, hint })
}

impl Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.frames.poll_next_unpin(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

fn data(text: &'static str) -> Item {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

// === an API that hands each body to the test, and answers when it is told ===

type Handed<B> = (ReplayBody<B>, futures::channel::oneshot::Sender<StatusCode>);

/// A request under way: its response, and what the API is handed.
struct Sent<B> {
    response: BoxFuture<'static, Result<Response<Full<Bytes>>, BoxError>>,
    handed: mpsc::UnboundedReceiver<Handed<B>>,
}

fn begin<B>(layer: &SymblAuthLayer, body: B) -> Sent<B>
where
    B: Body + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (bodies, handed) = mpsc::unbounded();
    let api = Api::new(move |request: ApiRequest<B>| {
        let (answers, told) = futures::channel::oneshot::channel();
        bodies
            .unbounded_send((request.into_body(), answers))
            .unwrap();
        async move { Ok(answer(told.await?)) }
    });
    let request = Request::post(URL).body(body).unwrap();
    let response = layer.layer(api).oneshot(request).boxed();
    Sent { response, handed }
}

impl<B> Sent<B> {
    fn is_pending(&mut self) -> bool {
        (&mut self.response).now_or_never().is_none()
    }

    /// The body that the API has been handed, and what it is to answer.
    fn handed(&mut self) -> Handed<B> {
        assert!(self.is_pending());
        self.handed
            .next()
            .now_or_never()
            .flatten()
            .expect("the API has been called")
    }
}

/// Counts its wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll<B>(body: &mut ReplayBody<B>, waker: &Waker) -> Poll<Option<Item>>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    Pin::new(body).poll_frame(&mut Context::from_waker(waker))
}

fn text(polled: Poll<Option<Item>>) -> String {
    match polled {
        Poll::Ready(Some(Ok(frame))) => {
            String::from_utf8(frame.into_data().expect("a frame of data").to_vec()).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

async fn live_layer(limit: usize) -> SymblAuthLayer {
    let layer = Issuer::fresh(DAY, SECOND)
        .builder()
        .replay_limit(limit)
        .build();
    layer.token().await.unwrap();
    layer
}

/// R1
#[tokio::test(start_paused = true)]
async fn each_frame_goes_on_at_once_and_is_kept_by_reference() {
    let (feed, body) = fed(SizeHint::default());
    let layer = live_layer(100).await;
    let mut sent = begin(&layer, body);
    let (mut first, answers) = sent.handed();

    let bytes = Bytes::from(vec![7; 10]);
    feed.unbounded_send(Ok(Frame::data(bytes.clone()))).unwrap();
    let frame = first.frame().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap().as_ptr(), bytes.as_ptr());

    answers.send(StatusCode::UNAUTHORIZED).unwrap();
    assert!(sent.is_pending());
    tokio::time::sleep(2 * SECOND).await;
    assert!(sent.is_pending());
    let (mut second, _) = sent.handed();
    let frame = second.frame().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap().as_ptr(), bytes.as_ptr());
}

/// R6, J7
#[tokio::test(start_paused = true)]
async fn the_retry_takes_the_body_over_from_a_first_attempt_that_still_holds_it() {
    let (feed, body) = fed(SizeHint::default());
    let layer = live_layer(100).await;
    let mut sent = begin(&layer, body);
    let (mut first, answers) = sent.handed();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));

    feed.unbounded_send(data("one")).unwrap();
    assert_eq!(text(poll(&mut first, &waker)), "one");
    assert!(poll(&mut first, &waker).is_pending());
    answers.send(StatusCode::UNAUTHORIZED).unwrap();
    assert!(sent.is_pending());

    // Held: what comes in now is not for the first attempt, whether it asks or not.
    feed.unbounded_send(data("two")).unwrap();
    let before = wakes.0.load(Ordering::Relaxed);
    assert!(poll(&mut first, &waker).is_pending());
    assert!(!first.is_end_stream());
    tokio::time::sleep(2 * SECOND).await;
    assert!(sent.is_pending());
    assert!(
        wakes.0.load(Ordering::Relaxed) > before,
        "the old one is woken"
    );
    assert!(matches!(
        poll(&mut first, &waker),
        Poll::Ready(Some(Err(_)))
    ));
    assert!(matches!(
        poll(&mut first, &waker),
        Poll::Ready(Some(Err(_)))
    ));

    let (mut second, answers) = sent.handed();
    assert_eq!(text(poll(&mut second, &waker)), "one");
    assert_eq!(text(poll(&mut second, &waker)), "two");
    assert!(poll(&mut second, &waker).is_pending());
    feed.unbounded_send(data("three")).unwrap();
    assert_eq!(text(poll(&mut second, &waker)), "three");
    drop(feed);
    assert!(matches!(poll(&mut second, &waker), Poll::Ready(None)));
    answers.send(StatusCode::OK).unwrap();
    assert_eq!(sent.response.await.unwrap().status(), StatusCode::OK);
}

/// R6
#[tokio::test(start_paused = true)]
async fn a_body_that_was_never_polled_or_is_dropped_is_sent_whole_by_the_retry() {
    for keep in [true, false] {
        let (feed, body) = fed(SizeHint::default());
        feed.unbounded_send(data("all")).unwrap();
        drop(feed);
        let layer = live_layer(100).await;
        let mut sent = begin(&layer, body);
        let (first, answers) = sent.handed();
        let first = keep.then_some(first);
        answers.send(StatusCode::UNAUTHORIZED).unwrap();
        assert!(sent.is_pending());
        tokio::time::sleep(2 * SECOND).await;
        assert!(sent.is_pending());
        let (second, _) = sent.handed();
        assert_eq!(second.collect().await.unwrap().to_bytes(), "all");
        drop(first);
    }
}

/// A layer whose one token is never followed by another.
async fn layer_with_one_token() -> SymblAuthLayer {
    let issuer = Issuer::new(|call| async move {
        if call == 1 {
            return Ok(AccessToken::new("token-1", DAY)?);
        }
        tokio::time::sleep(SECOND).await;
        Err(TokenError::new(TokenErrorKind::Unavailable, "no").into())
    });
    let layer = issuer.layer();
    layer.token().await.unwrap();
    layer
}

/// J7, Q6
#[tokio::test(start_paused = true)]
async fn with_no_new_token_or_no_caller_the_first_attempts_body_goes_on() {
    for give_up in [false, true] {
        let layer = layer_with_one_token().await;
        let (feed, body) = fed(SizeHint::default());
        let mut sent = begin(&layer, body);
        let (mut first, answers) = sent.handed();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        feed.unbounded_send(data("one")).unwrap();
        assert_eq!(text(poll(&mut first, &waker)), "one");
        answers.send(StatusCode::UNAUTHORIZED).unwrap();
        assert!(sent.is_pending());
        feed.unbounded_send(data("two")).unwrap();
        assert!(poll(&mut first, &waker).is_pending());
        let before = wakes.0.load(Ordering::Relaxed);
        if give_up {
            drop(sent);
        } else {
            let response = sent.response.await.unwrap();
            let why = response.extensions().get::<NotRetried>();
            assert!(matches!(why, Some(NotRetried::Token(_))));
        }
        assert!(wakes.0.load(Ordering::Relaxed) > before);
        assert_eq!(text(poll(&mut first, &waker)), "two");
        drop(feed);
        assert!(matches!(poll(&mut first, &waker), Poll::Ready(None)));
    }
}

/// R4
#[tokio::test(start_paused = true)]
async fn over_the_limit_what_is_kept_is_freed_and_the_401_handed_back() {
    let (feed, body) = fed(SizeHint::default());
    let layer = live_layer(10).await;
    let mut sent = begin(&layer, body);
    let (mut first, answers) = sent.handed();
    let (kept, freed) = watched(10);
    feed.unbounded_send(Ok(Frame::data(kept))).unwrap();
    drop(first.frame().await);
    assert_eq!(
        freed.load(Ordering::Relaxed),
        0,
        "ten bytes are within the limit"
    );
    feed.unbounded_send(data("x")).unwrap();
    drop(first.frame().await);
    assert_eq!(freed.load(Ordering::Relaxed), 1, "eleven are not");
    feed.unbounded_send(data("more")).unwrap();
    assert_eq!(text(poll(&mut first, Waker::noop())), "more");
    answers.send(StatusCode::UNAUTHORIZED).unwrap();
    let response = sent.response.await.unwrap();
    assert!(matches!(
        response.extensions().get(),
        Some(NotRetried::Body)
    ));
    feed.unbounded_send(data("still")).unwrap();
    assert_eq!(text(poll(&mut first, Waker::noop())), "still");
}

/// R4
#[tokio::test(start_paused = true)]
async fn no_more_than_65536_frames_are_kept() {
    for (frames, status) in [(65_536, StatusCode::OK), (65_537, StatusCode::UNAUTHORIZED)] {
        let (feed, body) = fed(SizeHint::default());
        for _ in 0..frames {
            feed.unbounded_send(data("")).unwrap();
        }
        drop(feed);
        let layer = live_layer(10).await;
        let api = reading_then_judging();
        let request = Request::post(URL).body(body).unwrap();
        assert_eq!(send(&layer, &api, request).await.unwrap().status(), status);
    }
}

/// Reads the whole body, and rejects the first token.
fn reading_then_judging<B>() -> Api<B>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    Api::new(|request: ApiRequest<B>| async move {
        let token = number(token_of(request.headers()));
        let _ = request.into_body().collect().await;
        let status = if token == 1 {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        };
        Ok(answer(status))
    })
}

/// R5
#[tokio::test(start_paused = true)]
async fn the_first_answer_that_is_no_rejection_frees_what_is_kept_and_ends_the_recording() {
    let (feed, body) = fed(SizeHint::default());
    let layer = live_layer(100).await;
    let mut sent = begin(&layer, body);
    let (mut first, answers) = sent.handed();
    let (kept, freed) = watched(10);
    feed.unbounded_send(Ok(Frame::data(kept))).unwrap();
    drop(first.frame().await);
    assert_eq!(freed.load(Ordering::Relaxed), 0);
    answers.send(StatusCode::OK).unwrap();
    sent.response.await.unwrap();
    assert_eq!(freed.load(Ordering::Relaxed), 1);
    let (passing, freed) = watched(10);
    feed.unbounded_send(Ok(Frame::data(passing))).unwrap();
    drop(first.frame().await);
    assert_eq!(freed.load(Ordering::Relaxed), 1);
}

/// Bytes that tell when they are freed.
fn watched(len: usize) -> (Bytes, Arc<AtomicUsize>) {
    struct Owner(Vec<u8>, Arc<AtomicUsize>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    let freed = Arc::default();
    (
        Bytes::from_owner(Owner(vec![7; len], Arc::clone(&freed))),
        freed,
    )
}

/// R3
#[tokio::test(start_paused = true)]
async fn both_attempts_have_the_originals_size_hint_and_frames_of_every_kind() {
    let mut exact = SizeHint::with_exact(6);
    let mut range = SizeHint::new();
    range.set_lower(3);
    range.set_upper(9);
    for hint in [std::mem::take(&mut exact), range, SizeHint::default()] {
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = Arc::clone(&seen);
        let (feed, body) = fed(hint);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        for frame in [
            data("abc"),
            data(""),
            data("def"),
            Ok(Frame::trailers(trailers.clone())),
        ] {
            feed.unbounded_send(frame).unwrap();
        }
        drop(feed);
        let api: Api<Fed> = Api::new(move |request: ApiRequest<Fed>| {
            let log = Arc::clone(&log);
            async move {
                let token = number(token_of(request.headers()));
                let mut body = request.into_body();
                let hint = body.size_hint();
                let hint = (hint.lower(), hint.upper(), body.is_end_stream());
                let mut frames = Vec::new();
                while let Some(frame) = body.frame().await {
                    frames.push(format!("{:?}", frame?));
                }
                log.lock().unwrap().push((hint, frames));
                let rejected = token == 1;
                Ok(answer(if rejected {
                    StatusCode::UNAUTHORIZED
                } else {
                    StatusCode::OK
                }))
            }
        });
        let layer = live_layer(100).await;
        let request = Request::post(URL).body(body).unwrap();
        send(&layer, &api, request).await.unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0].0, (hint.lower(), hint.upper(), false));
        assert_eq!(seen[0].1.len(), 4);
        assert_eq!(seen[0], seen[1]);
    }
}

/// R1
#[tokio::test(start_paused = true)]
async fn buffers_that_are_no_bytes_are_copied_once_and_sent_alike() {
    let api: Api<Full<std::io::Cursor<Vec<u8>>>> = reading_then_judging();
    let layer = live_layer(100).await;
    let body = Full::new(std::io::Cursor::new(b"cursor".to_vec()));
    assert_eq!(body.size_hint().exact(), Some(6));
    let request = Request::post(URL).body(body).unwrap();
    assert_eq!(
        send(&layer, &api, request).await.unwrap().status(),
        StatusCode::OK
    );
    assert_eq!(api.calls(), 2);

    let chained = Bytes::from_static(b"ab").chain(Bytes::from_static(b"cd"));
    let inner = tower::service_fn(|request: ApiRequest<Full<_>>| async move {
        let token = number(token_of(request.headers()));
        let body = request.into_body().collect().await?.to_bytes();
        assert_eq!(body, "abcd");
        let mut response = Response::new(());
        if token == 1 {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok::<_, BoxError>(response)
    });
    let layer = live_layer(100).await;
    let request = Request::post(URL).body(Full::new(chained)).unwrap();
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

/// R7
#[tokio::test(start_paused = true)]
async fn after_an_error_of_the_body_there_is_no_replay() {
    for peeked in [false, true] {
        let hint = if peeked {
            SizeHint::with_exact(5)
        } else {
            SizeHint::default()
        };
        let (feed, body) = fed(hint);
        feed.unbounded_send(Err("broken".into())).unwrap();
        drop(feed);
        let layer = live_layer(100).await;
        let api = reading_then_judging();
        let request = Request::post(URL).body(body).unwrap();
        let response = send(&layer, &api, request).await.unwrap();
        assert!(matches!(
            response.extensions().get(),
            Some(NotRetried::Body)
        ));
        assert_eq!(api.calls(), 1);
    }
}
