//! One of the twenty: sends a request every 100 ms, and tells with each how many were refused.

use std::{env, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{Empty, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::sleep;
use tower::{BoxError, Layer, ServiceExt};
use tower_symbl_auth::{
    Credentials, FetchToken, Origin, SymblAuthLayer,
    store::{FileStore, RedisStore},
};

pub(crate) async fn run(store: &str) -> Result<(), BoxError> {
    let (origin, number) = (env::var("FLEET_SYMBL")?, env::var("FLEET_NUMBER")?);
    let token_client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let fetch = FetchToken::with_client(Credentials::new("app-id", "app-secret"), token_client)
        .endpoint(format!("{origin}/oauth2/token:generate").parse()?)?;

    // This is all there is to it.
    let key = fetch.sealing_key();
    let builder = SymblAuthLayer::builder(fetch).origins([origin.parse::<Origin>()?]);
    let layer = match store {
        "none" => builder,
        url if url.starts_with("redis") => builder.store(RedisStore::connect(url).await?, key),
        path => builder.store(FileStore::new(path), key),
    }
    .build();

    let client = layer.layer(Client::builder(TokioExecutor::new()).build_http());
    let mut refused = 0;
    loop {
        let request = Request::get(format!("{origin}/v1/job/1"))
            .header("x-process", &number)
            .header("x-refused", refused)
            .body(Empty::<Bytes>::new())?;
        if client.clone().oneshot(request).await?.status() == StatusCode::UNAUTHORIZED {
            refused += 1;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
