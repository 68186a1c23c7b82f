//! Redis servers of a test's own, on free ports.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::servers::left_out;

pub struct RedisServer {
    pub port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// Whether there is no Redis here, so that a test that needs one is left out.
pub fn is_missing() -> bool {
    left_out(&["redis-server"])
}

/// A folder of a test's own, for what it leaves behind.
pub fn folder() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("fleet-{}-{number}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// One that is free now, and whose double for a cluster is free as well.
fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind(("127.0.0.1", 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(arguments: &[&str]) -> Self {
        let mut server = Self {
            port: free_port(),
            folder: folder(),
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            child: None,
        };
        server.restart();
        server
    }

    /// Starts it on its port, with what it has saved.
    pub fn restart(&mut self) {
        self.stop();
        let port = self.port.to_string();
        let mut child = Command::new("redis-server")
            .args([
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
            ])
            .arg(&self.folder)
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (mut line, mut all) = (String::new(), String::new());
        while !line.contains("Ready to accept connections") {
            line.clear();
            assert_ne!(
                output.read_line(&mut line).unwrap(),
                0,
                "it did not start: {all}"
            );
            all += &line;
        }
        // What it has to say later must not block it.
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        self.child = Some(child);
    }

    /// Kills it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command, on a connection of its own.
    pub fn ask<R: redis::FromRedisValue>(&self, command: &str) -> redis::RedisResult<R> {
        let client = redis::Client::open(self.url())?;
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query(&mut client.get_connection()?)
    }

    pub fn tell(&self, command: &str) {
        self.ask::<redis::Value>(command).unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
