//! The default HTTP client: hyper-util over rustls, with ring and the platform's root certificates.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tower::{BoxError, Service};

use crate::TokenError;

type HyperClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The HTTP client of [`FetchToken::new`](crate::FetchToken::new). Follows no redirects.
#[derive(Clone)]
pub struct DefaultClient {
    /// Or why there is none.
    client: Result<HyperClient, TokenError>,
}

impl DefaultClient {
    pub(super) fn new() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let connector = HttpsConnectorBuilder::new().with_provider_and_platform_verifier(provider);
        let client = match connector {
            Ok(connector) => {
                let connector = connector.https_or_http().enable_http1().build();
                Ok(Client::builder(TokioExecutor::new())
                    .pool_timer(TokioTimer::new())
                    .build(connector))
            }
            Err(error) => Err(TokenError::internal(format!(
                "the platform's root certificates did not load: {error}"
            ))),
        };
        Self { client }
    }
}

impl Service<Request<Full<Bytes>>> for DefaultClient {
    type Response = Response<UnsyncBoxBody<Bytes, BoxError>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(())) // hyper-util's client always is
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        match &self.client {
            Ok(client) => {
                let response = client.request(request);
                response
                    .map_ok(|response| response.map(boxed))
                    .map_err(Into::into)
                    .boxed()
            }
            Err(error) => futures::future::err(error.clone().into()).boxed(),
        }
    }
}

fn boxed<B>(body: B) -> UnsyncBoxBody<Bytes, BoxError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

impl fmt::Debug for DefaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DefaultClient").finish_non_exhaustive()
    }
}
