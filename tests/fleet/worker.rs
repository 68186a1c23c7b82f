//! A process of the fleet: this test binary once more, told by its environment what to do.

use std::{
    env,
    io::{BufRead, BufReader, stdin},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use redis::cluster::ClusterClientBuilder;
use tokio::runtime;
use tower::{Layer, ServiceExt};
use tower_symbl_auth::{
    NotRetried, SymblAuthLayer,
    store::{FileStore, RedisStore},
};

use crate::symbl::Symbl;

/// A process with a layer of its own. It sends its first request when it is told to, and then one every
/// 50 ms until it is told to stop.
pub struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What a worker has seen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub accepted: usize,
    pub refused: usize,
    pub failed: usize,
}

impl Worker {
    /// `store` is a URL of Redis, several of a cluster, or a file's path.
    pub fn start(symbl: &Symbl, store: &str) -> Self {
        Self::with(symbl, store, &[])
    }

    pub fn with(symbl: &Symbl, store: &str, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "worker::run",
                "--ignored",
                "--nocapture",
                "--quiet",
            ])
            .env("FLEET_SYMBL", symbl.origin())
            .env("FLEET_STORE", store)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut worker = Self {
            child,
            input,
            output,
        };
        worker.told("ready");
        worker
    }

    pub fn go(&mut self) {
        use std::io::Write;
        self.input.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// Until a request has been accepted with a token that it did not have before.
    pub fn new_token(&mut self) {
        self.told("token");
    }

    /// What it has seen, when it ends.
    pub fn stop(mut self) -> Seen {
        drop(self.input.take());
        let line = self.told("seen");
        let mut counts = line
            .split(' ')
            .skip(1)
            .map(|count| count.trim().parse().unwrap());
        let mut next = || counts.next().unwrap();
        Seen {
            accepted: next(),
            refused: next(),
            failed: next(),
        }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn told(&mut self, word: &str) -> String {
        let mut line = String::new();
        while !line.starts_with(word) {
            line.clear();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "it ended before `{word}`"
            );
        }
        line
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "run by other tests, as a process of its own"]
fn run() {
    let symbl = env::var("FLEET_SYMBL").expect("only other tests run this");
    let store = env::var("FLEET_STORE").unwrap();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let layer = layer(&symbl, &store).await;
        println!("\nready");
        stdin().lock().read_line(&mut String::new()).unwrap();
        // Until its input ends.
        static STOP: AtomicBool = AtomicBool::new(false);
        std::thread::spawn(|| {
            let _ = stdin().lock().read_line(&mut String::new());
            STOP.store(true, Ordering::Relaxed);
        });
        let mut seen = Seen::default();
        let mut last = String::new();
        while !STOP.load(Ordering::Relaxed) {
            match request(&layer, &symbl).await {
                Ok(StatusCode::OK) => {
                    seen.accepted += 1;
                    let token = layer.token().await.unwrap();
                    if last != token.expose_secret() {
                        token.expose_secret().clone_into(&mut last);
                        println!("token");
                    }
                }
                Ok(_) => seen.refused += 1,
                Err(error) => {
                    eprintln!("a request failed: {error:?}");
                    seen.failed += 1;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("seen {} {} {}", seen.accepted, seen.refused, seen.failed);
    });
}

pub async fn request(layer: &SymblAuthLayer, origin: &str) -> Result<StatusCode, tower::BoxError> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(format!("{origin}/good")).body(Empty::<Bytes>::new())?;
    let response = layer.layer(client).oneshot(request).await?;
    if let Some(why) = response.extensions().get::<NotRetried>() {
        eprintln!("handed back: {why}");
    }
    Ok(response.status())
}

async fn layer(symbl: &str, store: &str) -> SymblAuthLayer {
    let builder = Symbl::builder(symbl);
    let key = Symbl::fetch(symbl).sealing_key();
    let builder = match store.split_once("://") {
        None => builder.store(FileStore::new(store), key),
        Some(_) if store.contains(',') => builder.store(cluster(store.split(',')).await, key),
        Some(_) => builder.store(RedisStore::connect(store).await.unwrap(), key),
    };
    builder.build()
}

pub async fn cluster(nodes: impl IntoIterator<Item = &str>) -> RedisStore {
    let client = ClusterClientBuilder::new(nodes)
        .connection_timeout(Duration::from_millis(500))
        .response_timeout(Duration::from_millis(500))
        .retries(1)
        .build()
        .unwrap();
    RedisStore::new(client.get_async_connection().await.unwrap())
}
