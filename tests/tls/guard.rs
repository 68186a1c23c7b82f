//! Rule Q1 over sockets: whichever way a request names its origin, no token goes in clear or to another virtual host.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header::HOST};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::{TokioExecutor, TokioIo},
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, client::IntoClientRequest},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_symbl_auth::{NotRetried, Placement, SymblAuthLayer, mock::MockSymbl};

use crate::api::{Api, token};

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// TLS for what is `https` to the letter, and all else in clear: connectors are written like that.
fn naive(
    mut tls: HttpsConnector<HttpConnector>,
) -> impl Service<
    Uri,
    Response = Stream,
    Error = BoxError,
    Future = BoxFuture<'static, Result<Stream, BoxError>>,
> + Clone {
    service_fn(move |uri: Uri| {
        if uri.scheme_str() == Some("https") {
            return tls.call(uri).boxed();
        }
        let mut plain = HttpConnector::new();
        plain.enforce_http(false);
        let stream = plain.call(uri).map_ok(MaybeHttpsStream::Http);
        stream.err_into().boxed()
    })
}

/// What the API got of a request to it by that scheme, which is left as it is written.
async fn sent<C>(scheme: &str, connector: impl FnOnce(HttpsConnector<HttpConnector>) -> C) -> Got
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let (symbl, api) = (MockSymbl::start().await.unwrap(), Api::start().await);
    let uri = Uri::builder().scheme(scheme).path_and_query("/");
    let uri = uri.authority(format!("localhost:{}", api.port)).build();
    let request = Request::get(uri.unwrap());
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let layer = api.layer(&symbl, Placement::Bearer);
    let client = Client::builder(TokioExecutor::new()).build(connector(api.connector(false)));
    let outcome = layer.layer(client).oneshot(request).await;

    let (seen, in_clear) = (api.seen(), api.in_clear());
    assert_eq!(outcome.is_ok(), seen.len() == 1, "{scheme}");
    assert!(
        in_clear.iter().all(|head| token(head).is_none()),
        "{scheme}"
    );
    let is_sent_a_token = seen
        .first()
        .is_some_and(|(_, head, _)| token(head).is_some());
    assert_eq!(symbl.token_requests(), usize::from(is_sent_a_token));
    match (seen.len(), in_clear.len(), is_sent_a_token) {
        (0, 0, false) => Got::Nothing,
        (1, 1, false) => Got::WithoutToken,
        (1, 0, true) => Got::TokenOverTls,
        got => panic!("{scheme}: {got:?}"),
    }
}

#[derive(Debug, PartialEq)]
enum Got {
    Nothing,
    /// In clear.
    WithoutToken,
    TokenOverTls,
}

#[tokio::test]
async fn https_carries_the_token_over_tls_and_no_other_scheme_does_in_clear() {
    for (scheme, by_hyper_rustls, by_a_naive_one) in [
        ("https", Got::TokenOverTls, Got::TokenOverTls),
        ("http", Got::WithoutToken, Got::WithoutToken),
        ("ws", Got::Nothing, Got::WithoutToken),
        ("wss", Got::Nothing, Got::WithoutToken),
        ("WSS", Got::Nothing, Got::WithoutToken),
        // Parsed, it would be in lower case.
        ("HTTPS", Got::Nothing, Got::WithoutToken),
    ] {
        let got = sent(scheme, |as_it_is| as_it_is).await;
        assert_eq!(got, by_hyper_rustls, "{scheme}");
        assert_eq!(sent(scheme, naive).await, by_a_naive_one, "{scheme}");
    }
}

#[tokio::test]
async fn a_websockets_handshake_carries_the_token_over_tls() {
    let (symbl, api) = (MockSymbl::start().await.unwrap(), Api::start().await);
    let layer = api.layer(&symbl, Placement::Bearer);
    let uri = format!("wss://localhost:{}/v1/streaming/1", api.port);
    let mut handshake = uri.as_str().into_client_request().unwrap();
    layer.authorize(&mut handshake).await.unwrap().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", api.port)).await.unwrap();
    let tls = TlsConnector::from(Arc::new(api.tls()));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tls.connect(name, stream).await.unwrap();
    // This API knows of no WebSockets.
    let refused = client_async(handshake, stream).await.unwrap_err();
    let answered = matches!(&refused, Error::Http(answer) if answer.status() == StatusCode::OK);
    assert!(answered, "{refused}");
    assert!(token(&api.seen()[0].1).is_some());
    assert!(api.in_clear().is_empty());
}

/// What a proxy would send that hands on its caller's `Host`. Over HTTP/1.1 it names the virtual host.
#[tokio::test]
async fn a_request_whose_host_is_another_tenants_arrives_untouched_and_its_401_says_so() {
    let (symbl, api) = (MockSymbl::start().await.unwrap(), Api::start().await);
    let ours = format!("localhost:{}", api.port);
    let url = format!("http://{ours}/v1/job/1");
    let layer = SymblAuthLayer::builder(symbl.fetch_token())
        .origins([url.replace("/v1/job/1", "").parse().unwrap()]);
    let client = layer.build().layer(api.client(false));
    // Refuses what comes without one.
    api.refused.lock().unwrap().push(String::new());
    let ask = |host: &str| {
        let request = Request::get(&url).header("host", host);
        let request = request.body(Full::<Bytes>::default()).unwrap();
        client.clone().oneshot(request)
    };
    let answer = ask("another-tenant.example").await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let why = answer.extensions().get();
    assert!(matches!(why, Some(NotRetried::Unstamped)), "{why:?}");
    let untouched = HeaderValue::from_static("another-tenant.example");
    assert_eq!(api.in_clear(), [HeaderMap::from_iter([(HOST, untouched)])]);
    assert_eq!(symbl.token_requests(), 0);

    assert_eq!(ask(&ours).await.unwrap().status(), StatusCode::OK);
    assert!(token(&api.in_clear()[1]).is_some());
}
