//! What the layer tells of itself: its metrics, as Prometheus scrapes them, and its spans and events.
//!
//! Runs against the stand-in server in this crate, which revokes the token once on the way.
//!
//! `cargo run --example observe --features full`

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_exporter_prometheus::PrometheusBuilder;
use tower::{BoxError, Layer, ServiceExt};
use tower_symbl_auth::mock::MockSymbl;
use tracing_subscriber::layer::SubscriberExt;

use events::Printed;

mod events;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let metrics = PrometheusBuilder::new().install_recorder()?;
    // In an application, `tracing_subscriber::fmt()`.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Printed))?;

    let symbl = MockSymbl::start().await?;
    let client = symbl
        .layer()
        .layer(Client::builder(TokioExecutor::new()).build_http());
    for number in 0..10 {
        if number == 5 {
            symbl.revoke_tokens();
        }
        let job = symbl.url("/v1/job/1");
        let request = Request::get(job).body(Empty::<Bytes>::new())?;
        let response = client.clone().oneshot(request).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err("the revocation has reached the caller".into());
        }
    }

    let scrape = metrics.render();
    println!("\n{scrape}");
    if scrape.contains(r#"symbl_auth_rejections_total{outcome="retried"} 1"#) {
        Ok(())
    } else {
        Err("the rejection was not counted".into())
    }
}
