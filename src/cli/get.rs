//! `sage get`: print a value.

use clap::{Args, ValueEnum};

use crate::cli::Ending;
use crate::cli::output::{Format, print_bytes, print_line};
use crate::cli::remote::RemoteArgs;
use crate::client::ReadOptions;
use crate::types::http::GetBody;
use crate::types::kv::{Consistency, GroupIndex};
use crate::types::value::ValueKind;

const EXAMPLE: &str = "\
Example: the bare value, and everything about it
  sage get greeting
  sage get greeting -o json
  sage get greeting --consistency stale --min-index shard-4101:17
  sage get logo > logo.png";

/// Print a value; exits with 1 if there is none
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct GetArgs {
    /// The key
    key: String,
    #[command(flatten)]
    fresh: FreshArgs,
    /// See at least this state of the key's group, as `sage put -o json` tells it; may be repeated for
    /// several groups
    #[arg(long, env = "SAGE_MIN_INDEX", value_name = "GROUP:INDEX", value_delimiter = ',')]
    min_index: Vec<GroupIndex>,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// How fresh what is shown must be.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct FreshArgs {
    /// How fresh it must be
    #[arg(
        long,
        env = "SAGE_CONSISTENCY",
        value_name = "LEVEL",
        value_enum,
        default_value = "linearizable"
    )]
    pub(super) consistency: Level,
}

/// How fresh a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Level {
    /// Sees every write that was answered before
    Linearizable,
    /// As above as long as clocks drift little; faster
    Lease,
    /// Whatever the asked replica has
    Stale,
}

impl From<Level> for Consistency {
    fn from(level: Level) -> Self {
        match level {
            Level::Linearizable => Self::Linearizable,
            Level::Lease => Self::Lease,
            Level::Stale => Self::Stale,
        }
    }
}

impl GetArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let options =
            ReadOptions { consistency: self.fresh.consistency.into(), at_least: self.min_index };
        let found = self.remote.client()?.get_with(&self.key, &options).await?;
        match (&found, self.remote.form.output) {
            (None, Format::Text) => (),
            (None, Format::Json) => print_line(GetBody::NOT_FOUND)?,
            (Some(item), Format::Json) => {
                let mut line = GetBody::render(item);
                line.push(b'\n');
                print_bytes(&line)?;
            }
            (Some(item), Format::Text) => {
                let mut line = item.value.data.to_vec();
                // A line for text; bytes stay what they are.
                if item.value.kind != ValueKind::Bytes {
                    line.push(b'\n');
                }
                print_bytes(&line)?;
            }
        }
        Ok(if found.is_some() { Ending::Done } else { Ending::NotFound })
    }
}
