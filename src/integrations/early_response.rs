//! A connection that reads what the server answered before it hung up. Feature `client`.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{TryFutureExt, future::MapOk};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::Service;
use tower_layer::Layer;

use crate::rt;

/// How long a write that failed waits for the answer to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Around a connector of hyper-util's client: when an HTTP/1.1 server answers an upload early and hangs up, its
/// answer is read.
///
/// Many gateways refuse a request by its head, and close the connection on a body that they have not
/// read. The client's next write fails then, with a broken pipe or a reset, and hyper gives up, although
/// the 401 is there to be read. Of uploads of 8 MiB that HAProxy 2.6 denied on loopback, half and more were lost.
/// With this, such a write waits while the answer is read: until the connection ends, or for five seconds, after
/// which it fails as it would have. So a token that was refused like this is replaced, and the upload
/// sent again, as after any other 401:
///
/// ```
/// # #[cfg(feature = "mock")] {
/// use hyper_util::{client::legacy::{Client, connect::HttpConnector}, rt::TokioExecutor};
/// use tower::{Layer, ServiceExt};
/// use tower_symbl_auth::integrations::EarlyResponse;
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let symbl = tower_symbl_auth::mock::MockSymbl::start().await?;
/// # let layer = symbl.layer();
///
/// let connector = EarlyResponse::new(HttpConnector::new()); // or around that of hyper-rustls
/// let client = layer.layer(Client::builder(TokioExecutor::new()).build(connector));
/// # let upload = http::Request::post(symbl.url("/v1/process/audio")).body(Full::<Bytes>::from("la"))?;
/// # assert_eq!(client.oneshot(upload).await?.status(), 201);
/// # Ok::<(), tower::BoxError>(()) }).unwrap();
/// # }
/// ```
///
/// It works inside of TLS, next to the socket, and outside.
///
/// # What it does not heal
///
/// - An answer that the server never sent. A kernel drops what it still holds when a connection is
///   closed on unread data; servers that set `TCP_NODELAY`, as most do, have sent it by then.
/// - An answer that is left unread for five seconds after the server hung up: the rest of its body is
///   lost. The layer holds a short 401 for longer while a token is slow to come; if none comes, the 401 that is handed back
///   has its status and headers, but perhaps no body.
/// - HAProxy over HTTP/2. It resets the stream of an upload that it denies, and 2.6.12 never gives back the
///   connection's window for what came after (64 KiB in all). Later uploads on that connection
///   may hang then, the one that is sent again among them; with hyper's client alone 4 of 4 at once did. Requests
///   without bodies go on. Bodies that HAProxy has received whole when it denies them are not affected.
///   So to HAProxy send uploads over HTTP/1.1 and with this; or put a timeout around them.
/// - reqwest. Its `connector_layer` takes layers that hand on its own sealed connection type, which cannot be
///   wrapped. There prefer HTTP/2, where a denial ends one stream and not the connection.
#[derive(Debug, Clone, Copy)]
pub struct EarlyResponse<C> {
    connector: C,
}

impl<C> EarlyResponse<C> {
    /// Around that connector.
    pub fn new(connector: C) -> Self {
        Self { connector }
    }
}

/// Makes an [`EarlyResponse`] of a connector.
///
/// ```
/// use hyper_util::client::legacy::connect::HttpConnector;
/// use tower::ServiceBuilder;
/// use tower_symbl_auth::integrations::{EarlyResponse, EarlyResponseLayer};
///
/// let connector: EarlyResponse<HttpConnector> = ServiceBuilder::new()
///     .layer(EarlyResponseLayer::new())
///     .service(HttpConnector::new());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct EarlyResponseLayer;

impl EarlyResponseLayer {
    /// The layer. There is nothing to set.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl<C> Layer<C> for EarlyResponseLayer {
    type Service = EarlyResponse<C>;

    fn layer(&self, connector: C) -> EarlyResponse<C> {
        EarlyResponse::new(connector)
    }
}

impl<C, Target> Service<Target> for EarlyResponse<C>
where
    C: Service<Target>,
{
    type Response = EarlyResponseIo<C::Response>;
    type Error = C::Error;
    type Future = MapOk<C::Future, fn(C::Response) -> EarlyResponseIo<C::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, target: Target) -> Self::Future {
        self.connector.call(target).map_ok(EarlyResponseIo::new)
    }
}

pin_project! {
    /// A connection made by [`EarlyResponse`]. Reads, and what it says of itself, are those of the connection within.
    pub struct EarlyResponseIo<T> {
        #[pin]
        io: T,
        hung_up: Option<HungUp>,
    }
}

/// The peer has hung up; what it sent before may still be there to be read.
struct HungUp {
    error: Option<io::Error>,
    /// `None` in a runtime that has no timer: there is no waiting then.
    until: Option<Pin<Box<Sleep>>>,
}

impl<T> EarlyResponseIo<T> {
    fn new(io: T) -> Self {
        Self { io, hung_up: None }
    }
}

impl HungUp {
    fn with(error: io::Error) -> Self {
        Self {
            error: Some(error),
            until: rt::sleep(PATIENCE).map(Box::pin),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(until) = &mut self.until {
            ready!(until.as_mut().poll(cx));
        }
        let error = self.error.take();
        Poll::Ready(error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }
}

/// Writes; or waits, if that finds that the peer has hung up. Who polls the connection goes on reading.
fn write_or_wait<T>(
    hung_up: &mut Option<HungUp>,
    cx: &mut Context<'_>,
    write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> Poll<io::Result<T>> {
    let hung_up = match hung_up {
        Some(hung_up) => hung_up,
        None => match write(cx) {
            Poll::Ready(Err(error)) if is_hang_up(&error) => hung_up.insert(HungUp::with(error)),
            other => return other,
        },
    };
    hung_up.poll(cx).map(Err)
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl<T: Write> Write for EarlyResponseIo<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        write_or_wait(this.hung_up, cx, |cx| this.io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        write_or_wait(this.hung_up, cx, |cx| {
            this.io.poll_write_vectored(cx, slices)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        write_or_wait(this.hung_up, cx, |cx| this.io.poll_flush(cx))
    }

    /// Waits for nothing: who shuts a connection down has read what it wanted.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

impl<T: Read> Read for EarlyResponseIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().io.poll_read(cx, buffer)
    }
}

impl<T: Connection> Connection for EarlyResponseIo<T> {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}

impl<T: fmt::Debug> fmt::Debug for EarlyResponseIo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyResponseIo")
            .field("io", &self.io)
            .field("hung_up", &self.hung_up.is_some())
            .finish()
    }
}
