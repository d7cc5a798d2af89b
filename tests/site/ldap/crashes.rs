//! What the directory has answered, after kill -9 and without its view.

use std::sync::atomic::{AtomicBool, Ordering};

use fife::base::address::Address;
use fife::directory::AdminError;
use fife::directory::admin::{self, Alias};

use super::{address, client, found, runtime, socket_url, start};
use crate::harness::{Site, run, wait_for};

#[test]
fn answered_changes_survive_kill_9_and_the_loss_of_the_view() {
    let mut site = start();
    let runtime = runtime();
    let done = AtomicBool::new(false);
    let made: Vec<Address> = std::thread::scope(|scope| {
        let add = |worker: usize| {
            let (directory, mut made) = (client(&site, "1s"), Vec::new());
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let alias = Alias {
                    address: address(&format!("a{worker}-{n}@example.test")),
                    targets: vec![address("admin@example.test")],
                };
                match runtime.block_on(admin::add_alias(&directory, &alias)) {
                    // Made by the first of two tries, whose answer was lost.
                    Ok(()) | Err(AdminError::Exists(_)) => made.push(alias.address),
                    Err(AdminError::Directory(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            made
        };
        let workers: Vec<_> = (0..4).map(|worker| scope.spawn(move || add(worker))).collect();
        for _ in 0..3 {
            let before = found(&site, &["(deliveryMode=forwardonly)", "1.1"]).matches("dn:").count();
            let enough = || count(&site) > before + 20;
            wait_for("more entries", enough, || site.log_tail());
            let killed = site.kill_role("ldap-proxy");
            let back = || site.role_pid("ldap-proxy").is_some_and(|pid| pid != killed);
            wait_for("the role to come back", back, || site.log_tail());
            site.wait_healthy();
        }
        done.store(true, Ordering::Relaxed);
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(made.len() > 60, "{}", made.len());
    let all_there = |site: &Site| {
        let shown = found(site, &["(deliveryMode=forwardonly)", "mail"]);
        for address in &made {
            assert!(shown.contains(&format!("mail: {address}\n")), "{address} was answered and is gone");
        }
        shown
    };
    let before = all_there(&site);
    for damage in ["missing", "overwritten", "truncated"] {
        site.kill_all();
        let view = site.state().join("ldap-proxy/view.sqlite");
        match damage {
            "missing" => std::fs::remove_file(&view).unwrap(),
            "overwritten" => std::fs::write(&view, [0x55; 9000]).unwrap(),
            _ => std::fs::OpenOptions::new().write(true).open(&view).unwrap().set_len(5000).unwrap(),
        }
        site.launch();
        assert_eq!(all_there(&site), before, "view {damage}");
    }
}

/// Aliases that the directory holds now; 0 while it does not answer.
fn count(site: &Site) -> usize {
    let url = socket_url(site);
    let args = ["-LLL", "-Q", "-Y", "EXTERNAL", "-H", &url, "-b", "o=demo", "(deliveryMode=forwardonly)", "1.1"];
    String::from_utf8_lossy(&run("ldapsearch", &args, b"").stdout).matches("dn:").count()
}
