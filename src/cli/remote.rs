//! What the commands that talk to a server have in common.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use crate::cli::flags;
use crate::cli::output::Format;
use crate::client::Client;
use crate::types::limits::REQUEST_TIMEOUT_MAX;
use crate::types::units::parse_duration;

/// Where to ask, and how.
#[derive(Args, Debug)]
pub(super) struct RemoteArgs {
    /// The coordinator; more than one, or the members of one group, are asked one after the other
    #[arg(
        long,
        env = "SAGE_URL",
        value_name = "URL,URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:4000"
    )]
    url: Vec<String>,
    /// How long it may take
    #[arg(long, env = "SAGE_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    pub(super) form: FormArgs,
}

/// How a result is shown.
#[derive(Args, Debug)]
pub(super) struct FormArgs {
    /// The form of the result
    #[arg(
        short,
        long,
        env = "SAGE_OUTPUT",
        value_name = "FORM",
        value_enum,
        default_value = "text"
    )]
    pub(super) output: Format,
}

impl RemoteArgs {
    /// A client as these flags ask for it.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let urls = flags::urls("--url", &self.url)?;
        ensure!(!urls.is_empty(), "--url must name a server");
        ensure!(
            !self.timeout.is_zero() && self.timeout <= REQUEST_TIMEOUT_MAX,
            "--timeout must be more than 0 and at most {}s",
            REQUEST_TIMEOUT_MAX.as_secs()
        );
        Ok(Client::new(urls)?.with_timeout(self.timeout))
    }
}
