//! What is compared: each target is started anew for its turn, and is the only one that runs while it is measured.

pub(crate) mod etcd;
mod http;
mod redis;
pub(crate) mod sage;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::connect::AnyConnect;
use crate::fleet::Fleet;
use crate::machine::first_line;

/// All targets, in the order in which they are shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    /// One group of three replicas, behind a coordinator
    Sage,
    /// The same cluster, clients straight at the replica that leads
    SageLeader,
    /// Three groups of three replicas, behind a coordinator
    #[value(name = "sage-3")]
    #[serde(rename = "sage-3")]
    Sage3,
    /// Three members of etcd, clients at the leader's JSON gateway
    EtcdJson,
    /// The same, clients at the leader over gRPC
    EtcdGrpc,
    /// A Redis master and two replicas that sync each write, SET with WAIT 1; reads are not linearizable
    Redis,
    /// A bare HTTP server that stores nothing
    Axum,
    /// The same behind a plain reverse proxy
    Proxy,
}

impl Target {
    /// What it is called on the command line and in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sage => "sage",
            Self::SageLeader => "sage-leader",
            Self::Sage3 => "sage-3",
            Self::EtcdJson => "etcd-json",
            Self::EtcdGrpc => "etcd-grpc",
            Self::Redis => "redis",
            Self::Axum => "axum",
            Self::Proxy => "proxy",
        }
    }

    /// Whether keys must be loaded before they are read.
    pub(crate) fn has_keys(self) -> bool {
        !matches!(self, Self::Axum | Self::Proxy)
    }

    /// The program that must be on the PATH, and what it says of its version.
    fn foreign(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::EtcdJson | Self::EtcdGrpc => Some(("etcd", "--version")),
            Self::Redis => Some(("redis-server", "--version")),
            Self::Sage | Self::SageLeader | Self::Sage3 | Self::Axum | Self::Proxy => None,
        }
    }

    /// What is missing on this machine to run it.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let (program, flag) = self.foreign()?;
        first_line(Path::new(program), &[flag]).is_none().then_some(program)
    }

    /// The version of a program that is not ours.
    pub(crate) fn foreign_version(self) -> Option<(&'static str, String)> {
        let (program, flag) = self.foreign()?;
        Some((program, first_line(Path::new(program), &[flag])?))
    }
}

/// Where programs and data are.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The `sage` to start.
    pub(crate) sage: PathBuf,
    /// The directory for everybody's data.
    pub(crate) data: PathBuf,
}

/// A target that serves.
pub(crate) struct Running {
    /// Its processes.
    pub(crate) fleet: Fleet,
    /// How clients reach it.
    pub(crate) connect: AnyConnect,
}

impl Running {
    /// Starts a target and waits until it serves.
    pub(crate) async fn start(target: Target, site: &Site) -> Result<Self> {
        let mut fleet = Fleet::new(&site.data)?;
        let connect = match target {
            Target::Sage => sage::connect(&mut fleet, &site.sage, 1).await?,
            Target::SageLeader => sage::connect_to_leader(&mut fleet, &site.sage).await?,
            Target::Sage3 => sage::connect(&mut fleet, &site.sage, 3).await?,
            Target::EtcdJson => etcd::json(&mut fleet).await?,
            Target::EtcdGrpc => etcd::grpc(&mut fleet).await?,
            Target::Redis => redis::connect(&mut fleet).await?,
            Target::Axum => http::axum(&mut fleet).await?,
            Target::Proxy => http::proxy(&mut fleet).await?,
        };
        Ok(Self { fleet, connect })
    }
}

/// The address of a port of this machine.
fn place(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Command line arguments, which are written with blanks between them and have none inside.
fn words(line: &str) -> Vec<String> {
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_one_name() {
        for target in Target::value_variants() {
            let value = target.to_possible_value().expect("none is hidden");
            assert_eq!(value.get_name(), target.name());
            let json = serde_json::to_string(target).expect("a name");
            assert_eq!(json, format!("{:?}", target.name()));
        }
    }
}
