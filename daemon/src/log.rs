//! The log: to standard error, since standard output is for the readiness line.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::options::LogFormat;
use crate::settings::Settings;

/// Starts to log as the settings say; a log that was started before stays.
///
/// # Errors
/// If the filter cannot be read.
pub(crate) fn start(settings: &Settings) -> anyhow::Result<()> {
    let filter = match &settings.log_filter {
        Some(text) => EnvFilter::try_new(text).with_context(|| format!("log filter '{text}'"))?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // In tests, and where one process runs several nodes, the first one decides.
    let _ = match settings.log_format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    Ok(())
}
