//! A way to a server that can go silent: what a network does that drops packets and says nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A relay to a server.
pub struct Proxy {
    /// The server's address through the relay.
    pub url: String,
    silent: Arc<AtomicBool>,
}

impl Proxy {
    /// A relay to the server of an address.
    pub async fn to(url: &str) -> Self {
        let mut through = url::Url::parse(url).expect("an address");
        let server = format!(
            "{}:{}",
            through.host_str().expect("a host"),
            through.port().unwrap_or(5432)
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        through.set_ip_host([127, 0, 0, 1].into()).expect("a host");
        through.set_port(Some(port)).expect("a port");
        let silent = Arc::new(AtomicBool::new(false));
        let quiet = Arc::clone(&silent);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(relay(from_client, to_server, Arc::clone(&quiet)));
                tokio::spawn(relay(from_server, to_client, Arc::clone(&quiet)));
            }
        });
        Self {
            url: through.to_string(),
            silent,
        }
    }

    /// From now on nothing passes, and no connection is closed.
    pub fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }
}

async fn relay(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    silent: Arc<AtomicBool>,
) {
    let mut bytes = vec![0; 16384];
    loop {
        match from.read(&mut bytes).await {
            _ if silent.load(Ordering::SeqCst) => std::future::pending::<()>().await,
            Ok(0) | Err(_) => return,
            Ok(read) => {
                if to
                    .write_all(bytes.get(..read).unwrap_or_default())
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
    }
}
