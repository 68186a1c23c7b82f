//! Rules J3 and J7 with a concurrency limit outside of the layer: rejected requests keep their permits while a token is
//! fetched, so good ones wait for a permit; but no longer than a rejection may be held.

use std::{future::pending, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use tokio::time::{Instant, advance, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, limit::ConcurrencyLimit};
use tower_symbl_auth::SymblAuthLayer;

use crate::{support::*, world::token};

const PERMITS: usize = 4;

/// One token, and an endpoint that hangs from then on.
fn layer() -> SymblAuthLayer {
    let issuer = Issuer::new(|call| async move {
        if call > 1 {
            pending::<()>().await;
        }
        Ok(token(1)?)
    });
    issuer.layer()
}

/// Its `/bad` always answers 401, at that length.
fn api(length: usize) -> Api<Empty<Bytes>> {
    Api::new(move |request| async move {
        let is_bad = request.uri().path() == "/bad";
        let mut answer = answer(if is_bad {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        });
        let headers = answer.headers_mut();
        headers.insert("content-length", length.into());
        Ok(answer)
    })
}

/// For how long a good request waits in five minutes, at most, beside as many workers with the bad path as there are
/// permits. The API has accepted the token a while ago.
async fn longest_wait<S>(service: S) -> Duration
where
    S: Service<Request<Empty<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    service.clone().oneshot(get(URL)).await.unwrap();
    advance(3 * SECOND).await;
    for _ in 0..PERMITS {
        let service = service.clone();
        tokio::spawn(async move {
            loop {
                let bad = service.clone().oneshot(get("https://api.symbl.ai/bad"));
                let answer = bad.await.unwrap();
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
                sleep(SECOND / 100).await;
            }
        });
    }
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    while begun.elapsed() < 300 * SECOND {
        sleep(SECOND / 10).await;
        let sent = Instant::now();
        let answer = service.clone().oneshot(get(URL)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        longest = longest.max(sent.elapsed());
    }
    longest
}

#[tokio::test(start_paused = true)]
async fn good_requests_wait_no_longer_than_a_rejection_is_held() {
    for (length, held) in [(1000, 10 * SECOND), (64 * 1024, SECOND)] {
        let limited = ConcurrencyLimit::new(layer().layer(api(length)), PERMITS);
        let longest = longest_wait(limited).await;
        assert!(
            longest > held / 2 && longest <= held,
            "{length}: {longest:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn with_the_limit_inside_they_do_not_wait() {
    let limited = ConcurrencyLimit::new(api(1000), PERMITS);
    let longest = longest_wait(layer().layer(limited)).await;
    assert_eq!(longest, Duration::ZERO);
}
