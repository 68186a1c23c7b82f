//! A request's own timeout bounds the reading of its answer as well.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use futures::{FutureExt, future::join};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, advance},
};

use crate::{
    clock::{self, soon, until},
    slow_tokens, with,
};

const SECOND: Duration = Duration::from_secs(1);

/// Begins to answer, but never ends, except for a 401 to the tokens that it refuses.
async fn stalling(refused: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(stall(stream, refused));
        }
    });
    address
}

async fn stall(mut stream: TcpStream, refused: &'static str) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            let is_refused = String::from_utf8_lossy(&head).contains(refused);
            let answer = match is_refused {
                true => "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
                false => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegun",
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            head.clear();
        }
    }
}

/// Sends a request with a timeout of a second, of which another token takes as much as told, and reads its answer.
async fn reading_is_cut_off_after_a_second(refused: &'static str, fetch: Duration) {
    let _clock = clock::hold();
    let server = stalling(refused).await;
    let (tokens, fetches) = slow_tokens(fetch);
    let layer = tokens.origins([format!("http://{server}").parse().unwrap()]);
    let layer = layer.build();
    layer.token().await.unwrap();
    let begun = Instant::now();
    let request = with(layer).get(format!("http://{server}/")).timeout(SECOND);
    let passes = async {
        if !fetch.is_zero() {
            until(|| fetches.load(Ordering::Relaxed) == 2).await;
            advance(fetch).await;
        }
    };
    let (response, ()) = soon(join(request.send(), passes)).await;
    let response = response.unwrap();
    assert_eq!((response.status().as_u16(), begun.elapsed()), (200, fetch));

    let read = response.text().map(|read| (read, begun.elapsed()));
    let passes = async {
        let almost = SECOND / 1000;
        advance(SECOND - fetch - almost).await;
        advance(almost).await;
    };
    let ((read, when), ()) = soon(join(read, passes)).await;
    assert!(read.as_ref().unwrap_err().is_timeout(), "{read:?}");
    assert_eq!(when, SECOND);
}

#[tokio::test(start_paused = true)]
async fn reading_an_answer_ends_with_the_requests_timeout() {
    reading_is_cut_off_after_a_second("nothing", Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn reading_the_second_attempts_answer_ends_with_the_timeout_of_the_request() {
    reading_is_cut_off_after_a_second("token-1", 3 * SECOND / 10).await;
}
