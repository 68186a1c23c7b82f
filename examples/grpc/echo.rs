//! A gRPC service of four methods and its client, written by hand so that no protoc is needed: messages
//! are bytes. The server remembers what it received, and refuses tokens when it is told to. Used by
//! `tests/grpc.rs` as well.

use std::{
    collections::HashSet,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes};
use futures::{Stream, StreamExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client::{self, GrpcService},
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    server::{self, NamedService},
    service::interceptor::InterceptedService,
    transport::server::{Server, TcpIncoming},
};
use tower::{BoxError, Service, service_fn};

// === codec ===

#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

// === server ===

/// What the server has received, and which tokens it refuses.
#[derive(Clone, Default)]
pub(crate) struct Received(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    calls: Vec<MetadataMap>,
    messages: Vec<Bytes>,
    refused: HashSet<String>,
    late: bool,
}

impl Received {
    /// The token of each call; empty for none.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.state().calls.iter().map(token).collect()
    }

    #[allow(dead_code)]
    /// The metadata of each call.
    pub(crate) fn calls(&self) -> Vec<MetadataMap> {
        self.state().calls.clone()
    }

    #[allow(dead_code)]
    /// The messages of all calls to `join`, refused ones included.
    pub(crate) fn messages(&self) -> Vec<Bytes> {
        self.state().messages.clone()
    }

    /// Refuses all tokens seen so far.
    pub(crate) fn revoke_tokens(&self) {
        let tokens = self.tokens();
        self.state().refused.extend(tokens);
    }

    #[allow(dead_code)]
    /// From now on, tokens are refused by `join`, after its first message, and by no other method.
    pub(crate) fn refuse_late(&self) {
        self.state().late = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, token: &str) -> Result<(), Status> {
        if token.is_empty() || self.state().refused.contains(token) {
            return Err(Status::unauthenticated("the token is refused"));
        }
        Ok(())
    }

    /// The server's interceptor.
    fn intercept(&self, request: Request<()>) -> Result<Request<()>, Status> {
        self.state().calls.push(request.metadata().clone());
        if !self.state().late {
            self.check(&token(request.metadata()))?;
        }
        Ok(request)
    }
}

fn token(metadata: &MetadataMap) -> String {
    let value = metadata.get("authorization");
    let token = value.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    token.unwrap_or_default().to_owned()
}

/// Serves on loopback until the runtime ends.
pub(crate) async fn serve(received: Received) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let gate = received.clone();
    let echo = InterceptedService::new(Echo(received), move |request| gate.intercept(request));
    let server = Server::builder().add_service(echo);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(address)
}

#[derive(Clone)]
struct Echo(Received);

impl NamedService for Echo {
    const NAME: &'static str = "demo.Echo";
}

type Messages = BoxStream<'static, Result<Bytes, Status>>;

impl Echo {
    /// The message back.
    async fn say(self, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    /// A message for each byte; then, for a message that ends in `!`, `UNAUTHENTICATED`.
    async fn split(self, request: Request<Bytes>) -> Result<Response<Messages>, Status> {
        let message = request.into_inner();
        let fails = message.ends_with(b"!");
        let end = fails.then(|| Err(Status::unauthenticated("in the midst of it")));
        let bytes = (0..message.len()).map(move |n| Ok(message.slice(n..=n)));
        Ok(Response::new(
            futures::stream::iter(bytes.chain(end)).boxed(),
        ))
    }

    /// All messages in one.
    async fn join(self, request: Request<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
        let token = token(request.metadata());
        let mut messages = request.into_inner();
        let mut joined = Vec::new();
        while let Some(message) = messages.try_next().await? {
            joined.extend_from_slice(&message);
            self.0.state().messages.push(message);
            self.0.check(&token)?;
        }
        Ok(Response::new(joined.into()))
    }

    /// Each message back, when it comes.
    async fn chat(
        self,
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = server::Grpc::new(Raw);
            let method = request.uri().path().rsplit('/').next();
            Ok(match method {
                Some("Say") => {
                    grpc.unary(service_fn(|r| echo.clone().say(r)), request)
                        .await
                }
                Some("Split") => {
                    let split = service_fn(|r| echo.clone().split(r));
                    grpc.server_streaming(split, request).await
                }
                Some("Join") => {
                    let join = service_fn(|r| echo.clone().join(r));
                    grpc.client_streaming(join, request).await
                }
                Some("Chat") => {
                    let chat = service_fn(|r| echo.clone().chat(r));
                    grpc.streaming(chat, request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

// === client ===

/// What tonic would generate.
#[derive(Clone)]
pub(crate) struct EchoClient<T>(client::Grpc<T>);

impl<T> EchoClient<T>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<BoxError>,
{
    pub(crate) fn new(channel: T) -> Self {
        Self(client::Grpc::new(channel))
    }

    #[allow(dead_code)]
    pub(crate) fn with_origin(channel: T, origin: http::Uri) -> Self {
        Self(client::Grpc::with_origin(channel, origin))
    }

    pub(crate) async fn say(&mut self, message: Bytes) -> Result<Bytes, Status> {
        self.say_with(Request::new(message)).await
    }

    pub(crate) async fn say_with(&mut self, request: Request<Bytes>) -> Result<Bytes, Status> {
        let grpc = self.ready().await?;
        Ok(grpc.unary(request, path("Say"), Raw).await?.into_inner())
    }

    pub(crate) async fn split(&mut self, message: Bytes) -> Result<Streaming<Bytes>, Status> {
        let grpc = self.ready().await?;
        let response = grpc.server_streaming(Request::new(message), path("Split"), Raw);
        Ok(response.await?.into_inner())
    }

    pub(crate) async fn join(
        &mut self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Bytes, Status> {
        let grpc = self.ready().await?;
        let response = grpc.client_streaming(Request::new(messages), path("Join"), Raw);
        Ok(response.await?.into_inner())
    }

    pub(crate) async fn chat(
        &mut self,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        let grpc = self.ready().await?;
        let response = grpc.streaming(Request::new(messages), path("Chat"), Raw);
        Ok(response.await?.into_inner())
    }

    async fn ready(&mut self) -> Result<&mut client::Grpc<T>, Status> {
        let ready = self.0.ready().await;
        ready.map_err(|error| Status::from_error(error.into()))?;
        Ok(&mut self.0)
    }
}

fn path(method: &str) -> PathAndQuery {
    let path = format!("/demo.Echo/{method}");
    PathAndQuery::try_from(path).expect("a method's name makes a path")
}
