//! Rules R1 to R7, and J7 for bodies: what the first attempt's body does before, during and after a
//! rejection, and what the retry's is made of.
//!
//! Peers' bugs covered: the retry's body empty (google-cloud-python #18238), its first chunk twice
//! (linkerd2 #15649).

use std::{
    convert::Infallible,
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
use http_body_util::{BodyExt, Full, combinators::BoxBody};
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

    /// Answers 401, and lets a new token come.
    async fn reject(&mut self, answers: futures::channel::oneshot::Sender<StatusCode>) {
        answers.send(StatusCode::UNAUTHORIZED).unwrap();
        assert!(self.is_pending());
        tokio::time::sleep(2 * SECOND).await;
        assert!(self.is_pending());
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

/// R1, R4
#[tokio::test(start_paused = true)]
async fn each_frame_goes_on_at_once_and_is_kept_by_reference_unless_it_is_small() {
    for (length, by_reference) in [(1024, true), (1023, false)] {
        let (feed, body) = fed(SizeHint::default());
        let layer = live_layer(10_000).await;
        let mut sent = begin(&layer, body);
        let (mut first, answers) = sent.handed();

        let bytes = Bytes::from(vec![7; length]);
        feed.unbounded_send(Ok(Frame::data(bytes.clone()))).unwrap();
        let frame = first.frame().now_or_never().unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap().as_ptr(), bytes.as_ptr());

        sent.reject(answers).await;
        let (mut second, _) = sent.handed();
        let frame = second.frame().now_or_never().unwrap().unwrap().unwrap();
        let data = frame.into_data().unwrap();
        assert_eq!(data, bytes);
        assert_eq!(data.as_ptr() == bytes.as_ptr(), by_reference, "{length}");
    }
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
    let layer = live_layer(1024).await;
    let mut sent = begin(&layer, body);
    let (mut first, answers) = sent.handed();
    let (kept, freed) = watched(1024);
    feed.unbounded_send(Ok(Frame::data(kept))).unwrap();
    drop(first.frame().await);
    assert_eq!(
        freed.load(Ordering::Relaxed),
        0,
        "1,024 bytes are within the limit"
    );
    feed.unbounded_send(data("x")).unwrap();
    drop(first.frame().await);
    assert_eq!(freed.load(Ordering::Relaxed), 1, "1,025 are not");
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
async fn small_frames_keep_no_buffer_alive_and_their_bounds() {
    let (feed, body) = fed(SizeHint::default());
    let layer = live_layer(1 << 20).await;
    let mut sent = begin(&layer, body);
    let (mut first, answers) = sent.handed();
    let mut expected = Vec::new();
    for number in 0..20_000_u32 {
        let (buffer, freed) = watched(8 * 1024);
        let length = number as usize % 21;
        let frame = buffer.slice(number as usize % 1000..).slice(..length);
        drop(buffer);
        expected.push(frame.to_vec());
        feed.unbounded_send(Ok(Frame::data(frame))).unwrap();
        drop(first.frame().await);
        assert_eq!(freed.load(Ordering::Relaxed), 1);
    }
    drop(feed);
    sent.reject(answers).await;
    let (mut second, _) = sent.handed();
    for expected in expected {
        assert_eq!(text(poll(&mut second, Waker::noop())).as_bytes(), expected);
    }
    assert!(matches!(
        poll(&mut second, Waker::noop()),
        Poll::Ready(None)
    ));
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
    let layer = live_layer(10_000).await;
    let mut sent = begin(&layer, body);
    let (mut first, answers) = sent.handed();
    let (kept, freed) = watched(1024);
    feed.unbounded_send(Ok(Frame::data(kept))).unwrap();
    drop(first.frame().await);
    assert_eq!(freed.load(Ordering::Relaxed), 0);
    answers.send(StatusCode::OK).unwrap();
    sent.response.await.unwrap();
    assert_eq!(freed.load(Ordering::Relaxed), 1);
    let (passing, freed) = watched(1024);
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

/// R2, R6
#[tokio::test(start_paused = true)]
async fn a_body_in_memory_is_sent_again_whatever_its_size_and_the_first_attempt_goes_on() {
    let bytes = Bytes::from(vec![7; 20 << 20]);
    let full = || Full::new(bytes.clone());
    let error = |never: Infallible| match never {};
    sent_twice_from_memory(full(), &bytes).await;
    sent_twice_from_memory(BodyExt::boxed(full()), &bytes).await;
    sent_twice_from_memory(full().map_err(error).boxed_unsync(), &bytes).await;
    let full: BoxBody<Bytes, BoxError> = full().map_err(error).boxed();
    sent_twice_from_memory(full, &bytes).await;
    // Its end is known only to who polls it again.
    let (feed, body) = fed(SizeHint::with_exact(bytes.len() as u64));
    feed.unbounded_send(Ok(Frame::data(bytes.clone()))).unwrap();
    drop(feed);
    sent_twice_from_memory(body, &bytes).await;
}

async fn sent_twice_from_memory<B>(body: B, bytes: &Bytes)
where
    B: Body + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    let layer = live_layer(10).await;
    let mut sent = begin(&layer, body);
    let (first, answers) = sent.handed();
    answers.send(StatusCode::UNAUTHORIZED).unwrap();
    assert!(sent.is_pending());
    // Not held back, though it is not known yet whether there will be a retry.
    assert_eq!(first.size_hint().exact(), Some(bytes.len() as u64));
    assert!(!first.is_end_stream());
    let mut first = first;
    let frame = first.frame().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap().as_ptr(), bytes.as_ptr());
    tokio::time::sleep(2 * SECOND).await;
    assert!(sent.is_pending());
    let (mut second, answers) = sent.handed();
    assert_eq!(second.size_hint().exact(), Some(bytes.len() as u64));
    let frame = second.frame().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap().as_ptr(), bytes.as_ptr());
    for mut body in [first, second] {
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(body.frame().await.is_none());
    }
    answers.send(StatusCode::OK).unwrap();
    assert_eq!(sent.response.await.unwrap().status(), StatusCode::OK);
}

/// R2, R3: a length that is told is no promise of one frame.
#[tokio::test(start_paused = true)]
async fn what_tells_its_length_and_is_not_in_memory_is_recorded_from_its_first_frame() {
    let cases: [fn() -> Vec<Item>; 5] = [
        || vec![data("abc"), data("def")],
        || vec![data(""), data("abcdef"), data("")],
        || vec![data("abcdef"), Ok(Frame::trailers(HeaderMap::new()))],
        || vec![data("abcd")],
        || vec![],
    ];
    for frames in cases {
        // All there at once, or one by one.
        for at_once in [true, false] {
            let (feed, body) = fed(SizeHint::with_exact(6));
            let feed = |frame| feed.unbounded_send(frame).unwrap();
            if at_once {
                frames().into_iter().for_each(&feed);
            }
            let layer = live_layer(6).await;
            let mut sent = begin(&layer, body);
            let (mut first, answers) = sent.handed();
            let wakes = Arc::new(Wakes::default());
            let waker = Waker::from(Arc::clone(&wakes));
            assert_eq!(first.size_hint().exact(), Some(6));
            for frame in frames() {
                let expected = format!("{:?}", frame.as_ref().unwrap());
                if !at_once {
                    assert!(poll(&mut first, &waker).is_pending());
                    let before = wakes.0.load(Ordering::Relaxed);
                    feed(frame);
                    assert!(wakes.0.load(Ordering::Relaxed) > before);
                }
                let polled = poll(&mut first, &waker);
                let Poll::Ready(Some(Ok(frame))) = polled else {
                    panic!("{polled:?}")
                };
                assert_eq!(format!("{frame:?}"), expected);
            }
            sent.reject(answers).await;
            assert!(matches!(
                poll(&mut first, &waker),
                Poll::Ready(Some(Err(_)))
            ));
            let (mut second, _) = sent.handed();
            assert_eq!(second.size_hint().exact(), Some(6));
            for frame in frames() {
                let polled = poll(&mut second, &waker);
                let Poll::Ready(Some(Ok(polled))) = polled else {
                    panic!("{polled:?}")
                };
                assert_eq!(format!("{polled:?}"), format!("{:?}", frame.unwrap()));
            }
            assert!(poll(&mut second, &waker).is_pending());
        }
    }
}

/// R7
#[tokio::test(start_paused = true)]
async fn an_error_that_is_met_early_reaches_the_api_when_it_polls() {
    let (feed, body) = fed(SizeHint::with_exact(6));
    feed.unbounded_send(data("abc")).unwrap();
    feed.unbounded_send(Err("broken".into())).unwrap();
    let layer = live_layer(10).await;
    let mut sent = begin(&layer, body);
    let (mut first, _) = sent.handed();
    assert_eq!(text(poll(&mut first, Waker::noop())), "abc");
    match poll(&mut first, Waker::noop()) {
        Poll::Ready(Some(Err(error))) => assert_eq!(error.to_string(), "broken"),
        other => panic!("{other:?}"),
    }
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

// === code of others ===

/// A body that runs code of the test's before each frame, and when it is dropped.
struct Running {
    fed: Fed,
    before: Box<dyn FnMut() + Send>,
    dropped: Box<dyn FnMut() + Send>,
}

impl Drop for Running {
    fn drop(&mut self) {
        (self.dropped)();
    }
}

impl Body for Running {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        (self.before)();
        Pin::new(&mut self.fed).poll_frame(cx)
    }
}

/// Runs it in a thread of its own. Panics if that never ends.
fn in_time<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (ends, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || ends.send(run()));
    let limit = std::time::Duration::from_secs(30);
    ended.recv_timeout(limit).expect("it ends")
}

/// R6: it takes as long as the test likes, in a thread of its own.
#[test]
fn a_body_that_blocks_keeps_neither_the_response_waiting_nor_what_it_was_about_to_yield() {
    for taken_over in [true, false] {
        in_time(move || blocked_midway(taken_over));
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn blocked_midway(taken_over: bool) {
    let (feed, fed) = fed(SizeHint::default());
    let (enters, entered) = std::sync::mpsc::channel();
    let (unblock, blocked) = std::sync::mpsc::channel();
    let mut polls = 0;
    let before = move || {
        polls += 1;
        if polls == 2 {
            enters.send(()).unwrap();
            blocked.recv().unwrap();
        }
    };
    let body = Running {
        fed,
        before: Box::new(before),
        dropped: Box::new(|| {}),
    };
    let layer = if taken_over {
        live_layer(100).await
    } else {
        layer_with_one_token().await
    };
    let mut sent = begin(&layer, body);
    let (mut first, answers) = sent.handed();
    feed.unbounded_send(data("one")).unwrap();
    feed.unbounded_send(data("two")).unwrap();
    assert_eq!(text(poll(&mut first, Waker::noop())), "one");

    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let polling = std::thread::spawn(move || {
        let polled = poll(&mut first, &waker);
        (first, polled)
    });
    entered.recv().unwrap();
    answers.send(StatusCode::UNAUTHORIZED).unwrap();
    assert!(sent.is_pending());
    if !taken_over {
        // The frame is put back while it is not known who will get it.
        unblock.send(()).unwrap();
        let (mut first, polled) = polling.join().unwrap();
        assert!(polled.is_pending());
        assert_eq!(
            sent.response.await.unwrap().status(),
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(text(poll(&mut first, Waker::noop())), "two");
        return;
    }
    tokio::time::sleep(2 * SECOND).await;
    assert!(sent.is_pending());
    let (mut second, _) = sent.handed();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert_eq!(text(poll(&mut second, &waker)), "one");
    assert!(poll(&mut second, &waker).is_pending(), "the body is away");
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);

    unblock.send(()).unwrap();
    let (_first, polled) = polling.join().unwrap();
    assert!(matches!(polled, Poll::Ready(Some(Err(_)))), "{polled:?}");
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    assert_eq!(text(poll(&mut second, &waker)), "two");
    drop(feed);
    assert!(matches!(poll(&mut second, &waker), Poll::Ready(None)));
}

/// R6
#[test]
fn a_body_may_drop_the_response_future_while_it_is_polled_or_its_frames_are_freed() {
    for freed in [true, false] {
        in_time(move || dropped_midway(freed));
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn dropped_midway(when_freed: bool) {
    struct Owner(Vec<u8>, Box<dyn FnMut() + Send>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            (self.1)();
        }
    }

    let response = Arc::new(Mutex::new(None));
    let drop_it = {
        let response = Arc::clone(&response);
        move || drop(response.lock().unwrap().take())
    };
    let (feed, fed) = fed(SizeHint::default());
    let mut body = Running {
        fed,
        before: Box::new(|| {}),
        dropped: Box::new(|| {}),
    };
    let frame = if when_freed {
        Bytes::from_owner(Owner(vec![7; 2000], Box::new(drop_it)))
    } else {
        body.before = Box::new(drop_it);
        Bytes::from(vec![7; 2000])
    };
    feed.unbounded_send(Ok(Frame::data(frame))).unwrap();
    let layer = live_layer(2000).await;
    let mut sent = begin(&layer, body);
    let (mut first, answers) = sent.handed();
    *response.lock().unwrap() = Some(sent);
    first.frame().await.unwrap().unwrap();
    assert_eq!(response.lock().unwrap().is_none(), !when_freed);
    // Over the limit: what is kept is freed.
    feed.unbounded_send(data("more")).unwrap();
    assert_eq!(text(poll(&mut first, Waker::noop())), "more");
    assert!(response.lock().unwrap().is_none());
    drop(answers);
    feed.unbounded_send(data("still")).unwrap();
    assert_eq!(text(poll(&mut first, Waker::noop())), "still");
}

/// R6: the body's own code runs when the retry has no use for it any more, though the first attempt is stuck.
#[tokio::test(start_paused = true)]
async fn a_retry_that_is_dropped_drops_the_body() {
    let (feed, fed) = fed(SizeHint::default());
    let drops = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&drops);
    let body = Running {
        fed,
        before: Box::new(|| {}),
        dropped: Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }),
    };
    let layer = live_layer(100).await;
    let mut sent = begin(&layer, body);
    let (mut first, answers) = sent.handed();
    sent.reject(answers).await;
    let (second, _) = sent.handed();
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(second);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    drop(feed);
    assert!(matches!(
        poll(&mut first, Waker::noop()),
        Poll::Ready(Some(Err(_)))
    ));
}

/// R7
#[tokio::test(start_paused = true)]
async fn a_body_that_panics_is_not_sent_again_and_never_cut_short() {
    let (_feed, fed) = fed(SizeHint::default());
    let body = Running {
        fed,
        before: Box::new(|| panic!("a body that panics")),
        dropped: Box::new(|| {}),
    };
    let layer = live_layer(100).await;
    let mut sent = begin(&layer, body);
    let (mut first, answers) = sent.handed();
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        poll(&mut first, Waker::noop())
    }));
    assert!(polled.is_err());
    assert!(matches!(
        poll(&mut first, Waker::noop()),
        Poll::Ready(Some(Err(_)))
    ));
    answers.send(StatusCode::UNAUTHORIZED).unwrap();
    let response = sent.response.await.unwrap();
    assert!(matches!(
        response.extensions().get(),
        Some(NotRetried::Body)
    ));
}
