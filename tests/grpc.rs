//! The layer around a tonic channel, to a real tonic server on loopback that counts what it received.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::{
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::Request;
use http_body_util::BodyExt;
use tonic::{
    Code,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::{BoxError, Service, ServiceBuilder};
use tower_symbl_auth::{
    AccessToken, Builder, SymblAuthLayer, TokenError, TokenErrorKind, TokenRequest,
};

use echo::{EchoClient, Received};

#[path = "../examples/grpc/channel.rs"]
mod channel;

#[path = "../examples/grpc/echo.rs"]
mod echo;

mod clock;
#[path = "grpc/deadlines.rs"]
mod deadlines;

/// A server, a channel to it, a layer for it, and how many tokens that layer has fetched.
struct Setup {
    received: Received,
    address: SocketAddr,
    channel: Channel,
    builder: Builder,
    fetches: Arc<AtomicUsize>,
}

impl Setup {
    async fn new() -> Self {
        let received = Received::default();
        let address = echo::serve(received.clone()).await.unwrap();
        let endpoint = Endpoint::new(format!("http://{address}")).unwrap();
        let fetches = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&fetches);
        let tokens = tower::service_fn(move |_: TokenRequest| {
            let token = format!("token-{}", count.fetch_add(1, Ordering::Relaxed) + 1);
            async move { Ok::<_, BoxError>(AccessToken::new(token, Duration::from_secs(3600))?) }
        });
        let origin = format!("http://{address}").parse().unwrap();
        Self {
            received,
            address,
            channel: endpoint.connect().await.unwrap(),
            builder: SymblAuthLayer::builder(tokens).origins([origin]),
            fetches,
        }
    }

    fn channel(
        &self,
    ) -> impl Service<Request<Body>, Response = http::Response<Body>, Error = BoxError> + Clone
    {
        authenticated(self.channel.clone(), self.builder.clone().build())
    }

    fn client(
        &self,
    ) -> EchoClient<
        impl Service<Request<Body>, Response = http::Response<Body>, Error = BoxError> + Clone,
    > {
        EchoClient::new(self.channel())
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }
}

fn authenticated(
    channel: Channel,
    auth: SymblAuthLayer,
) -> impl Service<Request<Body>, Response = http::Response<Body>, Error = BoxError> + Clone {
    channel::authenticated(channel, auth, Duration::from_secs(20))
}

fn letters(letters: &str) -> Vec<Bytes> {
    let letters = letters.chars().map(|letter| letter.to_string().into());
    letters.collect()
}

// === rejection ===

#[tokio::test]
async fn a_refused_unary_call_is_made_once_more() {
    let setup = Setup::new().await;
    let mut client = setup.client();
    assert_eq!(client.say("one".into()).await.unwrap(), "one");
    setup.received.revoke_tokens();
    assert_eq!(client.say("two".into()).await.unwrap(), "two");
    assert_eq!(setup.received.tokens(), ["token-1", "token-1", "token-2"]);
    assert_eq!(setup.fetches(), 2);
}

#[tokio::test]
async fn streams_of_each_kind_outlive_a_revocation() {
    let setup = Setup::new().await;
    let mut client = setup.client();
    client.say("one".into()).await.unwrap();

    setup.received.revoke_tokens();
    let split = client.split("abc".into()).await.unwrap();
    let split: Vec<Bytes> = split.try_collect().await.unwrap();
    assert_eq!(split, letters("abc"));

    setup.received.revoke_tokens();
    let joined = client.join(stream::iter(letters("def"))).await.unwrap();
    assert_eq!(joined, "def");
    assert_eq!(setup.received.messages(), letters("def"), "each once");

    setup.received.revoke_tokens();
    let chat = client.chat(stream::iter(letters("ghi"))).await.unwrap();
    let chat: Vec<Bytes> = chat.try_collect().await.unwrap();
    assert_eq!(chat, letters("ghi"));

    assert_eq!(setup.received.tokens().len(), 7);
    assert_eq!(setup.fetches(), 4);
}

#[tokio::test]
async fn a_second_refusal_goes_to_the_caller() {
    let setup = Setup::new().await;
    let mut client = setup.client();
    client.say("one".into()).await.unwrap();
    setup.received.revoke_tokens();
    // Refuses the second token as well, once it has seen it elsewhere.
    let mut other = EchoClient::new(channel_with(&setup, "token-2"));
    other.say("x".into()).await.unwrap();
    setup.received.revoke_tokens();
    let status = client.say("two".into()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let tokens = ["token-1", "token-2", "token-1", "token-2"];
    assert_eq!(setup.received.tokens(), tokens);
}

fn channel_with(
    setup: &Setup,
    token: &'static str,
) -> impl Service<Request<Body>, Response = http::Response<Body>, Error = BoxError> + Clone {
    let tokens = tower::service_fn(move |_: TokenRequest| async move {
        Ok::<_, BoxError>(AccessToken::new(token, Duration::from_secs(3600))?)
    });
    authenticated(
        setup.channel.clone(),
        SymblAuthLayer::builder(tokens).build(),
    )
}

/// The server reads the first message, and refuses then.
#[tokio::test]
async fn what_a_refused_stream_has_sent_is_sent_again() {
    let setup = Setup::new().await;
    let mut client = setup.client();
    client.say("one".into()).await.unwrap();
    setup.received.revoke_tokens();
    setup.received.refuse_late();
    let (feed, messages) = futures::channel::mpsc::unbounded();
    feed.unbounded_send(Bytes::from("a")).unwrap();
    // The others are there only once the call has been made again.
    let server = setup.received.clone();
    let later = async move {
        while server.messages().len() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        feed.unbounded_send(Bytes::from("b")).unwrap();
        feed.unbounded_send(Bytes::from("c")).unwrap();
    };
    let both = futures::future::join(client.join(messages), later);
    let both = tokio::time::timeout(Duration::from_secs(10), both).await;
    let (joined, ()) = both.expect("the call is made again");
    assert_eq!(joined.unwrap(), "abc");
    let received = setup.received.messages();
    assert_eq!(received, letters("aabc"), "again, then on");
    assert_eq!(setup.received.tokens(), ["token-1", "token-1", "token-2"]);
}

#[tokio::test]
async fn a_refused_stream_over_the_limit_is_handed_back() {
    let mut setup = Setup::new().await;
    setup.builder = setup.builder.replay_limit(3);
    let mut client = setup.client();
    client.say("one".into()).await.unwrap();
    setup.received.revoke_tokens();
    setup.received.refuse_late();
    let status = client.join(stream::iter(letters("abc"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(setup.received.tokens(), ["token-1", "token-1"]);
}

#[tokio::test]
async fn a_stream_that_has_begun_is_not_made_again_when_it_ends_unauthenticated() {
    let setup = Setup::new().await;
    let mut stream = setup.client().split("ab!".into()).await.unwrap();
    for letter in ["a", "b", "!"] {
        assert_eq!(stream.next().await.unwrap().unwrap(), letter);
    }
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(setup.received.tokens(), ["token-1"]);
    assert_eq!(setup.fetches(), 1);
}

// === memory ===

struct Counted(Bytes, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

/// R5
#[tokio::test]
async fn of_a_stream_that_has_begun_no_message_is_kept() {
    let mut setup = Setup::new().await;
    setup.builder = setup.builder.replay_limit(1 << 30);
    let (alive, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&alive), Arc::clone(&sent));
    // Above the layer, so that what it keeps is counted: tonic's own copy of each message.
    let channel = ServiceBuilder::new()
        .map_request(move |request: Request<Body>| {
            let (alive, sent) = counts.clone();
            request.map(move |body| {
                Body::new(body.map_frame(move |frame| {
                    frame.map_data(|data| {
                        alive.fetch_add(1, Ordering::Relaxed);
                        sent.fetch_add(1, Ordering::Relaxed);
                        Bytes::from_owner(Counted(data, Arc::clone(&alive)))
                    })
                }))
            })
        })
        .service(setup.channel());
    let (feed, messages) = futures::channel::mpsc::unbounded();
    let mut echo = EchoClient::new(channel).chat(messages).await.unwrap();
    for n in 0..1000 {
        let message = Bytes::from(vec![n as u8; 1024]);
        feed.unbounded_send(message.clone()).unwrap();
        assert_eq!(echo.next().await.unwrap().unwrap(), message);
        assert!(alive.load(Ordering::Relaxed) <= 2, "after {n} messages");
    }
    assert_eq!(sent.load(Ordering::Relaxed), 1000);
}

// === origins and errors ===

#[tokio::test]
async fn a_client_without_an_origin_or_with_the_layers_is_stamped() {
    let setup = Setup::new().await;
    let ours = format!("http://{}", setup.address).parse().unwrap();
    setup.client().say("one".into()).await.unwrap();
    let mut client = EchoClient::with_origin(setup.channel(), ours);
    client.say("two".into()).await.unwrap();
    // Each of them has a layer of its own.
    assert_eq!(setup.received.tokens(), ["token-1", "token-2"]);
}

#[tokio::test]
async fn a_client_with_another_origin_is_left_alone() {
    let setup = Setup::new().await;
    let other = "https://api-nebula.symbl.ai".parse().unwrap();
    let mut client = EchoClient::with_origin(setup.channel(), other);
    let status = client.say("one".into()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(setup.received.tokens(), [""]);
    assert_eq!(setup.fetches(), 0);
}

/// With the code that callers and their retries go by.
#[tokio::test]
async fn a_token_error_is_unauthenticated_or_unavailable_and_the_source_of_the_status() {
    let setup = Setup::new().await;
    for (kind, code) in [
        (TokenErrorKind::Credentials, Code::Unauthenticated),
        (TokenErrorKind::RateLimited, Code::Unavailable),
        (TokenErrorKind::Unavailable, Code::Unavailable),
        (TokenErrorKind::Timeout, Code::Unavailable),
        (TokenErrorKind::InvalidResponse, Code::Unavailable),
        (TokenErrorKind::Internal, Code::Unavailable),
    ] {
        let failing = tower::service_fn(move |_: TokenRequest| async move {
            Err::<AccessToken, _>(TokenError::new(kind, "of the issuer"))
        });
        let layer = SymblAuthLayer::builder(failing).build();
        let mut client = EchoClient::new(authenticated(setup.channel.clone(), layer));
        let status = client.say("one".into()).await.unwrap_err();
        assert_eq!(status.code(), code, "{kind:?}");
        assert!(status.message().ends_with("of the issuer"), "{status}");
        let error = status.source().unwrap().downcast_ref::<TokenError>();
        assert_eq!(error.unwrap().kind(), kind);
    }
    assert!(setup.received.tokens().is_empty());
}

#[tokio::test]
async fn the_channels_own_errors_keep_their_code() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let setup = Setup::new().await;
    let channel = Endpoint::new(address).unwrap().connect_lazy();
    let layer = setup.builder.clone().build();
    let status = EchoClient::new(authenticated(channel, layer))
        .say("one".into())
        .await;
    assert_eq!(status.unwrap_err().code(), Code::Unavailable);
}
