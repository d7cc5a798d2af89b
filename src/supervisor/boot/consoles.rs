//! The menu on the machine's consoles.
//!
//! Owns: a `fife console` on each of them, started again when it ends. Called by: boot. Never: reads a console itself; what is typed
//! there is read by a process that may fall over.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tracing::warn;

use super::settings::Places;

/// The screen's first terminal, and the first serial line.
const CONSOLES: [&str; 2] = ["/dev/tty1", "/dev/ttyS0"];
/// Between two starts on one console.
const PAUSE: Duration = Duration::from_secs(2);

/// Keeps one on each console that there is, for as long as the machine runs.
pub(super) fn keep(places: &Places) {
    for console in CONSOLES.map(PathBuf::from).into_iter().filter(|console| console.exists()) {
        tokio::spawn(keep_on(console, places.config.clone(), places.state.clone()));
    }
}

async fn keep_on(console: PathBuf, config: PathBuf, state: PathBuf) {
    loop {
        if let Err(error) = run(&console, &config, &state).await {
            warn!(console = %console.display(), %error, "no menu");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn run(console: &Path, config: &Path, state: &Path) -> std::io::Result<()> {
    let mut child = Command::new("/proc/self/exe")
        .args(["console", "--tty"])
        .arg(console)
        .arg("--config")
        .arg(config)
        .arg("--state")
        .arg(state)
        .stdin(Stdio::null())
        .spawn()?;
    child.wait().await.map(drop)
}
