//! `cargo run -p fife-image --release`: builds fife, then its disk image and update bundle.
//!
//! Owns: the command line. Called by: people, the tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Parser;
use fife_image::Options;

/// Builds fife's disk image and update bundle. Needs Debian's packages e2fsprogs and qemu-utils, and no privileges.
#[derive(Debug, Parser)]
struct Arguments {
    /// A static fife that is built already.
    #[arg(long)]
    fife: Option<PathBuf>,
    /// Where the files go. Without it: target/image.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Key that signs the update bundle, as minisign makes it with -W. Without it, one is made once below target/image/keys.
    #[arg(long)]
    sign_key: Option<PathBuf>,
    /// What the first boot finds as fife.toml. Without it: etc/image.toml.
    #[arg(long)]
    config: Option<PathBuf>,
    /// For tests: compress little, and only the image and the bundle.
    #[arg(long)]
    fast: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the builder lies in the repository")?.to_path_buf();
    let fife = match arguments.fife {
        Some(fife) => fife,
        None => fife_image::build_fife(&root)?,
    };
    let version = Command::new(&fife).arg("--version").output().with_context(|| fife.display().to_string())?;
    let version = String::from_utf8_lossy(&version.stdout).trim().trim_start_matches("fife ").to_owned();
    let out = arguments.out.unwrap_or_else(|| root.join("target/image"));
    let options = Options {
        root,
        fife,
        version,
        out,
        sign_key: arguments.sign_key,
        config: arguments.config,
        fast: arguments.fast,
    };
    fife_image::build(&options)?;
    Ok(())
}
