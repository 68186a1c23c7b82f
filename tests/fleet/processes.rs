//! F2 with fifty processes of the operating system. Covers from elsewhere: a stampede across replicas
//! (dotnet/extensions #6759).

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::{
    redis_server::{self, RedisServer, folder},
    symbl::Symbl,
    worker::{Seen, Worker},
};

/// A cold start of fifty, and a revocation while all of them send.
pub fn cold_start_and_revocation(store: &str) {
    let symbl = Symbl::start();
    symbl.issued().delay = Duration::from_millis(500);
    let mut workers: Vec<_> = (0..50).map(|_| Worker::start(&symbl, store)).collect();
    workers.iter_mut().for_each(Worker::go);
    workers.iter_mut().for_each(Worker::new_token);
    assert_eq!(symbl.token_requests(), 1, "at the cold start");

    symbl.revoke();
    workers.iter_mut().for_each(Worker::new_token);
    let seen: Vec<_> = workers.into_iter().map(Worker::stop).collect();
    assert_eq!(symbl.token_requests(), 2, "after the revocation");
    for Seen {
        refused, failed, ..
    } in seen
    {
        assert_eq!((refused, failed), (0, 0));
    }
}

#[test]
fn fifty_processes_with_redis_make_one_token_request_and_one_after_a_revocation() {
    if redis_server::is_missing() {
        return;
    }
    cold_start_and_revocation(&RedisServer::start().url());
}

#[test]
fn fifty_processes_with_a_file_make_one_token_request_and_one_after_a_revocation() {
    let folder = folder();
    cold_start_and_revocation(folder.join("token").to_str().unwrap());
    std::fs::remove_dir_all(folder).unwrap();
}

/// Ten wait for one that is killed while it fetches.
fn holder_is_killed(store: &str) -> Duration {
    let symbl = Symbl::start();
    let (tell, told) = mpsc::channel();
    symbl.issued().hangs = Some(tell);
    let mut holder = Worker::start(&symbl, store);
    holder.go();
    told.recv().unwrap();
    let mut workers: Vec<_> = (0..10).map(|_| Worker::start(&symbl, store)).collect();
    workers.iter_mut().for_each(Worker::go);
    holder.kill();
    let start = Instant::now();
    workers.iter_mut().for_each(Worker::new_token);
    let took = start.elapsed();
    for Seen {
        refused, failed, ..
    } in workers.into_iter().map(Worker::stop)
    {
        assert_eq!((refused, failed), (0, 0));
    }
    assert_eq!(
        symbl.token_requests(),
        2,
        "that of the dead one, and one more"
    );
    took
}

#[test]
fn with_redis_a_holder_that_is_killed_is_replaced_by_one_within_its_leases_time() {
    if redis_server::is_missing() {
        return;
    }
    let took = holder_is_killed(&RedisServer::start().url());
    assert!(took < Duration::from_secs(28), "{took:?}");
}

#[test]
fn with_a_file_a_holder_that_is_killed_is_replaced_at_once() {
    let folder = folder();
    let took = holder_is_killed(folder.join("token").to_str().unwrap());
    assert!(took < Duration::from_secs(5), "{took:?}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_process_that_starts_later_makes_no_token_request() {
    if redis_server::is_missing() {
        return;
    }
    let (symbl, redis) = (Symbl::start(), RedisServer::start());
    for _ in 0..3 {
        let mut worker = Worker::start(&symbl, &redis.url());
        worker.go();
        worker.new_token();
        worker.stop();
    }
    assert_eq!((symbl.token_requests(), symbl.issued().refused), (1, 0));
}
