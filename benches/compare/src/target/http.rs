//! The servers of `serve.rs`, each a process of its own: this program again.

use anyhow::{Context, Result};
use tokio::net::TcpStream;

use crate::connect::AnyConnect;
use crate::fleet::Fleet;
use crate::target::{place, sage, words};

/// The bare server.
pub(super) async fn axum(fleet: &mut Fleet) -> Result<AnyConnect> {
    sage::to(&place(bare(fleet).await?))
}

/// The bare server behind the proxy.
pub(super) async fn proxy(fleet: &mut Fleet) -> Result<AnyConnect> {
    let (upstream, port) = (bare(fleet).await?, fleet.port());
    serve(fleet, port, &format!("serve-proxy --port {port} --to {}", place(upstream))).await?;
    sage::to(&place(port))
}

async fn bare(fleet: &mut Fleet) -> Result<u16> {
    let port = fleet.port();
    serve(fleet, port, &format!("serve-bare --port {port}")).await?;
    Ok(port)
}

async fn serve(fleet: &mut Fleet, port: u16, line: &str) -> Result<()> {
    let program = std::env::current_exe().context("where is this program?")?;
    fleet.start(line.split(' ').next().unwrap_or(line), &program, words(line))?;
    let listening = async || Ok(TcpStream::connect(place(port)).await?);
    fleet.until(line, listening).await.map(drop)
}
