//! Rules Q2 to Q4 and Q6: how requests are stamped, sent, sent again, and given up.
//!
//! Peers' bugs covered: calling a clone that was not ready (tower #547, tower-http #561), waiting with a
//! buffer's slot in hand (tower #472, #408), extensions lost on the resend (tower-http #152).

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{Empty, Full};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_symbl_auth::{AccessToken, Placement};

use crate::support::*;

/// Q2
#[tokio::test(start_paused = true)]
async fn bearer_replaces_what_authorization_was_there() {
    let layer = Issuer::fresh(DAY, SECOND).layer();
    let api = Api::judging(|_| StatusCode::OK);
    let request = Request::get(URL)
        .header("authorization", "Basic x")
        .header("authorization", "Basic y");
    send(&layer, &api, request.body(Empty::<Bytes>::new()).unwrap())
        .await
        .unwrap();
    let seen = api.seen();
    let values: Vec<_> = seen[0].get_all("authorization").iter().collect();
    assert_eq!(values, ["Bearer token-1"]);
}

/// Q2
#[tokio::test(start_paused = true)]
async fn an_api_key_goes_into_its_own_header_and_leaves_the_other_alone() {
    let issuer = Issuer::fresh(DAY, SECOND);
    let layer = issuer.builder().placement(Placement::ApiKey).build();
    let api = Api::judging(|_| StatusCode::OK);
    let request = Request::get(URL)
        .header("x-api-key", "old")
        .header("authorization", "Bearer mine");
    send(&layer, &api, request.body(Empty::<Bytes>::new()).unwrap())
        .await
        .unwrap();
    let seen = api.seen();
    assert_eq!(seen[0]["authorization"], "Bearer mine");
    let keys: Vec<_> = seen[0].get_all("x-api-key").iter().collect();
    assert_eq!(keys, ["token-1"]);
    assert!(keys[0].is_sensitive());
}

/// Q2
#[tokio::test(start_paused = true)]
async fn the_value_is_sensitive_and_one_for_all_requests() {
    let layer = Issuer::fresh(DAY, SECOND).layer();
    let api: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::OK);
    for _ in 0..3 {
        send(&layer, &api, get(URL)).await.unwrap();
    }
    let seen = api.seen();
    let address = |headers: &HeaderMap| headers["authorization"].as_bytes().as_ptr();
    assert!(seen[0]["authorization"].is_sensitive());
    assert!(
        seen.iter()
            .all(|headers| address(headers) == address(&seen[0]))
    );
}

/// Q3
#[tokio::test(start_paused = true)]
async fn with_a_live_token_the_reserved_instance_is_called_there_and_then() {
    let layer = Issuer::fresh(DAY, SECOND).layer();
    layer.token().await.unwrap();
    let api: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::OK);
    let mut service = layer.layer(api.clone());
    service.ready().await.unwrap();
    let response = service.call(get(URL));
    assert_eq!(api.calls(), 1, "before the future is polled");
    response.await.unwrap();
}

/// Q3
#[tokio::test(start_paused = true)]
async fn a_permit_is_not_held_while_a_token_is_fetched() {
    let issuer = Issuer::new(|_| pending());
    let layer = issuer.layer();
    let api: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::OK);
    let service = ServiceBuilder::new()
        .layer(layer)
        .concurrency_limit(1)
        .service(api.clone());
    let mut waiting = Box::pin(service.clone().oneshot(get(URL)));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    // Another request, which needs no token, takes the one permit.
    let elsewhere = service.oneshot(get("https://example.com/"));
    assert!(!is_pending(elsewhere).await);
    assert_eq!(api.calls(), 1);
}

/// Q3
#[tokio::test(start_paused = true)]
async fn a_slot_of_a_buffer_is_given_back_while_tokens_are_fetched() {
    let issuer = Issuer::fresh(DAY, 5 * SECOND);
    let layer = issuer.layer();
    let api: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::OK);
    let buffered = ServiceBuilder::new().buffer(1).service(api.clone());
    let service = layer.layer(buffered);
    let start = Instant::now();
    let requests = (0..100).map(|_| service.clone().oneshot(get(URL)));
    let answers = futures::future::join_all(requests);
    // With slots held, the request to elsewhere would wait for the token's sake.
    let elsewhere = async {
        settle().await;
        service
            .clone()
            .oneshot(get("https://example.com/"))
            .await
            .unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    };
    let (answers, ()) = tokio::join!(answers, elsewhere);
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(api.calls(), 101);
}

/// Q3, Q4
#[tokio::test(start_paused = true)]
async fn load_shed_sheds_neither_after_a_wait_nor_on_the_retry() {
    let layer = Issuer::fresh(DAY, SECOND).layer();
    let api: Api<Empty<Bytes>> = Api::judging(|token| match token {
        "token-1" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    });
    let service = ServiceBuilder::new()
        .layer(layer)
        .load_shed()
        .concurrency_limit(1)
        .service(api.clone());
    let response = service.oneshot(get(URL)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.calls(), 2);
}

/// Q3
#[tokio::test(start_paused = true)]
async fn a_token_that_expires_while_the_service_gets_ready_is_not_sent() {
    let issuer = Issuer::fresh(100 * SECOND, Duration::ZERO);
    let layer = issuer.layer();
    let api: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::OK);
    let (permit, wait) = tokio::sync::oneshot::channel();
    let service = layer.layer(SlowToBeReady::new(api.clone(), wait));
    let response = service.oneshot(get(URL));
    let later = async {
        sleep(200 * SECOND).await;
        permit.send(()).unwrap();
    };
    let (response, ()) = tokio::join!(response, later);
    response.unwrap();
    assert_eq!(api.tokens(), ["token-2"]);
}

/// Q3: what a service has become since its first request is not undone.
#[tokio::test(start_paused = true)]
async fn a_request_that_waits_leaves_the_service_as_it_was() {
    let layer = Issuer::fresh(100 * SECOND, Duration::ZERO).layer();
    let api: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::OK);
    let mut service = layer.layer(Counts {
        inner: api,
        calls: 0,
    });
    for calls in [0, 1] {
        // The first waits for a token, the second does not, the third does.
        sleep(200 * SECOND).await;
        service.ready().await.unwrap().call(get(URL)).await.unwrap();
        assert_eq!(service.get_ref().calls, calls);
        service.ready().await.unwrap().call(get(URL)).await.unwrap();
        assert_eq!(service.get_ref().calls, calls + 1);
    }
}

/// Each instance counts its own calls.
#[derive(Clone)]
struct Counts<S> {
    inner: S,
    calls: u32,
}

impl<R, S: Service<R>> Service<R> for Counts<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.calls += 1;
        self.inner.call(request)
    }
}

/// Q3: waiting for it any longer would never end.
#[tokio::test(start_paused = true)]
async fn a_service_that_is_slower_than_every_tokens_life_is_called_in_the_end() {
    let issuer = Issuer::fresh(100 * SECOND, Duration::ZERO);
    let layer = issuer.layer();
    let api: Api<Empty<Bytes>> = Api::judging(|_| StatusCode::OK);
    let inner = SlowEachTime::new(api.clone(), 200 * SECOND);
    layer.layer(inner).oneshot(get(URL)).await.unwrap();
    assert_eq!((api.calls(), issuer.calls()), (1, 3));
}

/// Each clone takes so long to become ready.
struct SlowEachTime<S> {
    inner: S,
    delay: Duration,
    waiting: std::pin::Pin<Box<tokio::time::Sleep>>,
}

impl<S> SlowEachTime<S> {
    fn new(inner: S, delay: Duration) -> Self {
        let waiting = Box::pin(sleep(delay));
        Self {
            inner,
            delay,
            waiting,
        }
    }
}

impl<S: Clone> Clone for SlowEachTime<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.delay)
    }
}

impl<R, S: Service<R>> Service<R> for SlowEachTime<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        std::task::ready!(Future::poll(self.waiting.as_mut(), cx));
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call(request)
    }
}

/// Q3
#[tokio::test(start_paused = true)]
async fn readiness_and_its_errors_are_the_inner_services() {
    #[derive(Clone)]
    struct NeverReady;
    impl<B> Service<ApiRequest<B>> for NeverReady {
        type Response = http::Response<()>;
        type Error = BoxError;
        type Future = std::future::Ready<Result<http::Response<()>, BoxError>>;

        fn poll_ready(
            &mut self,
            _cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), BoxError>> {
            std::task::Poll::Ready(Err("closed".into()))
        }

        fn call(&mut self, _request: ApiRequest<B>) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let issuer = Issuer::fresh(DAY, SECOND);
    let mut service = issuer.layer().layer(NeverReady);
    let ready = ServiceExt::<Request<Empty<Bytes>>>::ready(&mut service).await;
    assert_eq!(ready.err().unwrap().to_string(), "closed");
    assert_eq!(issuer.calls(), 0);
}

/// Q4
#[tokio::test(start_paused = true)]
async fn the_retry_has_the_originals_head_as_it_was_before_stamping() {
    for body in ["", "{}"] {
        for long in [0, 1_000] {
            the_retry_has_the_originals_head(body, long).await;
        }
    }
}

async fn the_retry_has_the_originals_head(body: &'static str, long: usize) {
    type Seen = (Method, String, Version, HeaderMap, Option<u8>);
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let log = Arc::clone(&seen);
    let issuer = Issuer::fresh(DAY, SECOND);
    let layer = issuer.builder().placement(Placement::ApiKey).build();
    let api: Api<Full<Bytes>> = Api::new(move |request| {
        let (parts, _) = request.into_parts();
        let rejected = parts.headers["x-api-key"] == "token-1";
        let (uri, extension) = (parts.uri.to_string(), parts.extensions.get().copied());
        let head = (parts.method, uri, parts.version, parts.headers, extension);
        log.lock().unwrap().push(head);
        let status = if rejected {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        };
        async move { Ok(answer(status)) }
    });
    let mut secret = HeaderValue::from_static("mine");
    secret.set_sensitive(true);
    let request = Request::patch("https://api.symbl.ai/v1/manage/tracker/1?a=%20b")
        .version(Version::HTTP_2)
        .header("authorization", secret)
        .header("x-many", "1")
        .header("x-many", "2")
        .header("x-long", "l".repeat(long))
        .extension(7_u8)
        .body(Full::from(body))
        .unwrap();
    send(&layer, &api, request).await.unwrap();
    let mut seen = seen.lock().unwrap();
    let (mut second, mut first) = (seen.pop().unwrap(), seen.pop().unwrap());
    assert!(second.3["authorization"].is_sensitive());
    assert_eq!(first.3.remove("x-api-key").unwrap(), "token-1");
    assert_eq!(second.3.remove("x-api-key").unwrap(), "token-2");
    assert_eq!(first, second);
    assert_eq!(second.4, Some(7));
}

/// Q6
#[tokio::test(start_paused = true)]
async fn a_future_may_be_dropped_at_any_point() {
    // An API and an endpoint that take a second for each answer; and the request is given up after
    // every possible time.
    for millis in (0..4000).step_by(100) {
        let issuer = Issuer::new(|call| async move {
            sleep(SECOND).await;
            Ok(AccessToken::new(format!("token-{call}"), DAY)?)
        });
        let layer = issuer.layer();
        let api: Api<Full<Bytes>> = Api::new(|request| async move {
            sleep(SECOND).await;
            Ok(answer(match token_of(request.headers()) {
                "token-1" => StatusCode::UNAUTHORIZED,
                _ => StatusCode::OK,
            }))
        });
        let request = || Request::post(URL).body(Full::from("body")).unwrap();
        let limit = Duration::from_millis(millis);
        let given_up = tokio::time::timeout(limit, send(&layer, &api, request())).await;
        assert!(given_up.is_err());
        let response = send(&layer, &api, request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "after {limit:?}");
        assert_eq!(issuer.calls(), 2, "after {limit:?}");
    }
}

/// Q5: whatever the response's type is, it is the inner service's.
#[tokio::test(start_paused = true)]
async fn the_response_is_of_the_inner_services_own_type() {
    struct Anything(u8);
    let layer = Issuer::fresh(DAY, SECOND).layer();
    let inner = tower::service_fn(|_: ApiRequest<Empty<Bytes>>| async {
        Ok::<_, BoxError>(http::Response::new(Anything(7)))
    });
    let response = layer.layer(inner).oneshot(get(URL)).await.unwrap();
    assert_eq!(response.into_body().0, 7);
}
