//! An axum app in front of the API: its callers need no token, for it has one for all of them.
//!
//! Starts the app (`app.rs`) and the stand-in server in this crate, and plays the caller.
//!
//! `cargo run --example axum_proxy --features full`

mod app;

use std::time::Duration;

use axum::{Router, serve::Listener};
use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tower::BoxError;
use tower_symbl_auth::mock::{MockSymbl, TokenReply};

type Caller = Client<HttpConnector, Full<Bytes>>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let symbl = MockSymbl::start().await?;
    let url = serve(app::app(&symbl.layer(), symbl.origin())).await?;
    let caller = Client::builder(TokioExecutor::new()).build_http();

    let posted = upload(&caller, &url, 1000).await?;
    println!("an upload through the proxy: {}", posted.status());
    let posted: Value = serde_json::from_slice(&posted.collect().await?.to_bytes())?;
    let conversation = posted["conversationId"].as_str().unwrap_or_default();
    let texts = Request::get(format!("{url}/texts/{conversation}")).body(Full::default())?;
    let texts = caller.request(texts).await?.collect().await?.to_bytes();
    println!("what the handler reads back: {}", texts.escape_ascii());

    let (symbl, caller, url) = (&symbl, &caller, &url);
    let uploads = (0..50).map(|number| async move {
        tokio::time::sleep(Duration::from_millis(number)).await;
        if number == 25 {
            symbl.revoke_tokens();
        }
        upload(caller, url, 100_000).await
    });
    let answers = join_all(uploads).await;
    let created = |answer: &&Result<Response<_>, _>| matches!(answer, Ok(r) if r.status() == StatusCode::CREATED);
    let created = answers.iter().filter(created).count();
    println!(
        "50 uploads while the token is revoked: {created} of them 201, {} rejections, {} token fetches in all",
        symbl.rejections(),
        symbl.token_requests()
    );
    if created < 50 {
        return Err("uploads were lost".into());
    }

    let busy = TokenReply::RetryAfter(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(7));
    symbl.next_token_responses([busy]);
    let url = serve(app::app(&symbl.layer(), symbl.origin())).await?;
    let answer = upload(caller, &url, 1000).await?;
    println!(
        "while no token can be had: {}, Retry-After: {:?}",
        answer.status(),
        answer.headers().get("retry-after")
    );
    Ok(())
}

async fn serve(app: Router) -> Result<String, BoxError> {
    let listener = app::listen(([127, 0, 0, 1], 0).into()).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

async fn upload(caller: &Caller, url: &str, length: usize) -> Result<Response<Incoming>, BoxError> {
    let request = Request::post(format!("{url}/v1/process/audio?name=call"));
    let request = request.header("content-type", "audio/wav");
    let body = Full::from(vec![7; length]);
    Ok(caller.request(request.body(body)?).await?)
}
