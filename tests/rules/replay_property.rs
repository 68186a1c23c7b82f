//! Rules R1 to R4, R6 and R7 for any body: whatever its frames are, however much of it the API reads
//! before it answers 401, and whatever the limit is, the API gets it whole, or the caller gets the 401
//! and is told that it was for the body. The response future may be polled while the body is within its own
//! code, as it is from another thread when that takes long.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use proptest::{prelude::*, test_runner::TestRunner};
use tower::BoxError;
use tower_symbl_auth::NotRetried;

use crate::support::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Not ready; woken at once.
    Stall,
    /// Takes so long that the response future is polled meanwhile.
    Linger,
    Data(usize),
    Trailers,
}

#[derive(Clone, Copy, Debug)]
enum Hint {
    None,
    Exact,
    Lower,
}

/// Bytes that tell their place, so that none can be lost, doubled or moved unnoticed.
fn frames(steps: &[Step]) -> Vec<Option<Bytes>> {
    let mut next = 0_u8;
    let frames = steps.iter().filter_map(|step| match step {
        Step::Stall | Step::Linger => None,
        Step::Data(length) => {
            let data = (0..*length).map(|offset| next.wrapping_add(offset as u8));
            let data: Vec<u8> = data.collect();
            next = next.wrapping_add(*length as u8);
            Some(Some(data.into()))
        }
        Step::Trailers => Some(None),
    });
    frames.collect()
}

/// The request under way, to be polled from anywhere; and its answer.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<State>>);

type State = (Option<Answer>, Option<Response<Full<Bytes>>>);

type Answer = BoxFuture<'static, Result<Response<Full<Bytes>>, BoxError>>;

impl Sent {
    /// Polls it, unless that is being done.
    fn poll(&self, cx: &mut Context<'_>) {
        let taken = self.0.lock().unwrap().0.take();
        let Some(mut response) = taken else { return };
        match response.poll_unpin(cx) {
            Poll::Pending => self.0.lock().unwrap().0 = Some(response),
            Poll::Ready(response) => self.0.lock().unwrap().1 = Some(response.unwrap()),
        }
    }

    async fn response(&self) -> Response<Full<Bytes>> {
        // It is polled in between as well, and by others, who cannot wake it: again and again.
        loop {
            poll_fn(|cx| {
                self.poll(cx);
                Poll::Ready(())
            })
            .await;
            if let Some(response) = self.0.lock().unwrap().1.take() {
                return response;
            }
            tokio::task::yield_now().await;
        }
    }
}

struct Scripted {
    steps: std::vec::IntoIter<Step>,
    frames: std::vec::IntoIter<Option<Bytes>>,
    hint: Hint,
    sent: Sent,
}

impl Scripted {
    fn new(steps: &[Step], hint: Hint, sent: Sent) -> Self {
        Self {
            sent,
            steps: Vec::from(steps).into_iter(),
            frames: frames(steps).into_iter(),
            hint,
        }
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            match self.steps.next() {
                Some(Step::Stall) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Linger) => self.sent.poll(&mut Context::from_waker(Waker::noop())),
                _ => break,
            }
        }
        let frame = self.frames.next().map(|frame| match frame {
            Some(data) => Frame::data(data),
            None => Frame::trailers(trailers()),
        });
        Poll::Ready(frame.map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        let rest: usize = self
            .frames
            .as_slice()
            .iter()
            .flatten()
            .map(Bytes::len)
            .sum();
        let mut hint = SizeHint::new();
        match self.hint {
            Hint::None => {}
            Hint::Exact => hint.set_exact(rest as u64),
            Hint::Lower => hint.set_lower(rest as u64 / 2),
        }
        hint
    }
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), "7".parse().unwrap())])
}

/// The frames that a body yields: data, or `None` for trailers.
async fn collect<B>(mut body: B, most: usize) -> (Vec<Option<Bytes>>, B)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let mut seen = Vec::new();
    while seen.len() < most {
        let Some(frame) = body.frame().await else {
            break;
        };
        seen.push(match frame.unwrap().into_data() {
            Ok(data) => Some(data),
            Err(frame) => {
                assert_eq!(frame.into_trailers().unwrap(), trailers());
                None
            }
        });
    }
    (seen, body)
}

/// What the API does with the body of the attempt that it rejects.
#[derive(Clone, Copy, Debug)]
enum Then {
    Drops,
    Keeps,
    ReadsOn,
}

#[derive(Clone, Debug)]
struct Case {
    steps: Vec<Step>,
    hint: Hint,
    limit: usize,
    read: usize,
    then: Then,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Scripted,
    /// All frames in one.
    Full,
    BoxedFull,
}

fn cases() -> impl Strategy<Value = Case> {
    let step = prop_oneof![
        1 => Just(Step::Stall),
        1 => Just(Step::Linger),
        1 => Just(Step::Trailers),
        1 => Just(Step::Data(0)),
        3 => (1..=5_usize).prop_map(Step::Data),
        1 => (1020..=1030_usize).prop_map(Step::Data),
    ];
    let hint = prop_oneof![Just(Hint::None), Just(Hint::Exact), Just(Hint::Lower)];
    let then = prop_oneof![Just(Then::Drops), Just(Then::Keeps), Just(Then::ReadsOn)];
    let kind = prop_oneof![
        6 => Just(Kind::Scripted),
        1 => Just(Kind::Full),
        1 => Just(Kind::BoxedFull),
    ];
    let limit = prop_oneof![0..30_usize, 1000..5000_usize];
    let steps = prop::collection::vec(step, 0..10);
    (steps, hint, limit, 0..12_usize, then, kind).prop_map(
        |(steps, hint, limit, read, then, kind)| Case {
            steps,
            hint,
            limit,
            read,
            then,
            kind,
        },
    )
}

async fn check(case: Case) {
    let sent = Sent::default();
    let mut original = frames(&case.steps);
    if let Kind::Scripted = case.kind {
        let body = Scripted::new(&case.steps, case.hint, sent.clone());
        return check_body(case, body, original, sent).await;
    }
    let whole: Vec<u8> = original.drain(..).flatten().flatten().collect();
    let whole = Bytes::from(whole);
    let full = Full::new(whole.clone());
    let original = if whole.is_empty() {
        vec![]
    } else {
        vec![Some(whole)]
    };
    match case.kind {
        Kind::BoxedFull => {
            let boxed: UnsyncBoxBody<_, _> = full.boxed_unsync();
            check_body(case, boxed, original, sent).await;
        }
        _ => check_body(case, full, original, sent).await,
    }
}

async fn check_body<B>(case: Case, body: B, original: Vec<Option<Bytes>>, sent: Sent)
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static,
{
    let kept_alive = Arc::new(Mutex::new(Vec::new()));
    let received = Arc::new(Mutex::new(None));
    let (kept, log, seen) = (
        Arc::clone(&kept_alive),
        Arc::clone(&received),
        original.clone(),
    );
    let (read, then) = (case.read, case.then);
    let api: Api<B> = Api::new(move |request: ApiRequest<B>| {
        let (kept, log, original) = (Arc::clone(&kept), Arc::clone(&log), seen.clone());
        async move {
            let first = number(token_of(request.headers())) == 1;
            let hint = request.body().size_hint();
            let most = if first { read } else { usize::MAX };
            let (frames, mut body) = collect(request.into_body(), most).await;
            assert!(original.starts_with(&frames));
            if !first {
                *log.lock().unwrap() = Some((frames, hint));
                return Ok(answer(StatusCode::OK));
            }
            match then {
                Then::Drops => {}
                Then::Keeps => kept.lock().unwrap().push(body),
                Then::ReadsOn => {
                    tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
                    // The answer may come while the body is within its own code.
                    tokio::task::yield_now().await;
                }
            }
            Ok(answer(StatusCode::UNAUTHORIZED))
        }
    });
    let issuer = Issuer::new(|call| async move {
        tokio::task::yield_now().await;
        Ok(tower_symbl_auth::AccessToken::new(
            format!("token-{call}"),
            DAY,
        )?)
    });
    let layer = issuer.builder().replay_limit(case.limit).build();
    let hint = body.size_hint();
    let request = Request::post(URL).body(body).unwrap();
    let response = async move { send(&layer, &api, request).await };
    sent.0.lock().unwrap().0 = Some(response.boxed());
    let response = sent.response().await;

    let in_memory = !matches!(case.kind, Kind::Scripted);
    // At most.
    let was_read: usize = original
        .iter()
        .take(if let Then::ReadsOn = case.then {
            usize::MAX
        } else {
            case.read
        })
        .flatten()
        .map(Bytes::len)
        .sum();
    let fits = in_memory || was_read <= case.limit && hint.lower() <= case.limit as u64;
    let received = received.lock().unwrap().take();
    if let Some((frames, second)) = received {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(frames, original);
        assert_eq!(
            (second.lower(), second.upper()),
            (hint.lower(), hint.upper())
        );
    } else {
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(matches!(
            response.extensions().get(),
            Some(NotRetried::Body)
        ));
        assert!(!fits, "it was within the limit");
    }
}

#[test]
fn the_api_gets_the_original_bytes_or_the_caller_the_401() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    // `PROPTEST_CASES` asks for more, or for fewer.
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 100_000;
    }
    let run = TestRunner::new(config).run(&cases(), |case| {
        runtime.block_on(check(case));
        Ok(())
    });
    run.unwrap();
}
