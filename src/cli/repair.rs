//! `sage repair`: accepts a loss that `sage check` has shown.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Ending;
use crate::cli::output::print_line;
use crate::store::repair::repair;
use crate::types::ids::Index;

const EXAMPLE: &str = "\
Example: a replica that is alone, and for which there is no copy
  sage check ./data
  sage repair ./data --lose-after 1041";

/// Go on without what is damaged, in the data directory of a group of one that does not run. The
/// entry after which all is lost must be the one that `sage check` names. The damaged files are set
/// aside, not deleted
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct RepairArgs {
    /// The data directory
    dir: PathBuf,
    /// The last entry to keep
    #[arg(long, env = "SAGE_LOSE_AFTER", value_name = "INDEX")]
    lose_after: Index,
}

impl RepairArgs {
    pub(super) async fn run(self) -> anyhow::Result<Ending> {
        let aside = repair(&self.dir, self.lose_after).await?;
        print_line(&format!("repaired: everything up to entry {} is kept", self.lose_after))?;
        for path in aside {
            print_line(&format!("the damaged data is in {}", path.display()))?;
        }
        Ok(Ending::Done)
    }
}
