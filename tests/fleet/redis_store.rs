//! F4 for Redis, and what servers do to their clients: one that is down, a wrong password, a read-only
//! replica, no memory left, a reply that takes 30 s, a failover in the midst of a lease.

use std::time::{Duration, Instant};

use http::StatusCode;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tower_symbl_auth::store::{RedisStore, TokenStore};

use crate::{
    contract,
    proxy::{Behaviour, Proxy},
    redis_server::{self, RedisServer, folder},
    symbl::Symbl,
    worker::{Worker, request},
};

const MINUTE: Duration = Duration::from_secs(60);

async fn store(server: &RedisServer) -> RedisStore {
    RedisStore::connect(server.url()).await.unwrap()
}

/// A request through a layer with that store, which is served by a direct fetch before long.
async fn is_served_without(store: RedisStore) {
    let symbl = Symbl::start();
    let key = Symbl::fetch(&symbl.origin()).sealing_key();
    let layer = Symbl::builder(&symbl.origin()).store(store, key).build();
    let start = Instant::now();
    let status = request(&layer, &symbl.origin()).await.unwrap();
    assert_eq!((status, symbl.token_requests()), (StatusCode::OK, 1));
    assert!(
        start.elapsed() < 3 * Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

async fn lease_error(store: &RedisStore) -> String {
    let leased = store.lease("key", "me", MINUTE).await;
    leased.expect_err("it works").to_string()
}

#[tokio::test]
async fn a_redis_server_is_a_store() {
    if redis_server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    let pass = async || tokio::time::sleep(Duration::from_millis(350)).await;
    contract::check(&store(&server).await, pass).await;
}

#[tokio::test]
async fn its_entries_are_in_one_hash_slot_behind_the_prefix_and_end() {
    if redis_server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    for (store, prefix) in [
        (store(&server).await, "symbl-auth:"),
        (store(&server).await.prefix("staging:"), "staging:"),
    ] {
        assert!(store.lease("key", "me", MINUTE).await.unwrap());
        assert!(
            store
                .save("key", "me", "sealed".into(), MINUTE)
                .await
                .unwrap()
        );
        let (token, lease) = (format!("{prefix}{{key}}"), format!("{prefix}{{key}}:lease"));
        for name in [&token, &lease] {
            let left: i64 = server.ask(&format!("PTTL {name}")).unwrap();
            assert!((55_000..=60_000).contains(&left), "{name}: {left}");
        }
        assert_eq!(
            server.ask::<String>(&format!("GET {token}")).unwrap(),
            "sealed"
        );
        assert_eq!(server.ask::<String>(&format!("GET {lease}")).unwrap(), "me");
    }
    assert_eq!(server.ask::<u64>("DBSIZE").unwrap(), 4);
}

#[tokio::test]
async fn an_entry_of_somebody_elses_without_a_time_to_live_is_a_miss_and_replaced() {
    if redis_server::is_missing() {
        return;
    }
    let (server, key) = (RedisServer::start(), "symbl-auth:{key}");
    server.tell(&format!("SET {key} foreign"));
    let store = store(&server).await;
    assert_eq!(store.load("key").await.unwrap(), None);
    assert!(store.lease("key", "me", MINUTE).await.unwrap());
    assert!(
        store
            .save("key", "me", "sealed".into(), MINUTE)
            .await
            .unwrap()
    );
    assert_eq!(store.load("key").await.unwrap().unwrap().bytes, "sealed");

    server.tell(&format!("DEL {key}"));
    server.tell(&format!("RPUSH {key} a list"));
    let error = store.load("key").await.unwrap_err().to_string();
    assert!(error.contains("WRONGTYPE"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_used_once_it_is_up() {
    if redis_server::is_missing() {
        return;
    }
    let mut server = RedisServer::start();
    server.stop();
    let store = store(&server).await;
    is_served_without(store.clone()).await;
    lease_error(&store).await;
    server.restart();
    assert!(store.lease("key", "me", MINUTE).await.unwrap());
}

#[tokio::test]
async fn a_connection_that_was_cut_while_it_was_idle_is_made_again_without_an_error() {
    if redis_server::is_missing() {
        return;
    }
    let mut server = RedisServer::start();
    let store = store(&server).await;
    assert!(store.lease("key", "me", MINUTE).await.unwrap());
    for _ in 0..3 {
        server.tell("CLIENT KILL TYPE normal");
        assert!(store.lease("key", "me", MINUTE).await.unwrap());
    }
    server.restart();
    assert!(store.lease("key", "other", MINUTE).await.unwrap());
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it_and_corrected_without_a_restart() {
    if redis_server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    let url = format!("redis://:wr0ng@127.0.0.1:{}", server.port);
    server.tell("CONFIG SET requirepass right");
    let store = RedisStore::connect(url).await.unwrap();
    is_served_without(store.clone()).await;
    let error = lease_error(&store).await;
    assert!(
        !error.contains("wr0ng") && !format!("{store:?}").contains("wr0ng"),
        "{error}"
    );
    let client = redis::Client::open(format!("redis://:right@127.0.0.1:{}", server.port)).unwrap();
    let mut corrected = redis::cmd("CONFIG");
    corrected.arg("SET").arg("requirepass").arg("wr0ng");
    corrected
        .exec(&mut client.get_connection().unwrap())
        .unwrap();
    assert!(store.lease("key", "me", MINUTE).await.unwrap());
}

#[tokio::test]
async fn a_read_only_replica_is_told_and_used_once_it_is_promoted() {
    if redis_server::is_missing() {
        return;
    }
    let (primary, replica) = (RedisServer::start(), RedisServer::start());
    replica.tell(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    let store = store(&replica).await;
    is_served_without(store.clone()).await;
    let error = lease_error(&store).await;
    assert!(error.to_lowercase().contains("read only"), "{error}");
    replica.tell("REPLICAOF NO ONE");
    assert!(store.lease("key", "me", MINUTE).await.unwrap());
}

#[tokio::test]
async fn a_server_without_memory_is_told() {
    if redis_server::is_missing() {
        return;
    }
    let server = RedisServer::with(&["--maxmemory", "1"]);
    let store = store(&server).await;
    let error = lease_error(&store).await;
    assert!(error.contains("OOM"), "{error}");
    is_served_without(store).await;
}

#[tokio::test]
async fn a_reply_that_takes_thirty_seconds_is_not_waited_for() {
    if redis_server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    let store = store(&server).await;
    store.load("key").await.unwrap();
    server.tell("CLIENT PAUSE 30000 ALL");
    is_served_without(store).await;
}

#[tokio::test]
async fn a_server_that_takes_connections_and_says_nothing_is_not_waited_for() {
    let proxy = Proxy::start(0).await;
    proxy.now(Behaviour::Silent);
    is_served_without(RedisStore::connect(proxy.url()).await.unwrap()).await;
}

#[tokio::test]
async fn a_failover_in_the_midst_of_a_lease_loses_the_lease_and_nothing_else() {
    if redis_server::is_missing() {
        return;
    }
    let (primary, promoted) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(primary.port).await;
    let store = RedisStore::connect(proxy.url()).await.unwrap();
    assert!(store.lease("key", "me", MINUTE).await.unwrap());
    // The lease had not reached the replica yet.
    proxy.now(Behaviour::To(promoted.port));
    assert!(
        !store
            .save("key", "me", "sealed".into(), MINUTE)
            .await
            .unwrap()
    );
    store.release("key", "me").await.unwrap();
    assert!(store.lease("key", "next", MINUTE).await.unwrap());
    assert!(
        store
            .save("key", "next", "sealed".into(), MINUTE)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_url_that_is_none_is_an_error_at_once() {
    for url in [
        "",
        "127.0.0.1",
        "http://127.0.0.1:6379",
        "redis://127.0.0.1:6379/zero",
    ] {
        assert!(RedisStore::connect(url).await.is_err(), "{url}");
    }
}

#[test]
fn with_tls_the_token_is_shared_as_well() {
    if redis_server::is_missing() {
        return;
    }
    let folder = folder();
    let issuer_key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(parameters, issuer_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name).to_str().unwrap().to_owned()
    };
    let roots = write("roots.pem", issuer.pem());
    let certificate = write("certificate.pem", certificate.pem());
    let key = write("key.pem", key.serialize_pem());

    // A port for TLS besides, since tests ask the other one.
    let port = RedisServer::start().port;
    let _server = RedisServer::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &roots,
        "--tls-auth-clients",
        "no",
    ]);
    let symbl = Symbl::start();
    let url = format!("rediss://localhost:{port}");
    for _ in 0..2 {
        let mut worker = Worker::with(&symbl, &url, &[("SSL_CERT_FILE", &roots)]);
        worker.go();
        worker.new_token();
        worker.stop();
    }
    assert_eq!(symbl.token_requests(), 1);

    // Nobody vouches for the certificate: no token, and no app secret, goes there.
    let mut worker = Worker::start(&symbl, &url);
    worker.go();
    worker.new_token();
    worker.stop();
    assert_eq!(symbl.token_requests(), 2);
    std::fs::remove_dir_all(folder).unwrap();
}
