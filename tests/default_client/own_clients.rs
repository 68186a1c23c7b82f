//! Section 2's `with_client`: a private root, a client certificate and a proxy, with a client of the user's own.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector, proxy::Tunnel},
    },
    rt::TokioExecutor,
};
use rustls::ClientConfig;
use tower::ServiceExt;
use tower_symbl_auth::{
    AccessToken, Credentials, FetchReason, FetchToken, TokenError, TokenErrorKind, TokenRequest,
};

use crate::{
    identity::Identity,
    servers::{Endpoint, Manner, Proxy},
};

/// What comes of one attempt.
async fn token<C>(
    endpoint: &Endpoint,
    connector: C,
    config: ClientConfig,
) -> Result<AccessToken, TokenError>
where
    HttpsConnector<C>: Connect + Clone + Send + Sync + 'static,
{
    let connector = HttpsConnector::from((connector, config));
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let fetch = FetchToken::with_client(Credentials::new("id", "app-s3cr3t"), client);
    let endpoint = endpoint.url("https", "localhost").parse().unwrap();
    let fetch = fetch.endpoint(endpoint).unwrap().attempts(1);
    fetch.oneshot(TokenRequest::new(FetchReason::First)).await
}

/// Connects for what is `https` too.
fn direct() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector
}

#[tokio::test]
async fn a_token_comes_with_a_client_certificate_and_without_one_it_does_not() {
    let (server, client, stranger) = (Identity::new(), Identity::new(), Identity::new());
    let endpoint = Endpoint::mutual_tls(&server, &client).await;
    let got = token(&endpoint, direct(), server.client(Some(&client))).await;
    assert_eq!(got.unwrap().expose_secret(), "t0ken");
    for own in [None, Some(&stranger)] {
        let got = token(&endpoint, direct(), server.client(own)).await;
        assert_eq!(got.unwrap_err().kind(), TokenErrorKind::Unavailable);
    }
    assert_eq!(endpoint.connections(), 1, "what the endpoint has read");
}

#[tokio::test]
async fn a_private_root_is_trusted_and_no_other() {
    let (server, client, stranger) = (Identity::new(), Identity::new(), Identity::new());
    let endpoint = Endpoint::mutual_tls(&server, &client).await;
    let got = token(&endpoint, direct(), stranger.client(Some(&client))).await;
    let told = got.unwrap_err().to_string();
    let why = "token endpoint unavailable: invalid peer certificate: ";
    assert!(told.starts_with(why), "{told}");
    assert_eq!(endpoint.connections(), 0);
}

#[tokio::test]
async fn a_token_comes_through_a_proxy_with_a_private_root_and_a_client_certificate() {
    let (server, client) = (Identity::new(), Identity::new());
    let endpoint = Endpoint::mutual_tls(&server, &client).await;
    let proxy = Proxy::start(Manner::Connect).await;
    let address = format!("http://127.0.0.1:{}", proxy.port).parse().unwrap();
    let tunnel = Tunnel::new(address, direct());
    let got = token(&endpoint, tunnel, server.client(Some(&client))).await;
    assert_eq!(got.unwrap().expose_secret(), "t0ken");
    let heads = proxy.heads();
    let target = format!("CONNECT localhost:{} HTTP/1.1\r\n", endpoint.port());
    assert!(
        heads.len() == 1 && heads[0].starts_with(&target),
        "{heads:?}"
    );
}
