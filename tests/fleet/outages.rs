//! F3 with real servers: whatever happens to Redis under load, no request fails, and each process makes one
//! token request more at most. After 10 s the store is used again.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::task::JoinHandle;
use tower_symbl_auth::{SymblAuthLayer, store::RedisStore};

use crate::{
    proxy::{Behaviour, Proxy},
    redis_server::{self, RedisServer},
    symbl::Symbl,
    worker::request,
};

const PROCESSES: usize = 5;
/// How long a store in trouble is left alone, and somewhat more.
const OFF: Duration = Duration::from_millis(11_500);

/// Layers with a connection of their own each, under load.
struct Fleet {
    symbl: Symbl,
    layers: Vec<SymblAuthLayer>,
    stop: Arc<AtomicBool>,
    bad: Arc<AtomicUsize>,
    load: Vec<JoinHandle<()>>,
    /// How many requests each has sent.
    sent: Vec<Arc<AtomicUsize>>,
}

impl Fleet {
    async fn start(url: &str) -> Self {
        let mut fleet = Self {
            symbl: Symbl::start(),
            layers: Vec::new(),
            stop: Arc::default(),
            bad: Arc::default(),
            load: Vec::new(),
            sent: Vec::new(),
        };
        for _ in 0..PROCESSES {
            let layer = fleet.process(url).await;
            fleet.add(layer);
        }
        fleet.all_have_the_token().await;
        assert_eq!(fleet.symbl.token_requests(), 1);
        fleet
    }

    async fn process(&self, url: &str) -> SymblAuthLayer {
        let origin = self.symbl.origin();
        let key = Symbl::fetch(&origin).sealing_key();
        let store = RedisStore::connect(url).await.unwrap();
        Symbl::builder(&origin).store(store, key).build()
    }

    fn add(&mut self, layer: SymblAuthLayer) {
        self.layers.push(layer.clone());
        let (stop, bad) = (Arc::clone(&self.stop), Arc::clone(&self.bad));
        let sent: Arc<AtomicUsize> = Arc::default();
        self.sent.push(Arc::clone(&sent));
        let origin = self.symbl.origin();
        self.load.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = request(&layer, &origin).await;
                if !matches!(answer, Ok(StatusCode::OK)) {
                    eprintln!("a request came back with {answer:?}");
                    bad.fetch_add(1, Ordering::Relaxed);
                }
                sent.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }

    /// Until each has a token that the API accepts.
    async fn all_have_the_token(&self) {
        for layer in &self.layers {
            loop {
                let token = layer.token().await.unwrap();
                if self.symbl.accepts(&token) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        // What was refused is sent again once: were that token revoked on its way, nothing could mend it.
        for sent in &self.sent {
            let before = sent.load(Ordering::Relaxed);
            while sent.load(Ordering::Relaxed) < before + 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// How many token requests a revocation costs.
    async fn revocation(&self) -> usize {
        let before = self.symbl.token_requests();
        self.symbl.revoke();
        self.all_have_the_token().await;
        self.symbl.token_requests() - before
    }

    /// How many requests were refused or failed.
    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for load in self.load {
            load.await.unwrap();
        }
        self.bad.load(Ordering::Relaxed)
    }
}

/// A revocation before, during and after an outage.
async fn outage(url: &str, begin: impl FnOnce(), end: impl FnOnce()) {
    let fleet = Fleet::start(url).await;
    assert_eq!(fleet.revocation().await, 1, "before");
    begin();
    let during = fleet.revocation().await;
    assert!(
        (1..=PROCESSES).contains(&during),
        "{during} during the outage"
    );
    end();
    tokio::time::sleep(OFF).await;
    // Each may still have to find out that its connection is gone, and that its token is an older one.
    let after = fleet.revocation().await;
    assert!(after <= PROCESSES, "{after} after the outage");
    assert_eq!(fleet.revocation().await, 1, "once all are together again");
    assert_eq!(fleet.stop().await, 0, "requests were refused or failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_and_comes_back_empty() {
    if redis_server::is_missing() {
        return;
    }
    let server = std::cell::RefCell::new(RedisServer::start());
    let url = server.borrow().url();
    outage(
        &url,
        || server.borrow_mut().stop(),
        || server.borrow_mut().restart(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_paused_for_thirty_seconds() {
    if redis_server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    let begin = || server.tell("CLIENT PAUSE 30000 ALL");
    // It takes no command before the 30 s are over.
    outage(&server.url(), begin, || server.tell("PING")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_cuts_connections_in_the_midst_of_replies() {
    if redis_server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    for bytes in [1, 30, 150] {
        let proxy = Proxy::start(server.port).await;
        let begin = || proxy.now(Behaviour::CutsAfter(server.port, bytes));
        let end = || proxy.now(Behaviour::To(server.port));
        outage(&proxy.url(), begin, end).await;
        server.tell("FLUSHALL");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_flushed() {
    if redis_server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    let fleet = Fleet::start(&server.url()).await;
    for _ in 0..5 {
        server.tell("FLUSHALL");
        assert_eq!(fleet.revocation().await, 1);
    }
    assert_eq!(fleet.stop().await, 0, "requests were refused or failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_restored_from_an_older_snapshot() {
    if redis_server::is_missing() {
        return;
    }
    let mut server = RedisServer::start();
    let mut fleet = Fleet::start(&server.url()).await;
    server.tell("SAVE");
    let snapshot = server.folder().join("dump.rdb");
    let older = fs::read(&snapshot).unwrap();
    for _ in 0..3 {
        assert_eq!(fleet.revocation().await, 1);
    }
    server.stop();
    fs::write(&snapshot, older).unwrap();
    server.restart();
    // A process that knows no better takes the old token, meets a 401, and catches up.
    let before = fleet.symbl.token_requests();
    let cold = fleet.process(&server.url()).await;
    fleet.add(cold);
    fleet.all_have_the_token().await;
    assert!(fleet.symbl.token_requests() - before <= 1);
    let catching_up = fleet.revocation().await;
    assert!(catching_up <= 2, "{catching_up}");
    assert_eq!(fleet.revocation().await, 1);
    assert_eq!(fleet.stop().await, 0, "requests were refused or failed");
}
