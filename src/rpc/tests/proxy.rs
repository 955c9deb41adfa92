//! Connections go through the proxy that the environment names.
//!
//! The environment belongs to the whole process, so the test runs itself once more as a child.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::{FAR, Puppet, Server, echo, echoed, far, listen, target};
use crate::rpc::{Caller, Dialer};

const CHILD: &str = "SAGE_TEST_PROXIED_URL";

/// As a proxy does it: `GET http://host:port/path` becomes `GET /path` sent to `host:port`.
async fn forward(mut client: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let (host, rest) = head.strip_prefix("GET http://").unwrap().split_once('/').unwrap();
    let mut server = TcpStream::connect(host).await.unwrap();
    server.write_all(format!("GET /{rest}").as_bytes()).await.unwrap();
    copy_bidirectional(&mut client, &mut server).await.ok();
}

#[tokio::test]
async fn the_proxy_of_the_environment_is_used() {
    if let Ok(url) = std::env::var(CHILD) {
        let caller = Caller::new(Dialer::new(None), target(&url));
        assert_eq!(caller.call(&echo(7), far()).await, Ok(echoed(7)));
        return;
    }
    let server = Server::start(Puppet::new()).await;
    let forwarded = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&forwarded);
    let proxy = listen(move |client| {
        counted.fetch_add(1, Ordering::Relaxed);
        forward(client)
    })
    .await;
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "rpc::tests::proxy::the_proxy_of_the_environment_is_used"])
        .env(CHILD, &server.url)
        .env("http_proxy", &proxy)
        .env("HTTP_PROXY", &proxy)
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .status();
    assert!(timeout(FAR, status).await.expect("the child ends").unwrap().success());
    assert_eq!(forwarded.load(Ordering::Relaxed), 1);
}
