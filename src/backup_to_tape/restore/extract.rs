//! A member becomes a file below a directory, and never outside of it.
//!
//! Owns: `Target`, `Extract`. Called by: `restore`. Never: follows a symbolic link; leaves a file of which something is missing.
//!
//! Every directory on the way is opened by openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS from the one before; names with `..`, an empty
//! part or a `/` in front are refused. A file is written under another name and renamed when its hash is right.
//! The tar crate's unpack_in is not used: it follows links that lie in the directory as long as they end within, and cannot read a name with a
//! line end in it.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, geteuid, linkat, mkfifoat, symlinkat, unlinkat};

use crate::backup_to_tape::catalogue;
use crate::backup_to_tape::volume::walk::{Member, Step, Walk};

/// Under this name a file grows.
const GROWING: &str = ".fife-restore.tmp";
/// Parts of a name, at most.
const DEPTH_MAX: usize = 1024;

/// How it went with a member.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    Damaged(String),
    Refused(String),
}

/// The directory that members are restored to.
#[derive(Debug)]
pub struct Target {
    dir: OwnedFd,
    /// As root, owners are restored, and with them the bits that give rights.
    is_root: bool,
    /// Directories get their times and modes when nothing more is put into them.
    dirs: RefCell<Vec<Member>>,
}

impl Target {
    /// Opens the directory; makes it when it is not there.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self { dir: File::open(path)?.into(), is_root: geteuid().is_root(), dirs: RefCell::default() })
    }

    /// Gives directories their times and modes.
    ///
    /// # Errors
    /// The system refuses.
    pub fn finish(&self) -> io::Result<()> {
        for member in self.dirs.borrow_mut().drain(..).rev() {
            let Ok(names) = parts(&member.path) else { continue };
            let dir = self.walk(&names, false)?;
            self.dress(&dir, &member)?;
        }
        Ok(())
    }

    /// Opens a directory below, one part at a time; makes what is missing.
    fn walk(&self, names: &[&OsStr], make: bool) -> io::Result<OwnedFd> {
        let mut dir = self.dir.try_clone()?;
        for name in names {
            dir = match open_dir(&dir, name) {
                Err(Errno::ENOENT) if make => {
                    match mkdirat(&dir, *name, Mode::from_bits_truncate(0o755)) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    open_dir(&dir, name)?
                }
                opened => opened?,
            };
        }
        Ok(dir)
    }

    /// Owner, mode and time.
    fn dress(&self, file: &impl AsFd, member: &Member) -> nix::Result<()> {
        let mut mode = member.mode & 0o777;
        if self.is_root {
            let id = |id: u64| u32::try_from(id).ok();
            fchown(file, id(member.uid).map(Uid::from_raw), id(member.gid).map(Gid::from_raw))?;
            mode = member.mode & 0o7777;
        }
        fchmod(file, Mode::from_bits_truncate(mode))?;
        let time = time(member);
        futimens(file, &time, &time)
    }

    /// What has no content: directories, links, pipes.
    fn make(&self, member: &Member) -> Result<(), Fate> {
        let names = parts(&member.path)?;
        if member.flag == b'5' {
            self.walk(&names, true).map_err(|error| refused(&error))?;
            self.dirs.borrow_mut().push(member.clone());
            return Ok(());
        }
        let Some((name, parents)) = names.split_last() else { return Err(Fate::Refused("it has no name".into())) };
        let dir = self.walk(parents, true).map_err(|error| refused(&error))?;
        self.make_in(&dir, name, member)
    }

    fn make_in(&self, dir: &OwnedFd, name: &OsStr, member: &Member) -> Result<(), Fate> {
        let made = || -> nix::Result<()> {
            match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
            match member.flag {
                b'2' => symlinkat(OsStr::from_bytes(&member.link), dir, name)?,
                _ => mkfifoat(dir, name, Mode::from_bits_truncate(member.mode & 0o777))?,
            }
            if self.is_root {
                let id = |id: u64| u32::try_from(id).ok();
                let (owner, group) = (id(member.uid).map(Uid::from_raw), id(member.gid).map(Gid::from_raw));
                fchownat(dir, name, owner, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
            let time = time(member);
            utimensat(dir, name, &time, &time, UtimensatFlags::NoFollowSymlink)
        };
        match member.flag {
            b'2' | b'6' => made().map_err(|error| refused(&error.into())),
            b'1' => self.link(dir, name, member),
            _ => Err(Fate::Refused(format!("members of type {:?} are not made", char::from(member.flag)))),
        }
    }

    /// A hard link to a member that was restored before.
    fn link(&self, dir: &OwnedFd, name: &OsStr, member: &Member) -> Result<(), Fate> {
        let names = parts(&member.link)?;
        let linked = || -> io::Result<()> {
            let Some((other, parents)) = names.split_last() else { return Err(io::ErrorKind::InvalidInput.into()) };
            let from = self.walk(parents, false)?;
            match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
            // Without AT_SYMLINK_FOLLOW: a link to a link is that.
            Ok(linkat(&from, *other, dir, name, AtFlags::empty())?)
        };
        let of = String::from_utf8_lossy(&member.link);
        linked().map_err(|error| Fate::Refused(format!("it is a link to {of}, which is not restored: {error}")))
    }
}

fn open_dir(dir: &OwnedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(dir, name, how)
}

/// The parts of a name that stays below.
fn parts(path: &[u8]) -> Result<Vec<&OsStr>, Fate> {
    let refused = |reason: &str| Err(Fate::Refused(reason.to_owned()));
    if path.starts_with(b"/") || path.contains(&0) {
        return refused("its name leaves the directory");
    }
    let mut names = Vec::new();
    for name in path.split(|octet| *octet == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return refused("its name leaves the directory"),
            name => names.push(OsStr::from_bytes(name)),
        }
    }
    if names.len() > DEPTH_MAX { refused("its name is too deep") } else { Ok(names) }
}

fn time(member: &Member) -> TimeSpec {
    let (secs, nanos) = member.mtime;
    TimeSpec::new(secs, i64::from(nanos))
}

fn refused(error: &io::Error) -> Fate {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    let is_in_the_way = [Errno::ELOOP, Errno::EXDEV, Errno::ENOTDIR].contains(&errno);
    Fate::Refused(if is_in_the_way {
        "a link or a file stands where its name has a directory".to_owned()
    } else {
        error.to_string()
    })
}

/// One member on its way from frames to a file.
pub struct Extract<'a> {
    wanted: &'a catalogue::Member,
    target: Option<&'a Target>,
    walk: Walk,
    file: Option<Growing>,
    fate: Option<Fate>,
}

/// A file that is not whole.
struct Growing {
    dir: OwnedFd,
    file: Option<File>,
}

impl Drop for Growing {
    fn drop(&mut self) {
        if self.file.is_some() {
            // What cannot be removed has a name that says what it is.
            unlinkat(&self.dir, GROWING, UnlinkatFlags::NoRemoveDir).ok();
        }
    }
}

impl<'a> Extract<'a> {
    /// For this member; without a target it is only checked.
    #[must_use]
    pub fn new(wanted: &'a catalogue::Member, target: Option<&'a Target>) -> Self {
        Self { wanted, target, walk: Walk::new(wanted.at), file: None, fate: None }
    }

    /// The next octets of it, from the stream.
    ///
    /// # Errors
    /// It comes to nothing; no more octets are wanted.
    pub fn push(&mut self, octets: &[u8]) -> Result<(), Fate> {
        let mut rest = octets;
        loop {
            let (taken, step) =
                self.walk.advance(rest).map_err(|error| Fate::Damaged(format!("what is there is not it: {error}")))?;
            let (now, behind) = rest.split_at(taken.min(rest.len()));
            rest = behind;
            match step {
                Step::Frame => {}
                Step::Begun => self.begin()?,
                Step::Content => {
                    if let Some(file) = self.file.as_mut().and_then(|growing| growing.file.as_mut()) {
                        file.write_all(now).map_err(|error| refused(&error))?;
                    }
                }
                Step::Ended(member) => {
                    self.fate = Some(self.end(&member));
                    return Ok(());
                }
            }
            // Once more after the last octet: a member without padding ends then.
            if rest.is_empty() && taken == 0 {
                return Ok(());
            }
        }
    }

    /// How it went, when there are no more octets.
    #[must_use]
    pub fn finish(self) -> Fate {
        self.fate.unwrap_or_else(|| Fate::Damaged("its end is missing".to_owned()))
    }

    fn begin(&mut self) -> Result<(), Fate> {
        let (Some(target), Some(member)) = (self.target, self.walk.member()) else { return Ok(()) };
        if member.path != self.wanted.path {
            return Err(Fate::Damaged("another member stands where the catalogue says".to_owned()));
        }
        if member.sparse.is_some() {
            return Err(Fate::Refused("it has holes: restore it by zstd and GNU tar".to_owned()));
        }
        if !matches!(member.flag, b'0' | b'7') {
            return Ok(());
        }
        let names = parts(&member.path)?;
        let Some((_, parents)) = names.split_last() else { return Err(Fate::Refused("it has no name".into())) };
        let dir = target.walk(parents, true).map_err(|error| refused(&error))?;
        let open = || {
            match unlinkat(&dir, GROWING, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
            let how = OpenHow::new()
                .flags(OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
                .mode(Mode::from_bits_truncate(0o600))
                .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
            openat2(&dir, GROWING, how)
        };
        let file = open().map_err(|error| refused(&error.into()))?;
        self.file = Some(Growing { dir, file: Some(file.into()) });
        Ok(())
    }

    fn end(&mut self, member: &Member) -> Fate {
        if member.path != self.wanted.path || member.blake3 != self.wanted.blake3 {
            self.file = None;
            return Fate::Damaged("its octets are not those that were written: the hash differs".to_owned());
        }
        let Some(target) = self.target else { return Fate::Done };
        let Some(mut growing) = self.file.take() else {
            return target.make(member).err().unwrap_or(Fate::Done);
        };
        let name = parts(&member.path).ok().and_then(|names| names.last().copied()).unwrap_or_default();
        let Some(file) = &growing.file else { return Fate::Damaged("it was not written".to_owned()) };
        let kept = target.dress(file, member).and_then(|()| renameat(&growing.dir, GROWING, &growing.dir, name));
        match kept {
            Ok(()) => {
                growing.file = None;
                Fate::Done
            }
            Err(error) => refused(&error.into()),
        }
    }
}
