//! The token endpoint: 20 ms a fetch, tokens numbered from one, each good for a day; in process, and over
//! loopback for those peers that bring their own HTTP client.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::common::token;

pub const FETCH: Duration = Duration::from_millis(20);
pub const LIFETIME: Duration = Duration::from_secs(86_400);

#[derive(Clone, Default, Debug)]
pub struct Endpoint {
    fetches: Arc<AtomicUsize>,
    revoked: Arc<AtomicUsize>,
    failing: bool,
}

impl Endpoint {
    pub fn new(failing: bool) -> Self {
        Self {
            failing,
            ..Self::default()
        }
    }

    pub async fn fetch(&self) -> Result<String, &'static str> {
        let number = self.fetches.fetch_add(1, SeqCst) + 1;
        tokio::time::sleep(FETCH).await;
        if self.failing {
            return Err("the endpoint is out of order");
        }
        Ok(token(number))
    }

    pub fn fetches(&self) -> usize {
        self.fetches.load(SeqCst)
    }

    /// Revokes all tokens there have been.
    pub fn revoke(&self) {
        self.revoked.store(self.fetches(), SeqCst);
    }

    pub fn accepts(&self, number: usize) -> bool {
        number > self.revoked.load(SeqCst)
    }

    /// Serves OAuth's answer to any request, on as many connections as there come.
    pub async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let endpoint = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(endpoint.clone().connection(stream));
            }
        });
        address
    }

    async fn connection(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
            while let Some(length) = request_length(&bytes) {
                bytes.drain(..length);
                let (status, body) = match self.fetch().await {
                    Ok(token) => (
                        "200 OK",
                        format!(
                            r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":86400}}"#
                        ),
                    ),
                    Err(_) => (
                        "500 Internal Server Error",
                        r#"{"error":"server_error"}"#.into(),
                    ),
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The length of the request that the bytes begin with, once it is there.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let body = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |length| length.trim().parse().expect("it is a number"));
    (bytes.len() >= head + body).then_some(head + body)
}
