//! The arguments of `rewindfs label list`.

use super::arguments::PathArguments;
use crate::verbs::LabelScope;
use clap::Args;

/// The arguments of `rewindfs label list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LabelListArguments {
    /// Also those of the directories below, also of removed ones
    #[arg(long, short = 'r')]
    recursive: bool,
    /// The held versions instead of the labels
    #[arg(long)]
    pub(super) holds: bool,
    #[command(flatten)]
    pub(super) path: PathArguments,
}

impl LabelListArguments {
    pub(super) fn scope(&self) -> LabelScope {
        match self.recursive {
            true => LabelScope::Tree,
            false => LabelScope::Directory,
        }
    }
}
