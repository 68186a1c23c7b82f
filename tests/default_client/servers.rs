//! A token endpoint with or without TLS that answers each connection with the next of its replies, and a
//! proxy that is asked to `CONNECT`.

use std::{
    mem,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{CipherSuite, ServerConfig};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::identity::Identity;

pub const TOKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\n{\"accessToken\":\"t0ken\",\"expiresIn\":86400.0}";

/// What a client must trust, in a file of its own.
pub struct Root(PathBuf);

impl Root {
    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[derive(Clone)]
pub struct Endpoint {
    port: u16,
    replies: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    suites: Arc<Mutex<Vec<CipherSuite>>>,
}

impl Endpoint {
    /// Plain; it gives these replies, and then tokens.
    pub async fn plain(replies: &[&str]) -> Self {
        let (endpoint, listener) = Self::new(replies).await;
        let this = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(this.clone().answer(stream));
            }
        });
        endpoint
    }

    /// With a certificate for `localhost` and `127.0.0.1` by a root of its own.
    pub async fn tls() -> (Self, Root) {
        let own = Identity::new();
        let endpoint = Self::over_tls(own.server()).await;
        let root = std::env::temp_dir().join(format!(
            "tower-symbl-auth-{}-{}.pem",
            std::process::id(),
            endpoint.port
        ));
        let pem = BASE64_STANDARD.encode(&own.certificate);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n");
        std::fs::write(&root, pem).unwrap();
        (endpoint, Root(root))
    }

    /// Of that identity; it wants a certificate that this client has.
    pub async fn mutual_tls(own: &Identity, client: &Identity) -> Self {
        Self::over_tls(own.server_for(client)).await
    }

    async fn over_tls(config: ServerConfig) -> Self {
        let (endpoint, listener) = Self::new(&[]).await;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let this = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (this, acceptor) = (this.clone(), acceptor.clone());
                tokio::spawn(async move {
                    // A client that does not trust it hangs up.
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
                    this.suites.lock().unwrap().push(suite.suite());
                    this.answer(stream).await;
                });
            }
        });
        endpoint
    }

    async fn new(replies: &[&str]) -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let replies = replies.iter().rev().map(|&reply| reply.to_owned());
        let endpoint = Self {
            port: listener.local_addr().unwrap().port(),
            replies: Arc::new(Mutex::new(replies.collect())),
            connections: Arc::default(),
            closed: Arc::default(),
            suites: Arc::default(),
        };
        (endpoint, listener)
    }

    /// One reply, and then nothing until the client hangs up.
    async fn answer(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let head = read_head(&mut stream).await;
        assert!(head.contains("user-agent: tower-symbl-auth/"), "{head}");
        let reply = self.replies.lock().unwrap().pop();
        let reply = reply.unwrap_or_else(|| TOKEN.to_owned());
        stream.write_all(reply.as_bytes()).await.unwrap();
        // A reply that tells of more than there is breaks off here.
        if !reply.contains("content-length: 999") {
            while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
        }
        let _ = stream.shutdown().await;
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    pub fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}/oauth2/token:generate", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many connections have ended.
    pub fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }

    pub fn suites(&self) -> Vec<CipherSuite> {
        self.suites.lock().unwrap().clone()
    }
}

/// What a proxy does when it is asked to `CONNECT`.
#[derive(Clone, Copy)]
pub enum Manner {
    Connect,
    /// Answers with this and hangs up.
    Say(&'static str),
    Hang,
}

/// A proxy, and the heads of the requests that it was sent.
pub struct Proxy {
    pub port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let head = read_head(&mut stream).await;
                    seen.lock().unwrap().push(head.clone());
                    match manner {
                        Manner::Connect => tunnel(stream, &head).await,
                        Manner::Say(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                        Manner::Hang => std::future::pending().await,
                    }
                });
            }
        });
        Self { port, heads }
    }

    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn tunnel(mut stream: TcpStream, head: &str) {
    let target = head.strip_prefix("CONNECT ").unwrap();
    let target = target.split(' ').next().unwrap();
    let mut server = TcpStream::connect(target).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut server).await;
}

/// A request's head, in lower case but for its first line.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// An address where nobody listens, and nobody else ever will.
pub fn silent() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    mem::forget(socket);
    address
}
