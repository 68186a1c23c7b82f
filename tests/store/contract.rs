//! What every `TokenStore` must do, this file's `check` being run on each of them. Covers F2's and F4's
//! conditions, and from elsewhere: a lease released by somebody else's `DEL` after it had run out; an old
//! fetch that writes its token over a newer one; entries without a time to live.

use std::time::Duration;

use futures::future::join_all;
use tower_symbl_auth::store::TokenStore;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

/// `pass` lets `SHORT` pass, and a little more.
pub async fn check(store: &dyn TokenStore, pass: impl AsyncFn()) {
    let load = async |key: &'static str| store.load(key).await.unwrap();
    let save = async |key: &'static str, owner: &'static str, bytes: &'static str, lives| {
        store.save(key, owner, bytes.into(), lives).await.unwrap()
    };
    let lease = async |key: &'static str, owner: &'static str, lasts| {
        store.lease(key, owner, lasts).await.unwrap()
    };
    let release = async |key: &'static str, owner: &'static str| {
        store.release(key, owner).await.unwrap();
    };

    // Nothing, and nobody.
    assert_eq!(load("a").await, None);
    release("a", "one").await;
    assert!(!save("a", "one", "x", LONG).await, "saved without a lease");
    assert_eq!(load("a").await, None);

    // A lease is one owner's, and each key's own.
    assert!(lease("a", "one", LONG).await);
    assert!(lease("a", "one", LONG).await, "refused to its own owner");
    assert!(!lease("a", "two", LONG).await, "two have a lease");
    assert!(lease("b", "two", LONG).await, "keys share a lease");
    assert!(
        !save("a", "two", "x", LONG).await,
        "saved with another's lease"
    );
    release("a", "two").await;
    assert!(!lease("a", "two", LONG).await, "released by another");
    assert!(save("a", "one", "first", LONG).await);
    assert!(save("b", "two", "other", LONG).await);
    release("a", "one").await;

    // A value outlives the lease, and tells what is left of its life.
    let stored = load("a").await.unwrap();
    assert_eq!(stored.bytes, "first");
    assert!(stored.expires_in <= LONG && stored.expires_in > LONG - SHORT);
    assert!(
        !save("a", "one", "late", LONG).await,
        "saved after its lease"
    );

    // A lease runs out, and then its owner changes nothing.
    assert!(lease("a", "one", SHORT).await);
    pass().await;
    assert!(lease("a", "two", LONG).await, "a lease does not run out");
    assert!(
        !save("a", "one", "old", LONG).await,
        "an old fetch overwrites a newer one"
    );
    release("a", "one").await;
    assert!(
        !lease("a", "three", LONG).await,
        "a lease that had run out was released"
    );
    assert!(save("a", "two", "second", SHORT).await);
    assert_eq!(load("a").await.unwrap().bytes, "second");
    pass().await;
    assert_eq!(load("a").await, None, "a value outlives its time");
    assert_eq!(load("b").await.unwrap().bytes, "other");
    release("a", "two").await;

    // Any bytes, and many at once.
    let all: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    assert!(lease("a", "one", LONG).await);
    let bytes = bytes::Bytes::from(all);
    assert!(store.save("a", "one", bytes.clone(), LONG).await.unwrap());
    assert_eq!(load("a").await.unwrap().bytes, bytes);
    release("a", "one").await;
    let owners: Vec<String> = (0..20).map(|number| format!("owner{number}")).collect();
    let leases = owners.iter().map(|owner| store.lease("c", owner, LONG));
    let given = join_all(leases)
        .await
        .into_iter()
        .filter(|given| *given.as_ref().unwrap());
    assert_eq!(given.count(), 1, "of twenty at once, one is given a lease");
}

#[tokio::test(start_paused = true)]
async fn the_store_of_these_tests_is_one() {
    check(&super::memory::Memory::default(), async || {
        tokio::time::advance(SHORT * 11 / 10).await
    })
    .await;
}
