//! The stand-in server as users' own tests have it: answers that it is told to give, over HTTP/1.1 and HTTP/2.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used)]

use std::{iter, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::{Instant, timeout};
use tower::{Layer, ServiceExt};
use tower_symbl_auth::{
    NotRetried, ReplayBody, SymblAuth,
    mock::{MockSymbl, Reply},
};

type Authenticated = SymblAuth<Client<HttpConnector, ReplayBody<Full<Bytes>>>>;

fn client(symbl: &MockSymbl, h2: bool) -> Authenticated {
    let client = Client::builder(TokioExecutor::new())
        .http2_only(h2)
        .build_http();
    symbl.layer().layer(client)
}

async fn upload(
    client: &Authenticated,
    symbl: &MockSymbl,
) -> Result<Response<Incoming>, tower::BoxError> {
    let request = Request::post(symbl.url("/v1/process/audio"));
    let request = request.body(Full::from(vec![7; 100_000])).unwrap();
    client.clone().oneshot(request).await
}

#[tokio::test]
async fn each_answer_is_given_once_in_order_and_then_all_is_as_usual() {
    for h2 in [false, true] {
        let symbl = MockSymbl::start().await.unwrap();
        let client = client(&symbl, h2);
        symbl.next_api_responses([Reply::RetryAfter(
            StatusCode::TOO_MANY_REQUESTS,
            Duration::from_millis(6500),
        )]);
        symbl.next_api_responses([Reply::Body("<html>".to_owned())]);
        symbl.next_api_responses([Reply::Status(StatusCode::IM_A_TEAPOT), Reply::Disconnect]);

        let busy = upload(&client, &symbl).await.unwrap();
        assert_eq!(busy.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(busy.headers()[RETRY_AFTER], "7");
        let page = upload(&client, &symbl).await.unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        let page = page.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(page, "<html>");
        let teapot = upload(&client, &symbl).await.unwrap();
        assert_eq!(teapot.status(), StatusCode::IM_A_TEAPOT);
        upload(&client, &symbl).await.unwrap_err();

        let created = upload(&client, &symbl).await.unwrap();
        assert_eq!(created.status(), StatusCode::CREATED);
        assert_eq!((symbl.api_requests(), symbl.rejections()), (5, 0));
    }
}

#[tokio::test]
async fn one_401_is_healed_and_a_lasting_one_is_handed_back() {
    for h2 in [false, true] {
        let symbl = MockSymbl::start().await.unwrap();
        symbl.cache_tokens(false);
        let client = client(&symbl, h2);
        symbl.next_api_responses([Reply::Status(StatusCode::UNAUTHORIZED)]);
        let healed = upload(&client, &symbl).await.unwrap();
        assert_eq!(healed.status(), StatusCode::CREATED);
        assert_eq!((symbl.api_requests(), symbl.rejections()), (2, 1));

        symbl.next_api_responses(iter::repeat(Reply::Status(StatusCode::UNAUTHORIZED)));
        for _ in 0..5 {
            let refused = upload(&client, &symbl).await.unwrap();
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
            assert!(refused.extensions().get::<NotRetried>().is_some());
        }
        assert_eq!(symbl.api_requests() - symbl.rejections(), 1);
    }
}

#[tokio::test]
async fn a_slow_answer_is_the_usual_one_and_a_hanging_one_holds_up_no_other() {
    for h2 in [false, true] {
        let symbl = MockSymbl::start().await.unwrap();
        let client = client(&symbl, h2);
        client.clone().oneshot(get(&symbl)).await.unwrap();
        let slow = Duration::from_millis(100);
        symbl.next_api_responses([Reply::Hang, Reply::Delay(slow)]);
        let hanging = tokio::spawn(client.clone().oneshot(get(&symbl)));
        while symbl.api_requests() < 2 {
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        let answer = client.clone().oneshot(get(&symbl)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert!(begun.elapsed() >= slow);
        let others = join_all((0..10).map(|_| client.clone().oneshot(get(&symbl)))).await;
        assert!(others.iter().all(|answer| answer.is_ok()));
        assert!(timeout(Duration::ZERO, hanging).await.is_err());
    }
}

fn get(symbl: &MockSymbl) -> Request<Full<Bytes>> {
    let request = Request::get(symbl.url("/v1/job/1"));
    request.body(Full::default()).unwrap()
}
