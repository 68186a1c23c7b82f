//! A store of one's own: ten replicas share a token through SQLite.
//!
//! `cargo run --example sqlite_store --features full`

use futures::future::join_all;
use tower::BoxError;
use tower_symbl_auth::{SymblAuthLayer, mock::MockSymbl};

use store::SqliteStore;

mod store;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let symbl = MockSymbl::start().await?;
    let path = std::env::temp_dir().join(format!("sqlite-store-{}.db", std::process::id()));
    let replicas = (0..10).map(|_| {
        let fetch = symbl.fetch_token();
        let key = fetch.sealing_key();
        let store = SqliteStore::open(&path)?;
        Ok(SymblAuthLayer::builder(fetch).store(store, key).build())
    });
    let replicas = replicas.collect::<Result<Vec<_>, BoxError>>()?;
    let tokens = join_all(replicas.iter().map(SymblAuthLayer::token)).await;
    let first = symbl.token_requests();

    symbl.revoke_tokens();
    let newer = replicas.iter().zip(tokens).map(async |(replica, token)| {
        let newer = replica.rejected(&token?).await?;
        newer.ok_or("there is no newer token")?;
        Ok::<_, BoxError>(())
    });
    join_all(newer)
        .await
        .into_iter()
        .collect::<Result<(), _>>()?;
    std::fs::remove_file(&path)?;

    let then = symbl.token_requests() - first;
    println!("10 replicas: {first} token request at the start, {then} after a revocation");
    match (first, then) {
        (1, 1) => Ok(()),
        _ => Err("the token was not shared".into()),
    }
}
