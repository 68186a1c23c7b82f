//! `integrations::EarlyResponse` over real sockets: uploads that are refused, and hung up on, before they have
//! been read. By a server here, with and without TLS; by HAProxy and nginx (`proxies.rs`); and what it does to a
//! connection (`io.rs`).
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used)]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, StatusCode, Uri, header::CONTENT_LENGTH};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tower::{BoxError, Layer, ServiceExt};
use tower_symbl_auth::{
    AccessToken, ReplayBody, SymblAuthLayer, TokenRequest,
    integrations::{EarlyResponse, EarlyResponseLayer},
};

#[path = "../identity/mod.rs"]
mod identity;
mod io;
mod proxies;
#[path = "../servers/mod.rs"]
mod servers;

use identity::Identity;

const UPLOAD: usize = 8 << 20;
const UPLOADS: usize = 20;

type Upload = UnsyncBoxBody<Bytes, Infallible>;

fn client<C>(connector: C, h2: bool) -> Client<C, ReplayBody<Upload>>
where
    C: Connect + Clone,
{
    Client::builder(TokioExecutor::new())
        .http2_only(h2)
        .build(connector)
}

/// `token-1`, which all servers here refuse, then `token-2` and so on.
fn layer(uri: &Uri) -> SymblAuthLayer {
    let calls = Arc::new(AtomicUsize::new(1));
    let tokens = tower::service_fn(move |_: TokenRequest| {
        let token = format!("token-{}", calls.fetch_add(1, Ordering::Relaxed));
        async move { Ok::<_, BoxError>(AccessToken::new(token, Duration::from_secs(3600))?) }
    });
    let origin = format!(
        "{}://{}",
        uri.scheme_str().unwrap(),
        uri.authority().unwrap()
    );
    SymblAuthLayer::builder(tokens)
        .origins([origin.parse().unwrap()])
        .replay_limit(2 * UPLOAD)
        .build()
}

/// In memory, or in frames of 16 KiB.
fn upload(uri: &Uri, length: usize, streams: bool) -> Request<Upload> {
    let content = Bytes::from(vec![7; length]);
    let request = Request::post(uri).header(CONTENT_LENGTH, length);
    let body = if streams {
        let frames = (0..length).step_by(16 << 10).map(move |start| {
            let end = length.min(start + (16 << 10));
            Ok(Frame::data(content.slice(start..end)))
        });
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    } else {
        Full::new(content).boxed_unsync()
    };
    request.body(body).unwrap()
}

/// Uploads, so many at once, each with a layer of its own whose first token is refused. How many arrived whole.
async fn healed<C>(
    client: &Client<C, ReplayBody<Upload>>,
    uri: &Uri,
    length: usize,
    at_once: usize,
) -> usize
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let uploads = stream::iter(0..UPLOADS).map(|number| async move {
        let client = layer(uri).layer(client.clone());
        let answer = client.oneshot(upload(uri, length, number % 2 == 1));
        let answer = tokio::time::timeout(Duration::from_secs(60), answer).await;
        let answer = answer.expect("it does not hang").ok()?;
        assert_eq!(answer.status(), StatusCode::OK);
        let arrived = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(arrived, length.to_string());
        Some(())
    });
    uploads
        .buffer_unordered(at_once)
        .filter_map(async |healed| healed)
        .count()
        .await
}

/// An HTTP/1.1 server that reads the head. It answers `token-1` with 401 and closes the connection; from any other
/// it reads the upload, and says how long it was.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
    let mut received = Vec::new();
    let head = loop {
        if stream.read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break String::from_utf8_lossy(&received[..end + 4]).to_lowercase();
        }
    };
    if head.contains("bearer token-1\r\n") {
        let answer =
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 7\r\nconnection: close\r\n\r\nrefused";
        stream.write_all(answer.as_bytes()).await.ok()?;
        return stream.flush().await.ok();
    }
    let (_, length) = head.split_once("content-length: ").unwrap();
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    let mut rest = (&mut stream).take((length - (received.len() - head.len())) as u64);
    tokio::io::copy(&mut rest, &mut tokio::io::sink())
        .await
        .ok()?;
    assert_eq!(rest.limit(), 0, "it arrives whole");
    let length = length.to_string();
    let digits = length.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {digits}\r\n\r\n{length}");
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

async fn listen(tls: Option<TlsAcceptor>) -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let scheme = if tls.is_some() { "https" } else { "http" };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Else the answer may wait in its kernel for an acknowledgement (of a TLS session ticket) until
            // the connection is closed, and never be sent.
            stream.set_nodelay(true).unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    Some(tls) => serve(tls.accept(stream).await.unwrap()).await,
                    None => serve(stream).await,
                }
            });
        }
    });
    format!("{scheme}://localhost:{port}/upload")
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_a_server_refuses_and_hangs_up_on_are_all_sent_again() {
    let uri = listen(None).await;
    let client = client(EarlyResponse::new(HttpConnector::new()), false);
    for at_once in [1, 4] {
        assert_eq!(healed(&client, &uri, UPLOAD, at_once).await, UPLOADS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_as_well_with_the_tls_inside_or_outside() {
    let identity = Identity::new();
    let config = identity.client(None);
    let uri = listen(Some(TlsAcceptor::from(Arc::new(identity.server())))).await;

    let https = HttpsConnectorBuilder::new()
        .with_tls_config(config.clone())
        .https_only()
        .enable_http1();
    let inside: EarlyResponse<HttpsConnector<_>> = EarlyResponseLayer.layer(https.build());
    assert_eq!(
        healed(&client(inside, false), &uri, UPLOAD, 4).await,
        UPLOADS
    );

    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let outside = HttpsConnector::from((EarlyResponse::new(http), config));
    assert_eq!(
        healed(&client(outside, false), &uri, UPLOAD, 4).await,
        UPLOADS
    );
}
