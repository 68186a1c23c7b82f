//! Twenty processes and one token: without a store, with Redis, and with a file. Starts a token endpoint,
//! an API, a redis-server (installed by `tests/redis.sh` if it is missing) and the processes, and prints
//! how many token requests each event has cost.
//!
//! `cargo run --example fleet --features full`

use std::{
    env,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::sleep;
use tower::BoxError;

use symbl::Symbl;

mod process;
mod symbl;

const PROCESSES: usize = 20;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    if let Ok(store) = env::var("FLEET_STORE") {
        return process::run(&store).await;
    }
    let folder = env::temp_dir().join(format!("fleet-example-{}", std::process::id()));
    let file = folder.join("token");
    let mut redis = Redis::start()?;
    let url = redis.url();

    println!("token requests of {PROCESSES} processes, and 401s that reached their callers:\n");
    println!(
        "{:<8}{:>11}{:>12}{:>16}{:>14}{:>12}{:>7}",
        "store", "cold start", "revocation", "only one token", "Redis killed", "Redis back", "401s"
    );
    for (name, store) in [
        ("none", "none"),
        ("Redis", &*url),
        ("file", &file.to_string_lossy()),
    ] {
        let symbl = Symbl::start().await?;
        let processes = start(&symbl, store)?;
        symbl.all_are_served().await;
        let cold = symbl.taken();

        symbl.revoke();
        symbl.all_are_served().await;
        let revoked = symbl.taken();

        // From now on each token request revokes the token of the one before.
        symbl.keep_one_token(true);
        symbl.revoke();
        sleep(Duration::from_secs(5)).await;
        let single = symbl.taken();
        let single = match store {
            "none" => format!("{single} in 5 s"),
            _ => single.to_string(),
        };
        let refused = symbl.refused();
        symbl.keep_one_token(false);

        let (mut killed, mut back) = ("-".to_owned(), "-".to_owned());
        if name == "Redis" {
            redis.kill();
            symbl.revoke();
            symbl.all_are_served().await;
            killed = symbl.taken().to_string();
            redis = Redis::start_at(redis.port)?;
            // It is left alone for 10 s.
            sleep(Duration::from_secs(11)).await;
            symbl.revoke();
            symbl.all_are_served().await;
            back = symbl.taken().to_string();
        }
        println!("{name:<8}{cold:>11}{revoked:>12}{single:>16}{killed:>14}{back:>12}{refused:>7}");
        let shares = name != "none";
        if shares && (cold, revoked, &*single, refused) != (1, 1, "1", 0) {
            return Err(format!("{name}: the token was not shared").into());
        }
        drop(processes);
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn start(symbl: &Symbl, store: &str) -> Result<Vec<Running>, BoxError> {
    let processes = (0..PROCESSES).map(|number| {
        let child = Command::new(env::current_exe()?)
            .env("FLEET_STORE", store)
            .env("FLEET_SYMBL", symbl.origin())
            .env("FLEET_NUMBER", number.to_string())
            .spawn()?;
        Ok(Running(child))
    });
    processes.collect()
}

/// Ended when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Redis {
    port: u16,
    process: Running,
}

impl Redis {
    fn start() -> Result<Self, BoxError> {
        let free = TcpListener::bind(("127.0.0.1", 0))?;
        let port = free.local_addr()?.port();
        drop(free);
        Self::start_at(port)
    }

    fn start_at(port: u16) -> Result<Self, BoxError> {
        let mut server = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--port",
                &port.to_string(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("install Redis 6 or newer first: redis-server: {error}"))?;
        let output = BufReader::new(server.stdout.take().expect("it is piped"));
        let process = Running(server);
        let mut lines = output.lines();
        while !lines
            .next()
            .ok_or("redis-server did not start")??
            .contains("Ready to accept")
        {}
        Ok(Self { port, process })
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) {
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
    }
}
