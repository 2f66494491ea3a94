//! The flags for the connection to a store; every command that uses a store takes them.

use super::value;
use crate::backend::Retry;
use crate::config::ConnectionOptions;
use clap::Args;
use std::time::Duration;

/// The connection to a store.
#[derive(Debug, Args)]
pub(super) struct ConnectionArguments {
    /// A server other than the provider's, http://host:9000
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The bucket's region
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// How often a failed request to the store is sent again: none, aggressive or a number [default: 10]
    #[arg(long, value_name = "HOW", value_parser = value::retries)]
    retries: Option<Retry>,
    /// The first and shortest pause before a request is sent again [default: 100ms; aggressive: 20ms]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    retry_base: Option<Duration>,
    /// The longest pause before a request is sent again [default: 15s; aggressive: 2s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    retry_cap: Option<Duration>,
}

impl From<ConnectionArguments> for ConnectionOptions {
    fn from(said: ConnectionArguments) -> Self {
        Self {
            endpoint: said.endpoint,
            region: said.region,
            retry: said.retries,
            retry_base: said.retry_base,
            retry_cap: said.retry_cap,
        }
    }
}
