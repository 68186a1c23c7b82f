//! Rules R1, R3, R4, R6 and R7 for any body: whatever its frames are, however much of it the API reads
//! before it answers 401, and whatever the limit is, the API gets it whole, or the caller gets the 401
//! and is told that it was for the body.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use proptest::{prelude::*, test_runner::TestRunner};
use tower_symbl_auth::NotRetried;

use crate::support::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Not ready; woken at once.
    Stall,
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
        Step::Stall => None,
        Step::Data(length) => {
            let data: Vec<u8> = (0..*length).map(|offset| next + offset as u8).collect();
            next += *length as u8;
            Some(Some(data.into()))
        }
        Step::Trailers => Some(None),
    });
    frames.collect()
}

struct Scripted {
    steps: std::vec::IntoIter<Step>,
    frames: std::vec::IntoIter<Option<Bytes>>,
    hint: Hint,
}

impl Scripted {
    fn new(steps: &[Step], hint: Hint) -> Self {
        Self {
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
        if let Some(Step::Stall) = self.steps.next() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
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
}

fn cases() -> impl Strategy<Value = Case> {
    let step = prop_oneof![
        1 => Just(Step::Stall),
        1 => Just(Step::Trailers),
        1 => Just(Step::Data(0)),
        4 => (1..=5_usize).prop_map(Step::Data),
    ];
    let hint = prop_oneof![Just(Hint::None), Just(Hint::Exact), Just(Hint::Lower)];
    let then = prop_oneof![Just(Then::Drops), Just(Then::Keeps), Just(Then::ReadsOn)];
    let steps = prop::collection::vec(step, 0..10);
    (steps, hint, 0..30_usize, 0..12_usize, then).prop_map(|(steps, hint, limit, read, then)| {
        Case {
            steps,
            hint,
            limit,
            read,
            then,
        }
    })
}

async fn check(case: Case) {
    let original = frames(&case.steps);
    let kept_alive = Arc::new(Mutex::new(Vec::new()));
    let received = Arc::new(Mutex::new(None));
    let (kept, log, seen) = (
        Arc::clone(&kept_alive),
        Arc::clone(&received),
        original.clone(),
    );
    let (read, then) = (case.read, case.then);
    let api: Api<Scripted> = Api::new(move |request: ApiRequest<Scripted>| {
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
    let body = Scripted::new(&case.steps, case.hint);
    let hint = body.size_hint();
    let request = Request::post(URL).body(body).unwrap();
    let response = send(&layer, &api, request).await.unwrap();

    let was_read: usize = original
        .iter()
        .take(case.read)
        .flatten()
        .map(Bytes::len)
        .sum();
    let fits = was_read <= case.limit && hint.lower() <= case.limit as u64;
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
