//! The store of `examples/sqlite_store`.

use std::time::Duration;

use crate::{contract, sqlite_store::SqliteStore};

#[tokio::test]
async fn the_store_in_sql_is_one() {
    let name = format!(
        "{}/store-{}.db",
        env!("CARGO_TARGET_TMPDIR"),
        std::process::id()
    );
    let store = SqliteStore::open(name.as_ref()).unwrap();
    // Its clock is the database's, which cannot be paused.
    let pass = async || tokio::time::sleep(Duration::from_millis(350)).await;
    contract::check(&store, pass).await;
    std::fs::remove_file(name).unwrap();
}
