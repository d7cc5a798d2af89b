//! A FAT in memory whose power is cut between and within all steps, and what both loaders then boot.

use std::collections::BTreeMap;
use std::path::Path;

use nix::mount::MsFlags;

use super::entry::{Entry, Tries};
use super::environment::Environment;
use super::plan::{Source, State, Step};
use super::volume::read_only_mount;
use super::*;

/// What a file holds; `None`: some of what it held and some of what it was to hold.
type Content = Option<Vec<u8>>;

/// The ESP, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fat(BTreeMap<String, Content>);

impl Fat {
    /// As the image builder makes it.
    fn new() -> Self {
        let mut fat = Self::default();
        fat.system(Slot::A, "1.0");
        fat.put("loader/entries/fife-a.conf", entry_text(Slot::A, "1.0", 1));
        fat.put(ENVIRONMENT, Environment::settled(Slot::A).block());
        fat
    }

    fn put(&mut self, path: &str, octets: impl Into<Vec<u8>>) {
        self.0.insert(path.to_owned(), Some(octets.into()));
    }

    fn system(&mut self, slot: Slot, version: &str) {
        for name in ["linux", "initrd", "version"] {
            self.put(&format!("fife/{slot}/{name}"), version);
        }
    }

    fn text(&self, path: &str) -> Option<String> {
        self.0.get(path)?.clone().map(|octets| String::from_utf8(octets).unwrap())
    }

    /// What `Esp::state` would read.
    fn state(&self) -> State {
        let environment = Environment::parse(&self.text(ENVIRONMENT).unwrap_or_default());
        let names = self.0.keys().filter_map(|path| path.strip_prefix("loader/entries/"));
        let text = |name: &str| self.text(&format!("loader/entries/{name}")).unwrap_or_default();
        State { entries: names.filter_map(|name| Entry::parse(name, text(name))).collect(), environment }
    }

    fn apply(&mut self, step: &Step, how: How) {
        let Self(files) = self;
        match (step, how) {
            (Step::Sync, _) | (_, How::Not) => {}
            (Step::Remove(path), _) => drop(files.remove(path)),
            (Step::Write { path, .. }, How::Half | How::Other) => drop(files.insert(path.clone(), None)),
            (Step::Write { path, source }, How::Done) => {
                let octets = match source {
                    Source::Octets(octets) => octets.clone(),
                    Source::File(path) => path.to_str().unwrap().as_bytes().to_vec(),
                };
                files.insert(path.clone(), Some(octets));
            }
            // The first sector is all that changes: old or new.
            (Step::Overwrite { path, octets }, _) => {
                assert_eq!(octets.len(), 1024);
                assert!(octets[512..].iter().all(|octet| *octet == b'#'));
                files.insert(path.clone(), Some(octets.clone()));
            }
            (Step::Rename { from, to }, how) => {
                let content = files.get(from).cloned();
                if how != How::Half {
                    files.remove(from);
                }
                if how != How::Other {
                    files.extend(content.map(|content| (to.clone(), content)));
                }
            }
        }
    }

    fn carry_out(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.apply(step, How::Done));
    }

    /// The version in a slot, when its kernel and its initramfs are whole and of the same one.
    fn bootable(&self, slot: Slot) -> Option<String> {
        let file = |name: &str| self.text(&format!("fife/{slot}/{name}"));
        file("linux").filter(|linux| Some(linux) == file("initrd").as_ref())
    }

    /// The Boot Loader Specification's order: spent entries last, then by sort-key (all the same here), newest version first; the
    /// counter of the chosen one goes down by renaming it.
    fn systemd_boot(&mut self) -> Option<String> {
        let mut entries: Vec<(String, String)> = Vec::new();
        for path in self.0.keys().filter(|path| path.starts_with("loader/entries/") && path.ends_with(".conf")) {
            entries.push((path.clone(), self.text(path).unwrap_or_default()));
        }
        let field = |text: &str, key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned())
        };
        let counter = |path: &str| {
            let counter = path.strip_suffix(".conf")?.split_once('+')?.1;
            let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
            Some((left.parse::<u8>().unwrap(), done.parse::<u8>().unwrap()))
        };
        entries.sort_by_key(|(path, text)| {
            let spent = counter(path).is_some_and(|(left, _)| left == 0);
            let version = field(text, "version ").and_then(|version| version.parse::<u64>().ok());
            (spent, std::cmp::Reverse(version))
        });
        let (path, text) = entries.first()?.clone();
        if let Some((left, done)) = counter(&path).filter(|(left, _)| *left > 0) {
            let base = path.split_once('+').unwrap().0;
            let content = self.0.remove(&path).unwrap();
            self.0.insert(format!("{base}+{}-{}.conf", left - 1, done + 1), content);
        }
        let slot = |key: &str, file: &str| {
            Slot::BOTH.into_iter().find(|slot| field(&text, key) == Some(format!("/fife/{slot}/{file}")))
        };
        let booted = slot("linux ", "linux").filter(|booted| slot("initrd ", "initrd") == Some(*booted))?;
        assert_eq!(Slot::running(&field(&text, "options ")?), Some(booted));
        self.bootable(booted)
    }

    /// The rules of `grub.cfg`.
    fn grub(&mut self) -> Option<String> {
        let block = self.text(ENVIRONMENT)?;
        let value = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        let (slot, trial, tries) = (value("slot="), value("trial="), value("tries="));
        let mut boot = slot;
        if matches!(trial, "a" | "b") && matches!(tries, "1" | "2" | "3") {
            boot = trial;
        }
        let (left, booted) = (tries.parse::<u8>().unwrap_or(0).saturating_sub(1), Slot::from_name(boot)?);
        if matches!(trial, "a" | "b") {
            let counted = block.replace(&format!("tries={tries}"), &format!("tries={left}"));
            self.put(ENVIRONMENT, counted);
        }
        self.bootable(booted)
    }
}

/// How far a step came before the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Not,
    Done,
    /// Written in part; renamed, and the old name is still there.
    Half,
    /// Neither the old nor the new name is there.
    Other,
}

fn entry_text(slot: Slot, version: &str, deployment: u64) -> String {
    format!(
        "title fife {version}\nsort-key fife\nversion {deployment}\nlinux /fife/{slot}/linux\n\
         initrd /fife/{slot}/initrd\noptions console=tty0 quiet fife.slot={slot}\n"
    )
}

/// Every disk that a power cut during these steps may leave: what was synced is there, of the rest anything may be.
fn cuts(before: &Fat, steps: &[Step]) -> Vec<Fat> {
    let mut synced = before.clone();
    let mut left = vec![before.clone()];
    for group in steps.split_inclusive(|step| *step == Step::Sync) {
        let mut possible = vec![synced.clone()];
        for step in group.iter().filter(|step| **step != Step::Sync) {
            possible = possible
                .iter()
                .flat_map(|fat| [How::Not, How::Done, How::Half, How::Other].map(|how| (fat.clone(), how)))
                .map(|(mut fat, how)| {
                    fat.apply(step, how);
                    fat
                })
                .collect();
        }
        left.extend(possible);
        synced.carry_out(group);
    }
    left.push(synced);
    left
}

fn stage(fat: &Fat, running: Slot, version: &str) -> Vec<Step> {
    fat.state().stage(running, version, Path::new(version), Path::new(version)).unwrap()
}

/// After a cut either loader boots one of these versions, again and again until its tries are used up, and then the last of them.
fn boots(left: &Fat, allowed: &[&str]) {
    for loader in [Fat::systemd_boot, Fat::grub] {
        let mut fat = left.clone();
        for _ in 0..5 {
            let booted = loader(&mut fat);
            assert!(booted.as_deref().is_some_and(|booted| allowed.contains(&booted)), "{booted:?} of {left:#?}");
        }
    }
}

#[test]
fn staging_an_update_leaves_a_bootable_machine_whenever_the_power_goes() {
    let mut fat = Fat::new();
    for (running, old, new) in [(Slot::A, "1.0", "1.1"), (Slot::B, "1.1", "1.2"), (Slot::A, "1.2", "1.3")] {
        let steps = stage(&fat, running, new);
        for left in cuts(&fat, &steps) {
            boots(&left, &[old, new]);
            // Nobody noticed: the same again, from what is left.
            let mut again = left.clone();
            if !again.state().is_on_trial(running) {
                again.carry_out(&stage(&left, running, new));
                assert_eq!(again.systemd_boot().as_deref(), Some(new));
                assert_eq!(again.grub().as_deref(), Some(new));
            }
        }
        fat.carry_out(&steps);
        let other = running.other();
        // Tried by one loader, kept in the words of both.
        let mut tried = fat.clone();
        assert_eq!(tried.systemd_boot().as_deref(), Some(new));
        let keep = tried.state().keep(other);
        for left in cuts(&tried, &keep) {
            boots(&left, &[old, new]);
        }
        let mut by_grub = fat.clone();
        assert_eq!(by_grub.grub().as_deref(), Some(new));
        by_grub.carry_out(&by_grub.state().keep(other));
        tried.carry_out(&keep);
        assert_eq!(by_grub, tried);
        boots(&tried, &[new]);
        assert_eq!(tried.state().keep(other), [], "kept already");
        fat = tried;
    }
}

#[test]
fn a_version_that_the_loaders_prefer_is_forgotten_before_it_is_overwritten() {
    let mut fat = Fat::new();
    fat.carry_out(&stage(&fat, Slot::A, "1.1"));
    fat.carry_out(&fat.state().keep(Slot::B));
    // Somebody chose the old one in the loader's menu, and updates from there.
    for left in cuts(&fat, &stage(&fat, Slot::A, "1.2")) {
        boots(&left, &["1.0", "1.1", "1.2"]);
    }
}

#[test]
fn a_version_that_is_never_healthy_is_left_after_three_tries() {
    for loader in [Fat::systemd_boot, Fat::grub] {
        let mut fat = Fat::new();
        fat.carry_out(&stage(&fat, Slot::A, "1.1"));
        let booted: Vec<Option<String>> = (0..6).map(|_| loader(&mut fat)).collect();
        let expected = ["1.1", "1.1", "1.1", "1.0", "1.0", "1.0"].map(|version| Some(version.to_owned()));
        assert_eq!(booted, expected);
        // The old version is healthy: what it puts down, the other loader follows too.
        let keep = fat.state().keep(Slot::A);
        for left in cuts(&fat, &keep) {
            boots(&left, &["1.0", "1.1"]);
        }
        fat.carry_out(&keep);
        boots(&fat, &["1.0"]);
        assert_eq!(fat.state().standing(Slot::B), Standing::Failed);
    }
}

#[test]
fn a_version_that_is_given_up_is_not_booted_again() {
    let mut fat = Fat::new();
    assert!(matches!(fat.state().give_up(Slot::A), Err(SlotError::Nothing(Slot::B))));
    fat.carry_out(&stage(&fat, Slot::A, "1.1"));
    for kept in [false, true] {
        let mut fat = fat.clone();
        fat.systemd_boot();
        if kept {
            fat.carry_out(&fat.state().keep(Slot::B));
        }
        let steps = fat.state().give_up(Slot::B).unwrap();
        for left in cuts(&fat, &steps) {
            boots(&left, &["1.0", "1.1"]);
        }
        fat.carry_out(&steps);
        boots(&fat, &["1.0"]);
        assert_eq!(fat.state().standing(Slot::B), Standing::Failed);
        assert!(matches!(fat.state().give_up(Slot::A), Err(SlotError::Nothing(Slot::B))));
        // A later version gets its chance.
        fat.carry_out(&stage(&fat, Slot::A, "1.2"));
        assert_eq!(fat.clone().systemd_boot().as_deref(), Some("1.2"));
        assert_eq!(fat.grub().as_deref(), Some("1.2"));
    }
}

#[test]
fn a_pending_trial_outlives_starts_of_the_old_version_and_bars_a_second_one() {
    let mut fat = Fat::new();
    fat.carry_out(&stage(&fat, Slot::A, "1.1"));
    assert_eq!(fat.state().keep(Slot::A), []);
    let staged = fat.state().stage(Slot::B, "1.2", Path::new("l"), Path::new("i"));
    assert!(matches!(staged, Err(SlotError::OnTrial)));
    // From the old version it may be replaced by a newer one.
    fat.carry_out(&stage(&fat, Slot::A, "1.2"));
    assert_eq!(fat.grub().as_deref(), Some("1.2"));
}

#[test]
fn entries_are_known_by_their_names() {
    let check = |name: &str, expected: Option<(Slot, Option<Tries>)>| {
        let entry = Entry::parse(name, String::new());
        assert_eq!(entry.as_ref().map(|entry| (entry.slot, entry.tries)), expected, "{name}");
        if let Some(entry) = entry.filter(|_| !name.contains("-0")) {
            assert_eq!(entry.name(), name);
        }
    };
    check("fife-a.conf", Some((Slot::A, None)));
    check("fife-b+3.conf", Some((Slot::B, Some(Tries { left: 3, done: 0 }))));
    check("fife-b+2-1.conf", Some((Slot::B, Some(Tries { left: 2, done: 1 }))));
    check("fife-b+0-0.conf", Some((Slot::B, Some(Tries { left: 0, done: 0 }))));
    for foreign in ["fife-c.conf", "fife-a", "a.conf", "fife-a+.conf", "fife-a+x.conf", "fife-a+300.conf", "fife-a.new"]
    {
        check(foreign, None);
    }
}

#[test]
fn the_running_slot_stands_on_the_kernels_command_line() {
    let check = |line: &str, expected: Option<Slot>| assert_eq!(Slot::running(line), expected, "{line:?}");
    check("quiet fife.slot=b console=ttyS0\n", Some(Slot::B));
    check("fife.slot=a fife.slot=b", Some(Slot::B));
    check("fife.slot=c", None);
    check("root=/dev/sda1 xfife.slot=a", None);
}

#[test]
fn a_garbled_environment_is_none() {
    let check = |text: &str, expected: Environment| assert_eq!(Environment::parse(text), expected, "{text:?}");
    check("", Environment::default());
    check("# GRUB Environment Block\nslot=a\ntrial=\ntries=0\n####", Environment::settled(Slot::A));
    check("slot=q\ntrial=b\ntries=900\n=\n", Environment { slot: None, trial: Some(Slot::B), tries: 0 });
}

#[test]
fn a_real_directory_is_staged_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in Fat::new().0 {
        std::fs::create_dir_all(dir.path().join(&path).parent().unwrap()).unwrap();
        std::fs::write(dir.path().join(path), content.unwrap()).unwrap();
    }
    let esp = Esp::at(dir.path());
    let (linux, initrd) = (dir.path().join("l"), dir.path().join("i"));
    std::fs::write(&linux, vec![7; 5 << 20]).unwrap();
    std::fs::write(&initrd, b"initrd").unwrap();
    // What lies in the slot from before is longer, and must not show through.
    std::fs::create_dir_all(dir.path().join("fife/b")).unwrap();
    std::fs::write(dir.path().join("fife/b/initrd"), vec![1; 100]).unwrap();
    esp.stage(Slot::A, "1.1", &linux, &initrd).unwrap();
    assert_eq!(std::fs::read(dir.path().join("fife/b/initrd")).unwrap(), b"initrd");
    assert_eq!(std::fs::read(dir.path().join("fife/b/linux")).unwrap(), vec![7; 5 << 20]);
    let entry = std::fs::read_to_string(dir.path().join("loader/entries/fife-b+3.conf")).unwrap();
    assert_eq!(entry, entry_text(Slot::B, "1.1", 2));
    let status = |running| esp.status(running).unwrap().into_iter().map(|one| (one.version, one.standing, one.next));
    let text = |version: &str| Some(version.to_owned());
    let expected = [(text("1.0"), Standing::Good, false), (text("1.1"), Standing::OnTrial(3), true)];
    assert_eq!(status(Slot::A).collect::<Vec<_>>(), expected);
    assert!(esp.is_on_trial(Slot::B).unwrap());
    esp.keep(Slot::B).unwrap();
    assert!(!esp.is_on_trial(Slot::B).unwrap());
    esp.give_up(Slot::B).unwrap();
    let expected = [(text("1.0"), Standing::Good, true), (text("1.1"), Standing::Failed, false)];
    assert_eq!(status(Slot::A).collect::<Vec<_>>(), expected);
}

#[test]
fn a_read_only_mount_is_found_with_its_other_flags() {
    let table = "21 1 0:20 / / rw,relatime - rootfs rootfs rw\n\
                 30 21 253:2 / /boot ro,nosuid,nodev,noexec,relatime - vfat /dev/vda2 ro\n\
                 31 21 253:3 / /data rw,nosuid - ext4 /dev/vda3 rw\n";
    let found = |path: &str| read_only_mount(table, Path::new(path));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
    assert_eq!(found("/boot/fife"), Some(("/boot".into(), flags)));
    assert_eq!(found("/data/x"), None);
    assert_eq!(found("/bootless"), None);
}
