//! The image that is tested.
//!
//! Owns: `target/image/test`. Called by: suites. Builds fife and the image once for each run of the tests, unless nothing has changed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use fife_image::{Built, Options};
use nix::fcntl::{Flock, FlockArg};

/// Its version, as the update bundle has it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("in the repository").to_path_buf()
}

/// The raw image.
pub fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let root = root();
        let out = root.join("target/image/test");
        std::fs::create_dir_all(&out).unwrap();
        // Suites are binaries of their own, and may run at the same time.
        let lock = File::create(out.join("lock")).unwrap();
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
        let fife = fife(&root);
        let image = out.join(format!("fife-{VERSION}.img"));
        let inputs = [fife.clone(), root.join("rootfs-overlay"), root.join("etc/image.toml"), root.join("image/src")];
        let newest = inputs.iter().map(|path| newest(path)).max().unwrap();
        if newest_of(&image).is_none_or(|made| made < newest) {
            build(VERSION, &fife, &out);
        }
        image
    })
}

/// Builds image and bundle of some version into a directory.
pub fn build(version: &str, fife: &Path, out: &Path) -> Built {
    let options = Options {
        root: root(),
        fife: fife.to_path_buf(),
        version: version.to_owned(),
        out: out.to_path_buf(),
        sign_key: None,
        config: None,
        fast: true,
    };
    fife_image::build(&options).unwrap()
}

/// The binary, built by cargo in its release profile.
pub fn fife(root: &Path) -> PathBuf {
    fife_image::build_fife(root).unwrap()
}

fn newest_of(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// When anything at or below this path was last changed.
fn newest(path: &Path) -> SystemTime {
    let own = newest_of(path).unwrap();
    if !path.is_dir() {
        return own;
    }
    std::fs::read_dir(path).unwrap().map(|entry| newest(&entry.unwrap().path())).fold(own, SystemTime::max)
}
