//! What becomes of a connection's reads and writes.

use std::{
    future::poll_fn,
    io::{self, Error, ErrorKind, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::time::Instant;
use tower_symbl_auth::integrations::EarlyResponseIo;

use super::*;

/// A connection whose writes fail, each with an error of its own, and whose reads bring one answer.
struct Failing {
    kind: ErrorKind,
    writes: Arc<AtomicUsize>,
    answer: &'static [u8],
}

impl Failing {
    fn fail<T>(&self, what: &str) -> Poll<io::Result<T>> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        Poll::Ready(Err(Error::new(self.kind, format!("{what} {number}"))))
    }
}

impl Write for Failing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.fail("write")
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.fail("vectored write")
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fail("flush")
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fail("shutdown")
    }
}

impl Read for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.answer.is_empty() {
            return Poll::Pending; // for ever
        }
        buffer.put_slice(self.answer);
        self.answer = b"";
        Poll::Ready(Ok(()))
    }
}

impl Connection for Failing {
    fn connected(&self) -> Connected {
        Connected::new().proxy(true)
    }
}

async fn failing(kind: ErrorKind) -> (EarlyResponseIo<Failing>, Arc<AtomicUsize>) {
    let writes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&writes);
    let connector = tower::service_fn(move |()| {
        let writes = Arc::clone(&count);
        let answer = b"HTTP/1.1 401";
        std::future::ready(Ok::<_, Infallible>(Failing {
            kind,
            writes,
            answer,
        }))
    });
    let connection = EarlyResponse::new(connector).oneshot(()).await.unwrap();
    (connection, writes)
}

async fn write(io: &mut EarlyResponseIo<Failing>) -> String {
    let mut io = pin!(io);
    let error = poll_fn(|cx| io.as_mut().poll_write(cx, b"upload")).await;
    error.unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_since_the_peer_hung_up_waits_five_seconds_and_then_tells_its_own_error()
{
    for kind in [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset] {
        let (mut io, writes) = failing(kind).await;
        let begun = Instant::now();
        assert_eq!(write(&mut io).await, "write 1");
        assert_eq!(begun.elapsed().as_secs(), 5);
        // Not another five, and the connection is not written to again.
        let mut io = pin!(io);
        let error = poll_fn(|cx| io.as_mut().poll_flush(cx)).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(begun.elapsed().as_secs(), 5);
        assert_eq!(writes.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_sent_is_read_while_a_write_waits() {
    let (mut io, _) = failing(ErrorKind::BrokenPipe).await;
    let mut io = pin!(&mut io);
    let mut memory = [0; 64];
    poll_fn(|cx| {
        assert!(io.as_mut().poll_write(cx, b"upload").is_pending());
        let slices = [IoSlice::new(b"upload")];
        assert!(io.as_mut().poll_write_vectored(cx, &slices).is_pending());
        assert!(io.as_mut().poll_flush(cx).is_pending());
        let mut buffer = ReadBuf::new(&mut memory);
        assert!(io.as_mut().poll_read(cx, buffer.unfilled()).is_ready());
        assert_eq!(buffer.filled(), b"HTTP/1.1 401");
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn flushes_and_vectored_writes_wait_too_and_shutdowns_and_other_errors_do_not() {
    let begun = Instant::now();
    let (mut io, _) = failing(ErrorKind::BrokenPipe).await;
    let mut io = pin!(&mut io);
    let error = poll_fn(|cx| io.as_mut().poll_shutdown(cx)).await;
    assert_eq!(error.unwrap_err().to_string(), "shutdown 1");
    assert_eq!(begun.elapsed().as_secs(), 0);
    let slices = [IoSlice::new(b"upload")];
    let error = poll_fn(|cx| io.as_mut().poll_write_vectored(cx, &slices)).await;
    assert_eq!(error.unwrap_err().to_string(), "vectored write 2");
    assert_eq!(begun.elapsed().as_secs(), 5);

    let (mut io, _) = failing(ErrorKind::BrokenPipe).await;
    let mut io = pin!(&mut io);
    let error = poll_fn(|cx| io.as_mut().poll_flush(cx)).await;
    assert_eq!(error.unwrap_err().to_string(), "flush 1");
    assert_eq!(begun.elapsed().as_secs(), 10);

    let (mut io, _) = failing(ErrorKind::TimedOut).await;
    assert_eq!(write(&mut io).await, "write 1");
    assert_eq!(write(&mut io).await, "write 2");
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn what_the_connection_says_of_itself_is_handed_on() {
    let (io, _) = failing(ErrorKind::BrokenPipe).await;
    assert!(io.is_write_vectored());
    assert!(io.connected().is_proxied());
}

#[test]
fn without_a_timer_the_error_is_told_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        let (mut io, _) = failing(ErrorKind::BrokenPipe).await;
        assert_eq!(write(&mut io).await, "write 1");
    });
}
