//! What stands between a client and a server and misbehaves.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::AbortHandle,
};

/// A proxy on a port of its own. Dropping it ends it.
pub struct Proxy {
    pub port: u16,
    behaviour: Arc<Mutex<Behaviour>>,
    cut: Arc<Notify>,
    task: AbortHandle,
}

#[derive(Clone, Copy)]
pub enum Behaviour {
    To(u16),
    /// Lets so many bytes of the answers through, and closes.
    CutsAfter(u16, u64),
    /// Takes everything, and answers nothing.
    Silent,
}

impl Proxy {
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behaviour = Arc::new(Mutex::new(Behaviour::To(to)));
        let cut = Arc::new(Notify::new());
        let (told, ends) = (Arc::clone(&behaviour), Arc::clone(&cut));
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let behaviour = *told.lock().unwrap();
                let ends = Arc::clone(&ends);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = connection(client, behaviour) => {}
                        () = ends.notified() => {}
                    }
                });
            }
        });
        Self {
            port,
            behaviour,
            cut,
            task: task.abort_handle(),
        }
    }

    /// For the connections to come; those that there are, are cut.
    pub fn now(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
        self.cut.notify_waiters();
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut.notify_waiters();
    }
}

async fn connection(mut client: TcpStream, behaviour: Behaviour) -> std::io::Result<()> {
    let (port, bytes) = match behaviour {
        Behaviour::To(port) => (port, u64::MAX),
        Behaviour::CutsAfter(port, bytes) => (port, bytes),
        Behaviour::Silent => {
            copy(&mut client, &mut tokio::io::sink()).await?;
            return Ok(());
        }
    };
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    let (from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let (mut from_client, mut from_server) = (from_client, from_server.take(bytes));
    tokio::select! {
        done = copy(&mut from_client, &mut to_server) => done,
        done = copy(&mut from_server, &mut to_client) => done,
    }?;
    to_client.shutdown().await
}
