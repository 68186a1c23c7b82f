//! A Redis Cluster of three nodes.

use std::time::Duration;

use tower_symbl_auth::store::TokenStore;

use crate::{
    contract,
    processes::cold_start_and_revocation,
    redis_server::{self, RedisServer},
    symbl::Symbl,
    worker::{Worker, cluster},
};

const SLOTS: u32 = 16_384;

/// Nodes that know each other and have a third of the slots each.
fn nodes() -> [RedisServer; 3] {
    let nodes = [(); 3].map(|()| {
        RedisServer::with(&["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"])
    });
    for (number, node) in (0_u32..).zip(&nodes) {
        let (from, to) = (SLOTS * number / 3, SLOTS * (number + 1) / 3 - 1);
        node.tell(&format!("CLUSTER ADDSLOTSRANGE {from} {to}"));
        node.tell(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1));
    }
    for other in &nodes[1..] {
        nodes[0].tell(&format!("CLUSTER MEET 127.0.0.1 {}", other.port));
    }
    for node in &nodes {
        while !node
            .ask::<String>("CLUSTER INFO")
            .unwrap()
            .contains("cluster_state:ok")
        {
            std::thread::yield_now();
        }
    }
    nodes
}

fn urls(nodes: &[RedisServer]) -> String {
    let urls: Vec<_> = nodes.iter().map(RedisServer::url).collect();
    urls.join(",")
}

#[tokio::test]
async fn a_cluster_is_a_store() {
    if redis_server::is_missing() {
        return;
    }
    let nodes = nodes();
    let urls = urls(&nodes);
    let store = cluster(urls.split(',')).await;
    contract::check(&store, async || {
        tokio::time::sleep(Duration::from_millis(350)).await
    })
    .await;
    // Keys of all nodes.
    for number in 0..30 {
        let key = format!("key{number}");
        assert!(
            store
                .lease(&key, "me", Duration::from_secs(60))
                .await
                .unwrap()
        );
    }
    for node in &nodes {
        assert!(node.ask::<u64>("DBSIZE").unwrap() > 0);
    }
}

#[test]
fn fifty_processes_with_a_cluster_make_one_token_request_and_one_after_a_revocation() {
    if redis_server::is_missing() {
        return;
    }
    cold_start_and_revocation(&urls(&nodes()));
}

#[test]
fn whichever_node_is_killed_no_request_fails() {
    if redis_server::is_missing() {
        return;
    }
    let symbl = Symbl::start();
    for killed in 0..3 {
        let mut nodes = nodes();
        let urls = urls(&nodes);
        let mut workers: Vec<_> = (0..5).map(|_| Worker::start(&symbl, &urls)).collect();
        workers.iter_mut().for_each(Worker::go);
        workers.iter_mut().for_each(Worker::new_token);
        nodes[killed].stop();
        let before = symbl.token_requests();
        symbl.revoke();
        workers.iter_mut().for_each(Worker::new_token);
        let requests = symbl.token_requests() - before;
        assert!((1..=5).contains(&requests), "{requests}");
        for seen in workers.into_iter().map(Worker::stop) {
            assert_eq!((seen.refused, seen.failed), (0, 0));
        }
    }
}
